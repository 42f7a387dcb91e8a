//! The health of one address, as checks and operators have reported it: Kong's state machine.
//!
//! Source: Kong 3.9 and its lua-resty-healthcheck 3.1.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a check or a request says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It answered as it should.
    Success,
    /// It answered with a status that counts as a failure, or with an invalid answer.
    HttpFailure,
    /// It could not be connected to, or ended the connection early.
    TcpFailure,
    /// It did not answer in time.
    Timeout,
    /// It answered with a status that counts neither as a success nor as a failure.
    Ignored,
}

/// The source of a report or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A probe.
    Active,
    /// A proxied request.
    Passive,
    /// The Admin API.
    Manual,
    /// An earlier run of the gateway.
    Restored,
    /// The gateway by itself: after a successful trial, or because nothing is checked any longer.
    Recovery,
}

/// How many reports of a kind change the state; 0 means that the kind is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Thresholds {
    pub(crate) successes: u32,
    pub(crate) http_failures: u32,
    pub(crate) tcp_failures: u32,
    pub(crate) timeouts: u32,
}

/// The last report of note, for operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// When, in seconds since 1970.
    pub at: f64,
    /// Where the report came from.
    pub source: Source,
    /// What was reported.
    pub report: Report,
    /// Details in words, such as an error or a status.
    pub detail: String,
}

/// What is known of an address.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Whether it may be chosen.
    pub available: bool,
    /// Failures in a row, of the kind with the most.
    pub failures: u32,
    /// The last probe, whatever its outcome.
    pub last_probe: Option<Event>,
    /// The last failure, of a probe or a request.
    pub last_failure: Option<Event>,
    /// When it last became available or unavailable, or was set by hand, in seconds since 1970;
    /// none if it never was.
    pub changed_at: Option<f64>,
    /// The source of that change.
    pub changed_by: Option<Source>,
}

/// The health of one address. All workers and probes report to it.
#[derive(Debug)]
pub(crate) struct Health {
    /// Healthy, and without a failure since the last success. Nearly every request finds this
    /// state, and a success does not change it.
    spotless: AtomicBool,
    available: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    unavailable: bool,
    successes: u32,
    http_failures: u32,
    tcp_failures: u32,
    timeouts: u32,
    last_probe: Option<Event>,
    last_failure: Option<Event>,
    changed_at: Option<f64>,
    changed_by: Option<Source>,
    /// The source that took it out. For a restored address it is the source in the earlier run, not
    /// that run. None while it is available.
    taken_out_by: Option<Source>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            spotless: AtomicBool::new(true),
            available: AtomicBool::new(true),
            inner: Mutex::default(),
        }
    }
}

impl Health {
    /// Whether the address may be chosen.
    pub(crate) fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    /// Records a report. Returns whether it made the address available or unavailable.
    pub(crate) fn report(
        &self,
        source: Source,
        report: Report,
        thresholds: &Thresholds,
        detail: impl FnOnce() -> String,
    ) -> bool {
        if report == Report::Success
            && source == Source::Passive
            && (thresholds.successes == 0 || self.spotless.load(Ordering::Relaxed))
        {
            return false;
        }
        let mut inner = self.inner.lock();
        let event = Event {
            at: clock::unix_millis(),
            source,
            report,
            detail: detail(),
        };
        if !matches!(report, Report::Success | Report::Ignored) {
            inner.last_failure = Some(event.clone());
        }
        if source == Source::Active {
            inner.last_probe = Some(event);
        }
        let changed = inner.count(report, thresholds);
        if changed {
            inner.note_change(source);
        }
        self.publish(&inner);
        changed
    }

    /// Sets the state, whatever was reported. `source` replaces the source before it, even if the
    /// state stays the same. Returns whether the state changed.
    pub(crate) fn set(&self, available: bool, source: Source) -> bool {
        let mut inner = self.inner.lock();
        inner.clear_failures();
        inner.successes = 0;
        let changed = inner.unavailable == available;
        inner.unavailable = !available;
        inner.note_change(source);
        self.publish(&inner);
        changed
    }

    /// Restores what an earlier run of the gateway knew: taken out, by `source`.
    pub(crate) fn restore(&self, source: Source) {
        self.set(false, Source::Restored);
        self.inner.lock().taken_out_by = Some(source);
    }

    /// The source that took it out, if it is out.
    pub(crate) fn taken_out_by(&self) -> Option<Source> {
        self.inner.lock().taken_out_by
    }

    /// Whether it is out, and this source took it out.
    pub(crate) fn is_out_by(&self, source: Source) -> bool {
        !self.is_available() && self.taken_out_by() == Some(source)
    }

    /// Whether requests may bring it back, by a trial. An address that operators or probes have
    /// taken out gets no trial: it is for them to bring back.
    pub(crate) fn awaits_trial(&self) -> bool {
        self.is_out_by(Source::Passive)
    }

    /// The state after the last report, in words for the log.
    pub(crate) fn verdict(&self) -> String {
        let condition = self.condition();
        if condition.available {
            return "target marked healthy".to_owned();
        }
        let detail = condition.last_failure.map(|event| cause(&event.detail));
        let (detail, count) = (detail.unwrap_or_default(), condition.failures);
        format!("target marked unhealthy ({detail} × {count})")
    }

    /// What is known of it.
    pub(crate) fn condition(&self) -> Condition {
        let inner = self.inner.lock();
        Condition {
            available: !inner.unavailable,
            failures: inner
                .http_failures
                .max(inner.tcp_failures)
                .max(inner.timeouts),
            last_probe: inner.last_probe.clone(),
            last_failure: inner.last_failure.clone(),
            changed_at: inner.changed_at,
            changed_by: inner.changed_by,
        }
    }

    fn publish(&self, inner: &Inner) {
        let failing = inner.http_failures + inner.tcp_failures + inner.timeouts > 0;
        self.spotless
            .store(!inner.unavailable && !failing, Ordering::Relaxed);
        self.available.store(!inner.unavailable, Ordering::Relaxed);
    }
}

impl Inner {
    fn count(&mut self, report: Report, thresholds: &Thresholds) -> bool {
        let failing = self.http_failures + self.tcp_failures + self.timeouts > 0;
        let (counter, limit) = match report {
            Report::Success => {
                if thresholds.successes == 0 || (!self.unavailable && !failing) {
                    return false;
                }
                self.successes += 1;
                let enough = self.successes >= thresholds.successes;
                self.clear_failures();
                let changed = enough && self.unavailable;
                if enough {
                    self.unavailable = false;
                    self.successes = 0;
                }
                return changed;
            }
            Report::Ignored => return false,
            Report::HttpFailure => (&mut self.http_failures, thresholds.http_failures),
            Report::TcpFailure => (&mut self.tcp_failures, thresholds.tcp_failures),
            Report::Timeout => (&mut self.timeouts, thresholds.timeouts),
        };
        // Kinds are not summed: each has its own limit.
        if limit == 0 {
            return false;
        }
        self.successes = 0;
        if self.unavailable {
            return false;
        }
        *counter += 1;
        self.unavailable = *counter >= limit;
        self.unavailable
    }

    fn clear_failures(&mut self) {
        self.http_failures = 0;
        self.tcp_failures = 0;
        self.timeouts = 0;
    }

    fn note_change(&mut self, source: Source) {
        self.changed_at = Some(clock::unix_millis());
        self.changed_by = Some(source);
        self.taken_out_by = self.unavailable.then_some(source);
    }
}

/// The cause in an error's text: without the operation that failed, and without the system's number
/// for the error.
fn cause(detail: &str) -> String {
    let bare = detail.strip_prefix("cannot connect: ").unwrap_or(detail);
    let bare = bare.split(" (os error").next().unwrap_or(bare);
    let mut letters = bare.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        successes: 2,
        http_failures: 3,
        tcp_failures: 2,
        timeouts: 0,
    };

    fn tell(health: &Health, report: Report) -> bool {
        health.report(Source::Active, report, &THRESHOLDS, String::new)
    }

    #[test]
    fn failures_in_a_row_take_it_out_and_successes_bring_it_back() {
        let health = Health::default();
        assert!(!tell(&health, Report::TcpFailure));
        assert!(tell(&health, Report::TcpFailure));
        assert!(!health.is_available());
        assert!(!tell(&health, Report::Success));
        assert!(tell(&health, Report::Success));
        assert!(health.is_available());
    }

    #[test]
    fn the_log_says_what_took_a_target_out_and_how_often() {
        let health = Health::default();
        let refused = || "cannot connect: Connection refused (os error 111)".to_owned();
        for _ in 0..2 {
            health.report(Source::Passive, Report::TcpFailure, &THRESHOLDS, refused);
        }
        let verdict = health.verdict();
        assert_eq!(verdict, "target marked unhealthy (connection refused × 2)");
        health.set(true, Source::Manual);
        assert_eq!(health.verdict(), "target marked healthy");
    }

    #[test]
    fn kinds_are_not_summed_and_a_success_clears_them_all() {
        let health = Health::default();
        for _ in 0..20 {
            assert!(!tell(&health, Report::HttpFailure));
            assert!(!tell(&health, Report::TcpFailure));
            assert!(!tell(&health, Report::HttpFailure));
            assert!(!tell(&health, Report::Success));
        }
        assert!(health.is_available());
    }

    #[test]
    fn a_failure_starts_the_count_of_successes_again() {
        let health = Health::default();
        health.set(false, Source::Manual);
        for _ in 0..5 {
            assert!(!tell(&health, Report::Success));
            assert!(!tell(&health, Report::TcpFailure));
        }
        assert!(!health.is_available());
    }

    #[test]
    fn a_kind_without_limit_is_ignored() {
        let health = Health::default();
        for _ in 0..300 {
            assert!(!tell(&health, Report::Timeout));
        }
        assert!(health.is_available());
        let condition = health.condition();
        assert_eq!(
            condition.last_failure.map(|f| f.report),
            Some(Report::Timeout)
        );
    }

    #[test]
    fn a_manual_state_lasts_until_reports_reach_a_threshold() {
        let health = Health::default();
        assert!(health.set(false, Source::Manual));
        assert!(!health.set(false, Source::Manual));
        assert!(!health.is_available());
        tell(&health, Report::Success);
        assert!(tell(&health, Report::Success));
    }

    #[test]
    fn a_manual_state_is_the_source_even_if_it_changes_nothing() {
        let health = Health::default();
        tell(&health, Report::TcpFailure);
        tell(&health, Report::TcpFailure);
        assert_eq!(health.taken_out_by(), Some(Source::Active));
        assert!(!health.set(false, Source::Manual));
        assert_eq!(health.taken_out_by(), Some(Source::Manual));
        assert_eq!(health.condition().changed_by, Some(Source::Manual));
        assert!(health.set(true, Source::Manual));
        assert_eq!(health.taken_out_by(), None);
    }

    #[test]
    fn only_what_requests_took_out_awaits_a_trial() {
        let restored = |by| {
            let health = Health::default();
            health.restore(by);
            (health.condition().changed_by, health.awaits_trial())
        };
        assert_eq!(restored(Source::Passive), (Some(Source::Restored), true));
        assert_eq!(restored(Source::Active), (Some(Source::Restored), false));
        assert_eq!(restored(Source::Manual), (Some(Source::Restored), false));
        assert!(!Health::default().awaits_trial());
    }

    proptest! {
        /// The state is a function of what was reported, computed here the long way.
        #[test]
        fn the_state_follows_from_the_reports(
            reports in prop::collection::vec(0_u8..4, 0..200),
            thresholds in (0_u32..4, 0_u32..4, 0_u32..4, 0_u32..4),
        ) {
            let thresholds = Thresholds {
                successes: thresholds.0, http_failures: thresholds.1, tcp_failures: thresholds.2, timeouts: thresholds.3,
            };
            let health = Health::default();
            let (mut available, mut successes, mut failures) = (true, 0, [0_u32; 3]);
            for report in reports {
                let (kind, limit) = match report {
                    0 => (Report::Success, thresholds.successes),
                    1 => (Report::HttpFailure, thresholds.http_failures),
                    2 => (Report::TcpFailure, thresholds.tcp_failures),
                    _ => (Report::Timeout, thresholds.timeouts),
                };
                let before = available;
                match (report, limit) {
                    (_, 0) => {}
                    (0, limit) => if !available || failures != [0; 3] {
                        failures = [0; 3];
                        successes += 1;
                        if successes >= limit { available = true; successes = 0; }
                    },
                    (kind, limit) => {
                        successes = 0;
                        if available {
                            failures[usize::from(kind) - 1] += 1;
                            available = failures[usize::from(kind) - 1] < limit;
                        }
                    }
                }
                let source = if report % 2 == 0 { Source::Passive } else { Source::Active };
                let changed = health.report(source, kind, &thresholds, String::new);
                prop_assert_eq!(changed, before != available);
                prop_assert_eq!(health.is_available(), available);
            }
        }
    }
}
