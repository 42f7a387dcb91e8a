//! What is known of addresses, as the Admin API shows it, and the sums of their weights.

use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::Member;
use crate::endpoint::ReportReads;
use crate::endpoint::health::Condition;
use crate::endpoint_address::EndpointAddress;

/// The sums that Kong shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Weights {
    pub total: u64,
    pub available: u64,
}

/// An address with what is known of it.
#[derive(Debug, Clone)]
pub struct AddressReport {
    /// Id of the endpoint.
    pub id: u64,
    /// The target that it belongs to.
    pub target: Uuid,
    /// The address itself.
    pub address: EndpointAddress,
    /// As configured.
    pub weight: u32,
    /// Whether it may be chosen.
    pub available: bool,
    /// Whether outlier detection has ejected it for doing worse than its peers.
    pub ejected: bool,
    /// Whether it is used only where no other address is left.
    pub failover: bool,
    /// How long the ejection lasts, if it is ejected.
    pub ejected_for: Option<Duration>,
    /// How long it has been available.
    pub available_for: Duration,
    /// Requests sent and not yet answered.
    pub in_flight: u32,
    /// Requests that wait for a place and count in its queue.
    pub pending: u32,
    /// Connections for requests, busy and idle.
    pub connections: u32,
    /// Times that the upstream's balancers have picked it.
    pub picks: u64,
    /// Requests that got no complete response from it: no connection, or one that broke off or
    /// timed out.
    pub failures: u64,
    /// What checks say.
    pub condition: Condition,
    /// What came of reading its reports; none if they are not read.
    pub report_reads: Option<ReportReads>,
}

pub(super) fn describe(member: &Member) -> AddressReport {
    AddressReport {
        id: member.id,
        target: member.target,
        address: member.address.clone(),
        weight: member.weight,
        available: member.is_available(),
        ejected: member.live.ejection.is_on(),
        failover: member.failover,
        ejected_for: member.live.ejection.left(),
        available_for: member.since.elapsed(),
        in_flight: member.live.in_flight(),
        pending: member.live.pending.load(Ordering::Relaxed),
        connections: member.live.permits.open(),
        picks: member.live.picks(),
        failures: member.live.failures(),
        condition: member.live.health.condition(),
        report_reads: member.live.report_reads(),
    }
}

pub(super) fn weights<'a>(members: impl IntoIterator<Item = &'a Member>) -> Weights {
    let mut sums = Weights {
        total: 0,
        available: 0,
    };
    for member in members {
        sums.total += u64::from(member.weight);
        if member.is_available() {
            sums.available += u64::from(member.weight);
        }
    }
    sums
}

/// Kong's condition: strictly more than the threshold must be available, so with 100 none is ever
/// used.
pub(super) fn passes(sums: Weights, threshold: f64) -> bool {
    sums.total > 0 && sums.available as f64 * 100.0 > threshold * sums.total as f64
}

/// Panic mode: if so few are available that they could not carry the traffic, all are used.
pub(super) fn panics(sums: Weights, threshold: f64) -> bool {
    threshold > 0.0 && (sums.available as f64) * 100.0 < threshold * sums.total as f64
}
