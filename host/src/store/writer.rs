//! The one thread that takes writes and answers them.
//!
//! It never touches the disk itself, so that it can answer whatever the disk does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::Change;
use super::rules::{Round, Stage};
use super::sled::journal::{Engine, Outcome};
use super::sled::{Shared, convert};
use super::{Commit, Error, Failure, Revision, Write};
use crate::entity::Kind;

/// Pause between two looks at a store that can be written: whether its folder is still there, and has
/// room.
const LOOK: Duration = Duration::from_secs(5);

/// First and longest pause before a store that cannot be written is tried again.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Longest wait for the disk before a write is answered without it. A healthy disk takes milliseconds, a
/// busy one up to some seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two looks at what the disk is waited for.
const TICK: Duration = Duration::from_millis(25);

/// What the writer is asked for.
pub(in crate::store) enum Job {
    Write(Vec<Write>, Answer),
    Watch(mpsc::UnboundedSender<Commit>),
}

type Answer = oneshot::Sender<Result<Revision, Error>>;

/// What the thread of the engine is asked for.
enum Task {
    Commit(Arc<Round>),
    Reopen,
    Look,
}

/// Writes that are staged, with the answers that their askers wait for.
#[derive(Default)]
struct Staged {
    round: Round,
    commits: Vec<Commit>,
    /// What each asker is told once the round will last. What is refused may be so for what another
    /// write of the round does, which a reader must find by then.
    answers: Vec<(Result<Revision, Error>, Answer)>,
}

/// The thread that writes, but for what touches the disk.
pub(in crate::store) struct Writer {
    shared: Arc<Shared>,
    tasks: Sender<Task>,
    outcomes: Receiver<Outcome>,
    watchers: Vec<mpsc::UnboundedSender<Commit>>,
    /// Watches that were asked for while the disk was waited for.
    asked: Vec<mpsc::UnboundedSender<Commit>>,
    /// Whether the engine has closed its file, so that no write can be tried.
    is_closed: bool,
    /// When the disk is looked at next, and the pause after that.
    due: Instant,
    pause: Duration,
}

impl Writer {
    pub(in crate::store) fn start(
        shared: Arc<Shared>,
        mut engine: Engine,
    ) -> std::io::Result<Self> {
        let (tasks, waiting) = channel();
        let (done, outcomes) = channel();
        std::thread::Builder::new()
            .name("store-disk".into())
            .spawn(move || {
                for task in waiting {
                    let outcome = match task {
                        Task::Commit(round) => engine.commit(&round),
                        Task::Reopen => engine.reopen(),
                        Task::Look => engine.look(),
                    };
                    if done.send(outcome).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            shared,
            tasks,
            outcomes,
            watchers: Vec::new(),
            asked: Vec::new(),
            is_closed: false,
            due: Instant::now() + LOOK,
            pause: RETRY[0],
        })
    }

    /// Serves until the last asker has gone. Returns how often it had something to flush.
    pub(in crate::store) fn run(mut self, jobs: &Receiver<Job>) -> u64 {
        let mut flushes = 0;
        loop {
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.tend(jobs);
                continue;
            }
            match jobs.recv_timeout(left) {
                Ok(first) => flushes += self.serve(first, jobs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return flushes,
            }
        }
    }

    /// Does all that is waiting.
    fn serve(&mut self, first: Job, jobs: &Receiver<Job>) -> u64 {
        let mut flushes = 0;
        let mut staged = Staged::default();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                // An answer is dropped if the asker has gone; nothing was written either.
                Job::Write(writes, answer) => match self.stage(&staged.round, writes) {
                    Ok((round, commit)) => {
                        staged.round.add(round);
                        staged.answers.push((Ok(commit.revision), answer));
                        staged.commits.push(commit);
                    }
                    Err(error) if staged.commits.is_empty() => drop(answer.send(Err(error))),
                    Err(error) => staged.answers.push((Err(error), answer)),
                },
                Job::Watch(watcher) => {
                    // What this round wrote so far must reach earlier watchers first, and this one as
                    // rows.
                    flushes += self.finish(&mut staged, jobs);
                    self.asked.push(watcher);
                    self.begin_watches();
                }
            }
        }
        flushes + self.finish(&mut staged, jobs)
    }

    /// What writes would change.
    fn stage(&self, ahead: &Round, writes: Vec<Write>) -> Result<(Round, Commit), Error> {
        if self.is_closed {
            return Err(self.unavailable());
        }
        stage(&self.shared, ahead, writes)
    }

    /// Makes what was staged last, puts it into effect, and tells watchers and askers. Returns how often
    /// it flushed.
    fn finish(&mut self, staged: &mut Staged, jobs: &Receiver<Job>) -> u64 {
        let Staged {
            round,
            commits,
            mut answers,
        } = std::mem::take(staged);
        if commits.is_empty() {
            return 0;
        }
        let round = Arc::new(round);
        let outcome = self.wait_for(Task::Commit(Arc::clone(&round)), jobs, &mut answers);
        let is_done = matches!(outcome, Outcome::Done);
        if is_done {
            // Copied only while a reader looks at it.
            Arc::make_mut(&mut self.shared.rows.write()).apply(&round.rows);
            for commit in commits {
                self.watchers
                    .retain(|watcher| watcher.send(commit.clone()).is_ok());
            }
        }
        // What has failed midway is on disk perhaps, until the store is open again and takes it back.
        let in_doubt = match &outcome {
            Outcome::Failed(reason) => Some(format!(
                "the store has failed: {reason}; the change is not in effect, and will be taken back \
                 unless the gateway is restarted before the store is open again"
            )),
            Outcome::Done | Outcome::Refused(_) => None,
        };
        self.note(outcome);
        for (staged, answer) in answers {
            let outcome = match &in_doubt {
                Some(reason) => Err(Error::Unavailable(reason.clone())),
                None if is_done => staged,
                None => Err(self.unavailable()),
            };
            drop(answer.send(outcome));
        }
        self.begin_watches();
        1
    }

    /// Waits until the engine has done something. `answers` are those of the askers who wait as well; what
    /// takes too long is told to them, and to all who come meanwhile.
    fn wait_for(
        &mut self,
        task: Task,
        jobs: &Receiver<Job>,
        answers: &mut Vec<(Result<Revision, Error>, Answer)>,
    ) -> Outcome {
        let ended = || Outcome::Failed("its thread has ended, so restart the gateway".into());
        let began = Instant::now();
        if self.tasks.send(task).is_err() {
            return ended();
        }
        let mut is_late = false;
        loop {
            match self.outcomes.recv_timeout(TICK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return ended(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.shared.nudge();
            if !is_late && began.elapsed() >= PATIENCE {
                is_late = true;
                self.fail(format!(
                    "the disk has not answered for {} s",
                    PATIENCE.as_secs()
                ));
                for (_, answer) in answers.drain(..) {
                    let reason = format!(
                        "the disk has not answered for {} s: the change takes effect if and when it is \
                         stored, which is not known yet",
                        PATIENCE.as_secs()
                    );
                    drop(answer.send(Err(Error::Unavailable(reason))));
                }
            }
            if self.shared.failure.read().is_some() {
                self.refuse_all(jobs);
            }
        }
    }

    /// Answers those who come while nothing can be written.
    fn refuse_all(&mut self, jobs: &Receiver<Job>) {
        for job in jobs.try_iter() {
            match job {
                Job::Write(_, answer) => drop(answer.send(Err(self.unavailable()))),
                Job::Watch(watcher) => self.asked.push(watcher),
            }
        }
    }

    /// Looks whether the store can be written, and opens it again if it is closed.
    fn tend(&mut self, jobs: &Receiver<Job>) {
        let task = if self.is_closed {
            Task::Reopen
        } else {
            Task::Look
        };
        let outcome = self.wait_for(task, jobs, &mut Vec::new());
        self.note(outcome);
        self.begin_watches();
    }

    /// Takes over what has come of something.
    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                self.is_closed = false;
                self.pause = RETRY[0];
                self.due = Instant::now() + LOOK;
                if let Some(failure) = self.shared.failure.write().take() {
                    let seconds = failure.since.elapsed().unwrap_or_default().as_secs_f64();
                    tracing::info!("the store can be written again, after {seconds:.1} s");
                }
                return;
            }
            Outcome::Refused(reason) => self.fail(reason),
            Outcome::Failed(reason) => {
                self.is_closed = true;
                self.fail(reason);
            }
        }
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY[1]);
    }

    fn fail(&self, reason: String) {
        let mut failure = self.shared.failure.write();
        if failure
            .as_ref()
            .is_some_and(|failure| failure.reason == reason)
        {
            return;
        }
        tracing::error!(
            "the store cannot be written: {reason}; changes are refused, and what is in effect stays so"
        );
        let since = failure.as_ref().map(|failure| failure.since);
        if since.is_none() {
            self.shared.failures.fetch_add(1, Ordering::Relaxed);
        }
        *failure = Some(Failure {
            reason,
            since: since.unwrap_or_else(SystemTime::now),
        });
    }

    fn unavailable(&self) -> Error {
        self.shared.unavailable()
    }

    /// Tells what there is to those who asked to watch.
    fn begin_watches(&mut self) {
        for watcher in std::mem::take(&mut self.asked) {
            let rows = self.shared.rows();
            let changes = Kind::ALL.into_iter().flat_map(|kind| {
                let rows = rows.of_kind(kind, None);
                rows.map(move |(id, stored)| Change::Put {
                    kind,
                    id,
                    row: stored.row,
                })
            });
            let commit = Commit {
                revision: rows.revision(),
                changes: changes.collect(),
            };
            if watcher.send(commit).is_ok() {
                self.watchers.push(watcher);
            }
        }
    }
}

/// What writes would change.
fn stage(shared: &Shared, ahead: &Round, writes: Vec<Write>) -> Result<(Round, Commit), Error> {
    let rows = shared.rows();
    let mut stage = Stage::new(&rows, ahead);
    for write in writes {
        stage.write(write)?;
    }
    Ok(stage.finish())
}

/// Brings an earlier layout to the present one.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(in crate::store) fn convert(shared: &Shared, engine: &mut Engine) -> Result<(), String> {
    let staged = || {
        let disk = shared.disk.read().clone();
        let disk = disk.ok_or_else(|| shared.unavailable())?;
        let writes = convert::writes(&shared.rows(), &disk.blobs)?;
        stage(shared, &Round::default(), writes)
    };
    let (round, _) = staged().map_err(|error| error.to_string())?;
    put_into_effect(shared, engine, &round)
}

/// Brings rows that an earlier version wrote into the form in which this one stores them.
///
/// # Errors
/// Why not, as the end of a sentence.
pub(in crate::store) fn renew(shared: &Shared, engine: &mut Engine) -> Result<(), String> {
    let mut round = Round::default();
    let mut renewed = 0_usize;
    for write in convert::renewals(&shared.rows()) {
        let (kind, id) = (write.kind(), write.id());
        // Each by itself: one that this version would not store any longer must cost no other.
        match stage(shared, &round, vec![write]) {
            Ok((one, _)) => {
                round.add(one);
                renewed += 1;
            }
            Err(error) => tracing::warn!(
                entity = kind.name(),
                %id,
                "a stored row stays as an earlier version wrote it: {error}"
            ),
        }
    }
    if renewed == 0 {
        return Ok(());
    }
    tracing::info!(rows = renewed, "bringing stored rows up to date");
    put_into_effect(shared, engine, &round)
}

/// Writes a round before there is anyone to tell of it.
fn put_into_effect(shared: &Shared, engine: &mut Engine, round: &Round) -> Result<(), String> {
    match engine.commit(round) {
        Outcome::Done => {
            Arc::make_mut(&mut shared.rows.write()).apply(&round.rows);
            Ok(())
        }
        Outcome::Refused(reason) | Outcome::Failed(reason) => Err(reason),
    }
}
