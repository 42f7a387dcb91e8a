//! The responses that are stored, in memory.

mod fetch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::key::{Identity, Key};
use super::receive::Budget;
use super::rules::Freshness;
use super::vary::Varying;
use fetch::Fetches;
pub(super) use fetch::{Fetch, Progress, Turn};

/// Parts that the memory is divided into, each with a lock of its own.
const PARTS: usize = 4;

/// Most responses of one key that differ in the headers which they name in `Vary`.
const VARIANTS: usize = 16;

/// Most keys of responses that cannot be stored which are remembered.
const UNSHARED_KEYS: usize = 10_000;

/// Memory that a response takes besides its body and its headers, approximately, in bytes.
const FRAME: usize = 1024;

/// Memory that a header takes besides its name and its value, approximately, in bytes.
const HEADER_OVERHEAD: usize = 64;

/// A response that is stored.
#[derive(Debug)]
pub struct Stored {
    /// The status.
    pub status: StatusCode,
    /// The headers, without those of the connection and of the length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When it was stored.
    pub stored: SystemTime,
    /// How long it is fresh from then on.
    pub ttl: Duration,
    /// How long it is kept from then on.
    pub(super) kept_for: Duration,
    pub(super) since: Instant,
    /// How long it is fresh by its own words, if these count.
    pub(super) freshness: Option<Freshness>,
    /// What its key was made of.
    pub(super) parts: Box<[u8]>,
    /// Which requests it answers, by the headers that it depends on.
    pub(super) varying: Varying,
}

impl Stored {
    /// Whether it is the response to a request with this identity and these headers.
    fn is_for(&self, parts: &[u8], headers: &HeaderMap) -> bool {
        *self.parts == *parts && self.varying.answers(headers)
    }

    /// Whether it takes the place of another one.
    fn replaces(&self, other: &Self) -> bool {
        self.parts == other.parts && self.varying.replaces(&other.varying)
    }

    /// Seconds since it was stored.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.age(now) >= self.kept_for
    }

    /// Approximate memory that it takes, in bytes.
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers =
            headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
        let varying = self.varying.lengths();
        let varying = varying.map(|length| length + HEADER_OVERHEAD);
        FRAME + self.body.len() + self.parts.len() + headers.chain(varying).sum::<usize>()
    }
}

/// The responses of one key, the newest first.
#[derive(Debug, Clone, Default)]
struct Entry(Arc<[Arc<Stored>]>);

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<Key, Entry> for BySize {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        entry.0.iter().map(|stored| stored.size() as u64).sum()
    }
}

/// The cache of all plugins of this kind.
#[derive(Debug)]
pub struct Cache {
    entries: Entries<Key, Entry, BySize>,
    /// Held while the responses of a key are replaced by others.
    changing: Mutex<()>,
    /// The requests that fetch a response, by the key that they fetch, with what tells others of
    /// the end.
    fetches: Mutex<Fetches>,
    /// Until when requests for a key do not wait for each other.
    unshared: Entries<Key, Instant>,
    /// Counts how often responses were removed: what was fetched before is not stored after.
    removals: AtomicU64,
    /// The memory of the bodies that are being received.
    pub(super) receiving: Arc<Budget>,
    /// Largest response that is stored, in bytes.
    pub(super) largest: usize,
    /// Longest wait for a response that another request fetches.
    pub(super) patience: Duration,
}

impl Cache {
    /// A cache that takes this much memory, in bytes, and in which a request waits for at most
    /// `patience` for a response that another one fetches. A quarter of the memory is for the
    /// bodies that are being received.
    pub fn new(memory: usize, patience: Duration) -> Self {
        let for_received = memory / 4;
        let for_stored = memory - for_received;
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity((for_stored >> 13).max(PARTS * 32))
            .weight_capacity(for_stored as u64)
            .build();
        let entries = match options {
            Ok(options) => Entries::with_options(
                options,
                BySize,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // All options are set, so this does not happen.
            Err(_) => Entries::with_weighter(1024, for_stored as u64, BySize),
        };
        Self {
            entries,
            changing: Mutex::default(),
            fetches: Mutex::default(),
            unshared: Entries::new(UNSHARED_KEYS),
            removals: AtomicU64::new(0),
            receiving: Arc::new(Budget::new(for_received)),
            largest: memory / 16,
            patience,
        }
    }

    /// The response to a request, fresh or not.
    pub(super) fn find(&self, identity: &Identity, headers: &HeaderMap) -> Option<Arc<Stored>> {
        let now = Instant::now();
        let entry = self.entries.get(&identity.key)?;
        let mut found = entry.0.iter();
        found
            .find(|stored| !stored.is_expired(now) && stored.is_for(&identity.parts, headers))
            .cloned()
    }

    /// All responses of a key, the newest first.
    pub fn responses(&self, key: &Key) -> Vec<Arc<Stored>> {
        let now = Instant::now();
        let entry = self.entries.get(key).unwrap_or_default();
        let kept = entry.0.iter().filter(|stored| !stored.is_expired(now));
        kept.cloned().collect()
    }

    /// Removes the responses of a key. Returns whether there were any.
    pub fn remove(&self, key: &Key) -> bool {
        let is_found = !self.responses(key).is_empty();
        let _changing = self.changing.lock();
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.entries.remove(key);
        is_found
    }

    /// Removes all responses.
    pub fn clear(&self) {
        let _changing = self.changing.lock();
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
    }

    /// How often responses were removed.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Stores a response, unless responses were removed since `removals`. Returns whether it is
    /// stored.
    pub(super) fn store(&self, key: Key, stored: Stored, removals: u64) -> bool {
        if stored.size() > self.largest + FRAME {
            return false;
        }
        let now = Instant::now();
        let _changing = self.changing.lock();
        if self.removals() != removals {
            return false;
        }
        let old = self.entries.get(&key).unwrap_or_default();
        let others = old.0.iter().filter(|old| {
            !old.is_expired(now) && old.parts == stored.parts && !stored.replaces(old)
        });
        let mut room = 2 * (self.largest + FRAME) - stored.size();
        let others = others.take(VARIANTS - 1).take_while(|other| {
            let fits = room.checked_sub(other.size());
            room = fits.unwrap_or_default();
            fits.is_some()
        });
        let others: Vec<_> = others.cloned().collect();
        let entry = std::iter::once(Arc::new(stored)).chain(others);
        self.entries.insert(key, Entry(entry.collect()));
        self.unshared.remove(&key);
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
pub(super) mod tests {
    use super::super::vary::tests::coded;
    use super::*;

    pub(in super::super) fn stored(body: &[u8]) -> Stored {
        Stored {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body),
            stored: SystemTime::now(),
            ttl: Duration::from_secs(60),
            kept_for: Duration::from_secs(60),
            since: Instant::now(),
            freshness: None,
            parts: Box::default(),
            varying: Varying::default(),
        }
    }

    pub(super) fn identity(number: u8) -> Identity {
        Identity {
            key: Key::parse(&format!("{number:064x}")).unwrap(),
            parts: Box::default(),
        }
    }

    pub(super) fn cache() -> Arc<Cache> {
        Arc::new(Cache::new(1 << 20, Duration::from_secs(5)))
    }

    fn of_encoding(encoding: Option<&str>) -> HeaderMap {
        let encoding = encoding.into_iter();
        encoding
            .map(|value| (http::header::ACCEPT_ENCODING, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn each_request_gets_the_variant_for_its_headers() {
        let cache = cache();
        let identity = identity(1);
        let encodings = [None, Some("gzip"), Some("br")];
        for encoding in encodings {
            let mut response = stored(encoding.unwrap_or("plain").as_bytes());
            response.varying = coded(encoding.unwrap_or_default(), encoding.unwrap_or_default());
            assert!(cache.store(identity.key, response, 0));
        }
        for encoding in encodings {
            let found = cache.find(&identity, &of_encoding(encoding)).unwrap();
            assert_eq!(found.body, encoding.unwrap_or("plain"));
        }
        assert!(cache.find(&identity, &of_encoding(Some("zstd"))).is_none());
        assert_eq!(cache.responses(&identity.key).len(), 3);
        assert!(cache.remove(&identity.key));
        assert!(!cache.remove(&identity.key));
        assert!(cache.find(&identity, &of_encoding(None)).is_none());
    }

    #[test]
    fn a_request_does_not_get_the_response_to_another_with_its_key() {
        let cache = cache();
        let identity = identity(1);
        assert!(cache.store(identity.key, stored(b"a"), 0));
        let other = Identity {
            key: identity.key,
            parts: b"other".as_slice().into(),
        };
        assert!(cache.find(&other, &HeaderMap::new()).is_none());
        assert!(cache.find(&identity, &HeaderMap::new()).is_some());
    }

    #[test]
    fn a_response_is_gone_when_its_time_is_over() {
        let cache = cache();
        let mut response = stored(b"a");
        response.kept_for = Duration::ZERO;
        assert!(cache.store(identity(1).key, response, 0));
        assert!(cache.find(&identity(1), &HeaderMap::new()).is_none());
        assert!(cache.responses(&identity(1).key).is_empty());
    }

    #[test]
    fn the_responses_take_no_more_memory_than_allowed() {
        let cache = cache();
        assert!(!cache.store(identity(0).key, stored(&vec![0; 1 << 17]), 0));
        for number in 0..=255 {
            assert!(cache.store(identity(number).key, stored(&vec![0; 60_000]), 0));
            assert!(cache.entries.weight() <= 1 << 20);
        }
        assert!(cache.entries.len() >= 8);
        for number in 0..255_u8 {
            let coding = format!("coding-{number}");
            let mut response = stored(&vec![0; 60_000]);
            response.varying = coded(&coding, &coding);
            assert!(cache.store(identity(1).key, response, 0));
            assert!(
                cache
                    .find(&identity(1), &of_encoding(Some(&coding)))
                    .is_some()
            );
        }
        assert!(cache.responses(&identity(1).key).len() <= VARIANTS);
        assert!(cache.entries.weight() <= 1 << 20);
    }

    #[test]
    fn what_was_fetched_before_a_removal_is_not_stored_after_it() {
        let cache = cache();
        let before = cache.removals();
        cache.clear();
        assert!(!cache.store(identity(1).key, stored(b"a"), before));
        assert!(cache.store(identity(1).key, stored(b"a"), cache.removals()));
    }
}
