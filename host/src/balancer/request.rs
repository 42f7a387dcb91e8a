//! The requests that a balancer places, and its possible choices.

use std::sync::Arc;

use super::canary::Placed;
use super::facts::RequestFacts;
use super::note::PickNote;
use crate::endpoint::{Endpoint, RequestCost};

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
    /// The facts of the request, for plugins that ask; none if there is no client's request.
    pub facts: Option<&'a dyn RequestFacts>,
    /// Where the caller wants to read how the endpoint was chosen.
    pub note: Option<&'a PickNote>,
}

impl PickRequest<'_> {
    /// The same without the borrowed facts, so that it can be kept or sent to another thread.
    pub fn in_numbers(self) -> PickRequest<'static> {
        PickRequest {
            facts: None,
            note: None,
            ..self
        }
    }
}

/// What the balancer says of its choice.
#[derive(Debug, Default)]
pub struct ChoiceDetails {
    /// Observes the outcome of the request, if a canary has a share.
    pub observer: Option<Arc<Placed>>,
    /// What the request weighs.
    pub cost: RequestCost,
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
