//! What is left to do when a tunnel ends.

use std::cell::{Cell, RefCell};

/// A tunnel as the response sees it that opened it. Its last owner ends it.
#[derive(Default)]
pub(super) struct Tunnel {
    passed: Cell<TunnelBytes>,
    at_end: RefCell<Option<AtEnd>>,
}

/// What is done when a tunnel has ended.
type AtEnd = Box<dyn FnOnce(TunnelBytes)>;

/// Bytes that have passed through a tunnel.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct TunnelBytes {
    /// To the client.
    pub(super) sent: u64,
    /// From the client.
    pub(super) received: u64,
}

impl Tunnel {
    /// Has this done when the tunnel has ended, with the bytes that have passed through it.
    pub(super) fn at_end(&self, does: impl FnOnce(TunnelBytes) + 'static) {
        *self.at_end.borrow_mut() = Some(Box::new(does));
    }

    /// Notes the bytes that have passed through it.
    pub(super) fn note_passed(&self, passed: TunnelBytes) {
        self.passed.set(passed);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(does) = self.at_end.take() {
            does(self.passed.get());
        }
    }
}
