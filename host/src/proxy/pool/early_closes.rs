//! Endpoints that close a connection soon after an answer and have not said so.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::super::wire::Destination;

/// How soon after its only answer a connection is closed early. A request that is sent at that
/// moment is lost, and one that must not be repeated, as most POSTs, fails.
const SOON: Duration = Duration::from_secs(1);

/// Connections in turn, without one that served another request, after which none are kept.
const ENOUGH: u8 = 3;

/// How long none are kept. After that, one that is closed early suffices.
const PAUSE: Duration = Duration::from_secs(60);

/// What a worker has seen of this. llama.cpp's server does so after each answer that it has
/// streamed: of 400 POSTs that came right after one another, two to seven failed (its version of
/// October 2026).
#[derive(Default)]
pub(super) struct EarlyCloses {
    seen: RefCell<HashMap<Destination, Seen>>,
    /// Whether `seen` has anything: others need not look.
    any: Cell<bool>,
}

struct Seen {
    count: u8,
    /// When a connection was last closed early.
    last: Instant,
    /// Until when none are kept.
    until: Option<Instant>,
}

impl EarlyCloses {
    /// A connection was found closed that has served `requests`, and is idle since `since`.
    pub(super) fn note_closed(&self, destination: &Destination, requests: u32, since: Instant) {
        let now = Instant::now();
        if requests != 1 || now.saturating_duration_since(since) > SOON {
            return;
        }
        self.any.set(true);
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry(destination.clone()).or_insert(Seen {
            count: 0,
            last: now,
            until: None,
        });
        seen.count += 1;
        seen.last = now;
        if seen.count >= ENOUGH {
            seen.count = ENOUGH - 1;
            seen.until = Some(now + PAUSE);
        }
    }

    /// A connection has served another request.
    pub(super) fn note_reused(&self, destination: &Destination) {
        if self.any.get() {
            let mut seen = self.seen.borrow_mut();
            seen.remove(destination);
            self.any.set(!seen.is_empty());
        }
    }

    /// Whether connections to this destination are not kept for now.
    pub(super) fn keeps_none(&self, destination: &Destination, now: Instant) -> bool {
        self.any.get() && {
            let seen = self.seen.borrow();
            let until = seen.get(destination).and_then(|seen| seen.until);
            until.is_some_and(|until| now < until)
        }
    }

    /// Forgets what is long ago. To be called every few seconds.
    pub(super) fn tidy(&self) {
        self.tidy_at(Instant::now());
    }

    fn tidy_at(&self, now: Instant) {
        if self.any.get() {
            let mut seen = self.seen.borrow_mut();
            // As long again after the end of a pause, which begins with the last close.
            seen.retain(|_, seen| now < seen.last + 2 * PAUSE);
            self.any.set(!seen.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> Destination {
        Destination {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
            tls: None,
            http2: None,
            owner: 0,
            proxied: None,
        }
    }

    #[test]
    fn no_connection_is_kept_to_an_endpoint_that_closes_early() {
        let closes = EarlyCloses::default();
        let (of, now) = (destination(1), Instant::now());
        for _ in 0..ENOUGH {
            assert!(!closes.keeps_none(&of, now));
            closes.note_closed(&of, 1, now);
        }
        assert!(closes.keeps_none(&of, now) && !closes.keeps_none(&destination(2), now));
        // After a pause, another one suffices.
        let later = now + 2 * PAUSE;
        assert!(!closes.keeps_none(&of, later));
        closes.note_closed(&of, 1, now);
        assert!(closes.keeps_none(&of, Instant::now()));
    }

    #[test]
    fn an_endpoint_that_keeps_connections_open_is_not_one() {
        let closes = EarlyCloses::default();
        let (of, now) = (destination(1), Instant::now());
        let long_ago = now.checked_sub(2 * SOON).unwrap_or(now);
        for _ in 0..3 * ENOUGH {
            // One that has served two requests; idle for long; and one that served another request
            // in between.
            closes.note_closed(&of, 2, now);
            closes.note_closed(&of, 1, long_ago);
            closes.note_closed(&of, 1, now);
            closes.note_reused(&of);
            assert!(!closes.keeps_none(&of, now));
        }
        closes.note_closed(&of, 1, now);
        closes.tidy();
        assert!(closes.any.get());
        closes.tidy_at(now + 3 * PAUSE);
        assert!(!closes.any.get());
    }
}
