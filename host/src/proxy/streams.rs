//! The streams of a client's HTTP/2 connection, as far as the worker has to limit them.
//!
//! hyper asks for no further part of a response while the client takes none. So the task of a
//! stream notes since when it waits, and meanwhile goes on to send the body of the request. The
//! worker ends streams whose client takes nothing for too long. It also notices clients that cancel
//! requests as fast as they send them, each of which an endpoint may have started to serve
//! (CVE-2023-44487).

mod sent;
mod traffic;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

pub(super) use sent::{BodyPart, Sent};
pub(super) use traffic::{FrameMeter, Frames, Traffic};

/// Age up to which a cancelled request counts as cancelled at once. Source: Envoy,
/// `premature_reset_min_stream_lifetime_seconds`.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The streams of a connection.
pub(super) struct Streams {
    /// Those whose request has not ended.
    open: RefCell<Slab<Rc<Stream>>>,
    /// The stream whose request was received last, until its task starts.
    next: RefCell<Option<Rc<Stream>>>,
    /// Requests that were cancelled at once, less those that were answered.
    cancelled: Cell<u32>,
    /// Most requests that may be cancelled at once, beyond as many as were answered.
    max_cancelled: u32,
    /// The frames of the connection.
    pub(super) traffic: Rc<Traffic>,
}

/// One stream: a request and its response.
pub(super) struct Stream {
    key: Cell<usize>,
    began: Instant,
    /// Whether the head of the response was passed to hyper.
    answered: Cell<bool>,
    /// Since when hyper waits for the client to take a part of the response.
    stalled: Cell<Option<Instant>>,
    expired: Cell<bool>,
    /// The body of the response, as long as hyper does not have all of it.
    body: RefCell<Option<Rc<dyn StalledBody>>>,
    /// Wakes the task of the stream while the client takes nothing.
    waker: RefCell<Option<Waker>>,
}

/// The body of a response of which the client takes nothing at present.
pub(super) trait StalledBody {
    /// Goes on with what does not depend on the client reading: the body of its request is sent on.
    fn poll_stalled(&self, cx: &mut Context<'_>);
}

impl Streams {
    /// `clock` has the time of the worker's last check of its connections.
    pub(super) fn new(max_cancelled: u32, clock: Rc<Cell<Instant>>) -> Self {
        Self {
            open: RefCell::default(),
            next: RefCell::default(),
            cancelled: Cell::default(),
            max_cancelled,
            traffic: Rc::new(Traffic::new(clock)),
        }
    }

    /// To be called when the head of a request is received.
    pub(super) fn begin(&self, now: Instant) -> Rc<Stream> {
        let stream = Rc::new(Stream::new(now));
        let key = self.open.borrow_mut().insert(Rc::clone(&stream));
        stream.key.set(key);
        *self.next.borrow_mut() = Some(Rc::clone(&stream));
        stream
    }

    /// To be called before the response that opens a tunnel is passed to hyper, which then starts a
    /// task that sends the bytes of the tunnel. That task ends with the stream that is returned.
    pub(super) fn begin_tunnel(&self, now: Instant) -> Rc<Stream> {
        let stream = Rc::new(Stream::new(now));
        *self.next.borrow_mut() = Some(Rc::clone(&stream));
        stream
    }

    /// The stream that began last, for its task.
    pub(super) fn take_next(&self) -> Option<Rc<Stream>> {
        self.next.borrow_mut().take()
    }

    /// To be called when the request of a stream has ended.
    pub(super) fn end(&self, stream: &Stream, now: Instant) {
        self.open.borrow_mut().try_remove(stream.key.get());
        let cancelled = self.cancelled.get();
        if stream.answered.get() {
            self.cancelled.set(cancelled.saturating_sub(1));
        } else if now - stream.began < AT_ONCE {
            self.cancelled.set(cancelled + 1);
        }
    }

    /// Whether the client has cancelled too many requests at once.
    pub(super) fn is_abused(&self) -> bool {
        self.cancelled.get() > self.max_cancelled
    }

    /// Ends the streams of which the client has taken nothing for `patience`.
    pub(super) fn expire(&self, now: Instant, patience: Duration) {
        for (_, stream) in &*self.open.borrow() {
            let stalled = stream.stalled.get();
            if stalled.is_some_and(|since| now - since >= patience) {
                stream.expired.set(true);
                if let Some(waker) = stream.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

impl Stream {
    fn new(began: Instant) -> Self {
        Self {
            key: Cell::default(),
            began,
            answered: Cell::default(),
            stalled: Cell::default(),
            expired: Cell::default(),
            body: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// Has its task end when it is woken next. hyper then resets the stream with `CANCEL`.
    pub(super) fn expire(&self) {
        self.expired.set(true);
    }

    /// Whether its task has to end.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// To be called when the response is passed to hyper, with its body if the endpoint sends it.
    pub(super) fn answer(&self, body: Option<Rc<dyn StalledBody>>) {
        self.answered.set(true);
        *self.body.borrow_mut() = body;
    }

    /// Releases the body of the response, because hyper has dropped it.
    pub(super) fn release(&self) {
        self.body.take();
        self.stalled.set(None);
    }

    /// Notes that hyper was given a part of the response. It asks for the next one when the client
    /// may be sent more.
    pub(super) fn stall(&self, now: Instant) {
        self.stalled.set(Some(now));
    }

    /// Notes that hyper asks for the next part of the response.
    pub(super) fn go_on(&self) {
        self.stalled.set(None);
    }

    /// To be polled when hyper has done what it can. Ready if the stream has to be ended, because
    /// the client takes nothing of the response.
    pub(super) fn poll_stalled(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_expired() {
            return Poll::Ready(());
        }
        if self.stalled.get().is_some() {
            let body = self.body.borrow().clone();
            if let Some(body) = body {
                body.poll_stalled(cx);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(max_cancelled: u32) -> (Streams, Instant) {
        let now = Instant::now();
        (Streams::new(max_cancelled, Rc::new(Cell::new(now))), now)
    }

    #[test]
    fn requests_cancelled_at_once_count_beyond_those_that_were_answered() {
        let (streams, now) = streams(2);
        for _ in 0..2 {
            streams.end(&streams.begin(now), now);
        }
        assert!(!streams.is_abused());
        let answered = streams.begin(now);
        answered.answer(None);
        streams.end(&answered, now);
        streams.end(&streams.begin(now), now);
        assert!(!streams.is_abused());
        streams.end(&streams.begin(now), now);
        assert!(streams.is_abused());
    }

    #[test]
    fn a_request_that_was_cancelled_later_does_not_count() {
        let (streams, now) = streams(0);
        streams.end(&streams.begin(now), now + AT_ONCE);
        assert!(!streams.is_abused());
    }

    #[test]
    fn only_a_stream_whose_client_takes_nothing_expires() {
        let (streams, now) = streams(0);
        let (stalled, waiting) = (streams.begin(now), streams.begin(now));
        stalled.stall(now);
        waiting.stall(now);
        waiting.go_on();
        let patience = Duration::from_secs(60);
        let mut cx = Context::from_waker(Waker::noop());
        streams.expire(now + patience / 2, patience);
        assert!(stalled.poll_stalled(&mut cx).is_pending());
        streams.expire(now + patience, patience);
        assert!(stalled.poll_stalled(&mut cx).is_ready());
        assert!(waiting.poll_stalled(&mut cx).is_pending());
    }

    #[test]
    fn only_a_stalled_body_is_polled_beside_hyper() {
        #[derive(Default)]
        struct Counted(Cell<u32>);
        impl StalledBody for Counted {
            fn poll_stalled(&self, _: &mut Context<'_>) {
                self.0.set(self.0.get() + 1);
            }
        }
        let (streams, now) = streams(0);
        let stream = streams.begin(now);
        let body = Rc::<Counted>::default();
        stream.answer(Some(Rc::clone(&body) as Rc<dyn StalledBody>));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_stalled(&mut cx).is_pending());
        assert_eq!(body.0.get(), 0);
        stream.stall(now);
        assert!(stream.poll_stalled(&mut cx).is_pending());
        assert_eq!(body.0.get(), 1);
        stream.release();
        assert_eq!(Rc::strong_count(&body), 1);
    }
}
