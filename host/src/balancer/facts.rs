//! The request behind a pick, for the balancers that ask about it.
//!
//! It lives on the stack of the caller of the pick. Instances outlive it, so no instance can hold
//! it: it is available on the thread of the pick for as long as the pick takes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;

use bytes::Bytes;

use super::body::{BODY_MOST, BodyAnswer, ReadBody};
use crate::trace::BodyQuestion;

/// Most bytes of a body that a balancer gets a copy of.
pub const BODY_START: usize = 16 << 10;

/// What a balancer may ask about the request that it chooses for; see `request-facts` in
/// `wit/balancer.wit`. They are read only on the thread of the pick; another thread gets a
/// [copy](super::kept_facts::KeptFacts).
pub trait RequestFacts: Sync {
    /// The method; none, as in all of these, where it is not known, which is the default.
    fn method(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The normalised path, without the query.
    fn path(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The query without the question mark.
    fn query(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The values of a header, whose name may be in any case.
    fn header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// Passes each header with its value.
    fn headers(&self, _each: &mut dyn FnMut(&str, &[u8])) {}
    /// The address of the client.
    fn client(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// The start of the body, `most` bytes at most, of which there need not be more than was read;
    /// none if it has no body, or nothing of the body has been read.
    fn body_start(&self, _most: usize) -> Option<Cow<'_, [u8]>> {
        None
    }

    /// At most `most` bytes of the body for another thread, and whether there may be more.
    fn keep_body(&self, _most: usize) -> Option<(Bytes, bool)> {
        None
    }

    /// The answer to a question about the body; by default about all that `body_start` has.
    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        let body = self.body_start(BODY_MOST)?;
        ReadBody::new(&body, false).answer(question)
    }

    /// Prepares the answers to these questions, if answers are remembered.
    fn prepare(&self, _questions: &[BodyQuestion]) {}
}

impl fmt::Debug for dyn RequestFacts + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |fact: Option<Cow<'_, str>>| fact.unwrap_or_else(|| "-".into()).into_owned();
        write!(f, "{} {}", known(self.method()), known(self.path()))
    }
}

thread_local! {
    static AT_HAND: Cell<Option<NonNull<dyn RequestFacts>>> = const { Cell::new(None) };
}

/// Makes facts available to [`read`] while a function runs.
#[expect(
    unsafe_code,
    reason = "the lifetime is that of the call, for which there is no type"
)]
pub(super) fn at_hand<T>(facts: &dyn RequestFacts, during: impl FnOnce() -> T) -> T {
    struct Before(Option<NonNull<dyn RequestFacts>>);
    impl Drop for Before {
        fn drop(&mut self) {
            AT_HAND.set(self.0);
        }
    }
    let facts = NonNull::from(facts);
    // SAFETY: only the lifetime changes. `read` alone follows the pointer, on this thread, while it
    // is in `AT_HAND`: from here to the drop of `_before`, which a panic does not skip and which no
    // other code can reach. `facts` is borrowed for longer than that.
    let facts = unsafe {
        std::mem::transmute::<NonNull<dyn RequestFacts + '_>, NonNull<dyn RequestFacts>>(facts)
    };
    let _before = Before(AT_HAND.replace(Some(facts)));
    during()
}

/// Reads the facts that are available, if there are any.
#[expect(unsafe_code, reason = "see `at_hand`")]
pub(super) fn read<T>(read: impl FnOnce(&dyn RequestFacts) -> T) -> Option<T> {
    // SAFETY: what is in `AT_HAND` is borrowed by a call of `at_hand` further up on this thread's
    // stack.
    let facts = AT_HAND.get().map(|facts| unsafe { &*facts.as_ptr() });
    facts.map(read)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    struct Path(String);

    impl RequestFacts for Path {
        fn path(&self) -> Option<Cow<'_, str>> {
            Some(self.0.as_str().into())
        }
    }

    fn path() -> Option<String> {
        read(|facts| facts.path().map(Cow::into_owned)).flatten()
    }

    #[test]
    fn facts_are_at_hand_during_the_call_and_not_after() {
        let (outer, inner) = (Path("/outer".into()), Path("/inner".into()));
        assert_eq!(path(), None);
        at_hand(&outer, || {
            assert_eq!(at_hand(&inner, path), Some("/inner".into()));
            assert_eq!(path(), Some("/outer".into()));
            let elsewhere = std::thread::scope(|scope| scope.spawn(path).join());
            assert!(elsewhere.is_ok_and(|path| path.is_none()));
        });
        assert_eq!(path(), None);
        let panicked = catch_unwind(AssertUnwindSafe(|| at_hand(&outer, || panic!("a test"))));
        assert!(panicked.is_err());
        assert_eq!(path(), None);
    }
}
