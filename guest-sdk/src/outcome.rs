//! What came of picks: the tries that have ended.

use std::cell::Cell;

use crate::bindings::pointsman::balancer::outcome_tag;

/// A try of one of the balancer's picks that has ended. Times are in microseconds.
///
/// A test makes one from the fields that matter: `Ended { status: Some(429), ..Ended::default() }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Id of the endpoint that was tried. It may be another one than was picked.
    pub endpoint: u64,
    /// What [`tag`] has given to the pick; 0 if it gave nothing.
    pub tag: u64,
    /// When it ended, on the clock of [`Request::now`](crate::Request::now).
    pub now: u64,
    /// Status of the response; `None` without a response, and for a stream.
    pub status: Option<u16>,
    /// The seconds that the response asks to wait by `Retry-After`.
    pub retry_after: Option<u32>,
    /// From the pick to the first byte of the response's body; `None` if none came.
    pub first_byte: Option<u64>,
    /// From the pick to the end.
    pub took: u64,
    /// Bytes of the response's body that came from the endpoint.
    pub bytes: u64,
    /// Why it ended.
    pub why: EndReason,
}

/// Why a try ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The response came in full, or a stream or WebSocket was closed by one side.
    #[default]
    Complete,
    /// There was a response, and the gateway repeats the request in place of passing it on.
    Retried,
    /// The client has left, or did not send its whole request.
    Client,
    /// The endpoint did not accept the connection, broke it off, or sent no valid response; or for
    /// a reason that this version of the SDK does not know.
    Broken,
    /// The endpoint did not accept, answer or go on in time.
    Timeout,
    /// The endpoint is being taken out, and the time for requests to end was over.
    Drained,
    /// The endpoint saw nothing of the request: it had no room, or the gateway sent it elsewhere.
    Unsent,
}

impl EndReason {
    /// The reason of this name in the contract.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "complete" => Self::Complete,
            "retried" => Self::Retried,
            "client" => Self::Client,
            "timeout" => Self::Timeout,
            "drained" => Self::Drained,
            "unsent" => Self::Unsent,
            _ => Self::Broken,
        }
    }
}

std::thread_local! {
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// Gives the try of the running pick a tag, by which
/// [`Balancer::try_ended`](crate::Balancer::try_ended) tells it from others. Of several calls in a
/// pick the last one counts. It has no effect for a balancer that is not exported with
/// `export!(Type, outcomes)`.
///
/// It is part of the contract since 1.4, and earlier gateways refuse a component that calls it.
pub fn tag(tag: u64) {
    if cfg!(target_family = "wasm") {
        outcome_tag::tag(tag);
    } else {
        LAST.set(tag);
    }
}

/// The last [`tag`] on this thread since this was last called; 0 if there was none. For tests.
#[must_use]
pub fn last_tag() -> u64 {
    LAST.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_learns_the_tag_of_a_pick() {
        assert_eq!(last_tag(), 0);
        tag(7);
        tag(8);
        assert_eq!((last_tag(), last_tag()), (8, 0));
    }

    #[test]
    fn an_unknown_reason_is_a_broken_try() {
        assert_eq!(EndReason::named("complete"), EndReason::Complete);
        assert_eq!(EndReason::named("eclipsed"), EndReason::Broken);
    }
}
