//! The host's own choice, where the plugin has none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Balancer, By, Choice, Request, micros};
use crate::upstream::Endpoint;

impl Balancer {
    /// Whether it is known that there is no instance. What is recorded has to be written down in its place among the
    /// others.
    pub(super) fn is_away(&self) -> bool {
        let until = self.away_until.load(Ordering::Relaxed);
        until > 0 && !self.recorded.load(Ordering::Relaxed) && micros(Instant::now()) < until
    }

    /// The host's own choice, without the lock.
    pub(super) fn choose_aside<T>(
        &self,
        request: Request<'_>,
        tried: &[u64],
        claim: impl FnOnce(Arc<Endpoint>, By) -> T,
    ) -> Choice<T> {
        let table = self.table.read();
        match host_choice(&table, request.entropy, tried) {
            Some(position) => Choice::Endpoint(claim(picked(&table[position]), By::Host)),
            None => Choice::Empty,
        }
    }
}

/// An endpoint that a request is sent to; counts that.
pub(super) fn picked(endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
    endpoint.count_pick();
    Arc::clone(endpoint)
}

/// A position, or the next one whose endpoint has not been tried.
pub(super) fn untried(table: &[Arc<Endpoint>], position: usize, tried: &[u64]) -> usize {
    if tried.is_empty() || !tried.contains(&table[position].id) {
        return position;
    }
    let further = (position..table.len()).chain(0..position);
    let mut left = further.filter(|&next| !tried.contains(&table[next].id));
    left.next().unwrap_or(position)
}

/// The host's own choice: by weight, at random, among those that have not been tried; none if there is
/// no endpoint.
pub(super) fn host_choice(table: &[Arc<Endpoint>], entropy: u64, tried: &[u64]) -> Option<usize> {
    let total: u64 = table
        .iter()
        .map(|endpoint| u64::from(endpoint.weight))
        .sum();
    let mut ticket = entropy.checked_rem(total)?;
    let drawn = table.iter().position(|endpoint| {
        let weight = u64::from(endpoint.weight);
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    });
    drawn.map(|position| untried(table, position, tried))
}
