//! The gateways that share a configuration: each has a key under a lease, so that the key of a
//! gateway that has ended, or cannot reach etcd, is gone after a while.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use uuid::Uuid;

use super::super::journal::OpenError;
use super::super::{Finding, Node, Nodes, Revision};
use super::client::{Client, malformed};
use super::format::{Entry, Keys, json};
use super::grpc::CallError;
use super::large;
use super::messages::{
    Compare, KeyRange, KeyValue, LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, PUT, RANGE,
    RangeResponse, Step, TXN, TransactionResponse, changed_since, granted, keep_alive, lease,
    put_under, revoke, time_left, transaction,
};
use super::remote::Remote;
use super::seal::Keyring;
use crate::config::Etcd;
use crate::dns::Resolver;

/// Time after which the key of a gateway that says nothing is gone, in seconds.
const LEASE_SECONDS: u64 = 10;

/// Pause between two signs of life.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3);

/// Time after which a gateway looks whether its key is still there: it can be lost although its
/// lease stands.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two writes of the same gateway.
const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time for the list to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which another member is asked for the newest commit. Requests wait for it a little
/// longer than this.
const NEWEST_TIMEOUT: Duration = Duration::from_millis(1800);

/// The gateways that share a configuration.
#[derive(Debug)]
pub(super) struct EtcdNodes {
    remote: Remote,
    /// The lease of the key of this gateway; 0 for none.
    lease: AtomicU64,
}

impl EtcdNodes {
    pub(super) fn new(settings: &Etcd, resolver: &Arc<Resolver>) -> Result<Self, OpenError> {
        let remote = Remote {
            client: Client::new(settings, resolver)?.into(),
            keys: Keys::new(&settings.prefix),
            keyring: Keyring::default(),
        };
        Ok(Self {
            remote,
            lease: AtomicU64::new(0),
        })
    }

    async fn try_announce(
        &self,
        node: &mut watch::Receiver<Node>,
    ) -> Result<Infallible, CallError> {
        let client = &self.remote.client;
        let answer = client
            .call(LEASE_GRANT, lease(LEASE_SECONDS).as_bytes())
            .await?;
        let lease = granted(&answer).map_err(malformed)?;
        self.lease.store(lease, Ordering::Relaxed);
        let (sending, mut answers) = client.stream(LEASE_KEEP_ALIVE, keep_alive(lease)).await?;
        // Also kept alive while the node changes all the time.
        let mut renewals = interval_at(Instant::now() + RENEWAL_INTERVAL, RENEWAL_INTERVAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval_at(Instant::now() + KEY_CHECK_INTERVAL, KEY_CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let state = node.borrow_and_update().clone();
            let key = self.remote.keys.node(state.id);
            let message = put_under(&key, &json(&state), lease);
            client.call(PUT, message.as_bytes()).await?;
            sleep(MIN_WRITE_INTERVAL).await;
            let mut changed = std::pin::pin!(node.changed());
            loop {
                tokio::select! {
                    changed = &mut changed => match changed {
                        Ok(()) => break,
                        // The gateway ends.
                        Err(_) => std::future::pending::<()>().await,
                    },
                    _ = renewals.tick() => {
                        let answer = timeout(READ_TIMEOUT, answers.next()).await;
                        let answer = answer.map_err(|_| silent())??.ok_or_else(silent)?;
                        if time_left(&answer).map_err(malformed)? == 0 {
                            return Err(CallError::Broken("the lease has ended".into()));
                        }
                        sending.send(keep_alive(lease).into_bytes());
                    }
                    _ = looks.tick() => {
                        let found = self.remote.get(&key, Instant::now() + READ_TIMEOUT).await?;
                        if found.is_none() {
                            break;
                        }
                    }
                }
            }
        }
    }
}

impl EtcdNodes {
    /// Findings are keys without a lease: what a gateway has found holds until another one has
    /// found something else.
    async fn try_publish(&self, channel: &str, findings: Vec<Finding>) -> Result<(), CallError> {
        let entries = findings.iter().map(|finding| {
            let key = self.remote.keys.finding(channel, finding.upstream);
            let unhealthy = finding.unhealthy.as_ref().map(json);
            (
                key,
                unhealthy.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            )
        });
        let entries: Vec<Entry> = entries.collect();
        for group in large::groups(&entries, large::STEPS) {
            let unread = KeyRange::key(&self.remote.keys.probe());
            let message = transaction(&[], &large::steps(group), &unread);
            self.remote.client.call(TXN, message.as_bytes()).await?;
        }
        Ok(())
    }

    async fn try_read_findings(
        &self,
        channel: &str,
        since: u64,
    ) -> Result<(u64, Vec<Finding>), CallError> {
        let keys = KeyRange::prefix(&self.remote.keys.findings(channel));
        let message = changed_since(&keys, since.cast_signed());
        let deadline = Instant::now() + READ_TIMEOUT;
        let answer = self.remote.client.read(RANGE, &message, deadline).await?;
        let answer = RangeResponse::read(&answer).map_err(malformed)?;
        let read = |entry: &KeyValue| {
            Some(Finding {
                upstream: self.remote.keys.found_upstream(channel, &entry.key)?,
                unhealthy: Some(serde_json::from_slice(&entry.value).ok()?),
            })
        };
        let findings = answer.entries.iter().filter_map(read).collect();
        Ok((answer.revision.unsigned_abs() + 1, findings))
    }

    /// The key of a task is under the lease of the gateway that has it. It is read first, because
    /// etcd writes every transaction that may change something to its disks.
    async fn try_claim(&self, task: &str, id: Uuid) -> Result<bool, CallError> {
        let key = self.remote.keys.task(task);
        let has = |value: &[u8]| value == id.to_string().as_bytes();
        let found = self.remote.get(&key, Instant::now() + READ_TIMEOUT).await?;
        let lease = self.lease.load(Ordering::Relaxed);
        if let Some(found) = found {
            return Ok(has(&found.value));
        }
        if lease == 0 {
            return Ok(false);
        }
        let compared = [Compare::Missing(key.clone())];
        let steps = [Step::PutUnder(key.clone(), id.to_string().into(), lease)];
        let message = transaction(&compared, &steps, &KeyRange::key(&key));
        let answer = self.remote.client.call(TXN, message.as_bytes()).await?;
        let answer = TransactionResponse::read(&answer).map_err(malformed)?;
        Ok(answer.succeeded || answer.read.iter().any(|found| has(&found.value)))
    }
}

impl Nodes for EtcdNodes {
    fn announce(&self, mut node: watch::Receiver<Node>) -> BoxFuture<'_, ()> {
        async move {
            loop {
                match self.try_announce(&mut node).await {
                    Ok(never) => match never {},
                    Err(error) => {
                        tracing::debug!("the other gateways are not told of this one: {error}");
                    }
                }
                sleep(RENEWAL_INTERVAL.mul_f64(0.5 + fastrand::f64())).await;
            }
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Node>, String>> {
        async move {
            let keys = KeyRange::prefix(&self.remote.keys.nodes());
            let listed = self.remote.pages(keys, Instant::now() + READ_TIMEOUT).await;
            let (_, entries) = listed.map_err(|error| format!("etcd cannot be read: {error}"))?;
            let nodes = entries.iter();
            Ok(nodes
                .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
                .collect())
        }
        .boxed()
    }

    fn newest(&self) -> BoxFuture<'_, Result<Revision, String>> {
        async move {
            let deadline = Instant::now() + READ_TIMEOUT;
            let head = loop {
                match timeout(NEWEST_TIMEOUT, self.remote.head(deadline)).await {
                    Ok(head) => break head,
                    // A member that has no majority answers nothing.
                    Err(_) => self.remote.client.leave(),
                }
                if Instant::now() >= deadline {
                    break Err(CallError::Broken("it does not answer".into()));
                }
            };
            let head = head.map_err(|error| format!("etcd cannot be read: {error}"))?;
            Ok(head.map_or(0, |stored| stored.head.revision))
        }
        .boxed()
    }

    fn ids(&self) -> BoxFuture<'_, Result<Vec<Uuid>, String>> {
        async move {
            let keys = KeyRange::prefix(&self.remote.keys.nodes());
            let listed = self.remote.keys(keys, Instant::now() + READ_TIMEOUT).await;
            let entries = listed.map_err(|error| format!("etcd cannot be read: {error}"))?;
            let ids = entries.iter();
            let ids = ids.filter_map(|entry| self.remote.keys.node_of(&entry.key));
            let mut ids: Vec<Uuid> = ids.collect();
            ids.sort_unstable();
            Ok(ids)
        }
        .boxed()
    }

    fn claim<'a>(&'a self, task: &'a str, id: Uuid) -> BoxFuture<'a, Result<bool, String>> {
        let claiming = self.try_claim(task, id);
        let told = |error| format!("etcd cannot give a task: {error}");
        async move { claiming.await.map_err(told) }.boxed()
    }

    fn publish<'a>(
        &'a self,
        channel: &'a str,
        findings: Vec<Finding>,
    ) -> BoxFuture<'a, Result<(), String>> {
        let publishing = self.try_publish(channel, findings);
        async move { publishing.await.map_err(|error| error.to_string()) }.boxed()
    }

    fn findings<'a>(
        &'a self,
        channel: &'a str,
        since: u64,
    ) -> BoxFuture<'a, Result<(u64, Vec<Finding>), String>> {
        let reading = self.try_read_findings(channel, since);
        async move { reading.await.map_err(|error| error.to_string()) }.boxed()
    }

    /// Ends the lease, and with it the key; not that of a process that has taken over from this
    /// one, which has the same key under its own lease.
    fn leave(&self) -> BoxFuture<'_, ()> {
        async move {
            let lease = self.lease.swap(0, Ordering::Relaxed);
            if lease == 0 {
                return;
            }
            let message = revoke(lease);
            let left = self.remote.client.call(LEASE_REVOKE, message.as_bytes());
            if let Err(error) = left.await {
                tracing::debug!("the other gateways are not told of the end of this one: {error}");
            }
        }
        .boxed()
    }
}

fn silent() -> CallError {
    CallError::Broken("the lease is not kept alive".into())
}
