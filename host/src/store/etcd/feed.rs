//! What the watch tells the journal.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::journal::Notify;
use super::messages::{EtcdRevision, Event};

/// Most events that wait for the journal. Beyond that, it reads all rows instead.
const MAX_WAITING: usize = 200_000;

/// The events of one transaction of etcd.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) revision: EtcdRevision,
    pub(super) events: Vec<Event>,
}

/// What the watch has received and the journal has not taken yet.
#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<FeedState>,
    changed: Condvar,
    notify: Mutex<Option<Notify>>,
}

#[derive(Debug, Default)]
struct FeedState {
    batches: Vec<Batch>,
    waiting: usize,
    /// All events up to this revision were received.
    reached: EtcdRevision,
    /// Why the events do not continue what the journal has.
    lost: Option<String>,
    /// Why there is no watch now.
    down: Option<String>,
    /// Whether the watch was interrupted, so that etcd may have another history by now.
    is_unverified: bool,
}

impl Feed {
    /// Has `notify` called when there is something to follow, or etcd is away or back.
    pub(super) fn notify_by(&self, notify: Notify) {
        *self.notify.lock() = Some(notify);
        self.notify();
    }

    fn notify(&self) {
        self.changed.notify_all();
        if let Some(notify) = &*self.notify.lock() {
            notify();
        }
    }

    /// Starts over at a revision at which all rows were read.
    pub(super) fn restart(&self, reached: EtcdRevision) {
        *self.state.lock() = FeedState {
            reached,
            ..FeedState::default()
        };
    }

    /// Adds transactions in their order.
    pub(super) fn add(&self, batches: Vec<Batch>) {
        {
            let mut state = self.state.lock();
            for batch in batches {
                state.reached = batch.revision;
                state.waiting += batch.events.len();
                state.batches.push(batch);
            }
            if state.waiting > MAX_WAITING {
                state.batches.clear();
                state.lost = Some("too many changes wait".into());
            }
        }
        self.notify();
    }

    /// Notes that there were no further events up to a revision.
    pub(super) fn reach(&self, revision: EtcdRevision) {
        let mut state = self.state.lock();
        state.reached = state.reached.max(revision);
        self.changed.notify_all();
    }

    /// Takes what was received.
    pub(super) fn take(&self) -> Vec<Batch> {
        let mut state = self.state.lock();
        state.waiting = 0;
        std::mem::take(&mut state.batches)
    }

    /// Looks for something in what was received, and leaves it there.
    pub(super) fn find<T>(&self, find: impl FnMut(&Batch) -> Option<T>) -> Option<T> {
        self.state.lock().batches.iter().find_map(find)
    }

    /// Waits until all events up to a revision were received; whether they were.
    pub(super) fn wait_for(&self, revision: EtcdRevision, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        while state.reached < revision && state.lost.is_none() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        state.lost.is_none()
    }

    /// Notes that the events do not continue what the journal has.
    pub(super) fn lose(&self, reason: &str) {
        self.state.lock().lost = Some(reason.to_owned());
        self.notify();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state.lock().lost.is_some()
    }

    /// Notes that there is no watch now.
    pub(super) fn set_down(&self, reason: String) {
        self.state.lock().down = Some(reason);
        self.notify();
    }

    /// Notes that there is a watch, perhaps after an interruption.
    pub(super) fn set_up(&self, was_interrupted: bool) {
        let was_down = {
            let mut state = self.state.lock();
            state.is_unverified |= was_interrupted;
            state.down.take().is_some()
        };
        if was_down || was_interrupted {
            self.notify();
        }
    }

    /// Whether the watch was interrupted since this was asked, or since [`Self::doubt`].
    pub(super) fn take_unverified(&self) -> bool {
        std::mem::take(&mut self.state.lock().is_unverified)
    }

    /// Has [`Self::take_unverified`] answer true the next time.
    pub(super) fn doubt(&self) {
        self.state.lock().is_unverified = true;
    }

    /// Why there is no watch now.
    pub(super) fn down(&self) -> Option<String> {
        self.state.lock().down.clone()
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
