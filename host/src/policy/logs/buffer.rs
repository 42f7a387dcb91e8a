//! Entries that wait to be sent: a bounded number of them, taken in batches. Time is handed in.
//! Source: Kong 3.9, `kong.tools.queue`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::entity::plugin::queue;

/// A wait for further entries that is shorter than this is left out. Source: Kong.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Most batches that are sent at a time: each may need a connection of its own.
const MOST_AT_A_TIME: usize = 64;

/// How many entries wait, and how they are sent.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct QueueLimits {
    /// How many entries are sent together.
    pub(in super::super) batch: usize,
    /// How long an entry waits for others to be sent with.
    pub(in super::super) coalescing: Duration,
    /// How many entries may wait.
    pub(in super::super) entries: usize,
    /// How many bytes may wait, if entries are weighed.
    pub(in super::super) bytes: Option<u64>,
    /// How long a failed sending is tried again.
    pub(in super::super) retry_time: Duration,
    /// The time to the first further try, which doubles with each try.
    pub(in super::super) first_delay: Duration,
    /// The longest time between two tries.
    pub(in super::super) longest_delay: Duration,
    /// How many batches are sent at a time.
    pub(in super::super) at_a_time: usize,
}

impl QueueLimits {
    /// For policies without settings of a queue: whatever waits is sent together, and a failed
    /// sending is not tried again. Source: Kong, which sends each record by itself.
    pub(in super::super) const FIXED: Self = Self {
        batch: 1000,
        coalescing: Duration::ZERO,
        entries: 10_000,
        bytes: None,
        retry_time: Duration::ZERO,
        first_delay: Duration::ZERO,
        longest_delay: Duration::ZERO,
        at_a_time: 1,
    };

    /// For policies without settings of a queue, whose server gets each message by itself: one that
    /// cannot be sent must not take others with it.
    pub(in super::super) const SINGLE: Self = Self {
        batch: 1,
        ..Self::FIXED
    };

    /// The pause before another try, if there is one after `failed` tries in `elapsed`.
    pub(super) fn pause(&self, failed: u32, elapsed: Duration) -> Option<Duration> {
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1));
        let pause = self.first_delay.saturating_mul(doubled);
        let again = !self.retry_time.is_zero() && elapsed <= self.retry_time;
        again.then(|| pause.min(self.longest_delay))
    }
}

impl From<queue::Queue> for QueueLimits {
    /// The settings `queue` of a plugin.
    fn from(queue: queue::Queue) -> Self {
        let number = |number: i64| usize::try_from(number).unwrap_or(1).max(1);
        let seconds = |seconds: f64| {
            let seconds = Duration::try_from_secs_f64(seconds.max(0.0));
            seconds.unwrap_or(Duration::MAX)
        };
        let entries = number(queue.max_entries);
        // With a limit of -1, entries are not sent in batches.
        let (batch, at_a_time) = match queue.concurrency_limit {
            1 => (number(queue.max_batch_size), 1),
            _ => (1, MOST_AT_A_TIME),
        };
        Self {
            batch,
            coalescing: seconds(queue.max_coalescing_delay),
            entries,
            bytes: queue
                .max_bytes
                .map(|bytes| u64::try_from(bytes).unwrap_or(0)),
            retry_time: seconds(queue.max_retry_time),
            first_delay: seconds(queue.initial_retry_delay),
            longest_delay: seconds(queue.max_retry_delay),
            at_a_time,
        }
    }
}

/// Entries that wait to be sent.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    limits: QueueLimits,
    entries: VecDeque<Entry<T>>,
    /// The number of the entry at the front. Each entry has the number after that of the one
    /// before.
    first: u64,
    /// How many entries from the front are weighed.
    weighed: usize,
    /// Bytes of the entries that are weighed.
    bytes: u64,
    /// Whether there is nothing left to wait for.
    finishing: bool,
    is_near: bool,
    is_full: bool,
    notices: Vec<Notice>,
    dropped: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    since: Instant,
    bytes: u64,
}

/// What an operator has to know of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is nearly full.
    Near,
    /// It is full, and drops its oldest entries.
    Full,
    /// An entry was sent since it was full.
    Resumed,
    /// An entry of so many bytes is longer than all entries together may be.
    TooLong(u64),
}

/// When the next batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// There is no entry.
    Never,
    /// Then, unless enough entries come before.
    At(Instant),
    /// At once.
    Now,
}

impl<T> Buffer<T> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            first: 0,
            weighed: 0,
            bytes: 0,
            finishing: false,
            is_near: false,
            is_full: false,
            notices: Vec::new(),
            dropped: 0,
        }
    }

    pub(super) fn limits(&self) -> &QueueLimits {
        &self.limits
    }

    pub(super) fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = limits;
        while self.entries.len() > self.limits.entries {
            self.drop_oldest();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds an entry, in place of the oldest one if the buffer is full. Returns whether the sender
    /// has to look at the buffer.
    pub(super) fn push(&mut self, value: T, now: Instant) -> bool {
        if self.entries.len() >= self.limits.entries {
            self.fill_up();
            self.drop_oldest();
        }
        self.entries.push_back(Entry {
            value,
            since: now,
            bytes: 0,
        });
        let (len, most) = (self.entries.len(), self.limits.entries);
        if len * 5 > most * 4 {
            if !self.is_near && !self.is_full {
                self.is_near = true;
                self.notices.push(Notice::Near);
            }
        } else {
            self.is_near = false;
        }
        len == 1
            || len == self.limits.batch
            || !self.notices.is_empty()
            || self.limits.bytes.is_some()
    }

    /// The entries that have to be weighed, with their numbers, because there is a limit of bytes.
    pub(super) fn unweighed(&self) -> impl Iterator<Item = (u64, &T)> {
        let first = self.first;
        let numbered = self.entries.iter().zip(first..);
        let new = match self.limits.bytes {
            Some(_) => self.weighed,
            None => self.entries.len(),
        };
        numbered
            .skip(new)
            .map(|(entry, number)| (number, &entry.value))
    }

    /// Notes the bytes of an entry, after those of all entries before it. `change` may add to the
    /// entry what was made to weigh it.
    pub(super) fn weigh(&mut self, number: u64, bytes: u64, change: impl FnOnce(&mut T)) {
        let place = number
            .checked_sub(self.first)
            .and_then(|n| usize::try_from(n).ok());
        let most = self.limits.bytes.unwrap_or(u64::MAX);
        // An entry that is not there was dropped or taken meanwhile.
        let Some(place) = place.filter(|place| *place == self.weighed) else {
            return;
        };
        if bytes > most {
            if self.entries.remove(place).is_some() {
                // The numbers of the entries after it stay the same.
                self.first += 1;
                self.dropped += 1;
                self.notices.push(Notice::TooLong(bytes));
            }
            return;
        }
        if let Some(entry) = self.entries.get_mut(place) {
            entry.bytes = bytes;
            change(&mut entry.value);
            self.bytes += bytes;
            self.weighed += 1;
        }
        while self.bytes > most {
            self.fill_up();
            self.drop_oldest();
        }
    }

    fn fill_up(&mut self) {
        if !self.is_full {
            self.is_full = true;
            self.notices.push(Notice::Full);
        }
    }

    fn drop_oldest(&mut self) {
        if self.pop().is_some() {
            self.dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.weighed = self.weighed.saturating_sub(1);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// When the next batch is sent.
    pub(super) fn due(&self, now: Instant) -> Due {
        let Some(first) = self.entries.front() else {
            return Due::Never;
        };
        let due = first.since + self.limits.coalescing.min(LONGEST_WAIT);
        if self.finishing || self.entries.len() >= self.limits.batch || due < now + SHORTEST_WAIT {
            return Due::Now;
        }
        Due::At(due)
    }

    /// The entries that are sent next.
    pub(super) fn take(&mut self) -> Vec<T> {
        let count = self.entries.len().min(self.limits.batch);
        let batch: Vec<T> = (0..count).map_while(|_| self.pop()).collect();
        if self.entries.len() * 5 <= self.limits.entries * 4 {
            self.is_near = false;
        }
        batch
    }

    /// To be called when a batch was sent.
    pub(super) fn sent(&mut self) {
        if std::mem::take(&mut self.is_full) {
            self.notices.push(Notice::Resumed);
        }
    }

    /// Has entries wait no longer for others.
    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// What an operator has to know since this was last asked.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }
}

/// Longest time that an entry waits for others. Source: the bound of `max_coalescing_delay`.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
