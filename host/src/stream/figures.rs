//! What has happened to streams.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shortest time between two log lines about streams without a route. With a line for each stream,
/// clients could fill the disk.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// What has happened to the streams of all workers.
#[derive(Debug, Default)]
pub struct StreamFigures {
    /// Streams that are open.
    active: AtomicU64,
    /// Connections that were refused because as many were open as there may be.
    refused: AtomicU64,
    /// Connections that were closed because their address had reached its limit.
    refused_of_address: AtomicU64,
    /// Sessions of UDP that did not begin because as many were open as there may be.
    refused_sessions: AtomicU64,
    /// Idle sessions of UDP that gave way to new ones.
    displaced_sessions: AtomicU64,
    /// Streams without a route, since the last log line about them.
    unmatched: Mutex<Unmatched>,
    /// Bytes from clients.
    received: AtomicU64,
    /// Bytes to clients.
    sent: AtomicU64,
    ended: [AtomicU64; StreamStatus::ALL.len()],
}

/// How a stream has ended, as a status of HTTP. Source: nginx, `$status` of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamStatus {
    /// Its bytes were passed.
    Ok,
    /// It was malformed: a handshake or a header of the PROXY protocol failed.
    BadRequest,
    /// A policy has refused it.
    Forbidden,
    /// There is no route for it.
    NoRoute,
    /// No endpoint could be connected to.
    BadGateway,
    /// Its route has no service, its service no endpoint, or a limit was reached.
    Unavailable,
}

impl StreamStatus {
    pub(super) const ALL: [Self; 6] = [
        Self::Ok,
        Self::BadRequest,
        Self::Forbidden,
        Self::NoRoute,
        Self::BadGateway,
        Self::Unavailable,
    ];

    /// The number.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NoRoute => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
        }
    }
}

/// Counts a stream as open until it is dropped.
pub(super) struct OpenStream<'a> {
    figures: &'a StreamFigures,
    /// How it ends, as far as it is known.
    pub(super) status: StreamStatus,
}

impl StreamFigures {
    pub(super) fn open(&self) -> OpenStream<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        OpenStream {
            figures: self,
            status: StreamStatus::BadRequest,
        }
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse_of_address(&self) {
        self.refused_of_address.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse_session(&self) {
        self.refused_sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn displace_session(&self) {
        self.displaced_sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs that a stream to `destination` has no route, if no line about such streams is recent.
    pub(super) fn note_unmatched(&self, destination: SocketAddr) {
        let count = self.unmatched.lock().count(Instant::now());
        if let Some(count) = count {
            tracing::info!(
                %destination,
                "no route of protocol tcp, tls, tls_passthrough or udp matches a stream to this \
                 address ({count} such streams since the last line; \
                 pointsman_stream_sessions_total{{code=\"500\"}} counts them)"
            );
        }
    }

    pub(super) fn pass(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// Streams that are open.
    pub(crate) fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Connections that were refused because as many were open as there may be.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that were closed because their address had reached its limit.
    pub(crate) fn refused_of_address(&self) -> u64 {
        self.refused_of_address.load(Ordering::Relaxed)
    }

    /// What new sessions of UDP met that were over the limit: idle ones that gave way to them, and
    /// none.
    pub(crate) fn sessions_over_limit(&self) -> [(&'static str, u64); 2] {
        [
            ("displaced", &self.displaced_sessions),
            ("refused", &self.refused_sessions),
        ]
        .map(|(outcome, number)| (outcome, number.load(Ordering::Relaxed)))
    }

    /// Streams that have ended, by their status.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (u16, u64)> {
        let ended = StreamStatus::ALL.into_iter().zip(&self.ended);
        ended.map(|(status, number)| (status.code(), number.load(Ordering::Relaxed)))
    }

    /// Bytes that were passed, by their direction as seen from the gateway.
    pub(crate) fn bytes(&self) -> [(&'static str, u64); 2] {
        [("ingress", &self.received), ("egress", &self.sent)]
            .map(|(direction, number)| (direction, number.load(Ordering::Relaxed)))
    }
}

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        let figures = self.figures;
        figures.active.fetch_sub(1, Ordering::Relaxed);
        figures.ended[self.status as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Streams without a route.
#[derive(Debug, Default)]
struct Unmatched {
    /// Since the last log line.
    count: u64,
    noted: Option<Instant>,
}

impl Unmatched {
    /// Counts a stream. Returns how many there were if it is time for a log line.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.noted.is_some_and(|noted| now - noted < WARN_INTERVAL) {
            return None;
        }
        self.noted = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_without_a_route_are_logged_once_a_minute() {
        let (mut unmatched, start) = (Unmatched::default(), Instant::now());
        let lines = [0, 1, 59, 60, 61].map(|second| {
            let now = start + Duration::from_secs(second);
            unmatched.count(now)
        });
        assert_eq!(lines, [Some(1), None, None, Some(3), None]);
    }

    #[test]
    fn every_status_has_a_counter_of_its_own() {
        let figures = StreamFigures::default();
        for (position, status) in StreamStatus::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, position);
            figures.open().status = status;
        }
        assert_eq!(figures.active(), 0);
        assert!(figures.ended().all(|(_, number)| number == 1));
    }
}
