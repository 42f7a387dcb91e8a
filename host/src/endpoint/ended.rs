//! Tries that have ended, as the balancer that picked their endpoint is told of them.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::clock::micros;
use crate::trace::{EndReason, EndedTry};

/// Told of tries when they end.
pub trait TryListener: std::fmt::Debug + Send + Sync {
    /// Takes a try that has ended. `generation` is that of the instance that picked its endpoint.
    fn try_ended(&self, generation: u64, ended: EndedTry);
}

/// What is noted of a try for a balancer that is told of its tries. It is told when this is
/// dropped, so once for each pick.
#[derive(Debug)]
pub struct TryNotes {
    listener: Arc<dyn TryListener>,
    generation: u64,
    /// When the endpoint was picked, in microseconds.
    picked: u64,
    /// What is known so far. Its times are set at the end.
    ended: EndedTry,
    /// Whether it has ended.
    is_over: bool,
}

impl TryNotes {
    /// Of a pick of the endpoint with this id, at `picked`.
    pub fn new(
        listener: Arc<dyn TryListener>,
        generation: u64,
        endpoint: u64,
        tag: u64,
        picked: u64,
    ) -> Self {
        Self {
            listener,
            generation,
            picked,
            ended: EndedTry {
                endpoint,
                tag,
                now: picked,
                status: None,
                retry_after: None,
                first_byte: None,
                took: 0,
                bytes: 0,
                why: EndReason::Unsent,
            },
            is_over: false,
        }
    }

    /// Notes that the request is sent: if nothing else is noted, its client leaves.
    pub(super) fn begin(&mut self) {
        self.ended.why = EndReason::Client;
    }

    pub(super) fn note_head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.ended.status = Some(status.as_u16());
        self.ended.retry_after = retry_after(headers, SystemTime::now);
    }

    pub(crate) fn note_bytes(&mut self, bytes: u64, now: impl FnOnce() -> u64) {
        self.ended.bytes += bytes;
        if self.ended.first_byte.is_none() {
            self.ended.first_byte = Some(now().saturating_sub(self.picked));
        }
    }

    pub(super) fn note_passed(&mut self, bytes: u64) {
        self.ended.bytes = bytes;
    }

    /// Notes a status and the seconds to wait, of a response that is simulated.
    pub(crate) fn note_status(&mut self, status: u16, retry_after: Option<u32>) {
        (self.ended.status, self.ended.retry_after) = (Some(status), retry_after);
    }

    /// Notes why it ended, and when. Of several calls the first one counts.
    pub(crate) fn end(&mut self, why: EndReason, now: u64) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.ended.why = why;
            self.ended.now = now;
            self.ended.took = now.saturating_sub(self.picked);
        }
    }
}

impl Drop for TryNotes {
    fn drop(&mut self) {
        if !self.is_over && self.ended.why != EndReason::Unsent {
            self.end(self.ended.why, micros(Instant::now()));
        }
        self.listener.try_ended(self.generation, self.ended);
    }
}

/// The seconds of `Retry-After` (RFC 9110, 10.2.3), which has a number of them or a date.
fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<u32> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().unwrap_or(u32::MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed asks for no wait.
    let left = date.duration_since(now()).unwrap_or_default();
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;

    use super::super::{Endpoint, InFlight};
    use super::*;

    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<(u64, EndedTry)>>);

    impl TryListener for Told {
        fn try_ended(&self, generation: u64, ended: EndedTry) {
            self.0.lock().push((generation, ended));
        }
    }

    fn tried(told: &Arc<Told>) -> InFlight {
        let address = ([127, 0, 0, 1], 80).into();
        let endpoint = Arc::new(Endpoint::new(1, address, "a".into(), 1));
        InFlight::new(endpoint).noted(Some(notes(told)))
    }

    fn notes(told: &Arc<Told>) -> Box<TryNotes> {
        let listener = Arc::clone(told) as Arc<dyn TryListener>;
        Box::new(TryNotes::new(listener, 3, 1, 7, 1000))
    }

    #[test]
    fn a_try_is_reported_once_with_what_was_noted() {
        let told = Arc::<Told>::default();
        let mut in_flight = tried(&told);
        let headers = [(RETRY_AFTER, "30".parse().unwrap())];
        in_flight.note_head(
            StatusCode::TOO_MANY_REQUESTS,
            &headers.into_iter().collect(),
        );
        in_flight.note_bytes(5, || 1500);
        in_flight.note_bytes(6, || 1600);
        in_flight.end(EndReason::Complete, || 1700);
        in_flight.end(EndReason::Broken, || 1800);
        drop(in_flight);
        let ended = EndedTry {
            endpoint: 1,
            tag: 7,
            now: 1700,
            status: Some(429),
            retry_after: Some(30),
            first_byte: Some(500),
            took: 700,
            bytes: 11,
            why: EndReason::Complete,
        };
        assert_eq!(*told.0.lock(), [(3, ended)]);
    }

    #[test]
    fn a_try_without_a_noted_end_was_left_by_its_client_or_not_sent() {
        let told = Arc::<Told>::default();
        drop(tried(&told));
        drop(notes(&told));
        let told = told.0.lock();
        let reasons = told.iter().map(|(_, ended)| ended.why);
        assert!(reasons.eq([EndReason::Client, EndReason::Unsent]));
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let seconds = |value: &str| {
            let headers = [(RETRY_AFTER, value.parse().unwrap())];
            let now = || UNIX_EPOCH + Duration::from_millis(784_111_777_500);
            retry_after(&headers.into_iter().collect(), now)
        };
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("99999999999999999999"), Some(u32::MAX));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:48 GMT"), Some(11));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        for other in ["", "soon", "-1", "1.5"] {
            assert_eq!(seconds(other), None, "{other}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now), None);
    }
}
