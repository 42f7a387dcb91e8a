//! Targets as machines: each shares its cores evenly among the requests that it works on, or
//! batches them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::batch::{Batch, Job, Progress};
use super::cache::Cache;
use super::prompts::Prompt;
use super::quota::QuotaUse;
use super::scenario::{FaultKind, Group};
pub(super) use super::ticket::Ticket;

/// Nanoseconds since the start of the simulation.
pub(super) type Time = u64;

/// A time that is never reached.
pub(super) const NEVER: Time = u64::MAX;

/// A target and its machine.
#[derive(Debug)]
pub(super) struct Machine {
    cores: f64,
    machine: f64,
    speed: f64,
    /// Cores that the antagonist demands.
    pub(super) taken: f64,
    pub(super) fault: Option<(FaultKind, f64)>,
    /// Requests that it works on.
    working: usize,
    /// Work that a request present since the start would have received, in milliseconds of a core.
    attained: f64,
    /// The time of `attained`.
    updated: Time,
    /// Requests by the value of `attained` at which they are done. Requests that have left are
    /// still in it.
    queue: BinaryHeap<Reverse<(Work, Ticket)>>,
    /// Requests in progress, summed over time since the last call of [`Self::mean_working`].
    presence: f64,
    cache: Option<Cache>,
    /// What it has served of its quota, if it has one.
    pub(super) quota: Option<QuotaUse>,
    /// The queue and the batch, if it is an inference server that batches.
    batch: Option<Batch>,
    /// Time that a request and its response need on the network together.
    pub(super) distance: Time,
}

/// Work with an order: it is never NaN, because it is computed from finite numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Work(f64);

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Machine {
    pub(super) fn new(group: &Group) -> Self {
        Self {
            cores: group.cores,
            machine: group.machine.unwrap_or(group.cores),
            speed: group.speed,
            taken: 0.0,
            fault: None,
            working: 0,
            attained: 0.0,
            updated: 0,
            queue: BinaryHeap::new(),
            presence: 0.0,
            cache: group.cache.map(|cache| Cache::new(cache.blocks)),
            quota: group.quota.map(QuotaUse::new),
            batch: group.batch.map(Batch::new),
            distance: (group.distance * 1e6) as Time,
        }
    }

    /// Work that each request receives in a nanosecond.
    fn rate(&self) -> f64 {
        let slowdown = match self.fault {
            Some((FaultKind::Hang, _)) => return 0.0,
            Some((FaultKind::Slow, factor)) => factor,
            _ => 1.0,
        };
        let cores = (self.machine - self.taken).max(self.cores);
        let share = match self.batch {
            // The work of a step is for all of the server.
            Some(_) => 1.0,
            None => (cores / self.working.max(1) as f64).min(1.0),
        };
        share * self.speed / slowdown / 1e6
    }

    /// Advances the machine to a time.
    pub(super) fn advance(&mut self, now: Time) {
        let passed = (now - self.updated) as f64;
        self.attained += passed * self.rate();
        self.presence += passed * self.working as f64;
        self.updated = now;
    }

    /// Accepts a request, at the time that the machine has advanced to.
    pub(super) fn take(&mut self, ticket: Ticket, work: f64) {
        self.working += 1;
        self.queue
            .push(Reverse((Work(self.attained + work), ticket)));
    }

    /// Accepts a request at a server that batches.
    pub(super) fn enqueue(&mut self, job: Job) {
        self.working += 1;
        if let Some(batch) = &mut self.batch {
            batch.take(job, self.attained);
        }
    }

    /// Whether it is a server that batches.
    pub(super) fn is_batching(&self) -> bool {
        self.batch.is_some()
    }

    /// Ends the present step of a server that batches; see [`Batch::step`].
    pub(super) fn step(&mut self, all: bool) -> Vec<Progress> {
        let attained = self.attained;
        let batch = self.batch.as_mut();
        batch.map_or(Vec::new(), |batch| batch.step(attained, all))
    }

    /// Removes a request, completed or not. Its entry in the queue is no longer valid.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.working -= 1;
        if let Some(batch) = &mut self.batch {
            batch.leave(ticket);
        }
    }

    /// When the present step of a server that batches ends.
    pub(super) fn next_step(&self) -> Option<Time> {
        self.due(self.batch.as_ref()?.step_end()?)
    }

    /// When the machine will have done so much work; none if it does none.
    fn due(&self, work: f64) -> Option<Time> {
        let rate = self.rate();
        if rate == 0.0 {
            return None;
        }
        // Rounded up, so that no work is left at that time.
        let wait = ((work - self.attained).max(0.0) / rate).ceil();
        Some(self.updated.saturating_add(wait as Time))
    }

    /// The next request that will be done, and when. `valid` says which requests are still in
    /// progress here.
    pub(super) fn next(&mut self, valid: impl Fn(Ticket) -> bool) -> Option<(Time, Ticket)> {
        while let Some(Reverse((work, ticket))) = self.queue.peek() {
            if !valid(*ticket) {
                self.queue.pop();
                continue;
            }
            let (work, ticket) = (work.0, *ticket);
            return self.due(work).map(|time| (time, ticket));
        }
        None
    }

    /// How many blocks of a prompt the machine has cached, from its start.
    pub(super) fn recall(&mut self, prompt: &Prompt) -> u32 {
        let cache = self.cache.as_mut();
        cache.map_or(0, |cache| cache.recall(prompt))
    }

    /// Caches a prompt that the machine has answered.
    pub(super) fn keep(&mut self, prompt: &Prompt) {
        if let Some(cache) = &mut self.cache {
            cache.keep(prompt);
        }
    }

    /// Drops all requests and the cache. Returns the requests, of which some may have left already.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
        let tickets = self.queue.drain().map(|Reverse((_, ticket))| ticket);
        let batched = self.batch.as_mut().map(Batch::clear);
        let mut tickets: Vec<Ticket> = tickets.chain(batched.into_iter().flatten()).collect();
        tickets.sort_unstable();
        tickets
    }

    /// The load that it reports: how much of the machine is in use, and how many requests have no
    /// core of their own; of a server that batches, how much of the KV cache, and how many wait.
    pub(super) fn report(&self) -> (f64, f64) {
        if let Some(batch) = &self.batch {
            return batch.report();
        }
        let cores = (self.machine - self.taken).max(self.cores);
        let working = self.working as f64;
        let used = (self.taken + working.min(cores)) / self.machine;
        (used.min(1.0), (working - cores).max(0.0))
    }

    /// Mean number of requests in progress since the last call, `passed` nanoseconds ago.
    pub(super) fn mean_working(&mut self, passed: Time) -> f64 {
        std::mem::take(&mut self.presence) / passed.max(1) as f64
    }
}

/// The earliest of many times, one for each machine. Each of them can change.
#[derive(Debug)]
pub(super) struct Soonest {
    /// A tournament tree: the winner of each pair is stored before the pair; the leaves are the
    /// second half.
    tree: Vec<(Time, u32)>,
    leaves: usize,
}

impl Soonest {
    pub(super) fn new(count: usize) -> Self {
        let leaves = count.next_power_of_two();
        let mut tree = vec![(NEVER, 0); 2 * leaves];
        for (index, leaf) in tree[leaves..].iter_mut().enumerate() {
            leaf.1 = index as u32;
        }
        let mut this = Self { tree, leaves };
        for node in (1..leaves).rev() {
            this.play(node);
        }
        this
    }

    fn play(&mut self, node: usize) {
        self.tree[node] = self.tree[2 * node].min(self.tree[2 * node + 1]);
    }

    pub(super) fn set(&mut self, index: usize, time: Time) {
        let mut node = self.leaves + index;
        self.tree[node].0 = time;
        while node > 1 {
            node /= 2;
            self.play(node);
        }
    }

    /// The time and the index; [`NEVER`] if there is none.
    pub(super) fn first(&self) -> (Time, usize) {
        let (time, index) = self.tree[1];
        (time, index as usize)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn machine(cores: f64) -> Machine {
        Machine::new(&Group {
            endpoints: Vec::new(),
            count: 1,
            weight: 1,
            cores,
            machine: None,
            speed: 1.0,
            antagonist: None,
            cache: None,
            batch: None,
            quota: None,
            labels: BTreeMap::new(),
            distance: 0.0,
        })
    }

    fn ticket(slot: usize) -> Ticket {
        Ticket { slot, serial: 0 }
    }

    #[test]
    fn cores_are_shared_evenly() {
        let mut machine = machine(1.0);
        machine.take(ticket(0), 10.0);
        // Alone: a millisecond of work in a millisecond.
        assert_eq!(machine.next(|_| true), Some((10_000_000, ticket(0))));
        machine.advance(5_000_000);
        machine.take(ticket(1), 1.0);
        // Both run at half speed: the second needs 2 ms, and the first 1 ms less, which it has had
        // already.
        assert_eq!(machine.next(|_| true), Some((7_000_000, ticket(1))));
        machine.advance(7_000_000);
        machine.leave(ticket(1));
        let gone = |other| other != ticket(1);
        assert_eq!(machine.next(gone), Some((11_000_000, ticket(0))));
        assert!((machine.mean_working(7_000_000) - 9.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn a_request_uses_one_core() {
        let mut machine = machine(4.0);
        machine.take(ticket(0), 10.0);
        machine.take(ticket(1), 20.0);
        assert_eq!(machine.next(|_| true).unwrap().0, 10_000_000);
    }

    #[test]
    fn an_antagonist_takes_what_is_not_guaranteed() {
        let mut machine = machine(1.0);
        machine.machine = 4.0;
        for slot in 0..4 {
            machine.take(ticket(slot), 10.0);
        }
        assert_eq!(machine.next(|_| true).unwrap().0, 10_000_000);
        assert_eq!(machine.report(), (1.0, 0.0));
        machine.taken = 1.5;
        assert_eq!(machine.report(), (1.0, 1.5));
        machine.taken = 10.0;
        assert_eq!(machine.next(|_| true).unwrap().0, 40_000_000);
        machine.fault = Some((FaultKind::Hang, 1.0));
        assert_eq!(machine.next(|_| true), None);
    }

    proptest! {
        #[test]
        fn the_soonest_is_found(
            changes in prop::collection::vec((0_usize..13, prop::option::of(0_u64..1000)), 1..50)
        ) {
            let mut soonest = Soonest::new(13);
            let mut times = [NEVER; 13];
            for (index, time) in changes {
                times[index] = time.unwrap_or(NEVER);
                soonest.set(index, times[index]);
                prop_assert_eq!(soonest.first().0, *times.iter().min().unwrap());
                if soonest.first().0 != NEVER {
                    prop_assert_eq!(times[soonest.first().1], soonest.first().0);
                }
            }
        }
    }
}
