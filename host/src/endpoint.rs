//! One address that requests can be sent to, with its live numbers: requests in flight, latency,
//! reported load and health.
//!
//! The numbers belong to the address, not to the upstream or the balancer that reads them.

mod changes;
mod ejection;
mod ended;
pub(crate) mod health;
mod in_flight;
mod labels;
mod latency;
mod orca;
mod permits;
mod reported;
mod work;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::authority::Host;
use crate::endpoint_address::EndpointAddress;
use crate::entity::target::CircuitBreakers;
use crate::entity::upstream;
pub use crate::trace::{EndReason, EndedTry};
use changes::Board;
pub use changes::Changes;
use ejection::Ejection;
pub use ended::{TryListener, TryNotes};
use health::Health;
pub use in_flight::InFlight;
pub(crate) use in_flight::Places;
pub use labels::Labels;
use latency::{Latency, LatencyAtLoad};
use orca::LastReport;
pub use orca::{LoadReport, Metrics};
pub use permits::ConnectionPermit;
use permits::ConnectionPermits;
use reported::ReportedValues;
pub use reported::{REPORTED_VALUES, ReportName, ReportReads, ReportedValue};
use work::WorkCounters;
pub use work::{RequestCost, WorkInFlight};

/// One address that requests can be sent to, shared by all workers.
///
/// Its weight and address are fixed. A change makes a new endpoint that shares the live numbers of
/// the one before, so requests in flight are counted through every change of a table.
#[derive(Debug)]
pub struct Endpoint {
    /// See [`Endpoint::id_of`].
    pub id: u64,
    /// Where to connect to.
    pub address: EndpointAddress,
    /// The host of the target: an address or a name.
    pub host: Host<'static>,
    /// Share of the traffic, at least 1.
    pub weight: u32,
    /// The limits of its target. Where one is not set, that of the upstream applies.
    pub(crate) limits: CircuitBreakers,
    /// The labels of its target.
    pub labels: Labels,
    /// The `Host` that it gets unless another is configured: its host, with its port unless that is
    /// the default of http.
    pub authority: String,
    live: Arc<Live>,
    /// For a view: what to show in place of the real requests in flight, if anything.
    pinned: Option<Mutex<Option<WorkInFlight>>>,
}

/// What changes with requests and checks. It has cache lines of its own: two endpoints that are
/// busy on two cores must not slow each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Live {
    in_flight: AtomicU32,
    /// Times that a balancer has picked it.
    picks: AtomicU64,
    /// Requests that got no complete response from it.
    failures: AtomicU64,
    /// Whether there are watchers.
    watched: AtomicBool,
    /// The boards that note changes of `in_flight`, each with the endpoint's position there.
    watchers: RwLock<Vec<(Arc<Board>, u32)>>,
    /// Requests that wait for a place and count in this endpoint's queue.
    pub(crate) pending: AtomicU32,
    pub(crate) permits: ConnectionPermits,
    pub(crate) ejection: Ejection,
    /// Notified when health changes, for the probe whose interval depends on it.
    pub(crate) changed: Notify,
    pub(crate) health: Health,
    pub(crate) window: Window,
    latency: Latency,
    at_load: LatencyAtLoad,
    last_report: LastReport,
    reported: ReportedValues,
    work: WorkCounters,
    departure: Departure,
}

/// Whether an address is leaving: removed, or found unhealthy.
#[derive(Debug, Default)]
struct Departure {
    leaving: AtomicBool,
    /// When requests still in flight are cut off; none for never.
    end: Mutex<Option<Instant>>,
    /// Notified when that changes.
    changed: Notify,
}

/// What requests did since the last check for outliers.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) requests: AtomicU32,
    pub(crate) failures: AtomicU32,
    /// Sum of the microseconds until the heads of the responses.
    pub(crate) latency: AtomicU64,
}

/// The outcome of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response with this status came in, complete or as far as the client wanted it.
    Answered(u16),
    /// There was no connection, it broke off, or what came was not a complete response.
    Broken,
    /// The response, or the rest of it, did not come in time.
    Timeout,
}

/// Notified of the outcomes of requests, as a canary is for those that it has placed.
pub trait OutcomeObserver: std::fmt::Debug + Send + Sync {
    /// Records the outcome of a request, which took this long.
    fn observe(&self, outcome: Outcome, took: Duration);
}

impl Live {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more request, and returns how many there were before.
    fn begin(&self) -> u32 {
        let ahead = self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.note();
        ahead
    }

    /// Counts one more request, and returns how many there were before, unless that would be more
    /// than `limit`.
    fn begin_within(&self, limit: u32) -> Option<u32> {
        let more = |count| (count < limit).then_some(count + 1);
        let taken = (self.in_flight).fetch_update(Ordering::SeqCst, Ordering::Relaxed, more);
        let ahead = taken.ok()?;
        self.note();
        Some(ahead)
    }

    fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.note();
    }

    pub(crate) fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed)
    }

    /// Counts a request that got no complete response.
    pub(crate) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn note(&self) {
        if self.watched.load(Ordering::SeqCst) {
            for (board, position) in &*self.watchers.read() {
                board.note(*position);
            }
        }
    }

    /// Has changes noted from now on. Notes and changes are in one order (`SeqCst`): a change that
    /// is not noted is in [`Live::settled`] afterwards.
    fn watch(&self, board: &Arc<Board>, position: u32) {
        let mut watchers = self.watchers.write();
        watchers.push((Arc::clone(board), position));
        self.watched.store(true, Ordering::SeqCst);
    }

    fn unwatch(&self, board: &Arc<Board>) {
        let mut watchers = self.watchers.write();
        watchers.retain(|(known, _)| !Arc::ptr_eq(known, board));
        self.watched.store(!watchers.is_empty(), Ordering::SeqCst);
    }

    #[cfg(test)]
    fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    /// Requests in flight, read in the same order as notes and changes (`SeqCst`).
    fn settled(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Records that the address leaves and that requests in flight have to end by `end`. The first
    /// such time stands.
    pub(crate) fn leave(&self, end: Option<Instant>) {
        self.departure.leaving.store(true, Ordering::Relaxed);
        let mut known = self.departure.end.lock();
        if known.is_none() && end.is_some() {
            *known = end;
            self.departure.changed.notify_waiters();
        }
    }

    /// Records that the address stays after all.
    pub(crate) fn stay(&self) {
        if self.departure.leaving.swap(false, Ordering::Relaxed) {
            *self.departure.end.lock() = None;
            self.departure.changed.notify_waiters();
        }
    }

    /// Waits until requests in flight have to end.
    async fn drained(self: Arc<Self>) {
        loop {
            let changed = self.departure.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let end = *self.departure.end.lock();
            match end {
                None => changed.await,
                Some(end) => {
                    if tokio::time::timeout_at(end.into(), changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Endpoint {
    /// An endpoint that no request has been sent to.
    pub fn new(id: u64, address: SocketAddr, host: String, weight: u32) -> Self {
        let host = Host::of_setting(&host).map(Host::into_owned);
        let host = host.unwrap_or_else(|| address.ip().into());
        Self::sharing(id, address.into(), host, weight, Arc::default())
    }

    pub(crate) fn sharing(
        id: u64,
        address: EndpointAddress,
        host: Host<'static>,
        weight: u32,
        live: Arc<Live>,
    ) -> Self {
        Self {
            id,
            authority: host.with_port(address.port().unwrap_or(80), 80),
            address,
            host,
            weight,
            limits: CircuitBreakers::default(),
            labels: Labels::default(),
            live,
            pinned: None,
        }
    }

    /// A view of the endpoint, for a reader that looks at it later than others; see
    /// [`Endpoint::pin`].
    pub(crate) fn view(&self) -> Self {
        Self {
            address: self.address.clone(),
            host: self.host.clone(),
            labels: self.labels.clone(),
            authority: self.authority.clone(),
            live: Arc::clone(&self.live),
            pinned: Some(Mutex::default()),
            ..*self
        }
    }

    /// Makes a view show these requests in flight until the returned guard is dropped.
    pub(crate) fn pin(&self, work: WorkInFlight) -> impl Drop {
        struct Pinned<'a>(&'a Endpoint);
        impl Drop for Pinned<'_> {
            fn drop(&mut self) {
                self.0.set_pinned(None);
                // Watchers were told the pinned number: have them read the real one.
                self.0.live.note();
            }
        }
        self.set_pinned(Some(work));
        Pinned(self)
    }

    fn set_pinned(&self, work: Option<WorkInFlight>) {
        if let Some(pinned) = &self.pinned {
            *pinned.lock() = work;
        }
    }

    /// What a view shows in place of the real numbers, if it does.
    fn pinned(&self) -> Option<WorkInFlight> {
        *self.pinned.as_ref()?.lock()
    }

    /// The id of an endpoint: the same for the same host and address on every gateway, since
    /// balancers that hash must agree. It is the first 8 bytes of a SHA-256: two endpoints of one
    /// table will not collide.
    pub fn id_of(host: &str, address: impl Into<EndpointAddress>) -> u64 {
        let address = address.into();
        let digest = Sha256::digest(format!("{host} {address}"));
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(bytes)
    }

    /// Requests sent and not yet answered completely, over all workers.
    pub fn in_flight(&self) -> u32 {
        match self.pinned() {
            Some(pinned) => pinned.in_flight,
            None => self.live.in_flight(),
        }
    }

    /// Counts a pick by its balancer. The caller holds the lock of that balancer, so no other pick
    /// is added at the same time. A pick that did not wait for the lock may lose one, and so may a
    /// pick of a canary.
    pub(crate) fn count_pick(&self) {
        let picks = &self.live.picks;
        picks.store(picks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Microseconds until the endpoint answers, a moving average as of `now`, a time of
    /// [`micros`](crate::clock::micros); 0 while nothing is known.
    pub fn latency(&self, now: u64) -> u32 {
        self.live.latency.at(now)
    }

    /// Microseconds until the endpoint answers a request that finds it with as many in flight as it
    /// has now, as of `now`; 0 while nothing is known.
    pub fn latency_at_load(&self, now: u64) -> u32 {
        let known = self.live.at_load.at(now, self.in_flight());
        known.unwrap_or_else(|| self.latency(now))
    }

    /// Records an answer at `now` that took `latency` microseconds, to a request that was sent when
    /// `ahead` others were in flight.
    pub fn observe_latency(&self, now: u64, latency: u64, ahead: u32) {
        let latency = u32::try_from(latency).unwrap_or(u32::MAX);
        self.live.latency.observe(now, latency);
        self.live.at_load.observe(now, latency, ahead);
    }

    /// What the endpoint last reported of its own load, as of `now`; all 0 if it has reported
    /// nothing for 10 seconds.
    pub fn load_report(&self, now: u64) -> LoadReport {
        self.live.last_report.at(now)
    }

    /// Records what it reports.
    pub fn observe_report(&self, now: u64, report: LoadReport) {
        self.live.last_report.set(now, report);
    }

    /// Sets the number of requests in flight to any value, for a balancer that is tried out without
    /// a gateway. No [`InFlight`] may count here at the same time.
    pub(crate) fn pretend_in_flight(&self, count: u32) {
        self.live.in_flight.store(count, Ordering::SeqCst);
        self.live.note();
    }

    /// Whether the address was removed or is unhealthy, so that its connections are of no use.
    pub fn is_leaving(&self) -> bool {
        self.live.departure.leaving.load(Ordering::Relaxed)
    }

    /// The most connections that there may be to it, given the limits of its upstream; 0 means no
    /// limit.
    pub(crate) fn max_connections(&self, general: &upstream::CircuitBreakers) -> u32 {
        self.limits
            .max_connections
            .unwrap_or(general.max_connections)
    }

    /// The most requests that it may have, given the limits of its upstream; 0 means no limit.
    /// `shares` is whether requests share connections. Otherwise each takes one.
    pub(crate) fn max_requests(&self, general: &upstream::CircuitBreakers, shares: bool) -> u32 {
        let requests = self.limits.max_requests.unwrap_or(general.max_requests);
        let connections = match shares {
            true => 0,
            false => self.max_connections(general),
        };
        match (requests, connections) {
            (0, limit) | (limit, 0) => limit,
            (requests, connections) => requests.min(connections),
        }
    }

    /// Whether an idle connection is to be closed for a request that waits. A caller that gets true
    /// has to close one.
    pub fn takes_a_connection(&self) -> bool {
        self.live.permits.takes_one()
    }

    /// Counts a connection that is about to be opened, once there are fewer than `limit`; 0 means
    /// no limit. `reclaim` is called when it has to wait, to have idle connections closed.
    pub fn permit(&self, limit: u32, reclaim: impl Fn()) -> impl Future<Output = ConnectionPermit> {
        ConnectionPermit::take(Arc::clone(&self.live), limit, reclaim)
    }

    /// A number that identifies this endpoint while it is held: no other endpoint of any upstream
    /// has it.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.live).addr()
    }

    /// Waits until requests in flight are to be cut off, which may be never.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.live).drained()
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        Arc::new(Endpoint::new(1, address, "a".into(), 1))
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let endpoint = endpoint();
        let first = InFlight::new(Arc::clone(&endpoint));
        let second = InFlight::new(Arc::clone(&endpoint));
        assert_eq!(endpoint.in_flight(), 2);
        drop(first);
        drop(second);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn a_limit_admits_no_more_requests() {
        let (endpoint, places) = (endpoint(), Arc::default());
        let first = InFlight::within(Arc::clone(&endpoint), 1, &places);
        assert!(first.is_ok());
        assert!(InFlight::within(Arc::clone(&endpoint), 1, &places).is_err());
        drop(first);
        assert!(InFlight::within(endpoint, 1, &places).is_ok());
    }

    #[test]
    fn a_view_shows_the_pinned_number_and_then_the_real_one() {
        let endpoint = endpoint();
        let view = endpoint.view();
        let _request = InFlight::new(Arc::clone(&endpoint));
        assert_eq!(view.in_flight(), 1);
        let pinned = view.pin(WorkInFlight::default());
        assert_eq!((view.in_flight(), endpoint.in_flight()), (0, 1));
        drop(pinned);
        assert_eq!(view.in_flight(), 1);
    }

    #[test]
    fn the_id_depends_on_host_and_address_alone() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let id = Endpoint::id_of("127.0.0.1", address);
        assert_eq!(id, Endpoint::id_of("127.0.0.1", address));
        assert_ne!(id, Endpoint::id_of("localhost", address));
        // A changed value would move the keys of every gateway that is upgraded.
        assert_eq!(id, 0x60e7_e7dd_8ab6_e371);
    }
}
