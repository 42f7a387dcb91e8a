//! The bodies of responses while they are received, within a bound of memory for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The memory of the bodies that are being received.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes in use.
    used: AtomicUsize,
    /// Most bytes in use.
    most: usize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            most,
        }
    }

    /// Takes memory, if there is enough.
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.most {
            self.release(bytes);
        }
        used <= self.most
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A body that is being received. It grows as its pieces come, so that an endpoint or a client that
/// is slow occupies no memory for the rest.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    budget: Arc<Budget>,
    bytes: Vec<u8>,
    /// Bytes taken from the budget.
    taken: usize,
    /// Most bytes of this body.
    most: usize,
}

impl ReceivedBody {
    /// A body of at most `most` bytes, none of which is received yet.
    pub(super) fn new(budget: &Arc<Budget>, most: usize) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: Vec::new(),
            taken: 0,
            most,
        }
    }

    /// Adds a piece. Returns whether there was room for it; without it, the body is of no use.
    pub(super) fn push(&mut self, piece: &[u8]) -> bool {
        let length = self.bytes.len() + piece.len();
        if length > self.most {
            return false;
        }
        if length > self.taken {
            let wanted = length.max(2 * self.taken).min(self.most);
            if !self.budget.take(wanted - self.taken) {
                return false;
            }
            self.taken = wanted;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        true
    }

    /// The body, in as much memory as it has bytes.
    pub(super) fn finish(mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.bytes).into_boxed_slice())
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        self.budget.release(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_that_does_not_fit_takes_no_memory_from_others() {
        let budget = Arc::new(Budget::new(100));
        let mut first = ReceivedBody::new(&budget, 80);
        assert!(first.push(&[0; 60]));
        let mut second = ReceivedBody::new(&budget, 80);
        assert!(!second.push(&[0; 60]));
        assert!(second.push(&[0; 10]));
        assert!(!first.push(&[0; 21]), "longer than allowed");
        drop(first);
        assert!(second.push(&[0; 60]));
        assert_eq!(second.finish().len(), 70);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn a_body_is_what_its_pieces_were_and_all_memory_is_given_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let budget = Arc::new(Budget::new(2000));
            let mut body = ReceivedBody::new(&budget, 800);
            for piece in &pieces {
                prop_assert!(body.push(piece));
                prop_assert!(body.bytes.len() <= body.taken && body.taken <= 800);
            }
            prop_assert_eq!(&*body.finish(), &*pieces.concat());
            prop_assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        }
    }
}
