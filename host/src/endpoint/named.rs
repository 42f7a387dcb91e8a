//! Numbers that are known of an endpoint by names: those that it reports, and those that an operator
//! sets. A balancer reads one as the column `reported:NAME`.

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use super::orca::{FRESH, Metrics};
use super::{Endpoint, Live};
use crate::clock;
use crate::entity::upstream::report_name;

/// Most names that a gateway knows. They are never forgotten, since balancers hold them as numbers.
const NAMES: usize = 1024;

/// Most numbers that are kept of an endpoint.
pub const KEPT: usize = 128;

static KNOWN: RwLock<Vec<&'static str>> = RwLock::new(Vec::new());

/// A name, as a number that is small and quickly compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportName(u16);

impl ReportName {
    /// The name of this text, which is known from now on; none if it cannot be a name, or there are
    /// too many. A name has 1 to 128 printable ASCII characters, without spaces, commas and quotes.
    pub fn of(text: &str) -> Option<Self> {
        if let Some(known) = Self::known(text) {
            return Some(known);
        }
        report_name(text).ok()?;
        let mut names = KNOWN.write();
        let place = match names.iter().position(|known| *known == text) {
            Some(place) => place,
            None if names.len() < NAMES => {
                names.push(Box::leak(text.into()));
                names.len() - 1
            }
            None => return None,
        };
        u16::try_from(place).ok().map(Self)
    }

    /// The name of this text, if it is known.
    pub fn known(text: &str) -> Option<Self> {
        let names = KNOWN.read();
        let place = names.iter().position(|known| *known == text)?;
        u16::try_from(place).ok().map(Self)
    }

    /// The name of this number, if there is one.
    pub fn of_number(number: u32) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        (usize::from(number) < KNOWN.read().len()).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.into()
    }

    /// Its text.
    pub fn text(self) -> &'static str {
        KNOWN
            .read()
            .get(usize::from(self.0))
            .copied()
            .unwrap_or_default()
    }
}

/// A number of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedNumber {
    /// Its name.
    pub name: ReportName,
    /// Its value.
    pub value: f64,
    /// Until when it counts, on the clock of balancers.
    pub until: u64,
}

impl NamedNumber {
    /// In thousandths, as balancers get it. What is out of range becomes the nearest bound, and what
    /// is not a number 0.
    fn thousandths(&self) -> u32 {
        (self.value * 1000.0) as u32
    }
}

/// What came of reading the reports of an address.
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

/// A read of reports that has failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRead {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Why.
    pub detail: String,
}

/// The numbers of an endpoint.
#[derive(Debug, Default)]
pub(super) struct NamedNumbers {
    numbers: Mutex<Vec<NamedNumber>>,
    /// None as long as no reports were read.
    reads: Mutex<Option<Box<ReportReads>>>,
}

impl NamedNumbers {
    /// Sets a number, in place of an earlier one of its name. If there are too many, those that no
    /// longer count are dropped; returns false if there are too many that do.
    pub(super) fn set(&self, now: u64, number: NamedNumber) -> bool {
        let mut numbers = self.numbers.lock();
        if let Some(known) = numbers.iter_mut().find(|known| known.name == number.name) {
            *known = number;
            return true;
        }
        if numbers.len() >= KEPT {
            numbers.retain(|known| known.until > now);
        }
        let has_room = numbers.len() < KEPT;
        if has_room {
            numbers.push(number);
        }
        has_room
    }

    /// Sets numbers until a time, or removes those of names without one: all of them, or none if
    /// there would be too many. Returns whether it has.
    pub(super) fn set_all(&self, now: u64, all: &[(ReportName, Option<f64>)], until: u64) -> bool {
        let mut numbers = self.numbers.lock();
        let others = numbers.iter().filter(|known| {
            let is_old = known.until <= now;
            !is_old && all.iter().all(|(name, _)| *name != known.name)
        });
        let others = others.copied();
        let set = all.iter().filter_map(|&(name, value)| {
            let value = value?;
            Some(NamedNumber { name, value, until })
        });
        let next: Vec<NamedNumber> = others.chain(set).collect();
        let has_room = next.len() <= KEPT;
        if has_room {
            *numbers = next;
        }
        has_room
    }

    /// The number of this name in thousandths; 0 if there is none that counts.
    pub(super) fn at(&self, now: u64, name: ReportName) -> u32 {
        let numbers = self.numbers.lock();
        let mut numbers = numbers.iter();
        let known = numbers.find(|known| known.name == name && known.until > now);
        known.map_or(0, NamedNumber::thousandths)
    }

    /// Notes that reports were read, or why not. Returns whether reads fail since now, or no longer.
    fn note_read(&self, at: f64, failure: Option<String>) -> bool {
        let mut reads = self.reads.lock();
        let reads = reads.get_or_insert_default();
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
    pub(super) fn all(&self, now: u64) -> Vec<NamedNumber> {
        let numbers = self.numbers.lock();
        numbers
            .iter()
            .filter(|known| known.until > now)
            .copied()
            .collect()
    }
}

impl Endpoint {
    /// Records the numbers that it reports by names that a balancer has asked for. They count for as
    /// long as other reports.
    pub fn observe_metrics(&self, now: u64, metrics: &Metrics) {
        for (name, value) in metrics.named() {
            if let Some(name) = ReportName::known(name) {
                let until = now + FRESH;
                // A number more than are kept is none that a balancer can rely on.
                let _ = self.live.named.set(now, NamedNumber { name, value, until });
            }
        }
    }

    /// The number of this name as of `now`, in thousandths; 0 if there is none.
    pub fn named(&self, now: u64, name: ReportName) -> u32 {
        self.live.named.at(now, name)
    }

    /// All of its numbers that count as of `now`.
    pub fn all_named(&self, now: u64) -> Vec<NamedNumber> {
        self.live.named.all(now)
    }
}

impl Live {
    /// Sets numbers of names until a time, or removes those without one: all of them, or none if
    /// there would be too many. Returns whether it has.
    pub(crate) fn set_named(
        &self,
        now: u64,
        numbers: &[(ReportName, Option<f64>)],
        until: u64,
    ) -> bool {
        self.named.set_all(now, numbers, until)
    }

    /// Notes that its reports were read, or why not. Returns whether reads fail since now, or no
    /// longer.
    pub(crate) fn note_read(&self, failure: Option<String>) -> bool {
        self.named.note_read(clock::unix_millis(), failure)
    }

    /// What came of reading its reports; none if they were not read.
    pub(crate) fn report_reads(&self) -> Option<ReportReads> {
        self.named.reads.lock().as_deref().cloned()
    }

    /// All numbers that count as of `now`.
    pub(crate) fn all_named(&self, now: u64) -> Vec<NamedNumber> {
        self.named.all(now)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_number() {
        let gpu = ReportName::of("gpu_cache").unwrap();
        assert_eq!(ReportName::of("gpu_cache"), Some(gpu));
        assert_eq!(ReportName::known("gpu_cache"), Some(gpu));
        assert_eq!(ReportName::of_number(gpu.number()), Some(gpu));
        assert_eq!(gpu.text(), "gpu_cache");
        assert_ne!(ReportName::of("vllm:num_requests_waiting"), Some(gpu));
        for wrong in ["", "a b", "a,b", "a=b", "ä", "a\n", &"a".repeat(129)] {
            assert_eq!(ReportName::of(wrong), None, "{wrong:?}");
        }
        assert_eq!(ReportName::known("nobody_asked_for_this"), None);
        assert_eq!(ReportName::of_number(60_000), None);
    }

    #[test]
    fn a_number_counts_until_its_time_in_thousandths() {
        let numbers = NamedNumbers::default();
        let name = ReportName::of("named_test").unwrap();
        let set = |value, until| {
            let number = NamedNumber { name, value, until };
            assert!(numbers.set(1, number));
        };
        assert_eq!(numbers.at(1, name), 0);
        set(0.5, 10);
        assert_eq!((numbers.at(9, name), numbers.at(10, name)), (500, 0));
        for (value, seen) in [(-1.0, 0), (f64::NAN, 0), (1e300, u32::MAX), (7.0, 7000)] {
            set(value, 10);
            assert_eq!(numbers.at(1, name), seen);
        }
        assert_eq!((numbers.all(9).len(), numbers.all(10).len()), (1, 0));
        assert!(numbers.set_all(1, &[(name, Some(2.0))], 10));
        assert_eq!(numbers.at(1, name), 2000);
        assert!(numbers.set_all(1, &[(name, None)], 10));
        assert_eq!(numbers.at(1, name), 0);
    }

    #[test]
    fn only_the_first_of_several_failures_is_news() {
        let numbers = NamedNumbers::default();
        let failed = |at| numbers.note_read(at, Some(format!("failure at {at}")));
        assert!(!numbers.note_read(1.0, None));
        assert_eq!((failed(2.0), failed(3.0)), (true, false));
        assert_eq!((numbers.note_read(4.0, None), failed(5.0)), (true, true));
        let reads = numbers.reads.lock().as_deref().cloned().unwrap();
        assert_eq!((reads.read_at, reads.failures), (Some(4.0), 3));
        assert_eq!(reads.last_failure.unwrap().detail, "failure at 5");
    }

    #[test]
    fn of_too_many_numbers_those_that_count_stay() {
        let numbers = NamedNumbers::default();
        let number = |name: usize, until| NamedNumber {
            name: ReportName::of(&format!("many_{name}")).unwrap(),
            value: 1.0,
            until,
        };
        assert!((0..KEPT).all(|name| numbers.set(1, number(name, 10))));
        assert!(!numbers.set(1, number(KEPT, 10)));
        // All of several, or none.
        let more = [0, KEPT].map(|name| (number(name, 0).name, Some(7.0)));
        assert!(!numbers.set_all(1, &more, 20));
        assert_eq!(numbers.at(1, number(0, 0).name), 1000);
        assert!(numbers.set(1, number(0, 20)));
        assert!(numbers.set(10, number(KEPT, 20)));
        assert_eq!(numbers.all(10).len(), 2);
    }
}
