//! The responses that are stored, in memory.

mod fetch;
mod outdated;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::{Cache as Entries, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::key::{Identity, Key, Slot};
use super::receive::Budget;
use super::rules::Freshness;
use super::vary::Varying;
use fetch::Fetches;
pub(super) use fetch::{Fetch, Progress, Turn};
use outdated::Outdated;

/// Parts that the memory is divided into, each with a lock of its own.
const PARTS: usize = 4;

/// Most responses of one slot that differ in the headers which they name in `Vary`.
const VARIANTS: usize = 16;

/// Most responses of one key that an operator is shown.
const SHOWN: usize = 100;

/// Most slots of responses that cannot be stored which are remembered.
const UNSHARED_SLOTS: usize = 10_000;

/// Memory that a response takes besides its body and its headers, approximately, in bytes.
const FRAME: usize = 1024;

/// Memory that a header takes besides its name and its value, approximately, in bytes.
const HEADER_OVERHEAD: usize = 64;

/// When a response was asked for, to tell whether it is outdated once it has arrived.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// How often responses had been removed.
    removals: u64,
    /// `None` for a response that is not stored.
    at: Option<Instant>,
}

impl Asked {
    /// The response describes the state after the request, whatever the request has outdated. A
    /// removal by an operator still counts from when it was asked for.
    pub(super) fn renew(&mut self) {
        self.at = Some(Instant::now());
    }
}

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

/// The responses of one slot, the newest first.
#[derive(Debug, Clone, Default)]
struct Entry(Arc<[Arc<Stored>]>);

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<Slot, Entry> for BySize {
    fn weight(&self, _: &Slot, entry: &Entry) -> u64 {
        entry.0.iter().map(|stored| stored.size() as u64).sum()
    }
}

/// The cache of all plugins of this kind.
#[derive(Debug)]
pub struct Cache {
    entries: Entries<Slot, Entry, BySize>,
    /// Held while the responses of a slot are replaced by others. What was outdated is read and
    /// recorded meanwhile.
    changing: Mutex<Outdated>,
    /// The requests that fetch a response, by the slot that they fetch for, with what tells others
    /// of the end.
    fetches: Mutex<Fetches>,
    /// Until when requests for a slot do not wait for each other.
    unshared: Entries<Slot, Instant>,
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
            unshared: Entries::new(UNSHARED_SLOTS),
            removals: AtomicU64::new(0),
            receiving: Arc::new(Budget::new(for_received)),
            largest: memory / 16,
            patience,
        }
    }

    /// The response to a request, fresh or not.
    pub(super) fn find(&self, identity: &Identity, headers: &HeaderMap) -> Option<Arc<Stored>> {
        let now = Instant::now();
        let entry = self.entries.get(&identity.slot)?;
        let mut found = entry.0.iter();
        found
            .find(|stored| !stored.is_expired(now) && stored.is_for(&identity.parts, headers))
            .cloned()
    }

    /// The responses of a key, the newest first: at most 100, in at most an eighth of the memory.
    /// A client can make as many as it invents hosts.
    pub fn responses(&self, key: &Key) -> Vec<Arc<Stored>> {
        let now = Instant::now();
        let entries = self.entries.iter();
        let of_key = entries.filter(|(slot, _)| slot.key == *key);
        let mut kept: Vec<_> = of_key
            .flat_map(|(_, entry)| entry.0.to_vec())
            .filter(|stored| !stored.is_expired(now))
            .collect();
        kept.sort_by_key(|stored| Reverse(stored.since));
        let mut room = self.room();
        let fitting = kept.iter().take(SHOWN).take_while(|stored| {
            let fits = room.checked_sub(stored.size());
            room = fits.unwrap_or_default();
            fits.is_some()
        });
        let count = fitting.count();
        kept.truncate(count);
        kept
    }

    /// Most memory of the responses of one slot, and of those that an operator is shown, in bytes.
    fn room(&self) -> usize {
        2 * (self.largest + FRAME)
    }

    /// Removes the responses of a key. Returns whether there were any.
    pub fn remove(&self, key: &Key) -> bool {
        {
            let _changing = self.changing.lock();
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        // From here on, no response that was asked for before is stored. The workers are not held
        // up while all slots are looked through, only for each of those that are removed: a worker
        // may be about to store a new response beside the old ones.
        let now = Instant::now();
        let entries = self.entries.iter();
        let of_key: Vec<_> = entries.filter(|(slot, _)| slot.key == *key).collect();
        for (slot, _) in &of_key {
            let _changing = self.changing.lock();
            self.entries.remove(slot);
        }
        let mut removed = of_key.iter().flat_map(|(_, entry)| entry.0.iter());
        removed.any(|stored| !stored.is_expired(now))
    }

    /// Removes all responses.
    pub fn clear(&self) {
        let _changing = self.changing.lock();
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
    }

    /// Removes the responses of slots that a request has outdated.
    pub(super) fn invalidate(&self, slots: &[Slot]) {
        let mut outdated = self.changing.lock();
        let now = Instant::now();
        for slot in slots {
            outdated.record(*slot, now);
            self.entries.remove(slot);
        }
    }

    /// What to remember of a response that is asked for now.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            removals: self.removals.load(Ordering::SeqCst),
            at: Some(Instant::now()),
        }
    }

    /// Stores a response, unless responses were removed since it was asked for. Returns whether it
    /// is stored.
    pub(super) fn store(&self, slot: Slot, stored: Stored, asked: Asked) -> bool {
        if stored.size() > self.largest + FRAME {
            return false;
        }
        let now = Instant::now();
        let outdated = self.changing.lock();
        if self.removals.load(Ordering::SeqCst) != asked.removals {
            return false;
        }
        if asked.at.is_none_or(|at| outdated.covers(&slot, at)) {
            return false;
        }
        let old = self.entries.get(&slot).unwrap_or_default();
        let others = old.0.iter().filter(|old| {
            !old.is_expired(now) && old.parts == stored.parts && !stored.replaces(old)
        });
        let mut room = self.room() - stored.size();
        let others = others.take(VARIANTS - 1).take_while(|other| {
            let fits = room.checked_sub(other.size());
            room = fits.unwrap_or_default();
            fits.is_some()
        });
        let others: Vec<_> = others.cloned().collect();
        let entry = std::iter::once(Arc::new(stored)).chain(others);
        self.entries.insert(slot, Entry(entry.collect()));
        self.unshared.remove(&slot);
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
        let key = Key::parse(&format!("{number:064x}")).unwrap();
        Identity {
            slot: Slot::of(key, b""),
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
            assert!(cache.store(identity.slot, response, cache.asked()));
        }
        for encoding in encodings {
            let found = cache.find(&identity, &of_encoding(encoding)).unwrap();
            assert_eq!(found.body, encoding.unwrap_or("plain"));
        }
        assert!(cache.find(&identity, &of_encoding(Some("zstd"))).is_none());
        assert_eq!(cache.responses(&identity.slot.key).len(), 3);
        assert!(cache.remove(&identity.slot.key));
        assert!(!cache.remove(&identity.slot.key));
        assert!(cache.find(&identity, &of_encoding(None)).is_none());
    }

    #[test]
    fn a_request_does_not_get_the_response_to_another_with_its_key() {
        let cache = cache();
        let identity = identity(1);
        assert!(cache.store(identity.slot, stored(b"a"), cache.asked()));
        for slot in [identity.slot, Slot::of(identity.slot.key, b"other")] {
            let other = Identity {
                slot,
                parts: b"other".as_slice().into(),
            };
            assert!(cache.find(&other, &HeaderMap::new()).is_none());
        }
        assert!(cache.find(&identity, &HeaderMap::new()).is_some());
    }

    #[test]
    fn requests_with_one_key_have_their_responses_beside_each_other() {
        let cache = cache();
        let key = identity(1).slot.key;
        for number in 0..40_u8 {
            let mut response = stored(&[number]);
            response.parts = [number].into();
            assert!(cache.store(Slot::of(key, &[number]), response, cache.asked()));
        }
        for number in 0..40_u8 {
            let identity = Identity {
                slot: Slot::of(key, &[number]),
                parts: [number].into(),
            };
            let found = cache.find(&identity, &HeaderMap::new()).unwrap();
            assert_eq!(*found.body, [number]);
        }
        let bodies = cache.responses(&key).into_iter();
        assert_eq!(bodies.map(|stored| stored.body[0]).max(), Some(39));
        assert_eq!(cache.responses(&key).len(), 40);
        assert!(cache.remove(&key));
        assert!(cache.responses(&key).is_empty());
    }

    #[test]
    fn the_responses_that_are_shown_are_bounded_and_those_that_are_removed_are_not() {
        let cache = Cache::new(1 << 22, Duration::ZERO);
        let key = identity(1).slot.key;
        for number in 0..150_u8 {
            assert!(cache.store(Slot::of(key, &[number]), stored(&[number]), cache.asked()));
        }
        let shown = cache.responses(&key);
        assert_eq!((shown.len(), shown[0].body[0]), (SHOWN, 149));
        for number in 0..3_u8 {
            let large = stored(&vec![number; 200_000]);
            assert!(cache.store(Slot::of(key, &[number]), large, cache.asked()));
        }
        let shown = cache.responses(&key);
        assert!(shown.iter().map(|stored| stored.size()).sum::<usize>() <= cache.room());
        assert_eq!(shown[0].body[0], 2);
        assert!(cache.remove(&key));
        assert_eq!(cache.entries.len(), 0);
    }

    #[test]
    fn a_response_is_gone_when_its_time_is_over() {
        let cache = cache();
        let mut response = stored(b"a");
        response.kept_for = Duration::ZERO;
        assert!(cache.store(identity(1).slot, response, cache.asked()));
        assert!(cache.find(&identity(1), &HeaderMap::new()).is_none());
        assert!(cache.responses(&identity(1).slot.key).is_empty());
    }

    #[test]
    fn the_responses_take_no_more_memory_than_allowed() {
        let cache = cache();
        assert!(!cache.store(identity(0).slot, stored(&vec![0; 1 << 17]), cache.asked()));
        for number in 0..=255 {
            assert!(cache.store(
                identity(number).slot,
                stored(&vec![0; 60_000]),
                cache.asked()
            ));
            assert!(cache.entries.weight() <= 1 << 20);
        }
        assert!(cache.entries.len() >= 8);
        for number in 0..255_u8 {
            let coding = format!("coding-{number}");
            let mut response = stored(&vec![0; 60_000]);
            response.varying = coded(&coding, &coding);
            assert!(cache.store(identity(1).slot, response, cache.asked()));
            assert!(
                cache
                    .find(&identity(1), &of_encoding(Some(&coding)))
                    .is_some()
            );
        }
        assert!(cache.responses(&identity(1).slot.key).len() <= VARIANTS);
        assert!(cache.entries.weight() <= 1 << 20);
    }

    #[test]
    fn what_was_fetched_before_a_removal_is_not_stored_after_it() {
        let cache = cache();
        let before = cache.asked();
        cache.clear();
        assert!(!cache.store(identity(1).slot, stored(b"a"), before));
        assert!(cache.store(identity(1).slot, stored(b"a"), cache.asked()));
    }

    #[test]
    fn a_response_that_a_request_has_outdated_is_gone_and_what_was_asked_for_before_is_not_stored()
    {
        let cache = cache();
        let [changed, other] = [identity(1), identity(2)];
        for identity in [&changed, &other] {
            assert!(cache.store(identity.slot, stored(b"old"), cache.asked()));
        }
        let before = cache.asked();
        cache.invalidate(&[changed.slot]);
        assert!(cache.find(&changed, &HeaderMap::new()).is_none());
        assert!(cache.find(&other, &HeaderMap::new()).is_some());
        assert!(!cache.store(changed.slot, stored(b"old"), before));
        assert!(cache.store(other.slot, stored(b"old"), before));
        assert!(cache.store(changed.slot, stored(b"new"), cache.asked()));
    }
}
