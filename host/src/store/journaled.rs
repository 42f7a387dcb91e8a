//! The store: rows in memory, over a journal.
//!
//! All reads are from memory (`rows.rs`), which follows the journal: a write takes effect once it
//! is durable. One thread writes (`writer.rs`): it checks the waiting writes against the rules
//! (`rules.rs`), has the journal commit them together, puts them into effect, notifies the
//! watchers, and answers the callers.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::journal::{Journal, OpenError};
use super::operations::Operations;
use super::rules::{self, Steps};
use super::schema::Schema;
use super::state::State;
use super::writer::{Job, Release, Writer};
use super::{Commit, Condition, Error, Nodes, Revision, Store, Stored, Write};
use crate::entity::{Kind, Row};

/// The store over a journal.
pub struct JournaledStore {
    state: Arc<State>,
    jobs: Arc<Sender<Job>>,
    nodes: Option<Arc<dyn Nodes>>,
}

impl JournaledStore {
    /// Loads what a journal stores, and takes writes from then on.
    pub(super) fn start(mut journal: impl Journal, schema: Schema) -> Result<Self, OpenError> {
        let rows = journal.load(schema)?;
        for row in rows.all_set_aside() {
            tracing::error!(
                entity = row.kind.name(),
                id = %row.id,
                "a stored row is set aside: {}; DELETE removes it",
                row.reason
            );
        }
        let state = Arc::new(State::new(rows, journal.handle()));
        let (jobs, waiting) = channel();
        let jobs = Arc::new(jobs);
        // Weak, so that the journal does not keep the writer running.
        let asker = Arc::downgrade(&jobs);
        journal.watch(Box::new(move || {
            if let Some(jobs) = asker.upgrade() {
                // After the writer has ended, the job is not needed.
                drop(jobs.send(Job::Follow));
            }
        }));
        let refuse = |error| OpenError::Unusable(format!("the store cannot be started: {error}"));
        let writer = Writer::start(Arc::clone(&state), journal).map_err(refuse)?;
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                let commits = writer.run(&waiting);
                tracing::debug!(commits, "the writer of the store ends");
            })
            .map_err(refuse)?;
        Ok(Self {
            state,
            jobs,
            nodes: None,
        })
    }

    /// Notes that several gateways share the store.
    pub(super) fn shared_by(self, nodes: Arc<dyn Nodes>) -> Self {
        Self {
            nodes: Some(nodes),
            ..self
        }
    }

    /// Has the writer do these steps.
    fn ask(&self, steps: Steps) -> BoxFuture<'_, Result<Revision, Error>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.send(Job::Write(steps, answer));
        async move {
            sent.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        }
        .boxed()
    }

    /// What is in effect, for tests of journals.
    #[cfg(test)]
    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

impl fmt::Debug for JournaledStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JournaledStore")
            .finish_non_exhaustive()
    }
}

impl Store for JournaledStore {
    fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Stored>, Error> {
        self.state.rows().stored(kind, id)
    }

    fn blob(&self, kind: Kind, id: Uuid) -> Result<Option<Bytes>, Error> {
        self.state.blob(kind, id)
    }

    fn find(
        &self,
        kind: Kind,
        key: &[&str],
        values: &[&serde_json::Value],
    ) -> Result<Option<Stored>, Error> {
        self.state.rows().find(kind, key, values)
    }

    fn list(
        &self,
        kind: Kind,
        from: Option<Uuid>,
        limit: usize,
        filter: &dyn Fn(&Row) -> bool,
    ) -> Result<Vec<Stored>, Error> {
        let rows = self.state.rows();
        let stored = rows.of_kind(kind, from).map(|(_, stored)| stored);
        Ok(stored
            .filter(|stored| filter(&stored.row))
            .take(limit)
            .collect())
    }

    fn list_referring(
        &self,
        kind: Kind,
        field: &'static str,
        parent: Uuid,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Stored>, Error> {
        let rows = self.state.rows();
        let mut listed = Vec::new();
        for id in rows.referring(kind, field, parent, from) {
            if listed.len() == limit {
                break;
            }
            match rows.stored(kind, id) {
                Ok(stored) => listed.extend(stored),
                Err(Error::SetAside { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    fn head(&self) -> Revision {
        self.state.rows().head()
    }

    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        let mut moved = self.state.moved();
        async move {
            while self.head() < revision {
                if self.state.has_failed() {
                    return Err(self.state.unavailable());
                }
                // The sender is in the state, which outlives this.
                moved.changed().await.map_err(|_| stopped())?;
            }
            Ok(())
        }
        .boxed()
    }

    fn condition(&self) -> Condition {
        self.state.condition()
    }

    fn content_hash(&self) -> String {
        self.state.rows().content_hash()
    }

    fn nodes(&self) -> Option<Arc<dyn Nodes>> {
        self.nodes.clone()
    }

    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Revision, Error>> {
        self.ask(Steps::InOrder(writes))
    }

    fn exchange(
        &self,
        writes: Vec<Write>,
        base: Option<Revision>,
    ) -> BoxFuture<'_, Result<Revision, Error>> {
        self.ask(Steps::AtOnce(writes, base))
    }

    fn check(&self, writes: &[Write]) -> Result<(), Error> {
        let steps = Steps::AtOnce(writes.to_vec(), None);
        rules::stage_steps(&self.state.rows(), &Operations::default(), &steps).map(drop)
    }

    fn release(&self, reason: &str) -> BoxFuture<'_, Result<(), Error>> {
        let (answer, answered) = oneshot::channel();
        let reason = reason.to_owned();
        let sent = self.jobs.send(Job::Release(Release { reason, answer }));
        async move {
            sent.map_err(|_| stopped())?;
            answered.await.map_err(|_| stopped())?
        }
        .boxed()
    }

    fn resume(&self) {
        // A writer that has stopped is reported by the next write.
        drop(self.jobs.send(Job::Resume));
    }

    fn watch(&self) -> Result<mpsc::UnboundedReceiver<Commit>, Error> {
        let (sender, commits) = mpsc::unbounded_channel();
        self.jobs.send(Job::Watch(sender)).map_err(|_| stopped())?;
        Ok(commits)
    }
}

fn stopped() -> Error {
    Error::Unavailable(
        "the writer of the store has stopped: what is in effect stays so; restart the gateway"
            .into(),
    )
}
