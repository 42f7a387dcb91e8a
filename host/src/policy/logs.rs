//! What the policies that log share: the record as a JSON document, and the queues in which records
//! wait to be sent. Records are read, sent and written on a thread of their own, so that no worker
//! waits for a disk or a server.

pub(super) mod buffer;
pub(super) mod connection;
pub(super) mod document;
pub(super) mod http_server;
pub(super) mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::entity::plugin::Plugin;
use crate::priority::Background;
use buffer::QueueLimits;
use document::Documents;
use queue::{Figures, Queue, Sink, Stage};

/// Most of the time of a shutdown that is kept for the queues.
const MOST_KEPT: Duration = Duration::from_secs(5);

/// How long the queues may take at a shutdown, at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// The queues of all plugins, and the thread that serves them.
#[derive(Debug)]
pub struct Logs {
    runtime: Handle,
    documents: Arc<Documents>,
    /// By plugin. A plugin whose settings change keeps its queue.
    queues: Mutex<HashMap<Uuid, Weak<Queue>>>,
    stage: watch::Sender<Stage>,
    /// Each queue holds a sender and never sends, so the channel closes when the last queue ends.
    running: Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Logs {
    /// No queues yet. They log entities as `documents` reads them.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread or a runtime.
    pub fn start(documents: Documents) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("logs".into())
            .spawn(move || {
                Background::Prompt.lower_this_thread();
                runtime.block_on(std::future::pending::<()>());
            })?;
        let (running, ended) = mpsc::channel(1);
        Ok(Self {
            runtime: handle,
            documents: Arc::new(documents),
            queues: Mutex::default(),
            stage: watch::Sender::new(Stage::Runs),
            running: Mutex::new(Some(running)),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    /// What reads entities.
    pub(super) fn documents(&self) -> &Arc<Documents> {
        &self.documents
    }

    /// The queue of a plugin, with these limits and this sink from now on.
    pub(super) fn queue(
        &self,
        plugin: &Plugin,
        limits: QueueLimits,
        sink: impl FnOnce(&Arc<Documents>) -> Arc<dyn Sink>,
    ) -> Arc<Queue> {
        let sink = sink(&self.documents);
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(&plugin.id).and_then(Weak::upgrade) {
            queue.change(limits, sink);
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let (queue, run) = Queue::new(plugin, limits, sink, Arc::clone(&self.documents));
        let queue = Arc::new(queue);
        queues.insert(plugin.id, Arc::downgrade(&queue));
        drop(queues);
        let running = self.running.lock().clone();
        let stage = self.stage.subscribe();
        self.runtime.spawn(async move {
            run.until_end(stage).await;
            drop(running);
        });
        queue
    }

    /// What the queues have done, in the order of the plugins' ids.
    pub fn figures(&self) -> Vec<Figures> {
        let queues = self.queues.lock();
        let queues = queues.values().filter_map(Weak::upgrade);
        let mut figures: Vec<Figures> = queues.map(|queue| queue.figures()).collect();
        figures.sort_by_key(|figures| figures.id);
        figures
    }

    /// Begins the shutdown: from now on, no record waits for others to be sent with. Returns how
    /// much of `time` is to be kept for the queues, after the last requests have ended: nothing if
    /// there are none.
    pub fn hurry(&self, time: Duration) -> Duration {
        self.stage.send_replace(Stage::Hurries);
        let queues = self.queues.lock();
        match queues.values().any(|queue| queue.strong_count() > 0) {
            true => (time / 4).min(MOST_KEPT),
            false => Duration::ZERO,
        }
    }

    /// Sends the records that still wait, for `patience` at most, which is never less than a
    /// second. Returns whether all were sent or given up.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.stage.send_replace(Stage::Ends);
        let patience = patience.max(LEAST_PATIENCE);
        self.running.lock().take();
        let mut ended = self.ended.lock().await;
        tokio::time::timeout(patience, ended.recv()).await.is_ok()
    }
}
