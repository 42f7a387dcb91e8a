//! When certificates are requested.

use std::time::{Duration, SystemTime};

/// Longest time between two tries of a name.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

const DAY: f64 = 24.0 * 60.0 * 60.0;

/// When a certificate is renewed: when a third of its lifetime is left, or earlier if `days` say
/// so, but not within the first half of it. Times are in seconds since 1970.
pub(super) fn renewal(not_before: i64, not_after: i64, days: f64) -> SystemTime {
    let lifetime = not_after.saturating_sub(not_before).max(0) as f64;
    let left = (lifetime / 3.0).max((days * DAY).min(lifetime / 2.0));
    let end = Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
    SystemTime::UNIX_EPOCH + end.saturating_sub(Duration::from_secs_f64(left))
}

/// When to renew a certificate whose authority suggests a time: then, but no later than the
/// settings say, and no later than when a tenth of the lifetime is left.
pub(super) fn suggested_renewal(
    not_before: i64,
    not_after: i64,
    days: f64,
    suggested: SystemTime,
) -> SystemTime {
    let lifetime = not_after.saturating_sub(not_before).max(0) as f64;
    let left = (lifetime / 10.0).max((days * DAY).min(lifetime / 2.0));
    let end = Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
    let latest = end.saturating_sub(Duration::from_secs_f64(left));
    suggested.min(SystemTime::UNIX_EPOCH + latest)
}

/// The shortest pause, whatever the settings say: authorities block accounts that do not pause.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after a try that has failed: `minutes` after the first one, and twice as long after
/// each further one. Authorities limit how often a name may fail.
pub(super) fn retry(minutes: f64, failures: u32) -> Duration {
    let seconds = minutes * 60.0 * 2_f64.powi(failures.min(30) as i32);
    let pause = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_PAUSE);
    pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_lifetime_is_left_or_earlier() {
        const DAY: i64 = 24 * 60 * 60;
        for (lifetime, days, after) in [
            (90, 14.0, 60.0),
            (90, 40.0, 50.0),
            (90, 80.0, 45.0),
            (6, 14.0, 3.0),
            (6, 0.0, 4.0),
            (0, 14.0, 0.0),
        ] {
            let due = renewal(1000, 1000 + lifetime * DAY, days);
            let expected = Duration::from_secs_f64(1000.0 + after * 86_400.0);
            assert_eq!(due, SystemTime::UNIX_EPOCH + expected, "{lifetime} {days}");
        }
    }

    #[test]
    fn a_suggested_time_holds_unless_the_settings_or_the_end_come_first() {
        const DAY: i64 = 24 * 60 * 60;
        let at = |days: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(days as u64 * 86_400);
        for (lifetime, days, suggested, expected) in [
            (90, 14.0, 70, 70),
            (90, 14.0, 1, 1),
            (90, 14.0, 80, 76),
            (90, 0.0, 89, 81),
            (10, 14.0, 9, 5),
        ] {
            let due = suggested_renewal(0, lifetime * DAY, days, at(suggested));
            assert_eq!(due, at(expected), "{lifetime} {days} {suggested}");
        }
    }

    #[test]
    fn the_pause_doubles_with_each_failure_from_a_minute_up_to_a_day() {
        let minutes = |minutes, failures| retry(minutes, failures).as_secs_f64() / 60.0;
        assert_eq!(minutes(5.0, 0), 5.0);
        assert_eq!(minutes(5.0, 3), 40.0);
        assert_eq!(minutes(5.0, 1000), 1440.0);
        assert_eq!(minutes(0.0, 5), 1.0);
        assert_eq!(minutes(1e300, 30), 1440.0);
    }
}
