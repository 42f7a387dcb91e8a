//! How far the current request of a client's connection is: what the stages of the request and the
//! connection's stream tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::http1::BodyKind;

/// The phase of the current request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The head of the next request is not received yet.
    Idle,
    /// The head is received, and the response has not ended.
    Serving,
    /// hyper has the whole response, and may still be sending it.
    Answered,
    /// The connection has changed to another protocol.
    Tunnel,
    /// The gateway has closed its sending side. No further request is read.
    Closing,
}

/// Whether the client may send more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sending {
    /// The client has not closed its sending side, as far as is known.
    Open,
    /// The client has closed its sending side before its request was answered.
    Closed,
    /// The gateway has sent bytes after that. If the client has closed the other side as well, its
    /// system answers them with a reset.
    Tried,
}

/// The progress of the current request of a connection. It is shared with the stream. hyper
/// requires that the stream can be sent to other threads (`Send`), although it stays on its worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    /// The body that follows the last head, until the stream has read this. The stream has to do so
    /// before it judges whether the client's bytes end within a body.
    announced: AtomicU64,
    /// Whether there are bytes for the client that its socket does not accept yet.
    unsent: AtomicBool,
    sending: AtomicU8,
    /// Whether the current request is the last one of the connection, because other servers may
    /// disagree on where it ends.
    last: AtomicBool,
    /// Whether the head that was received last gives the length of its body twice.
    two_lengths: AtomicBool,
    /// Whether a response waits for the next flush.
    watched: AtomicBool,
    /// Wakes that response.
    watcher: Mutex<Option<Waker>>,
}

/// Values of [`Shared::announced`]: no body, a chunked body, or the length of the body plus one.
const NOT_ANNOUNCED: u64 = 0;
const CHUNKED: u64 = u64::MAX;

impl Backlog {
    /// Whether there are bytes for the client that its socket does not accept yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.0.unsent.load(Ordering::Relaxed)
    }

    pub(super) fn set_unsent(&self, unsent: bool) {
        self.0.unsent.store(unsent, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Relaxed) {
            1 => Phase::Serving,
            2 => Phase::Answered,
            3 => Phase::Tunnel,
            4 => Phase::Closing,
            _ => Phase::Idle,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        if !matches!(self.phase(), Phase::Tunnel | Phase::Closing) {
            self.0.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// To be called when the head of a request is received. `body` says what kind of body follows.
    pub(super) fn begin(&self, body: BodyKind) {
        let announced = match body {
            BodyKind::Chunked => CHUNKED,
            BodyKind::Length(length) => length.saturating_add(1).min(CHUNKED - 1),
        };
        self.0.announced.store(announced, Ordering::Relaxed);
        self.enter(Phase::Serving);
    }

    /// The body that follows the last head, unless it was taken already.
    pub(super) fn take_announced(&self) -> Option<BodyKind> {
        match self.0.announced.load(Ordering::Relaxed) {
            NOT_ANNOUNCED => None,
            announced => {
                self.0.announced.store(NOT_ANNOUNCED, Ordering::Relaxed);
                Some(match announced {
                    CHUNKED => BodyKind::Chunked,
                    more => BodyKind::Length(more - 1),
                })
            }
        }
    }

    pub(super) fn sending(&self) -> Sending {
        match self.0.sending.load(Ordering::Relaxed) {
            1 => Sending::Closed,
            2 => Sending::Tried,
            _ => Sending::Open,
        }
    }

    pub(super) fn set_sending(&self, sending: Sending) {
        self.0.sending.store(sending as u8, Ordering::Relaxed);
    }

    /// Whether the client has closed its sending side before its request was answered.
    pub(super) fn is_half_closed(&self) -> bool {
        self.sending() != Sending::Open
    }

    /// Whether bytes were sent to the client after it had closed its sending side. If it has closed
    /// the other side as well, its system answers them with a reset.
    pub(super) fn is_tried(&self) -> bool {
        self.sending() == Sending::Tried
    }

    /// Whether no other request will be read from the connection.
    pub(super) fn is_last(&self) -> bool {
        self.0.last.load(Ordering::Relaxed)
    }

    /// Ends the connection after this request: no other one is read from it.
    pub(super) fn set_last(&self) {
        self.0.last.store(true, Ordering::Relaxed);
    }

    /// Notes that the head which is being received gives the length of its body twice, by a number
    /// and by a transfer coding. hyper drops one of them.
    pub(super) fn note_two_lengths(&self) {
        self.0.two_lengths.store(true, Ordering::Relaxed);
    }

    /// Whether the head that was received last gives the length of its body twice.
    pub(super) fn has_two_lengths(&self) -> bool {
        self.0.two_lengths.load(Ordering::Relaxed)
    }

    /// After this call, [`Backlog::poll_flushed`] waits for the next flush.
    pub(super) fn watch(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// Ready once the connection has been flushed. hyper flushes only when its own buffer is empty,
    /// so by then the system has all bytes that hyper was given before.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.0.watched.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *self.0.watcher.lock() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// To be called when the connection has been flushed.
    pub(super) fn flushed(&self) {
        if self.0.watched.load(Ordering::Relaxed) {
            self.0.watched.store(false, Ordering::Relaxed);
            if let Some(watcher) = self.0.watcher.lock().take() {
                watcher.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_and_a_closing_connection_never_leave_their_phase() {
        for last in [Phase::Tunnel, Phase::Closing] {
            let backlog = Backlog::default();
            assert_eq!(backlog.phase(), Phase::Idle);
            for phase in [Phase::Serving, Phase::Answered, Phase::Idle, last] {
                backlog.enter(phase);
                assert_eq!(backlog.phase(), phase);
            }
            backlog.enter(Phase::Answered);
            assert_eq!(backlog.phase(), last);
        }
    }

    #[test]
    fn an_announced_body_is_read_once() {
        let backlog = Backlog::default();
        for body in [
            BodyKind::Length(0),
            BodyKind::Length(u64::MAX - 2),
            BodyKind::Chunked,
        ] {
            assert_eq!(backlog.take_announced(), None);
            backlog.begin(body);
            assert_eq!(backlog.take_announced(), Some(body));
        }
    }
}
