//! The one thread that takes writes and answers them.
//!
//! It never calls the journal itself, so that it can answer even if the journal does not return. A
//! second thread calls the journal, one task at a time.

mod staged;
mod task;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::journal::{CommitError, Journal};
use super::operations::Operations;
use super::rules::Steps;
use super::state::State;
use super::{Change, Commit, Error, Revision};
use crate::entity::Kind;
use staged::{PendingWrite, Staged};
use task::{Task, TaskResult, perform};

/// Pause between two checks of a store that can be written: whether its folder still exists and has
/// room.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// First and longest pause before a store that cannot be written is tried again.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Longest wait for the journal before callers get an error instead of its result. A healthy disk
/// takes milliseconds, a busy one up to some seconds.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two checks while the writer waits for the journal.
const TICK: Duration = Duration::from_millis(25);

/// A request to the writer.
pub(super) enum Job {
    Write(Steps, CommitSender),
    Watch(mpsc::UnboundedSender<Commit>),
    /// Another process has made a commit.
    Follow,
    /// Another process takes over, for which the storage has to be closed.
    Release(Release),
    /// It has not taken over.
    Resume,
}

type CommitSender = oneshot::Sender<Result<Revision, Error>>;

/// A request to close the storage.
pub(super) struct Release {
    /// What writes are refused with from then on.
    pub(super) reason: String,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
}

/// The thread that writes. The calls of the journal are made on another one.
pub(super) struct Writer {
    state: Arc<State>,
    tasks: Sender<Task>,
    outcomes: Receiver<TaskResult>,
    watchers: Vec<mpsc::UnboundedSender<Commit>>,
    /// Watches that were requested while the writer waited for the journal.
    starting: Vec<mpsc::UnboundedSender<Commit>>,
    /// Releases that were requested while the writer waited for the journal.
    releases: Vec<Release>,
    /// Whether the journal has to recover before a write can be tried.
    has_failed: bool,
    /// Whether the storage is closed because another process takes over.
    is_released: bool,
    /// Whether there is something to follow.
    is_behind: bool,
    /// When the journal is checked next, and the pause after that.
    due: Instant,
    pause: Duration,
}

impl Writer {
    pub(super) fn start(state: Arc<State>, mut journal: impl Journal) -> std::io::Result<Self> {
        let (tasks, waiting) = channel();
        let (done, outcomes) = channel();
        std::thread::Builder::new()
            .name("store-journal".into())
            .spawn(move || {
                for task in waiting {
                    if done.send(perform(&mut journal, task)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            state,
            tasks,
            outcomes,
            watchers: Vec::new(),
            starting: Vec::new(),
            releases: Vec::new(),
            has_failed: false,
            is_released: false,
            is_behind: false,
            due: Instant::now() + CHECK_INTERVAL,
            pause: RETRY[0],
        })
    }

    /// Runs until the last sender of jobs is dropped. Returns the number of its commits.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> u64 {
        let mut commits = 0;
        loop {
            for release in std::mem::take(&mut self.releases) {
                self.release(release, jobs);
            }
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.tend(jobs);
                continue;
            }
            match jobs.recv_timeout(left) {
                Ok(first) => commits += self.serve(first, jobs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return commits,
            }
        }
    }

    /// Does all waiting jobs.
    fn serve(&mut self, first: Job, jobs: &Receiver<Job>) -> u64 {
        let mut commits = 0;
        let mut asked = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Write(steps, answer) => asked.push(PendingWrite { steps, answer }),
                Job::Watch(watcher) => {
                    // Earlier writes must reach earlier watchers first, and this watcher as rows of
                    // its first commit.
                    commits += self.commit(std::mem::take(&mut asked), jobs);
                    self.starting.push(watcher);
                    self.begin_watches();
                }
                Job::Follow => {
                    self.is_behind = true;
                    // The journal may be usable again.
                    if self.state.has_failed() {
                        self.due = Instant::now();
                    }
                }
                Job::Release(release) => {
                    commits += self.commit(std::mem::take(&mut asked), jobs);
                    self.release(release, jobs);
                }
                Job::Resume => self.resume(),
            }
        }
        commits += self.commit(asked, jobs);
        if self.is_behind && !self.has_failed {
            self.follow(jobs, &mut Vec::new());
            self.begin_watches();
        }
        commits
    }

    /// Has the journal commit writes, puts them into effect, notifies watchers and answers callers.
    /// If another process has replaced the head that the writes were staged on, they are staged
    /// again on the new head. Returns how often it committed.
    fn commit(&mut self, mut asked: Vec<PendingWrite>, jobs: &Receiver<Job>) -> u64 {
        let mut commits = 0;
        let began = Instant::now();
        while !asked.is_empty() {
            if self.has_failed {
                for PendingWrite { answer, .. } in asked {
                    drop(answer.send(Err(self.state.unavailable())));
                }
                break;
            }
            let rows = self.state.rows();
            let mut staged = Staged::new(&rows, asked);
            let head = rows.head();
            // While `rows` is held, a change would copy all rows.
            drop(rows);
            if staged.commits.is_empty() {
                break;
            }
            let operations = Arc::new(std::mem::take(&mut staged.operations));
            let task = Task::Commit(head, Arc::clone(&operations));
            let mut outcome = self.wait_for(task, jobs, &mut staged.answers);
            commits += 1;
            if matches!(outcome, TaskResult::NotDone(CommitError::Conflict)) {
                self.follow(jobs, &mut staged.answers);
                outcome = if began.elapsed() >= JOURNAL_TIMEOUT {
                    let reason = "other processes change it again and again".into();
                    TaskResult::NotDone(CommitError::Refused(reason))
                } else if self.has_failed || self.state.rows().head() != head {
                    let answers = staged.answers.into_iter();
                    asked = answers.map(|(asked, _)| asked).collect();
                    continue;
                } else {
                    TaskResult::Failed("it is at another revision than the one acknowledged".into())
                };
            }
            self.finish(staged, &operations, outcome);
            break;
        }
        self.begin_watches();
        commits
    }

    /// If the writes were committed, puts them into effect, notifies watchers and answers callers;
    /// otherwise answers callers with the reason.
    fn finish(&mut self, staged: Staged, operations: &Operations, outcome: TaskResult) {
        let is_done = matches!(outcome, TaskResult::Done);
        if is_done {
            self.state.change(|rows| rows.apply(operations));
            for commit in staged.commits {
                self.tell(commit);
            }
        }
        // A commit that failed midway may be stored, until the journal has recovered.
        let in_doubt = match &outcome {
            TaskResult::NotDone(CommitError::InDoubt { reason, fate }) => Some(format!(
                "the store has failed: {reason}; the change is not in effect, and {fate}"
            )),
            _ => None,
        };
        self.note(outcome);
        for (PendingWrite { answer, .. }, staged) in staged.answers {
            let outcome = match &in_doubt {
                Some(reason) => Err(Error::Unavailable(reason.clone())),
                None if is_done => staged,
                None => Err(self.state.unavailable()),
            };
            drop(answer.send(outcome));
        }
    }

    /// Puts into effect what other processes have committed.
    fn follow(
        &mut self,
        jobs: &Receiver<Job>,
        answers: &mut Vec<(PendingWrite, Result<Revision, Error>)>,
    ) {
        self.is_behind = false;
        let task = Task::Follow(self.state.rows());
        match self.wait_for(task, jobs, answers) {
            TaskResult::Followed(commits) => {
                for operations in commits {
                    let changes = self.state.change(|rows| rows.follow(&operations));
                    self.tell(Commit {
                        revision: operations.head,
                        changes,
                    });
                }
            }
            outcome => self.note(outcome),
        }
    }

    fn tell(&mut self, commit: Commit) {
        // One gets the commit itself: that of an import is large.
        let last = self.watchers.pop();
        self.watchers
            .retain(|watcher| watcher.send(commit.clone()).is_ok());
        let last = last.filter(|watcher| watcher.send(commit).is_ok());
        self.watchers.extend(last);
    }

    /// Has the journal do a task, and waits for it. `answers` belong to the callers that wait for
    /// this task. If it takes too long, these callers get an error, and so do all that send writes
    /// meanwhile.
    fn wait_for(
        &mut self,
        task: Task,
        jobs: &Receiver<Job>,
        answers: &mut Vec<(PendingWrite, Result<Revision, Error>)>,
    ) -> TaskResult {
        const ENDED: &str = "its thread has ended, so restart the gateway";
        let is_commit = matches!(task, Task::Commit(..));
        let began = Instant::now();
        if self.tasks.send(task).is_err() {
            return TaskResult::Failed(ENDED.into());
        }
        let mut is_late = false;
        loop {
            match self.outcomes.recv_timeout(TICK) {
                Ok(outcome) => return outcome,
                // The thread may have ended after the commit was stored.
                Err(RecvTimeoutError::Disconnected) if is_commit => {
                    let (reason, fate) = (ENDED.into(), "may be in effect after the restart");
                    return TaskResult::NotDone(CommitError::InDoubt { reason, fate });
                }
                Err(RecvTimeoutError::Disconnected) => return TaskResult::Failed(ENDED.into()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.state.journal().nudge();
            if !is_late && began.elapsed() >= JOURNAL_TIMEOUT {
                is_late = true;
                let late = format!(
                    "the {} has not answered for {} s",
                    self.state.journal().medium(),
                    JOURNAL_TIMEOUT.as_secs()
                );
                self.state.fail(late.clone());
                for (PendingWrite { answer, .. }, _) in answers.drain(..) {
                    let reason = format!(
                        "{late}: the change takes effect if and when it is stored, which is not known yet"
                    );
                    drop(answer.send(Err(Error::Unavailable(reason))));
                }
            }
            if self.state.has_failed() {
                self.refuse_all(jobs);
            }
            if is_late {
                for Release { answer, .. } in self.releases.drain(..) {
                    drop(answer.send(Err(self.state.unavailable())));
                }
            }
        }
    }

    /// Refuses the writes that arrive while the store cannot be written, and keeps the other jobs.
    fn refuse_all(&mut self, jobs: &Receiver<Job>) {
        for job in jobs.try_iter() {
            match job {
                Job::Write(_, answer) => drop(answer.send(Err(self.state.unavailable()))),
                Job::Watch(watcher) => self.starting.push(watcher),
                Job::Follow => self.is_behind = true,
                // The storage may be opening again, because the last process that wanted it has
                // failed: the next one need not know of that.
                Job::Release(release) => self.releases.push(release),
                Job::Resume => self.resume(),
            }
        }
    }

    fn release(&mut self, release: Release, jobs: &Receiver<Job>) {
        let Release { reason, answer } = release;
        let released = self.try_release(reason, jobs);
        drop(answer.send(released));
    }

    /// Has the journal close the storage, unless it has failed: nothing then says what it holds.
    fn try_release(&mut self, reason: String, jobs: &Receiver<Job>) -> Result<(), Error> {
        if self.has_failed && !self.is_released {
            // The last process may just have failed to take over.
            self.tend(jobs);
        }
        if self.has_failed {
            return Err(self.state.unavailable());
        }
        self.state.release(reason);
        self.has_failed = true;
        self.is_released = true;
        match self.wait_for(Task::Release, jobs, &mut Vec::new()) {
            TaskResult::Done => Ok(()),
            outcome => {
                self.resume();
                Err(match outcome {
                    TaskResult::Failed(reason) => Error::Unavailable(reason),
                    _ => self.state.unavailable(),
                })
            }
        }
    }

    /// Has the journal open the storage again, as after a failure.
    fn resume(&mut self) {
        self.is_released = false;
        self.due = Instant::now();
    }

    /// Checks whether the store can be written, and has the journal recover if it has failed.
    fn tend(&mut self, jobs: &Receiver<Job>) {
        if self.is_released {
            self.due = Instant::now() + CHECK_INTERVAL;
            return;
        }
        let task = if self.has_failed {
            Task::Recover(self.state.rows())
        } else {
            Task::Check
        };
        let outcome = self.wait_for(task, jobs, &mut Vec::new());
        // Following the journal may return what a failed commit has written.
        let follows = matches!(outcome, TaskResult::Recovered(_)) || self.is_behind;
        self.note(outcome);
        if follows && !self.has_failed {
            self.follow(jobs, &mut Vec::new());
        }
        self.begin_watches();
    }

    /// Updates the state of the store after a task.
    fn note(&mut self, outcome: TaskResult) {
        match outcome {
            TaskResult::Recovered(head) => {
                self.state.change(|rows| rows.set_head(head));
                self.has_failed = false;
                self.succeed();
                return;
            }
            TaskResult::Done => {
                self.succeed();
                return;
            }
            // Says nothing about whether the journal can be written.
            TaskResult::Followed(_) => return,
            // A conflict concerns only the write: the journal is still usable.
            TaskResult::NotDone(CommitError::Conflict) => return,
            TaskResult::NotDone(CommitError::Refused(reason)) => self.state.fail(reason),
            TaskResult::NotDone(CommitError::InDoubt { reason, .. })
            | TaskResult::Failed(reason) => {
                self.has_failed = true;
                self.state.fail(reason);
            }
        }
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY[1]);
    }

    fn succeed(&mut self) {
        self.pause = RETRY[0];
        self.due = Instant::now() + CHECK_INTERVAL;
        self.state.succeed();
    }

    /// Sends all rows to the new watchers, as their first commit.
    fn begin_watches(&mut self) {
        for watcher in std::mem::take(&mut self.starting) {
            let rows = self.state.rows();
            let changes = Kind::ALL.into_iter().flat_map(|kind| {
                let rows = rows.of_kind(kind, None);
                rows.map(move |(id, stored)| Change::Put {
                    kind,
                    id,
                    row: stored.row,
                })
            });
            let commit = Commit {
                revision: rows.head(),
                changes: changes.collect(),
            };
            if watcher.send(commit).is_ok() {
                self.watchers.push(watcher);
            }
        }
    }
}
