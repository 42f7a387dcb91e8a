//! Ejection: an address gets no requests for a time because it did worse than its peers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::entity::upstream::OutlierDetection;

/// Whether an address is ejected for doing worse than its peers. This belongs to the address, so
/// that the ejection ends in time even if the address was removed and has come back meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    ejected: AtomicBool,
    term: Mutex<Term>,
}

#[derive(Debug, Default)]
struct Term {
    /// None while it is not ejected.
    until: Option<Instant>,
    /// Ejections in a row: each lasts longer than the one before.
    times: u32,
}

impl Ejection {
    /// Whether the address is ejected.
    pub(crate) fn is_on(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// How long it lasts; none while it is not ejected.
    pub(crate) fn left(&self) -> Option<Duration> {
        // Nearly every address, and no lock for it.
        let until = self.is_on().then(|| self.term.lock().until)??;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Ejects the address from `now` on, for the time that is returned.
    pub(crate) fn begin(&self, now: Instant, settings: &OutlierDetection) -> Duration {
        let mut term = self.term.lock();
        term.times += 1;
        let time = settings.base_ejection_time * f64::from(term.times);
        let time = time.min(settings.max_ejection_time);
        let time = Duration::try_from_secs_f64(time).unwrap_or_default();
        term.until = Some(now + time);
        self.ejected.store(true, Ordering::Relaxed);
        time
    }

    /// Ends the ejection if its time is over. Returns whether it ended now.
    pub(crate) fn end(&self, now: Instant) -> bool {
        // Nearly every address, and no lock for it.
        if !self.is_on() {
            return false;
        }
        let mut term = self.term.lock();
        let over = term.until.is_none_or(|until| until <= now);
        if over {
            term.until = None;
            self.ejected.store(false, Ordering::Relaxed);
        }
        over
    }

    /// An interval in which it did as well as its peers.
    pub(crate) fn behaved(&self) {
        let mut term = self.term.lock();
        if term.until.is_none() {
            term.times = term.times.saturating_sub(1);
        }
    }

    /// Ends it and forgets those before: addresses are no longer compared.
    pub(crate) fn lift(&self) {
        *self.term.lock() = Term::default();
        self.ejected.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> OutlierDetection {
        OutlierDetection {
            interval: 1.0,
            base_ejection_time: 1.0,
            max_ejection_time: 10.0,
            max_ejection_percent: 50.0,
            success_rate: true,
            latency: true,
            minimum_hosts: 3,
            request_volume: 10,
            success_rate_stdev_factor: 1900,
            latency_factor: 3000,
        }
    }

    #[test]
    fn an_ejection_ends_when_it_has_to_and_each_in_a_row_lasts_longer() {
        let (ejection, settings) = (Ejection::default(), settings());
        let second = Duration::from_secs(1);
        let now = Instant::now();
        assert_eq!(ejection.begin(now, &settings), second);
        assert!(ejection.is_on() && !ejection.end(now));
        assert!(ejection.end(now + second) && !ejection.is_on());
        assert_eq!(ejection.begin(now, &settings), 2 * second);
        // Behaving counts only while it gets requests.
        ejection.behaved();
        assert!(ejection.end(now + 2 * second));
        ejection.behaved();
        assert_eq!(ejection.begin(now, &settings), 2 * second);
        ejection.lift();
        assert!(!ejection.is_on());
        assert_eq!(ejection.begin(now, &settings), second);
    }
}
