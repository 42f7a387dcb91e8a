//! What a balancer is asked, and what it may answer.

use std::sync::Arc;

use super::facts::RequestFacts;
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
    /// What else there is to know of it, for plugins that ask; none where it is no client's
    /// request.
    pub facts: Option<&'a dyn RequestFacts>,
}

impl PickRequest<'_> {
    /// The same without what lives no longer than the request: to be kept, or sent elsewhere.
    pub fn in_numbers(self) -> PickRequest<'static> {
        PickRequest {
            facts: None,
            ..self
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Choice<T = Arc<Endpoint>> {
    /// To this endpoint.
    Endpoint(T),
    /// Nowhere: the plugin refused it.
    Refused,
    /// Nowhere: there is no endpoint.
    Empty,
}
