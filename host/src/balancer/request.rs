//! The requests that a balancer places, and its possible choices.

use std::sync::Arc;

use super::facts::RequestFacts;
use super::note::PickNote;
use crate::endpoint::Endpoint;

/// A request to be placed; see `wit/balancer.wit`.
#[derive(Debug, Clone, Copy)]
pub struct PickRequest<'a> {
    /// Microseconds on a clock that never goes back.
    pub now: u64,
    /// Uniform random bits.
    pub entropy: u64,
    /// Hash of what the upstream hashes on.
    pub affinity: Option<u64>,
    /// 0 for the first try.
    pub attempt: u32,
    /// Status of the response to the last try; none at the first try, and if that try had no
    /// response.
    pub last_status: Option<u16>,
    /// The facts of the request, for plugins that ask; none if there is no client's request.
    pub facts: Option<&'a dyn RequestFacts>,
    /// Where the caller wants to read how the endpoint was chosen.
    pub note: Option<&'a PickNote>,
}

impl PickRequest<'_> {
    /// The request without the borrowed facts, so that it can be kept or sent to another thread.
    pub fn in_numbers(self) -> PickRequest<'static> {
        PickRequest {
            facts: None,
            note: None,
            ..self
        }
    }
}

/// How the client of a refused request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status, from 400 to 599.
    pub status: u16,
    /// Seconds after which the client may try again.
    pub retry_after: Option<u32>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Choice<T = Arc<Endpoint>> {
    /// To this endpoint.
    Endpoint(T),
    /// Nowhere: the plugin refused it, and may say how.
    Refused(Option<Refusal>),
    /// Nowhere: there is no endpoint.
    Empty,
}
