//! The requests that fetch missing responses, and those that wait for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Cache;
use crate::policy::proxy_cache::key::Slot;

/// How long requests for a slot do not wait for each other after a response that cannot be stored,
/// unless one is stored before. Source: the "hit-for-miss" of Varnish.
const UNSHARED: Duration = Duration::from_secs(120);

pub(super) type Fetches = HashMap<Slot, watch::Sender<Progress>>;

/// What a request for a response that is missing does.
pub(in crate::policy::proxy_cache) enum Turn {
    /// It fetches the response, and others wait for it.
    Fetch(Fetch),
    /// It waits for another request to fetch the response.
    Wait(watch::Receiver<Progress>),
    /// It waits for none, and none waits for it.
    Alone,
}

/// How far a request is that fetches a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy::proxy_cache) enum Progress {
    Fetching,
    Stored,
    /// No response was stored.
    Failed,
    /// It has ended early, such as by the end of its client. Another request can take its place.
    Abandoned,
}

impl Cache {
    /// What a request for a missing response does. `may_fetch` is whether its response is one that
    /// others can wait for.
    pub(in crate::policy::proxy_cache) fn turn(
        self: &Arc<Self>,
        slot: Slot,
        may_fetch: bool,
    ) -> Turn {
        if self
            .unshared
            .get(&slot)
            .is_some_and(|end| end > Instant::now())
        {
            return Turn::Alone;
        }
        let mut fetches = self.fetches.lock();
        match fetches.get(&slot) {
            Some(progress) => Turn::Wait(progress.subscribe()),
            None if may_fetch => {
                let progress = watch::Sender::new(Progress::Fetching);
                fetches.insert(slot, progress.clone());
                Turn::Fetch(Fetch {
                    cache: Arc::clone(self),
                    slot,
                    progress,
                })
            }
            None => Turn::Alone,
        }
    }

    /// Ends the waits for a response that takes too long: an endless one would otherwise make each
    /// further request wait as long.
    pub(in crate::policy::proxy_cache) fn give_up(
        &self,
        slot: Slot,
        waiting: &watch::Receiver<Progress>,
    ) {
        let mut fetches = self.fetches.lock();
        let progress = fetches.get(&slot);
        if progress.is_some_and(|progress| progress.subscribe().same_channel(waiting)) {
            self.do_not_share(slot);
            end_waits(&mut fetches, slot, Progress::Failed);
        }
    }

    /// For a while, requests for this slot do not wait for each other.
    fn do_not_share(&self, slot: Slot) {
        self.unshared.insert(slot, Instant::now() + UNSHARED);
    }
}

/// A request that fetches a response. When it is dropped, one of those that wait for it takes its
/// place: the client of a request may leave at any time, and all others would ask the endpoint at
/// once.
#[derive(Debug)]
pub(in crate::policy::proxy_cache) struct Fetch {
    cache: Arc<Cache>,
    slot: Slot,
    progress: watch::Sender<Progress>,
}

impl Fetch {
    /// The response is stored.
    pub(in crate::policy::proxy_cache) fn done(self) {
        self.end(Progress::Stored);
    }

    /// There is no response, or none that could be stored this time. Those that wait go on.
    pub(in crate::policy::proxy_cache) fn failed(self) {
        self.end(Progress::Failed);
    }

    /// The response cannot be stored. For a while, requests for this slot do not wait for each
    /// other.
    pub(in crate::policy::proxy_cache) fn not_stored(self) {
        self.cache.do_not_share(self.slot);
        self.end(Progress::Failed);
    }

    /// Ends the waits, unless the requests that waited have given up before.
    fn end(&self, progress: Progress) {
        let mut fetches = self.cache.fetches.lock();
        let current = fetches.get(&self.slot);
        if current.is_some_and(|current| current.same_channel(&self.progress)) {
            end_waits(&mut fetches, self.slot, progress);
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.end(Progress::Abandoned);
    }
}

/// Ends the waits for the response that is fetched for a slot.
fn end_waits(fetches: &mut Fetches, slot: Slot, progress: Progress) {
    if let Some(waits) = fetches.remove(&slot) {
        waits.send_replace(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cache, identity, stored};
    use super::*;

    #[test]
    fn one_request_fetches_and_the_others_wait_for_it() {
        let cache = cache();
        let slot = identity(1).slot;
        let Turn::Fetch(fetch) = cache.turn(slot, true) else {
            panic!("the first request does not fetch");
        };
        let Turn::Wait(mut waiting) = cache.turn(slot, true) else {
            panic!("the second request does not wait");
        };
        assert!(matches!(cache.turn(identity(2).slot, false), Turn::Alone));
        assert_eq!(*waiting.borrow_and_update(), Progress::Fetching);
        fetch.done();
        assert_eq!(*waiting.borrow_and_update(), Progress::Stored);
        let Turn::Fetch(fetch) = cache.turn(slot, true) else {
            panic!("no request fetches, and this one does not either");
        };
        let Turn::Wait(mut waiting) = cache.turn(slot, true) else {
            panic!("the second request does not wait");
        };
        fetch.not_stored();
        assert_eq!(*waiting.borrow_and_update(), Progress::Failed);
        assert!(matches!(cache.turn(slot, true), Turn::Alone));
        assert!(cache.store(slot, stored(b"a"), cache.asked()));
        let Turn::Fetch(fetch) = cache.turn(slot, true) else {
            panic!("a stored response ends the time without waits");
        };
        fetch.failed();
        assert!(matches!(cache.turn(slot, true), Turn::Fetch(_)));
    }

    #[test]
    fn one_request_takes_the_place_of_an_abandoned_one() {
        let cache = cache();
        let slot = identity(1).slot;
        let Turn::Fetch(fetch) = cache.turn(slot, true) else {
            panic!("the first request does not fetch");
        };
        let Turn::Wait(waiting) = cache.turn(slot, true) else {
            panic!("the second request does not wait");
        };
        drop(fetch);
        assert_eq!(*waiting.borrow(), Progress::Abandoned);
        let Turn::Fetch(_fetch) = cache.turn(slot, true) else {
            panic!("no request takes its place");
        };
        assert!(matches!(cache.turn(slot, true), Turn::Wait(_)));
    }

    #[test]
    fn once_a_request_gives_up_all_do_and_later_ones_do_not_wait() {
        let cache = cache();
        let slot = identity(1).slot;
        let Turn::Fetch(endless) = cache.turn(slot, true) else {
            panic!("the first request does not fetch");
        };
        let (Turn::Wait(first), Turn::Wait(second)) =
            (cache.turn(slot, true), cache.turn(slot, true))
        else {
            panic!("the others do not wait");
        };
        cache.give_up(slot, &first);
        assert_eq!(*second.borrow(), Progress::Failed);
        assert!(matches!(cache.turn(slot, true), Turn::Alone));
        // The end of the request that is given up concerns none that fetches later.
        assert!(cache.store(slot, stored(b"a"), cache.asked()));
        let Turn::Fetch(_later) = cache.turn(slot, true) else {
            panic!("a stored response ends the time without waits");
        };
        drop(endless);
        cache.give_up(slot, &first);
        assert!(matches!(cache.turn(slot, true), Turn::Wait(_)));
    }
}
