//! The tries of a request before the one that a pick is for, for balancers that treat retries in a
//! way of their own. They are part of the contract since 1.4, and earlier gateways refuse a
//! component that calls these functions.
//!
//! The functions answer within [`Balancer::pick`](crate::Balancer::pick). At any other time, and at
//! the first try ([`attempt`](crate::Request::attempt) is 0), there are no earlier tries. A
//! balancer that does not ask is not told of a position that was tried, and need not be: the
//! gateway passes over it.
//!
//! In a test, [`Earlier`] provides the tries:
//!
//! ```
//! use guest_sdk::tries;
//!
//! let free = |length| (0..length).find(|position| !tries::was_tried(*position));
//! assert_eq!(free(2), Some(0));
//! let earlier = tries::Earlier { last_status: Some(503), tried: vec![0] };
//! assert_eq!(earlier.during(|| (free(2), tries::last_status())), (Some(1), Some(503)));
//! ```

use std::cell::RefCell;

use crate::bindings::pointsman::balancer::tries;

/// Status of the response to the last try, which the gateway did not pass on to the client: 503 or
/// 429, for example. `None` at the first try, and if the last try had no response.
#[must_use]
pub fn last_status() -> Option<u16> {
    if cfg!(target_family = "wasm") {
        return tries::last_status();
    }
    GIVEN.with_borrow(|earlier| earlier.last_status)
}

/// Whether the gateway will pass over the endpoint at this position for this request, if it has any
/// other: the request was already sent there, or there was no room for it.
///
/// A position that is not in the table is a fault.
#[must_use]
pub fn was_tried(position: usize) -> bool {
    if cfg!(target_family = "wasm") {
        return tries::was_tried(u32::try_from(position).unwrap_or(u32::MAX));
    }
    GIVEN.with_borrow(|earlier| earlier.tried.contains(&position))
}

std::thread_local! {
    static GIVEN: RefCell<Earlier> = const { RefCell::new(Earlier::NONE) };
}

/// Earlier tries, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// What [`last_status`] returns.
    pub last_status: Option<u16>,
    /// The positions for which [`was_tried`] returns true.
    pub tried: Vec<usize>,
}

impl Earlier {
    const NONE: Self = Self {
        last_status: None,
        tried: Vec::new(),
    };

    /// Calls a function. During the call, the functions of this module answer with these tries on
    /// this thread.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        struct Restored(Earlier);
        impl Drop for Restored {
            fn drop(&mut self) {
                GIVEN.set(std::mem::take(&mut self.0));
            }
        }
        // Restores the former tries also after a panic, because a test may expect one.
        let _restored = Restored(GIVEN.replace(self.clone()));
        call()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_tries_are_known_only_while_they_are_given() {
        let seen = || (last_status(), [0, 1, 2].map(was_tried));
        let none = (None, [false; 3]);
        assert_eq!(seen(), none);
        let earlier = Earlier {
            last_status: Some(429),
            tried: vec![0, 2],
        };
        let within = || (seen(), Earlier::default().during(seen), seen());
        let told = (Some(429), [true, false, true]);
        assert_eq!(earlier.during(within), (told, none, told));
        assert_eq!(seen(), none);
    }
}
