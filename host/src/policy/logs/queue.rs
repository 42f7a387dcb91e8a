//! The queue of a plugin: workers put records in, and a task of its own sends them.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::buffer::{Buffer, Due, Notice, QueueLimits};
use super::document::Documents;
use crate::entity::plugin::Plugin;
use crate::policy::record::LogRecord;
use crate::policy::{DryRun, Policy};

/// Shortest time between two log lines about failed sendings of a queue. With a line for each
/// failure, a server that is down could fill the disk.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Sends batches of records, one at a time.
pub(in super::super) trait Sink: Debug + Send + Sync {
    /// Sends a batch. The error says what went wrong, as the end of a sentence.
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>>;
}

/// A record that waits to be sent.
#[derive(Debug)]
pub(in super::super) struct Entry {
    pub(in super::super) record: LogRecord,
    /// The record as JSON, if it was needed already.
    text: Option<String>,
}

impl Entry {
    /// The record as JSON.
    pub(in super::super) fn text(&self, documents: &Documents) -> Cow<'_, str> {
        match &self.text {
            Some(text) => text.into(),
            None => documents.text(&self.record).into(),
        }
    }
}

/// What a queue has done.
#[derive(Debug)]
pub struct Figures {
    /// The plugin.
    pub id: Uuid,
    /// The kind of plugin.
    pub plugin: String,
    /// Records that were sent.
    pub sent: u64,
    /// Records that were given up after the sending had failed.
    pub failed: u64,
    /// Records that were dropped because the queue was full.
    pub dropped: u64,
    /// Records that wait.
    pub waiting: u64,
}

/// The queue of a plugin. The records that wait when it is dropped are sent nevertheless.
#[derive(Debug)]
pub(in super::super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: Uuid,
    plugin: String,
    state: Mutex<State>,
    wake: Notify,
    sent: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    buffer: Buffer<Entry>,
    sink: Arc<dyn Sink>,
    /// Whether the plugin is gone.
    is_closed: bool,
    failures: Failures,
}

/// How far the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Runs,
    /// It shuts down: records still come, and are sent at once.
    Hurries,
    /// No further record comes.
    Ends,
}

/// The task of a queue.
pub(super) struct Run {
    shared: Arc<Shared>,
    documents: Arc<Documents>,
}

impl Queue {
    pub(super) fn new(
        plugin: &Plugin,
        limits: QueueLimits,
        sink: Arc<dyn Sink>,
        documents: Arc<Documents>,
    ) -> (Self, Run) {
        let shared = Arc::new(Shared {
            id: plugin.id,
            plugin: plugin.name.clone(),
            state: Mutex::new(State {
                buffer: Buffer::new(limits),
                sink,
                is_closed: false,
                failures: Failures::default(),
            }),
            wake: Notify::new(),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let run = Run {
            shared: Arc::clone(&shared),
            documents,
        };
        (Self(shared), run)
    }

    /// Replaces the settings. Records that wait are sent by the new ones.
    pub(super) fn change(&self, limits: QueueLimits, sink: Arc<dyn Sink>) {
        let mut state = self.0.state.lock();
        state.buffer.set_limits(limits);
        state.sink = sink;
        drop(state);
        self.0.wake.notify_one();
    }

    /// Puts a record in. This never waits: if the queue is full, its oldest record is dropped.
    pub(in super::super) fn push(&self, record: &LogRecord) {
        let entry = Entry {
            record: record.clone(),
            text: None,
        };
        let now = Instant::now();
        let wakes = self.0.state.lock().buffer.push(entry, now);
        if wakes {
            self.0.wake.notify_one();
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let shared = &*self.0;
        let state = shared.state.lock();
        Figures {
            id: shared.id,
            plugin: shared.plugin.clone(),
            sent: shared.sent.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Relaxed),
            dropped: state.buffer.dropped(),
            waiting: state.buffer.len() as u64,
        }
    }
}

/// The policy that has every record sent.
impl Policy for Queue {
    fn dry_run(&self) -> DryRun {
        DryRun::Idle
    }

    fn record(&self, record: &LogRecord) {
        self.push(record);
    }

    fn records(&self) -> bool {
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.wake.notify_one();
    }
}

/// What the task of a queue does next.
enum Next {
    Send(Vec<Entry>),
    Wait(Option<Instant>),
    End,
}

impl Run {
    /// Sends records until the plugin is gone, or the gateway stops, and nothing is left.
    pub(super) async fn until_end(self, mut stages: watch::Receiver<Stage>) {
        let mut sending = JoinSet::new();
        loop {
            let stage = *stages.borrow_and_update();
            match self.next(stage, sending.len()) {
                Next::End => break,
                Next::Send(batch) => {
                    sending.spawn(Arc::clone(&self.shared).deliver(batch, stages.clone()));
                }
                Next::Wait(due) => {
                    // An hour stands for ever.
                    let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        Some(_) = sending.join_next() => {}
                        Ok(()) = stages.changed(), if stage != Stage::Ends => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                }
            }
        }
    }

    fn next(&self, stage: Stage, sending: usize) -> Next {
        self.weigh();
        let mut state = self.shared.state.lock();
        let ends = stage == Stage::Ends || state.is_closed;
        if ends || stage == Stage::Hurries {
            state.buffer.finish();
        }
        let notices = state.buffer.take_notices();
        let next = if sending >= state.buffer.limits().at_a_time {
            Next::Wait(None)
        } else {
            match state.buffer.due(Instant::now()) {
                Due::Now => Next::Send(state.buffer.take()),
                Due::At(due) => Next::Wait(Some(due)),
                Due::Never if ends && sending == 0 => Next::End,
                Due::Never => Next::Wait(None),
            }
        };
        drop(state);
        for notice in notices {
            self.shared.say(notice);
        }
        next
    }

    /// Weighs the new records, if there is a limit of bytes. Their texts are made without the lock,
    /// for which workers would wait.
    fn weigh(&self) {
        let state = self.shared.state.lock();
        let new = state.buffer.unweighed();
        let new: Vec<_> = new
            .map(|(number, entry)| (number, entry.record.clone()))
            .collect();
        drop(state);
        for (number, record) in new {
            let text = self.documents.text(&record);
            let mut state = self.shared.state.lock();
            let bytes = text.len() as u64;
            state
                .buffer
                .weigh(number, bytes, |entry| entry.text = Some(text));
        }
    }
}

impl Shared {
    fn say(&self, notice: Notice) {
        let (plugin, id) = (&*self.plugin, self.id);
        match notice {
            Notice::Near => tracing::warn!(plugin, %id, "queue at 80% capacity"),
            Notice::Full => tracing::error!(
                plugin, %id,
                "queue full, dropping old entries until processing is successful again"
            ),
            Notice::Resumed => tracing::info!(plugin, %id, "queue resumed processing"),
            Notice::TooLong(bytes) => tracing::error!(
                plugin, %id,
                "an entry of {bytes} bytes is dropped: it is longer than config.queue.max_bytes"
            ),
        }
    }

    /// Sends a batch, again and again until it is sent or given up. Once the gateway ends, it is
    /// tried one last time: a server that cannot be reached must not hold up the shutdown.
    async fn deliver(self: Arc<Self>, batch: Vec<Entry>, mut stages: watch::Receiver<Stage>) {
        let (started, count) = (Instant::now(), batch.len() as u64);
        let mut failed = 0;
        loop {
            let is_last = *stages.borrow_and_update() == Stage::Ends;
            // The settings may have changed since the last try.
            let sink = Arc::clone(&self.state.lock().sink);
            let Err(error) = sink.send(&batch).await else {
                self.sent.fetch_add(count, Ordering::Relaxed);
                self.state.lock().buffer.sent();
                return self.wake.notify_one();
            };
            failed += 1;
            let pause = {
                let mut state = self.state.lock();
                let pause = state.buffer.limits().pause(failed, started.elapsed());
                let pause = pause.filter(|_| !is_last);
                let lost = if pause.is_none() { count } else { 0 };
                let line = state.failures.note(Instant::now(), &error, lost);
                drop(state);
                if let Some(line) = line {
                    tracing::warn!(plugin = &*self.plugin, id = %self.id, "{line}");
                }
                pause
            };
            match pause {
                Some(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    Ok(_) = stages.wait_for(|stage| *stage == Stage::Ends) => {}
                },
                None => {
                    self.failed.fetch_add(count, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

/// Failures since the last log line about them.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    lost: u64,
    noted: Option<Instant>,
}

impl Failures {
    /// Notes a failure by which `lost` records were given up. Returns the log line, if it is time
    /// for one.
    fn note(&mut self, now: Instant, error: &str, lost: u64) -> Option<String> {
        self.count += 1;
        self.lost += lost;
        if self.noted.is_some_and(|noted| now - noted < WARN_INTERVAL) {
            return None;
        }
        self.noted = Some(now);
        let (count, lost) = (
            std::mem::take(&mut self.count),
            std::mem::take(&mut self.lost),
        );
        Some(format!(
            "records cannot be sent: {error} (failures since the last such line: {count}; records \
             that were given up: {lost})"
        ))
    }
}

#[cfg(test)]
mod tests;
