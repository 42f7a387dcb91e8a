//! Whether a response has left for an HTTP/2 client.
//!
//! An error of a response resets its stream, and then h2 drops what the stream has not sent yet:
//! its head, what the system does not take at present, and what the client's window has no room
//! for. So an empty part is sent behind these, and the error waits until h2 has sent that part.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

/// Whether h2 has sent all of a response that it was given.
#[derive(Default)]
pub(in super::super) struct Sent {
    is_sent: Cell<bool>,
    /// Wakes the task of the stream when it waits for that.
    waiting: RefCell<Option<Waker>>,
}

/// A part of the body of a response. h2 drops it once all its bytes are written, or are in the
/// buffer of the connection, which no reset of a stream discards. It sends parts in their order.
pub(in super::super) struct BodyPart {
    bytes: Bytes,
    /// What is told that the part was sent.
    sent: Option<Rc<Sent>>,
}

impl Sent {
    /// Waits until h2 has dropped the part of [`BodyPart::mark`].
    pub(in super::super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_sent.get() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl BodyPart {
    /// An empty part, to be sent behind all others.
    pub(in super::super) fn mark(sent: &Rc<Sent>) -> Self {
        Self {
            bytes: Bytes::new(),
            sent: Some(Rc::clone(sent)),
        }
    }
}

impl From<Bytes> for BodyPart {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, sent: None }
    }
}

impl Drop for BodyPart {
    fn drop(&mut self) {
        if let Some(sent) = &self.sent {
            sent.is_sent.set(true);
            if let Some(waker) = sent.waiting.take() {
                waker.wake();
            }
        }
    }
}

impl Buf for BodyPart {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_sent_when_the_part_behind_it_is_dropped() {
        let sent = Rc::<Sent>::default();
        let mut cx = Context::from_waker(Waker::noop());
        let (part, mark) = (BodyPart::from(Bytes::from("a")), BodyPart::mark(&sent));
        assert_eq!((part.chunk(), mark.remaining()), (&b"a"[..], 0));
        drop(part);
        assert!(sent.poll_sent(&mut cx).is_pending());
        drop(mark);
        assert!(sent.poll_sent(&mut cx).is_ready());
    }
}
