//! The load columns that a balancer may read, and what has to be observed for them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

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
    /// The values that the endpoint reports by names.
    ReportedValues = 8,
}

/// What a balancer reads. It is looked up with every request and seldom changed.
#[derive(Debug, Default)]
pub(super) struct Interests {
    observed: AtomicU8,
    /// What it asks about bodies.
    questions: RwLock<Arc<[BodyQuestion]>>,
    /// For each of these, the number of the request that it was last asked for.
    asked: [AtomicU32; QUESTIONS],
    /// The number of the request that was last prepared. It wraps around.
    prepared: AtomicU32,
}

/// Stands beside the numbers of [`Observed`] while there are questions about bodies.
const ASKS: u8 = 128;

/// Most questions that are prepared for each request.
const QUESTIONS: usize = 8;

/// A question that was not asked for this many requests is no longer prepared.
const IDLE: u32 = 1000;

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
        let mut questions = self.questions.write();
        *questions = Arc::default();
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

    /// Notes a question about bodies, unless there are enough others.
    pub(super) fn note_question(&self, question: &BodyQuestion) {
        let now = self.prepared.load(Ordering::Relaxed);
        let note = |known: &[BodyQuestion]| {
            let place = known.iter().position(|known| known == question);
            if let Some(asked) = place.and_then(|place| self.asked.get(place)) {
                asked.store(now, Ordering::Relaxed);
            }
            place.is_some() || known.len() >= QUESTIONS
        };
        if note(&self.questions.read()) {
            return;
        }
        let mut questions = self.questions.write();
        if !note(&questions) {
            let all = [&questions[..], std::slice::from_ref(question)].concat();
            *questions = all.into();
            note(&questions);
            self.observed.fetch_or(ASKS, Ordering::Relaxed);
        }
    }

    /// Has the questions about bodies answered for a request.
    pub(super) fn prepare(&self, facts: &dyn RequestFacts) {
        if self.observed.load(Ordering::Relaxed) & ASKS == 0 {
            return;
        }
        let number = self
            .prepared
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        // Cloned, since a scan must not keep a pick from noting a question.
        let questions = Arc::clone(&self.questions.read());
        let mut asked = self.asked.iter().take(questions.len());
        if asked.any(|asked| is_idle(asked, number)) {
            self.drop_idle(number);
        }
        facts.prepare(&questions);
    }

    /// Drops the questions that were not asked lately: a scan costs the worker time.
    #[cold]
    fn drop_idle(&self, number: u32) {
        let mut questions = self.questions.write();
        let mut kept = Vec::with_capacity(questions.len());
        for (question, asked) in questions.iter().zip(&self.asked) {
            if is_idle(asked, number) {
                continue;
            }
            if let Some(place) = self.asked.get(kept.len()) {
                place.store(asked.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            kept.push(question.clone());
        }
        if kept.is_empty() {
            self.observed.fetch_and(!ASKS, Ordering::Relaxed);
        }
        *questions = kept.into();
    }
}

/// Whether a question that was last asked for one request is no longer prepared for another.
fn is_idle(asked: &AtomicU32, number: u32) -> bool {
    let since = number.wrapping_sub(asked.load(Ordering::Relaxed));
    // A request with a later number may be the one that has asked.
    (IDLE..u32::MAX / 2).contains(&since)
}

/// A load column that this gateway fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// Requests sent and not yet answered in full.
    InFlight,
    /// Microseconds until an answer, a moving average.
    Latency,
    /// Microseconds until an answer, at the present number of requests in flight.
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
    /// The reported value of this name, in thousandths.
    Reported(ReportName),
}

/// [`Column::ALL`], to be borrowed from.
static ALL: [Column; Column::ALL.len()] = Column::ALL;

/// Most columns of reported values in a description, and most that an instance asks for beside it:
/// a gateway keeps a limited number of names for all balancers.
pub(super) const MAX_REPORTED_COLUMNS: usize = 32;

/// What the names of columns with reported values begin with.
const REPORTED: &str = "reported:";

impl Column {
    /// All but those of reported values.
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
    pub fn name(&self) -> Cow<'static, str> {
        let name = match self {
            Self::Reported(name) => return format!("{REPORTED}{}", name.text()).into(),
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
            return ReportName::of(name).map(Self::Reported);
        }
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// Whether this is the name of a column with reported values.
    pub(super) fn is_reported(name: &str) -> bool {
        name.starts_with(REPORTED)
    }

    /// What has to be observed for it.
    pub(super) fn source(&self) -> Option<Observed> {
        match self {
            // Costs are counted for every request that has one.
            Self::InFlight | Self::InFlightCost | Self::UnansweredCost => None,
            Self::Unanswered | Self::FirstByte | Self::ChunkGap => Some(Observed::Body),
            Self::Latency | Self::LatencyAtLoad => Some(Observed::Latency),
            Self::ReportedLoad | Self::ReportedQueue => Some(Observed::Report),
            Self::Reported(_) => Some(Observed::ReportedValues),
        }
    }

    /// Its value for an endpoint at a time.
    pub(super) fn value(&self, endpoint: &Endpoint, now: u64) -> u32 {
        match self {
            Self::InFlight => endpoint.in_flight(),
            Self::Latency => endpoint.latency(now),
            Self::LatencyAtLoad => endpoint.latency_at_load(now),
            Self::ReportedLoad => endpoint.load_report(now).load,
            Self::ReportedQueue => endpoint.load_report(now).queue,
            Self::InFlightCost => endpoint.in_flight_cost(),
            Self::Unanswered => endpoint.work().unanswered,
            Self::UnansweredCost => endpoint.unanswered_cost(),
            Self::FirstByte => endpoint.first_byte(now),
            Self::ChunkGap => endpoint.chunk_gap(now),
            Self::Reported(name) => endpoint.reported_value(now, name),
        }
    }
}

/// The numbers that stand for columns in an instance.
#[derive(Debug, Default)]
pub(super) struct ColumnHandles {
    /// Those of reported values that it has asked for. Their numbers follow those of all others.
    reported: Vec<Column>,
}

impl ColumnHandles {
    /// The number of a column; none if the instance has asked for too many.
    pub(super) fn of(&mut self, column: Column) -> Option<u32> {
        let number = match Column::ALL.iter().position(|known| *known == column) {
            Some(number) => number,
            None => {
                let known = self.reported.iter().position(|known| *known == column);
                if known.is_none() {
                    if self.reported.len() == MAX_REPORTED_COLUMNS {
                        return None;
                    }
                    self.reported.push(column);
                }
                Column::ALL.len() + known.unwrap_or(self.reported.len() - 1)
            }
        };
        u32::try_from(number).ok()
    }

    /// The column of a number.
    pub(super) fn column(&self, number: u32) -> Option<&Column> {
        let number = number as usize;
        let reported = || self.reported.get(number - Column::ALL.len());
        ALL.get(number).or_else(reported)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// Tells which questions are prepared.
    #[derive(Default)]
    struct Prepared(parking_lot::Mutex<Vec<BodyQuestion>>);

    impl RequestFacts for Prepared {
        fn prepare(&self, questions: &[BodyQuestion]) {
            *self.0.lock() = questions.to_vec();
        }
    }

    #[test]
    fn questions_that_are_no_longer_asked_are_no_longer_prepared() {
        let interests = Interests::new(&[Column::Latency]);
        let prepare = || {
            let prepared = Prepared::default();
            interests.prepare(&prepared);
            prepared.0.into_inner()
        };
        let question = |most| BodyQuestion::JsonField {
            pointer: "/a".into(),
            most,
        };
        assert!(prepare().is_empty());
        (0..10).for_each(|most| interests.note_question(&question(most)));
        assert_eq!(prepare(), (0..8).map(question).collect::<Vec<_>>());
        // Two of them are asked again and again; there is room for others when the rest is dropped.
        for _ in 0..=IDLE {
            interests.note_question(&question(2));
            interests.note_question(&question(5));
            prepare();
        }
        assert_eq!(prepare(), [question(2), question(5)]);
        interests.note_question(&question(9));
        assert_eq!(prepare(), [question(2), question(5), question(9)]);
        (0..=IDLE).for_each(|_| drop(prepare()));
        assert!(prepare().is_empty());
        assert!(interests.contains(Observed::Latency));
        interests.note_question(&BodyQuestion::Length);
        assert_eq!(prepare(), [BodyQuestion::Length]);
    }

    #[test]
    fn each_column_has_a_name_and_a_handle() {
        let named = Column::named("reported:columns_test").unwrap();
        assert!(matches!(named, Column::Reported(_)));
        let mut handles = ColumnHandles::default();
        for column in Column::ALL.into_iter().chain([named]) {
            assert_eq!(Column::named(&column.name()), Some(column.clone()));
            let handle = handles.of(column.clone()).unwrap();
            assert_eq!(handles.of(column.clone()), Some(handle));
            assert_eq!(handles.column(handle), Some(&column));
        }
        assert_eq!(handles.column(11), None);
        assert_eq!(handles.column(u32::MAX), None);
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
    }

    #[test]
    fn an_instance_has_handles_for_a_limited_number_of_names() {
        let mut handles = ColumnHandles::default();
        let mut of = |number: usize| {
            let column = Column::named(&format!("reported:handles_{number}"));
            handles.of(column.unwrap())
        };
        assert!((0..MAX_REPORTED_COLUMNS).all(|number| of(number) == Some(10 + number as u32)));
        assert_eq!(of(MAX_REPORTED_COLUMNS), None);
        assert_eq!(of(3), Some(13));
    }
}
