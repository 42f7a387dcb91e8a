//! How a request is refused.

use std::cell::Cell;

use crate::bindings::pointsman::balancer::refusal;

std::thread_local! {
    static LAST: Cell<Option<(u16, Option<u32>)>> = const { Cell::new(None) };
}

/// Refuses the request of the running pick with a status from 400 to 599, such as 429 or 503, and
/// the seconds after which the client may try again (`Retry-After`). It returns `None`, to be
/// returned from the pick; `None` alone refuses with 503. Another status is a fault.
///
/// It is part of the contract since 1.4, and earlier gateways refuse a component that calls it.
///
/// ```
/// # use guest_sdk::{Balancer, Endpoints, Request, refuse};
/// # #[derive(Default)]
/// # struct Full;
/// # impl Balancer for Full {
/// fn pick(&mut self, _: &Request, endpoints: &Endpoints) -> Option<usize> {
///     let busy = endpoints.look([guest_sdk::Column::InFlight; 2], [0; 2])[0][0];
///     if busy < 100 { Some(0) } else { refuse(429, Some(1)) }
/// }
/// # }
/// # guest_sdk::export!(Full);
/// ```
#[must_use]
pub fn refuse<T>(status: u16, retry_after: Option<u32>) -> Option<T> {
    if cfg!(target_family = "wasm") {
        refusal::refuse_with(status, retry_after);
    } else {
        LAST.set(Some((status, retry_after)));
    }
    None
}

/// Status and seconds of the last [`refuse`] on this thread since this was last called. For tests.
#[must_use]
pub fn last_refusal() -> Option<(u16, Option<u32>)> {
    LAST.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_learns_how_a_request_was_refused() {
        assert_eq!(last_refusal(), None);
        assert_eq!(refuse::<usize>(429, Some(7)), None);
        assert_eq!(last_refusal(), Some((429, Some(7))));
        assert_eq!(last_refusal(), None);
    }
}
