//! Which thread adds to which series. Each thread has series of its own, found without a lock, and
//! locks only when it needs one that it has not had before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::series::{Series, SeriesFigures};

/// Most keys of a thread. What would need another one is not counted.
const MOST_KEYS: usize = 100_000;

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) route: Uuid,
    /// Whether the route is for streams, and not for requests.
    pub(super) is_stream: bool,
    pub(super) service: Option<Uuid>,
    /// The consumer, with `per_consumer`.
    pub(super) consumer: Option<Uuid>,
}

/// The series of a thread, as others see them.
#[derive(Debug, Default)]
struct Shard(Mutex<foldhash::HashMap<Key, Arc<Series>>>);

/// The series of all threads.
#[derive(Debug)]
pub(super) struct Shards {
    /// Distinguishes these shards from others in the memory of a thread.
    number: u64,
    all: Mutex<Vec<Arc<Shard>>>,
    /// How often series were forgotten.
    forgotten: AtomicU64,
}

/// The series of a thread, as it sees them.
struct Own {
    of: u64,
    shard: Arc<Shard>,
    forgotten: u64,
    series: foldhash::HashMap<Key, Arc<Series>>,
}

thread_local! {
    /// There is one element in a gateway, and one for each test in a test.
    static OWN: RefCell<Vec<Own>> = const { RefCell::new(Vec::new()) };
}

impl Default for Shards {
    fn default() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            all: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Shards {
    /// Calls `count` with this thread's series of a key. Returns false, without a call, if the
    /// thread has as many series as it may have.
    pub(super) fn with(&self, key: Key, count: impl FnOnce(&Series)) -> bool {
        OWN.with_borrow_mut(|all| {
            let place = all.iter().position(|own| own.of == self.number);
            let place = place.unwrap_or_else(|| {
                all.push(self.join());
                all.len() - 1
            });
            let Some(own) = all.get_mut(place) else {
                return false;
            };
            let forgotten = self.forgotten.load(Ordering::Relaxed);
            if own.forgotten != forgotten {
                own.forgotten = forgotten;
                own.series.clear();
            }
            if let Some(series) = own.series.get(&key) {
                count(series);
                return true;
            }
            let Some(series) = own.shard.series(key) else {
                return false;
            };
            count(&series);
            own.series.insert(key, series);
            true
        })
    }

    /// Adds a shard for this thread.
    fn join(&self) -> Own {
        let shard = Arc::<Shard>::default();
        self.all.lock().push(Arc::clone(&shard));
        Own {
            of: self.number,
            shard,
            forgotten: self.forgotten.load(Ordering::Relaxed),
            series: foldhash::HashMap::default(),
        }
    }

    /// The figures of all threads, joined.
    pub(super) fn figures(&self) -> HashMap<Key, SeriesFigures> {
        let mut figures: HashMap<Key, SeriesFigures> = HashMap::new();
        let shards = self.all.lock().clone();
        for shard in shards {
            // A worker waits for this lock only with the first request of a key. Copying the
            // references takes some nanoseconds for each key.
            let series: Vec<_> = {
                let series = shard.0.lock();
                let series = series
                    .iter()
                    .map(|(key, series)| (*key, Arc::clone(series)));
                series.collect()
            };
            for (key, series) in series {
                figures.entry(key).or_default().add(series.figures());
            }
        }
        figures
    }

    /// Forgets what was counted for these keys.
    pub(super) fn forget(&self, gone: &[Key]) {
        for shard in &*self.all.lock() {
            let mut series = shard.0.lock();
            for key in gone {
                series.remove(key);
            }
        }
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shard {
    /// The series of a key, which is added if there is room.
    fn series(&self, key: Key) -> Option<Arc<Series>> {
        let mut all = self.0.lock();
        if all.len() >= MOST_KEYS && !all.contains_key(&key) {
            return None;
        }
        Some(Arc::clone(all.entry(key).or_default()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn key(route: u128) -> Key {
        Key {
            route: Uuid::from_u128(route),
            is_stream: false,
            service: None,
            consumer: None,
        }
    }

    fn count(shards: &Shards, route: u128) {
        assert!(shards.with(key(route), |series| series.count_status(200, true)));
    }

    #[test]
    fn what_threads_count_is_joined() {
        let shards = Shards::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for route in 0..600 {
                        count(&shards, route);
                    }
                });
            }
        });
        let figures = shards.figures();
        assert_eq!(figures.len(), 600);
        let mut all = figures.values();
        assert!(all.all(|figures| figures.statuses == [((200, true), 3)]));
    }

    #[test]
    fn a_key_that_was_forgotten_counts_from_the_beginning() {
        let shards = Shards::default();
        for route in [1, 1, 2] {
            count(&shards, route);
        }
        shards.forget(&[key(1)]);
        assert!(!shards.figures().contains_key(&key(1)));
        count(&shards, 1);
        count(&shards, 2);
        let figures = shards.figures();
        let of = |route| figures.get(&key(route)).unwrap().statuses.clone();
        assert_eq!(of(1), [((200, true), 1)]);
        assert_eq!(of(2), [((200, true), 2)]);
    }
}
