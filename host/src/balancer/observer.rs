//! What follows the picks of a balancer.

use std::sync::Arc;
use std::thread::Thread;

use super::kept_facts::KeptFacts;
use super::request::PickRequest;
use crate::endpoint::Endpoint;

/// Observes the picks of a balancer and the tables that it chooses from, in their order. The caller
/// holds the balancer's lock, except for `keep` and `body`, so no other method here may wait.
pub(super) trait PickObserver: Send + Sync {
    /// Notes the table of the next picks.
    fn set_endpoints(&self, table: &Arc<[Arc<Endpoint>]>);

    /// How many bytes of a request's body it may ask about.
    fn body(&self) -> usize;

    /// Copies the facts of a request that it will be told of, if it asks about requests. Called
    /// before the pick, without the lock.
    fn keep(&self, request: &PickRequest<'_>) -> Option<Box<KeptFacts>>;

    /// Notes a pick of the plugin, before the request counts at the endpoint. Takes the facts only
    /// if it keeps them: the caller frees them after it has released the lock. Returns the thread
    /// that the caller must unpark for it then: the woken thread may preempt the caller.
    fn note(
        &self,
        request: PickRequest<'_>,
        facts: &mut Option<Box<KeptFacts>>,
        tried: &[u64],
        table: &[Arc<Endpoint>],
        chosen: Option<usize>,
    ) -> Option<Thread>;
}
