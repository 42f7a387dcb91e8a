#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::{Value, json};

use super::*;

/// These bounds, all others unset.
fn bounds(given: Value) -> Bounds {
    let mut bounds = json!({ "min_requests": 100 });
    for (name, value) in given.as_object().unwrap() {
        bounds[name] = value.clone();
    }
    serde_json::from_value(bounds).unwrap()
}

struct Case {
    evidence: Evidence,
    now: Instant,
    settings: Bounds,
}

impl Case {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            evidence: Evidence::new(now),
            now,
            settings: bounds(json!({"max_error_ratio": 2})),
        }
    }

    /// Observes this many requests, of which the first `errors` fail; each takes `ms`.
    fn requests(&mut self, side: Side, requests: u64, errors: u64, ms: u64) {
        for number in 0..requests {
            let time = Some(Duration::from_millis(ms));
            let failed = number < errors;
            (self.evidence).observe(self.now, &self.settings, side, failed, time);
        }
    }

    fn broken(&self, bound: &str, most: f64) -> Option<String> {
        let bounds = bounds(json!({ bound: most }));
        self.evidence.broken(&bounds, "the active version's")
    }
}

#[test]
fn an_absolute_bound_waits_for_enough_requests_of_the_canary() {
    let mut case = Case::new();
    case.requests(Side::Canary, 99, 50, 20);
    assert_eq!(case.broken("max_error_percent", 10.0), None);
    assert_eq!(case.broken("max_p99_ms", 10.0), None);
    case.requests(Side::Canary, 1, 0, 20);
    let reason = case.broken("max_error_percent", 10.0).unwrap();
    assert_eq!(
        reason,
        "50.00 % of its last 100 requests failed, more than 10 %"
    );
    assert_eq!(case.broken("max_error_percent", 50.0), None);
    let reason = case.broken("max_p99_ms", 10.0).unwrap();
    assert!(
        reason.starts_with("p99 of its last 100 requests was 20."),
        "{reason}"
    );
    assert_eq!(case.broken("max_p99_ms", 22.0), None);
}

#[test]
fn a_ratio_waits_for_enough_requests_of_both() {
    let mut case = Case::new();
    case.requests(Side::Canary, 200, 20, 40);
    case.requests(Side::Stable, 99, 4, 10);
    assert_eq!(case.broken("max_error_ratio", 2.0), None);
    assert_eq!(case.broken("max_p99_ratio", 2.0), None);
    case.requests(Side::Stable, 1, 0, 10);
    let reason = case.broken("max_error_ratio", 2.0).unwrap();
    assert!(
        reason.contains("10.00 %") && reason.contains("4.00 %"),
        "{reason}"
    );
    assert_eq!(case.broken("max_error_ratio", 2.5), None);
    assert!(case.broken("max_p99_ratio", 3.0).is_some());
    assert_eq!(case.broken("max_p99_ratio", 5.0), None);
}

/// One failure compared with none is no ratio.
#[test]
fn an_error_rate_below_one_in_min_requests_counts_as_one_in_min_requests() {
    let mut case = Case::new();
    case.requests(Side::Stable, 1900, 0, 1);
    case.requests(Side::Canary, 100, 2, 1);
    assert_eq!(case.broken("max_error_ratio", 2.0), None);
    case.requests(Side::Canary, 1, 1, 1);
    assert!(case.broken("max_error_ratio", 2.0).is_some());
}

#[test]
fn earlier_successes_do_not_hide_present_errors() {
    let mut case = Case::new();
    case.requests(Side::Stable, 10_000, 0, 1);
    case.requests(Side::Canary, 10_000, 0, 1);
    for _ in 0..2 {
        case.now += WINDOW;
        case.requests(Side::Stable, 100, 0, 1);
        case.requests(Side::Canary, 100, 10, 1);
    }
    assert_eq!(case.evidence.recent(Side::Canary).requests, 200);
    assert_eq!(case.evidence.total(Side::Canary), (10_200, 20));
    assert!(case.broken("max_error_percent", 9.0).is_some());
    // A window with too few requests goes on.
    case.now += 10 * WINDOW;
    case.requests(Side::Canary, 50, 0, 1);
    case.now += WINDOW;
    case.requests(Side::Canary, 1, 0, 1);
    assert_eq!(case.evidence.recent(Side::Canary).requests, 151);
}

#[test]
fn bounds_without_a_ratio_do_not_wait_for_the_active_version() {
    let mut case = Case::new();
    case.settings = bounds(json!({"max_error_percent": 9}));
    case.requests(Side::Canary, 10_000, 0, 1);
    assert!(is_enough(&case.settings, |side| case
        .evidence
        .total(side)
        .0));
    for _ in 0..2 {
        case.now += WINDOW;
        case.requests(Side::Canary, 100, 10, 1);
    }
    assert_eq!(case.evidence.recent(Side::Canary).requests, 200);
    assert!(case.broken("max_error_percent", 9.0).is_some());
}

#[test]
fn without_times_there_is_no_p99() {
    let mut case = Case::new();
    assert_eq!(case.evidence.recent(Side::Canary).p99_ms, None);
    let settings = bounds(json!({}));
    (case.evidence).observe(case.now, &settings, Side::Canary, true, None);
    let recent = case.evidence.recent(Side::Canary);
    assert_eq!((recent.error_percent, recent.p99_ms), (100.0, None));
}
