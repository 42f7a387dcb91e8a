//! Follows the keys of the configuration, and goes on where it was after each interruption.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, malformed};
use super::feed::{Batch, Feed};
use super::grpc::{CallError, OUT_OF_RANGE};
use super::messages::{self, EtcdRevision, Event, KeyRange, WATCH, WatchResponse};

/// Time without an event after which etcd is asked how far the watch is, and then for its answer: a
/// watch can be silent although its connection works.
const SILENCE: Duration = Duration::from_secs(4);

/// Time without a watch after which etcd counts as away. A change of its leader takes about one
/// second.
const GRACE: Duration = Duration::from_secs(2);

/// Time after which a member that is behind what was seen before is not only slow.
const BEHIND: Duration = Duration::from_secs(5);

/// First and longest pause before the next try. Each is lengthened by up to itself, so that many
/// gateways do not come at the same time.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Why a watch has ended.
enum Ended {
    /// It can go on.
    Broken(String),
    /// What was between is no longer there.
    Lost(String),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(OUT_OF_RANGE, reason) => Self::Lost(reason),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// Follows a range of keys from a revision on, until it has lost its place.
pub(super) async fn run(client: Arc<Client>, feed: Arc<Feed>, keys: KeyRange, from: EtcdRevision) {
    let mut watch = Watch {
        client,
        feed,
        keys,
        next: from,
        pause: RETRY_PAUSES[0],
        broken: None,
    };
    loop {
        match watch.follow().await {
            Ended::Lost(reason) => return watch.feed.lose(&reason),
            Ended::Broken(reason) => {
                let since = *watch.broken.get_or_insert_with(Instant::now);
                tracing::debug!("the watch of etcd is interrupted: {reason}");
                if since.elapsed() >= GRACE {
                    watch
                        .feed
                        .set_down(format!("etcd cannot be followed: {reason}"));
                }
                sleep(watch.pause.mul_f64(1.0 + fastrand::f64())).await;
                watch.pause = (watch.pause * 2).min(RETRY_PAUSES[1]);
            }
        }
    }
}

struct Watch {
    client: Arc<Client>,
    feed: Arc<Feed>,
    keys: KeyRange,
    /// The revision of the first event that was not received yet.
    next: EtcdRevision,
    pause: Duration,
    /// Since when there is no watch.
    broken: Option<Instant>,
}

impl Watch {
    /// Follows one stream until it ends.
    async fn follow(&mut self) -> Ended {
        match self.try_follow().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_follow(&mut self) -> Result<std::convert::Infallible, Ended> {
        let first = messages::watch(&self.keys, self.next);
        let (sending, mut answers) = self.client.stream(WATCH, first).await?;
        let mut is_created = false;
        let mut is_asked = false;
        loop {
            let answer = match timeout(SILENCE, answers.next()).await {
                Ok(Err(error)) => {
                    if error.asks_for_token() {
                        self.client.forget_token();
                    }
                    return Err(error.into());
                }
                Ok(Ok(answer)) => answer,
                Err(_) if is_asked || !is_created => {
                    return Err(Ended::Broken("the watch is silent".into()));
                }
                Err(_) => {
                    is_asked = true;
                    sending.send(messages::watch_progress().into_bytes());
                    continue;
                }
            };
            is_asked = false;
            let answer = answer.ok_or_else(|| Ended::Broken("the watch was closed".into()))?;
            let answer = WatchResponse::read(&answer).map_err(malformed)?;
            if answer.compacted > 0 {
                let reason = format!(
                    "etcd has compacted its revisions before {}",
                    answer.compacted
                );
                return Err(Ended::Lost(reason));
            }
            if let Some(reason) = answer.cancelled {
                // etcd has no code for this: the token of the user may have expired.
                self.client.forget_token();
                return Err(Ended::Broken(reason));
            }
            if answer.is_created {
                is_created = true;
                if answer.revision + 1 < self.next {
                    return Err(self.is_behind());
                }
                self.pause = RETRY_PAUSES[0];
                self.feed.set_up(self.broken.take().is_some());
            } else if answer.events.is_empty() {
                // A progress notification.
                self.feed.reach(answer.revision);
                self.next = self.next.max(answer.revision + 1);
            } else {
                let batches = batches(answer.events);
                if let Some(last) = batches.last() {
                    self.next = last.revision + 1;
                }
                self.feed.add(batches);
            }
        }
    }
}

impl Watch {
    /// What follows from a member whose newest revision is older than what was seen before. If etcd
    /// was restored from an older snapshot, it would send nothing until it has reached that
    /// revision again.
    fn is_behind(&self) -> Ended {
        let reason = "etcd has an older revision than before".to_owned();
        match self.broken {
            Some(since) if since.elapsed() >= BEHIND => Ended::Lost(reason),
            _ => Ended::Broken(reason),
        }
    }
}

/// Groups events by their transactions.
fn batches(events: Vec<Event>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        match batches.last_mut() {
            Some(batch) if batch.revision == event.revision => batch.events.push(event),
            _ => batches.push(Batch {
                revision: event.revision,
                events: vec![event],
            }),
        }
    }
    batches
}
