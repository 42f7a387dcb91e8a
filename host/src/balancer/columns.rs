//! The load columns that a balancer may read, and what has to be observed for them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::RwLock;

use super::facts::RequestFacts;
use crate::endpoint::{Endpoint, ReportName};
use crate::trace::BodyQuestion;

/// Something about requests that is observed only if a balancer reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Observed {
    /// The latency of an answer.
    Latency = 1,
    /// The load that the endpoint reports.
    Report = 2,
    /// When parts of bodies come.
    Body = 4,
    /// The numbers that the endpoint reports by name.
    Named = 8,
}

/// What a balancer reads. It is looked up with every request and seldom changed.
#[derive(Debug, Default)]
pub(super) struct Interests {
    observed: AtomicU8,
    /// What it asks about bodies.
    questions: RwLock<Arc<[BodyQuestion]>>,
}

/// Stands beside the numbers of [`Observed`] while there are questions about bodies.
const ASKS: u8 = 128;

/// Most questions that are prepared for each request.
const QUESTIONS: usize = 8;

impl Interests {
    /// What these columns need. More is added when a plugin asks for columns through `load`.
    pub(super) fn new(columns: &[Column]) -> Self {
        let interests = Self::default();
        interests.reset(columns);
        interests
    }

    pub(super) fn reset(&self, columns: &[Column]) {
        let sources = columns.iter().filter_map(|column| column.source());
        let all = sources.fold(0, |all, source| all | source as u8);
        *self.questions.write() = Arc::default();
        self.observed.store(all, Ordering::Relaxed);
    }

    pub(super) fn add(&self, observed: Observed) {
        self.observed.fetch_or(observed as u8, Ordering::Relaxed);
    }

    /// Adds all of `others`.
    pub(super) fn absorb(&self, others: &Self) {
        let observed = others.observed.load(Ordering::Relaxed) & !ASKS;
        self.observed.fetch_or(observed, Ordering::Relaxed);
    }

    pub(super) fn contains(&self, observed: Observed) -> bool {
        self.observed.load(Ordering::Relaxed) & observed as u8 != 0
    }

    /// Adds a question about bodies, unless there are enough.
    pub(super) fn add_question(&self, question: &BodyQuestion) {
        let is_needed =
            |known: &[BodyQuestion]| known.len() < QUESTIONS && !known.contains(question);
        if !is_needed(&self.questions.read()) {
            return;
        }
        let mut questions = self.questions.write();
        if is_needed(&questions) {
            *questions = [&questions[..], std::slice::from_ref(question)]
                .concat()
                .into();
            self.observed.fetch_or(ASKS, Ordering::Relaxed);
        }
    }

    /// Has the questions about bodies answered for a request.
    pub(super) fn prepare(&self, facts: &dyn RequestFacts) {
        if self.observed.load(Ordering::Relaxed) & ASKS != 0 {
            // Cloned, since a scan must not keep a pick from adding a question.
            let questions = Arc::clone(&self.questions.read());
            facts.prepare(&questions);
        }
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
    /// The utilisation that an endpoint reports, in thousandths.
    ReportedLoad,
    /// The number of waiting requests that an endpoint reports.
    ReportedQueue,
    /// What the requests in flight weigh, without the parts that are done.
    InFlightCost,
    /// Requests without a first byte of the body.
    Unanswered,
    /// What they weigh until that byte.
    UnansweredCost,
    /// Microseconds until the first byte of the body, a moving average.
    FirstByte,
    /// Microseconds between two parts of a body, a mean.
    ChunkGap,
    /// The number of this name, in thousandths, that the endpoint reports or an operator has set.
    Named(ReportName),
}

/// Most names of columns that one description, and one instance beside it, may have the gateway know:
/// what it knows is limited, and for all balancers.
pub(super) const NAMES: usize = 16;

/// What the names of columns with numbers of endpoints begin with.
const REPORTED: &str = "reported:";

impl Column {
    /// All but those of names.
    pub(super) const ALL: [Self; 10] = [
        Self::InFlight,
        Self::Latency,
        Self::LatencyAtLoad,
        Self::ReportedLoad,
        Self::ReportedQueue,
        Self::InFlightCost,
        Self::Unanswered,
        Self::UnansweredCost,
        Self::FirstByte,
        Self::ChunkGap,
    ];

    /// Its name in a description.
    pub fn name(self) -> Cow<'static, str> {
        let name = match self {
            Self::Named(name) => return format!("{REPORTED}{}", name.text()).into(),
            Self::InFlight => "in-flight",
            Self::Latency => "latency",
            Self::LatencyAtLoad => "latency-at-load",
            Self::ReportedLoad => "reported-load",
            Self::ReportedQueue => "reported-queue",
            Self::InFlightCost => "in-flight-cost",
            Self::Unanswered => "unanswered",
            Self::UnansweredCost => "unanswered-cost",
            Self::FirstByte => "first-byte",
            Self::ChunkGap => "chunk-gap",
        };
        name.into()
    }

    /// The column of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_prefix(REPORTED) {
            return ReportName::of(name).map(Self::Named);
        }
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// Whether it is a column of a name that the gateway does not know yet.
    pub(super) fn is_new(name: &str) -> bool {
        let name = name.strip_prefix(REPORTED);
        name.is_some_and(|name| ReportName::known(name).is_none())
    }

    /// What has to be observed for it.
    pub(super) fn source(self) -> Option<Observed> {
        match self {
            // Costs are counted for every request that has one.
            Self::InFlight | Self::InFlightCost | Self::UnansweredCost => None,
            Self::Unanswered | Self::FirstByte | Self::ChunkGap => Some(Observed::Body),
            Self::Latency | Self::LatencyAtLoad => Some(Observed::Latency),
            Self::ReportedLoad | Self::ReportedQueue => Some(Observed::Report),
            Self::Named(_) => Some(Observed::Named),
        }
    }

    /// The number that stands for it in a guest.
    pub(super) fn handle(self) -> u32 {
        let count = Self::ALL.len() as u32;
        match self {
            Self::Named(name) => count + name.number(),
            other => (0..count)
                .zip(Self::ALL)
                .find(|(_, own)| *own == other)
                .map_or(count, |own| own.0),
        }
    }

    /// The column of this number.
    pub(super) fn of_handle(handle: u32) -> Option<Self> {
        let known = Self::ALL.get(handle as usize).copied();
        let named = || ReportName::of_number(handle - Self::ALL.len() as u32);
        known.or_else(|| named().map(Self::Named))
    }

    /// Its value for an endpoint at a time.
    pub(super) fn value(self, endpoint: &Endpoint, now: u64) -> u32 {
        match self {
            Self::InFlight => endpoint.in_flight(),
            Self::Latency => endpoint.latency(now),
            Self::LatencyAtLoad => endpoint.latency_at_load(now),
            Self::ReportedLoad => endpoint.reported(now).load,
            Self::ReportedQueue => endpoint.reported(now).queue,
            Self::InFlightCost => endpoint.work().cost,
            Self::Unanswered => endpoint.work().unanswered,
            Self::UnansweredCost => endpoint.work().unanswered_cost,
            Self::FirstByte => endpoint.first_byte(now),
            Self::ChunkGap => endpoint.chunk_gap(now),
            Self::Named(name) => endpoint.named(now, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_has_a_name_and_a_handle() {
        let named = Column::named("reported:columns_test");
        assert!(matches!(named, Some(Column::Named(_))));
        for column in Column::ALL.into_iter().chain(named) {
            assert_eq!(Column::named(&column.name()), Some(column));
            assert_eq!(Column::of_handle(column.handle()), Some(column));
        }
        for wrong in [
            "",
            "reported",
            "reported:",
            "reported:a b",
            "Reported:a",
            "load:a",
        ] {
            assert_eq!(Column::named(wrong), None, "{wrong}");
        }
        for wrong in [10 + 60_000, u32::MAX] {
            assert_eq!(Column::of_handle(wrong), None);
        }
    }
}
