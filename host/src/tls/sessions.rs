//! Sessions that clients resume: in tickets that clients keep, or in a cache of the gateway.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::{Error, ServerConfig};

/// How clients may resume sessions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SessionSettings {
    /// Whether clients get their sessions as tickets.
    pub(crate) tickets: bool,
    /// How long a session may be resumed.
    pub(crate) timeout: Duration,
    /// How many sessions of clients without tickets are kept.
    pub(crate) cached: usize,
}

impl SessionSettings {
    /// Has a server let its clients resume sessions so.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn apply(&self, config: &mut ServerConfig) -> Result<(), Error> {
        let timeout = self.timeout;
        if self.tickets {
            // Tickets are sealed with a key that is replaced every six hours and forgotten six
            // hours later, so a stolen key opens no older connection.
            let sessions = ring::Ticketer::new()?;
            config.ticketer = Arc::new(Expiring { sessions, timeout });
        }
        config.session_storage = match self.cached {
            0 => Arc::new(NoServerSessionStorage {}),
            most => {
                let sessions = ServerSessionMemoryCache::new(most);
                Arc::new(Expiring { sessions, timeout })
            }
        };
        Ok(())
    }
}

/// Sessions with the time when they began, after which they may be resumed for `timeout`.
#[derive(Debug)]
struct Expiring<S> {
    sessions: S,
    timeout: Duration,
}

impl<S> Expiring<S> {
    /// A session with the present time.
    fn stamped(session: &[u8]) -> Vec<u8> {
        [session, &now().to_be_bytes()].concat()
    }

    /// The session, if it may be resumed still.
    fn fresh(&self, mut stamped: Vec<u8>) -> Option<Vec<u8>> {
        let (session, time) = stamped.split_last_chunk()?;
        let (length, began) = (session.len(), u64::from_be_bytes(*time));
        stamped.truncate(length);
        // A session of the future was made before the clock was set back.
        let age = now().checked_sub(began)?;
        (Duration::from_millis(age) < self.timeout).then_some(stamped)
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

impl ProducesTickets for Expiring<Arc<dyn ProducesTickets>> {
    fn enabled(&self) -> bool {
        self.sessions.enabled()
    }

    fn lifetime(&self) -> u32 {
        let timeout = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX);
        self.sessions.lifetime().min(timeout)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.sessions.encrypt(&Self::stamped(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.sessions.decrypt(cipher)?)
    }
}

impl<S: StoresServerSessions> StoresServerSessions for Expiring<Arc<S>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(key, Self::stamped(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.sessions.can_cache()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_session_is_resumed_until_its_time_is_over() {
        for (timeout, resumed) in [(DAY, Some(b"session".to_vec())), (Duration::ZERO, None)] {
            let sessions = ServerSessionMemoryCache::new(8);
            let cache = Expiring { sessions, timeout };
            assert!(cache.put(b"key".to_vec(), b"session".to_vec()));
            assert_eq!(cache.get(b"key"), resumed);
            assert_eq!(cache.take(b"key"), resumed);
            assert_eq!(cache.get(b"key"), None);

            let sessions = ring::Ticketer::new().unwrap();
            let tickets = Expiring { sessions, timeout };
            let ticket = tickets.encrypt(b"session").unwrap();
            assert_eq!(tickets.decrypt(&ticket), resumed);
        }
    }

    #[test]
    fn a_session_without_a_time_or_from_the_future_is_not_resumed() {
        let cache = Expiring {
            sessions: (),
            timeout: DAY,
        };
        assert_eq!(cache.fresh(b"short".to_vec()), None);
        let ahead = (now() + 60_000).to_be_bytes();
        assert_eq!(cache.fresh([&b"x"[..], &ahead].concat()), None);
    }

    #[test]
    fn a_client_is_sent_the_shorter_lifetime_of_tickets() {
        let lifetime = |timeout| {
            let sessions = ring::Ticketer::new().unwrap();
            Expiring { sessions, timeout }.lifetime()
        };
        assert_eq!(lifetime(Duration::from_secs(60)), 60);
        assert!(
            lifetime(DAY) < 86_400,
            "keys of tickets are kept for twelve hours"
        );
    }
}
