//! Whether the bytes of an HTTP/2 connection have left for the client.
//!
//! An error of a response resets its stream, and then h2 drops what the stream has not sent yet. So
//! the error waits here until the system has taken what came before it. A piece for which the
//! client's window has no room is still lost.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// The way out of a connection.
#[derive(Default)]
pub(in super::super) struct Outlet {
    is_blocked: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Outlet {
    /// To be called when the system takes no more bytes at present.
    pub(in super::super) fn block(&self) {
        self.is_blocked.set(true);
    }

    /// To be called when all bytes were written.
    pub(in super::super) fn open(&self) {
        if self.is_blocked.replace(false) {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until the system takes bytes again.
    pub(in super::super) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_blocked.get() {
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
