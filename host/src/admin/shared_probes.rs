//! Health over several gateways: one of them probes an upstream, and all have what it finds.
//!
//! Among the gateways of a channel, an upstream belongs to the one whose id has the highest hash
//! with the upstream's (rendezvous hashing). So they agree without asking each other, and a gateway
//! that comes or goes moves only its own share. What the gateway finds is one key of the store for
//! each upstream, written when it changes, many at a time. While the store is away, each gateway
//! probes for itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::Admin;
use crate::entity::rollout::CANARY;
use crate::node;
use crate::split_mix::mixed;
use crate::store::{Finding, Nodes};
use crate::upstream::Upstream;

/// Shortest pause between two rounds.
const PERIOD: Duration = Duration::from_secs(1);

/// The pause for each gateway, so that all of them ask the store a hundred times a second at the
/// most.
const FOR_EACH: Duration = Duration::from_millis(10);

/// Longest time in which the store has to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without an answer of the store after which each gateway probes for itself: the others may
/// be gone. Their keys end after ten seconds.
const ALONE: Duration = Duration::from_secs(15);

/// Rounds after which findings about upstreams that are gone are removed.
const TIDY: u32 = 60;

/// Shares probes for as long as the future is polled.
pub(super) async fn share_probes(admin: &Admin, nodes: &dyn Nodes) {
    let mut sharing = Sharing {
        channel: match admin.config.is_canary {
            true => CANARY,
            false => "main",
        },
        since: 0,
        known: HashMap::new(),
        followed: HashSet::new(),
        gone: Vec::new(),
    };
    let mut answered = None;
    for round in 0_u32.. {
        let (_, snapshot) = admin.published.current();
        let shared = snapshot.upstreams.iter();
        let shared = shared.filter(|(_, upstream)| upstream.shares_probes());
        let shared: HashMap<Uuid, Arc<Upstream>> = shared
            .map(|(id, upstream)| (*id, Arc::clone(upstream)))
            .collect();
        let mut pause = PERIOD;
        if !shared.is_empty() {
            match timeout(STORE_TIMEOUT, sharing.round(nodes, &shared)).await {
                Ok(Ok(gateways)) => {
                    answered = Some(Instant::now());
                    pause = pause.max(FOR_EACH.saturating_mul(gateways));
                    if round.is_multiple_of(TIDY) {
                        let is_there = |id: &Uuid| snapshot.upstreams.get(id).is_some();
                        sharing.tidy(nodes, is_there).await;
                    }
                }
                _ if answered.is_none_or(|last| last.elapsed() > ALONE) => {
                    for upstream in shared.values() {
                        upstream.set_probed_elsewhere(false);
                    }
                    // What is found here meanwhile gives way to what the others know, once the
                    // store answers again.
                    sharing.followed.clear();
                }
                // Each one goes on as it was.
                _ => {}
            }
        }
        drop(snapshot);
        sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// What is known of the findings in the store.
struct Sharing {
    channel: &'static str,
    /// Where the next reading begins.
    since: u64,
    known: HashMap<Uuid, Vec<u64>>,
    /// The upstreams that others probe, and of which this gateway has what is known.
    followed: HashSet<Uuid>,
    /// Upstreams with findings that were not there at the last look.
    gone: Vec<Uuid>,
}

impl Sharing {
    /// Publishes what was found here, and applies what others have found. Returns the number of
    /// gateways.
    async fn round(
        &mut self,
        nodes: &dyn Nodes,
        shared: &HashMap<Uuid, Arc<Upstream>>,
    ) -> Result<u32, String> {
        let listed = nodes.list().await?;
        let channel_of = |channel: Option<&str>| channel.unwrap_or("main") == self.channel;
        let own = listed.iter();
        let own = own.filter(|node| channel_of(node.channel.as_deref()));
        let mut gateways: Vec<Uuid> = own.map(|node| node.id).collect();
        // Its key may not be there yet.
        if !gateways.contains(&node::id()) {
            gateways.push(node::id());
        }
        // Before anything is published: a gateway that takes an upstream over begins with what is
        // known.
        let (mut since, mut findings) = nodes.findings(self.channel, self.since).await?;
        if since < self.since {
            // The store was restored from an earlier state: what it has differs from what is known.
            (since, findings) = nodes.findings(self.channel, 0).await?;
            self.known.clear();
            self.followed.clear();
        }
        self.since = since;
        for finding in findings {
            let unhealthy = finding.unhealthy.unwrap_or_default();
            let known = self.known.get(&finding.upstream);
            if known == Some(&unhealthy) {
                continue;
            }
            self.followed.remove(&finding.upstream);
            self.known.insert(finding.upstream, unhealthy);
        }
        self.followed.retain(|id| shared.contains_key(id));
        let mut news = Vec::new();
        for (id, upstream) in shared {
            let is_own = prober_of(*id, &gateways) == Some(node::id());
            upstream.set_probed_elsewhere(!is_own);
            if !is_own {
                if self.followed.insert(*id) {
                    // Nothing is published while all of its endpoints are healthy.
                    let known = self.known.get(id).map_or(&[][..], Vec::as_slice);
                    upstream.apply_findings(known);
                }
                continue;
            }
            self.followed.remove(id);
            let found = upstream.found_unhealthy();
            if self.known.get(id).map_or(&[][..], Vec::as_slice) != found {
                news.push(Finding {
                    upstream: *id,
                    unhealthy: Some(found),
                });
            }
        }
        if !news.is_empty() {
            tracing::debug!(upstreams = news.len(), "findings of probes are published");
            nodes.publish(self.channel, news.clone()).await?;
            for Finding {
                upstream,
                unhealthy,
            } in news
            {
                self.known.insert(upstream, unhealthy.unwrap_or_default());
            }
        }
        Ok(u32::try_from(listed.len()).unwrap_or(u32::MAX))
    }

    /// Removes the findings about upstreams that were not there at two looks.
    async fn tidy(&mut self, nodes: &dyn Nodes, is_there: impl Fn(&Uuid) -> bool) {
        let absent = self.known.keys().filter(|id| !is_there(id)).copied();
        let absent: Vec<Uuid> = absent.collect();
        let removed = self.gone.iter().filter(|id| absent.contains(id));
        let removed = removed.map(|id| Finding {
            upstream: *id,
            unhealthy: None,
        });
        let removed: Vec<Finding> = removed.collect();
        if !removed.is_empty()
            && let Ok(Ok(())) =
                timeout(STORE_TIMEOUT, nodes.publish(self.channel, removed.clone())).await
        {
            for finding in removed {
                self.known.remove(&finding.upstream);
            }
        }
        self.gone = absent;
    }
}

/// The gateway that probes an upstream.
fn prober_of(upstream: Uuid, gateways: &[Uuid]) -> Option<Uuid> {
    let weight = |gateway: &Uuid| {
        let ((one, two), (three, four)) = (gateway.as_u64_pair(), upstream.as_u64_pair());
        mixed(mixed(mixed(mixed(one) ^ two) ^ three) ^ four)
    };
    let all = gateways.iter();
    all.max_by_key(|gateway| (weight(gateway), **gateway))
        .copied()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// All gateways agree in whatever order they know each other, and one that leaves moves
        /// only its own upstreams.
        #[test]
        fn gateways_agree_and_one_that_leaves_moves_only_its_own(
            gateways in prop::collection::btree_set(any::<u128>(), 2..20), upstream in any::<u128>(),
            leaving in any::<prop::sample::Index>(),
        ) {
            let upstream = Uuid::from_u128(upstream);
            let mut gateways: Vec<Uuid> = gateways.into_iter().map(Uuid::from_u128).collect();
            let prober = prober_of(upstream, &gateways).unwrap();
            gateways.reverse();
            prop_assert_eq!(prober_of(upstream, &gateways), Some(prober));
            let left = gateways.remove(leaving.index(gateways.len()));
            let later = prober_of(upstream, &gateways).unwrap();
            prop_assert!(later == prober || left == prober);
        }
    }

    #[test]
    fn upstreams_are_spread_evenly() {
        let gateways: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
        let mut each: HashMap<Uuid, usize> = HashMap::new();
        for _ in 0..10_000 {
            let prober = prober_of(Uuid::new_v4(), &gateways).unwrap();
            *each.entry(prober).or_default() += 1;
        }
        // 500 each on average, with a standard deviation of 22.
        assert_eq!(each.len(), 20);
        assert!(
            each.values().all(|number| (370..630).contains(number)),
            "{each:?}"
        );
    }
}
