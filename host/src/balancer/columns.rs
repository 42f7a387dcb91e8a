//! What a balancer may know of the load of endpoints, and what has to be taken note of for it.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::endpoint::Endpoint;

/// Something about requests that is taken note of only where a balancer looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Observed {
    /// How long an answer took.
    Latency = 1,
    /// What the endpoint says of its load.
    Report = 2,
}

/// What a balancer looks at: asked for with every request, seldom changed.
#[derive(Debug, Default)]
pub(super) struct Interests(AtomicU8);

impl Interests {
    /// What these columns need; more may be added when a plugin looks for itself.
    pub(super) fn new(columns: &[Column]) -> Self {
        let interests = Self::default();
        interests.reset(columns);
        interests
    }

    pub(super) fn reset(&self, columns: &[Column]) {
        let sources = columns.iter().filter_map(|column| column.source());
        let all = sources.fold(0, |all, source| all | source as u8);
        self.0.store(all, Ordering::Relaxed);
    }

    pub(super) fn add(&self, observed: Observed) {
        self.0.fetch_or(observed as u8, Ordering::Relaxed);
    }

    /// Adds all that is in others.
    pub(super) fn absorb(&self, others: &Self) {
        let others = others.0.load(Ordering::Relaxed);
        self.0.fetch_or(others, Ordering::Relaxed);
    }

    pub(super) fn contains(&self, observed: Observed) -> bool {
        self.0.load(Ordering::Relaxed) & observed as u8 != 0
    }
}

/// A load column that this gateway fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Requests sent and not yet answered in full.
    InFlight,
    /// Microseconds until an answer, a moving average.
    Latency,
    /// The same at the present number of requests in flight.
    LatencyAtLoad,
    /// How much of what it can do an endpoint says that it does, in thousandths.
    ReportedLoad,
    /// Requests that it says wait inside of it.
    ReportedQueue,
}

impl Column {
    pub(super) const ALL: [Self; 5] = [
        Self::InFlight,
        Self::Latency,
        Self::LatencyAtLoad,
        Self::ReportedLoad,
        Self::ReportedQueue,
    ];

    /// The name that stands for it in a description.
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Latency => "latency",
            Self::LatencyAtLoad => "latency-at-load",
            Self::ReportedLoad => "reported-load",
            Self::ReportedQueue => "reported-queue",
        }
    }

    /// The column of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// What has to be taken note of for it.
    pub(super) fn source(self) -> Option<Observed> {
        match self {
            Self::InFlight => None,
            Self::Latency | Self::LatencyAtLoad => Some(Observed::Latency),
            Self::ReportedLoad | Self::ReportedQueue => Some(Observed::Report),
        }
    }

    /// The number by which a guest refers to it.
    pub(super) fn handle(self) -> u32 {
        self as u32
    }

    /// The column of this number.
    pub(super) fn of_handle(handle: u32) -> Option<Self> {
        Self::ALL.get(handle as usize).copied()
    }

    /// What it says of an endpoint at a time.
    pub(super) fn value(self, endpoint: &Endpoint, now: u64) -> u32 {
        match self {
            Self::InFlight => endpoint.in_flight(),
            Self::Latency => endpoint.latency(now),
            Self::LatencyAtLoad => endpoint.latency_at_load(now),
            Self::ReportedLoad => endpoint.reported(now).load,
            Self::ReportedQueue => endpoint.reported(now).queue,
        }
    }
}
