//! Values that are reported of an endpoint, by names: by itself with its responses or in its
//! metrics, or by an operator. A balancer reads one as the column `reported:NAME`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use super::orca::{FRESH, Metrics};
use super::{Endpoint, Live};
use crate::clock;
use crate::entity::upstream::report_name;

/// Most names that are in use at a time.
const MAX_NAMES: usize = 1024;

/// Most values that are kept of an endpoint.
pub const REPORTED_VALUES: usize = 128;

/// All names in use, and those of before until there are too many.
static KNOWN: RwLock<HashSet<Arc<str>, FixedState>> =
    RwLock::new(HashSet::with_hasher(FixedState::with_seed(0)));

/// The endpoints that have had values, of which expired ones keep names in use.
static WITH_VALUES: Mutex<Vec<Weak<Live>>> = Mutex::new(Vec::new());

/// Least time between two searches of all endpoints that have not made room for a name, in
/// microseconds.
const FUTILE_PAUSE: u64 = 1_000_000;

/// The name of a value. Each text is kept once, so that two names are quickly compared, and for as
/// long as a balancer, an upstream or an endpoint has it.
#[derive(Debug, Clone)]
pub struct ReportName(Arc<str>);

impl PartialEq for ReportName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ReportName {}

impl ReportName {
    /// The name of this text; none if it cannot be a name, or too many are in use.
    pub fn of(text: &str) -> Option<Self> {
        if let Some(known) = Self::known(text) {
            return Some(known);
        }
        report_name(text).ok()?;
        Self::insert(text).or_else(|| {
            static FUTILE_UNTIL: AtomicU64 = AtomicU64::new(0);
            let now = clock::micros(Instant::now());
            if now < FUTILE_UNTIL.load(Ordering::Relaxed) {
                return None;
            }
            drop_expired(now);
            let name = Self::insert(text);
            if name.is_none() {
                FUTILE_UNTIL.store(now + FUTILE_PAUSE, Ordering::Relaxed);
            }
            name
        })
    }

    /// The name of this text; none if too many are in use.
    fn insert(text: &str) -> Option<Self> {
        let mut names = KNOWN.write();
        if names.len() >= MAX_NAMES && !names.contains(text) {
            // No other name can come into use meanwhile, since all come from here.
            names.retain(|name| Arc::strong_count(name) > 1);
        }
        if let Some(known) = names.get(text) {
            return Some(Self(Arc::clone(known)));
        }
        if names.len() >= MAX_NAMES {
            return None;
        }
        let name: Arc<str> = text.into();
        names.insert(Arc::clone(&name));
        Some(Self(name))
    }

    /// The name of this text, if it is in use, or was.
    pub fn known(text: &str) -> Option<Self> {
        KNOWN.read().get(text).cloned().map(Self)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Drops the values of all endpoints that no longer count.
fn drop_expired(now: u64) {
    WITH_VALUES.lock().retain(|live| {
        let live = live.upgrade();
        if let Some(live) = &live {
            let mut values = live.reported.values.lock();
            values.retain(|known| known.until > now);
        }
        live.is_some()
    });
}

/// A value of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportedValue {
    /// Its name.
    pub name: ReportName,
    /// Its value.
    pub value: f64,
    /// Until when it counts, on the clock of balancers.
    pub until: u64,
}

impl ReportedValue {
    /// In thousandths, as balancers get it. What is out of range becomes the nearest bound, and
    /// what is not a number 0.
    fn thousandths(&self) -> u32 {
        (self.value * 1000.0) as u32
    }
}

/// What came of reading the metrics of an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReportReads {
    /// When they were last read, in seconds since 1970; none for never.
    pub read_at: Option<f64>,
    /// Reads that have failed.
    pub failures: u64,
    /// The last one that has failed.
    pub last_failure: Option<FailedRead>,
    /// Whether the last read has failed.
    #[serde(skip)]
    is_failing: bool,
}

/// A read of metrics that has failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRead {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Why.
    pub detail: String,
}

/// The values of an endpoint.
#[derive(Debug, Default)]
pub(super) struct ReportedValues {
    values: Mutex<Vec<ReportedValue>>,
    /// Whether its endpoint is in [`WITH_VALUES`].
    is_listed: AtomicBool,
    /// None as long as nothing reads its reports.
    reads: Mutex<Option<Box<ReportReads>>>,
}

impl ReportedValues {
    /// Sets a value until a time, in place of an earlier one of its name. One of another name
    /// replaces those that no longer count; returns false if there are too many that do.
    fn set(&self, now: u64, name: &Arc<str>, value: f64, until: u64) -> bool {
        let mut values = self.values.lock();
        if let Some(known) = (values.iter_mut()).find(|known| Arc::ptr_eq(&known.name.0, name)) {
            // All workers share the count of a name's users, so it is not touched here.
            (known.value, known.until) = (value, until);
            return true;
        }
        values.retain(|known| known.until > now);
        let has_room = values.len() < REPORTED_VALUES;
        if has_room {
            let name = ReportName(Arc::clone(name));
            values.push(ReportedValue { name, value, until });
        }
        has_room
    }

    /// Sets values until a time, or removes those of names without one: all of them, or none if
    /// there would be too many. Returns whether it has.
    pub(super) fn set_all(&self, now: u64, all: &[(ReportName, Option<f64>)], until: u64) -> bool {
        let mut values = self.values.lock();
        let others = values.iter().filter(|known| {
            let is_old = known.until <= now;
            !is_old && all.iter().all(|(name, _)| *name != known.name)
        });
        let set = all.iter().filter_map(|(name, value)| {
            let (name, value) = (name.clone(), (*value)?);
            Some(ReportedValue { name, value, until })
        });
        let next: Vec<ReportedValue> = others.cloned().chain(set).collect();
        let has_room = next.len() <= REPORTED_VALUES;
        if has_room {
            *values = next;
        }
        has_room
    }

    /// The value of this name in thousandths; 0 if there is none that counts.
    pub(super) fn at(&self, now: u64, name: &ReportName) -> u32 {
        let values = self.values.lock();
        let mut values = values.iter();
        let known = values.find(|known| known.name == *name && known.until > now);
        known.map_or(0, ReportedValue::thousandths)
    }

    /// Notes that reports were read, or why not. Returns whether reads fail since now, or no
    /// longer.
    fn note_read(&self, at: f64, failure: Option<String>) -> bool {
        let mut reads = self.reads.lock();
        // A read may end after its reader has been told to.
        let Some(reads) = reads.as_mut() else {
            return false;
        };
        let is_failing = failure.is_some();
        match failure {
            Some(detail) => {
                reads.failures += 1;
                reads.last_failure = Some(FailedRead { at, detail });
            }
            None => reads.read_at = Some(at),
        }
        std::mem::replace(&mut reads.is_failing, is_failing) != is_failing
    }

    /// All that count.
    pub(super) fn all(&self, now: u64) -> Vec<ReportedValue> {
        let values = self.values.lock();
        let counting = values.iter().filter(|known| known.until > now);
        counting.cloned().collect()
    }
}

impl Endpoint {
    /// Records the values that it reports with a response, of names that are in use. They count for
    /// as long as other reports.
    pub fn observe_metrics(&self, now: u64, metrics: &Metrics<'_>) {
        let names = KNOWN.read();
        for (name, value) in metrics.named() {
            if let Some(name) = names.get(name) {
                self.live.list();
                // A balancer cannot rely on a value more than are kept.
                let _ = self.live.reported.set(now, name, value, now + FRESH);
            }
        }
    }

    /// The value of this name as of `now`, in thousandths; 0 if there is none.
    pub fn reported_value(&self, now: u64, name: &ReportName) -> u32 {
        self.live.reported.at(now, name)
    }

    /// All values that count as of `now`.
    pub fn reported_values(&self, now: u64) -> Vec<ReportedValue> {
        self.live.reported.all(now)
    }
}

impl Live {
    /// Sets values of names until a time, or removes those without one: all of them, or none if
    /// there would be too many. Returns whether it has.
    pub(crate) fn set_reported(
        self: &Arc<Self>,
        now: u64,
        values: &[(ReportName, Option<f64>)],
        until: u64,
    ) -> bool {
        self.list();
        self.reported.set_all(now, values, until)
    }

    /// Has its values dropped when they are expired and names are scarce.
    fn list(self: &Arc<Self>) {
        let is_listed = &self.reported.is_listed;
        if is_listed.load(Ordering::Relaxed) || is_listed.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut all = WITH_VALUES.lock();
        if all.len() == all.capacity() {
            all.retain(|live| live.strong_count() > 0);
        }
        all.push(Arc::downgrade(self));
    }

    /// Notes that its metrics were read, or why not. Returns whether reads fail since now, or no
    /// longer.
    pub(crate) fn note_read(&self, failure: Option<String>) -> bool {
        self.reported.note_read(clock::unix_millis(), failure)
    }

    /// Notes that its metrics are read from now on, or no longer: then nothing is known of reads.
    pub(crate) fn set_reads_reports(&self, reads: bool) {
        let mut known = self.reported.reads.lock();
        if reads {
            known.get_or_insert_default();
        } else {
            *known = None;
        }
    }

    /// What came of reading its metrics; none if they are not read.
    pub(crate) fn report_reads(&self) -> Option<ReportReads> {
        self.reported.reads.lock().as_deref().cloned()
    }

    /// All values that count as of `now`.
    pub(crate) fn reported_values(&self, now: u64) -> Vec<ReportedValue> {
        self.reported.all(now)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let gpu = ReportName::of("gpu_cache").unwrap();
        assert_eq!(ReportName::of("gpu_cache"), Some(gpu.clone()));
        assert_eq!(ReportName::known("gpu_cache"), Some(gpu.clone()));
        assert_eq!(gpu.text(), "gpu_cache");
        assert_ne!(ReportName::of("vllm:num_requests_waiting"), Some(gpu));
        for wrong in ["", "a b", "a,b", "a=b", "ä", "a\n", &"a".repeat(129)] {
            assert_eq!(ReportName::of(wrong), None, "{wrong:?}");
        }
        assert_eq!(ReportName::known("nobody_asked_for_this"), None);
    }

    /// A plugin that asks for other names again and again takes none from the others.
    #[test]
    fn names_that_are_no_longer_in_use_make_room() {
        let kept = ReportName::of("kept_name").unwrap();
        for number in 0..3 * MAX_NAMES {
            assert!(ReportName::of(&format!("dropped_{number}")).is_some());
        }
        assert_eq!(ReportName::known("kept_name"), Some(kept));
        assert!(KNOWN.read().len() <= MAX_NAMES);
    }

    /// The names of other tests come and go meanwhile, so all that are used here are expired.
    #[test]
    fn expired_values_keep_no_name_from_a_new_one() {
        let endpoints: Vec<_> = (0..MAX_NAMES / REPORTED_VALUES + 1)
            .map(|number| {
                let live = Arc::<Live>::default();
                live.list();
                for value in 0..REPORTED_VALUES {
                    let text = format!("expired_{number}_{value}");
                    let name = ReportName::of(&text).unwrap();
                    live.reported.set(0, &name.0, 1.0, 1);
                }
                live
            })
            .collect();
        let kept = endpoints
            .iter()
            .map(|live| live.reported.values.lock().len());
        assert!(kept.sum::<usize>() < MAX_NAMES);
    }

    #[test]
    fn a_value_counts_until_its_time_in_thousandths() {
        let values = ReportedValues::default();
        let name = ReportName::of("value_test").unwrap();
        let set = |value, until| {
            assert!(values.set(1, &name.0, value, until));
        };
        assert_eq!(values.at(1, &name), 0);
        set(0.5, 10);
        assert_eq!((values.at(9, &name), values.at(10, &name)), (500, 0));
        for (value, seen) in [(-1.0, 0), (f64::NAN, 0), (1e300, u32::MAX), (7.0, 7000)] {
            set(value, 10);
            assert_eq!(values.at(1, &name), seen);
        }
        assert_eq!((values.all(9).len(), values.all(10).len()), (1, 0));
        assert!(values.set_all(1, &[(name.clone(), Some(2.0))], 10));
        assert_eq!(values.at(1, &name), 2000);
        assert!(values.set_all(1, &[(name.clone(), None)], 10));
        assert_eq!(values.at(1, &name), 0);
    }

    #[test]
    fn only_the_first_of_several_failures_is_news() {
        let live = Live::default();
        let values = &live.reported;
        let failed = |at| values.note_read(at, Some(format!("failure at {at}")));
        assert!(!failed(1.0), "nothing reads");
        live.set_reads_reports(true);
        assert!(!values.note_read(1.0, None));
        assert_eq!((failed(2.0), failed(3.0)), (true, false));
        assert_eq!((values.note_read(4.0, None), failed(5.0)), (true, true));
        let reads = values.reads.lock().as_deref().cloned().unwrap();
        assert_eq!((reads.read_at, reads.failures), (Some(4.0), 3));
        assert_eq!(reads.last_failure.unwrap().detail, "failure at 5");
        // Another reader continues.
        live.set_reads_reports(true);
        assert!(!failed(6.0));
        assert_eq!(live.report_reads().unwrap().failures, 4);
        // A read that ends after its reader leaves no trace.
        live.set_reads_reports(false);
        assert!(!failed(7.0));
        assert_eq!(live.report_reads(), None);
    }

    #[test]
    fn of_too_many_values_those_that_count_stay() {
        let values = ReportedValues::default();
        let name = |number: usize| ReportName::of(&format!("many_{number}")).unwrap();
        let set = |now, number, until| values.set(now, &name(number).0, 1.0, until);
        assert!((0..REPORTED_VALUES).all(|number| set(1, number, 10)));
        assert!(!set(1, REPORTED_VALUES, 10));
        // All of several, or none.
        let more = [0, REPORTED_VALUES].map(|number| (name(number), Some(7.0)));
        assert!(!values.set_all(1, &more, 20));
        assert_eq!(values.at(1, &name(0)), 1000);
        let users = Arc::strong_count(&name(0).0);
        assert!(set(1, 0, 20));
        assert_eq!(Arc::strong_count(&name(0).0), users);
        assert!(set(10, REPORTED_VALUES, 20));
        assert_eq!(values.all(10).len(), 2);
    }
}
