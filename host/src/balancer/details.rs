//! What a balancer says of a choice besides the endpoint.

use std::sync::Arc;

use super::canary::Placed;
use crate::endpoint::{RequestCost, TryNotes};

/// What the balancer says of its choice.
#[derive(Debug, Default)]
pub struct ChoiceDetails {
    /// Observes the outcome of the request, if a canary has a share.
    pub observer: Option<Arc<Placed>>,
    /// What the request weighs.
    pub cost: RequestCost,
    /// What is noted of the try, if the balancer is told how it ends.
    pub notes: Option<Box<TryNotes>>,
}
