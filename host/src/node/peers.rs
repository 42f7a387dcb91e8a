//! The gateways that share the configuration and are alive, for work and limits that they divide.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::Notify;
use uuid::Uuid;

use super::id;

/// The gateways that are alive, as this one knows them. Without a shared store, it is the only one.
pub(crate) static PEERS: Peers = Peers::new();

/// Gateways that are alive.
#[derive(Debug)]
pub(crate) struct Peers {
    /// In ascending order, with this one; none before the first look.
    ids: RwLock<Option<Arc<[Uuid]>>>,
    /// [`NodeShare`] in one number.
    share: AtomicU64,
    /// How many subscriptions there are.
    subscriptions: AtomicUsize,
    /// Notified of the first subscription.
    subscribed: Notify,
}

/// Which share of what the gateways divide this one has: the one at its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeShare {
    /// How many come before it.
    pub(crate) rank: u32,
    /// How many there are, at least 1.
    pub(crate) count: u32,
}

/// Has the gateway know the others until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct PeerSubscription<'a>(&'a Peers);

impl NodeShare {
    /// That of the only gateway.
    pub(crate) const ONLY: Self = Self { rank: 0, count: 1 };

    /// This gateway's part of a whole number: the parts of all gateways add up to it. A fraction
    /// counts as one, unless the gateway is the only one, which has all. If there is less than one
    /// for each gateway, they take turns: `turn` is a number that all of them know, and that grows.
    pub(crate) fn part_of(self, whole: f64, turn: u64) -> f64 {
        if self.count <= 1 {
            return whole;
        }
        let (whole, count) = (whole.ceil(), f64::from(self.count));
        let each = (whole / count).floor();
        let left = whole - each * count;
        let rank = match each < 1.0 {
            true => (u64::from(self.rank) + turn % u64::from(self.count)) % u64::from(self.count),
            false => self.rank.into(),
        };
        each + f64::from((rank as f64) < left)
    }
}

impl Peers {
    const fn new() -> Self {
        Self {
            ids: RwLock::new(None),
            share: AtomicU64::new(1),
            subscriptions: AtomicUsize::new(0),
            subscribed: Notify::const_new(),
        }
    }

    /// Has the gateway know the others until the result is dropped.
    pub(crate) fn subscribe(&self) -> PeerSubscription<'_> {
        if self.subscriptions.fetch_add(1, Ordering::SeqCst) == 0 {
            self.subscribed.notify_one();
        }
        PeerSubscription(self)
    }

    /// Waits until a part of the gateway needs to know them.
    pub(crate) async fn subscribed(&self) {
        while self.subscriptions.load(Ordering::SeqCst) == 0 {
            self.subscribed.notified().await;
        }
    }

    /// Notes which gateways are alive. This one always is.
    pub(crate) fn set(&self, mut ids: Vec<Uuid>) {
        ids.push(id());
        ids.sort_unstable();
        ids.dedup();
        let rank = ids.iter().position(|other| *other == id());
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (rank, count) = (number(rank.unwrap_or_default()), number(ids.len()));
        let mut known = self.ids.write();
        if known.as_deref() == Some(&*ids) {
            return;
        }
        *known = Some(ids.into());
        let share = u64::from(rank) << 32 | u64::from(count);
        self.share.store(share, Ordering::Relaxed);
    }

    /// The share of this gateway, as of the last look.
    pub(crate) fn share(&self) -> NodeShare {
        let share = self.share.load(Ordering::Relaxed);
        NodeShare {
            rank: (share >> 32) as u32,
            count: share as u32,
        }
    }
}

impl Drop for PeerSubscription<'_> {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_is_that_of_its_rank_among_the_others_and_this_gateway_is_always_alive() {
        let peers = Peers::new();
        assert_eq!(peers.share(), NodeShare::ONLY);
        let (before, after) = (Uuid::nil(), Uuid::max());
        peers.set(vec![after, before]);
        assert_eq!(peers.share(), NodeShare { rank: 1, count: 3 });
        peers.set(vec![after, id()]);
        assert_eq!(peers.share(), NodeShare { rank: 0, count: 2 });
        assert_eq!(peers.ids.read().as_deref(), Some(&[id(), after][..]));
    }

    #[tokio::test]
    async fn the_others_are_looked_for_while_they_are_needed() {
        let peers = Peers::new();
        let subscription = peers.subscribe();
        let other = peers.subscribe();
        drop(subscription);
        peers.subscribed().await;
        drop(other);
        assert_eq!(peers.subscriptions.load(Ordering::SeqCst), 0);
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_whole_and_differ_by_one_at_most(
            whole in prop_oneof![0.1_f64..1e12, 0.1_f64..200.0], count in 2..200_u32,
            turn in any::<u64>(),
        ) {
            let parts = (0..count).map(|rank| NodeShare { rank, count }.part_of(whole, turn));
            let mut parts: Vec<f64> = parts.collect();
            parts.sort_unstable_by(|one, other| other.total_cmp(one));
            let sum: f64 = parts.iter().sum();
            prop_assert!((sum - whole.ceil()).abs() < 0.5, "{sum} {whole}");
            let (least, most) = (parts[parts.len() - 1], parts[0]);
            prop_assert!(most - least <= 1.0 && least >= 0.0, "{parts:?}");
            prop_assert!(NodeShare::ONLY.part_of(whole, turn).to_bits() == whole.to_bits());
        }

        #[test]
        fn no_gateway_is_without_a_part_for_ever(
            whole in 0.1_f64..200.0, count in 2..200_u32, turn in 0..u64::MAX - 200,
        ) {
            for rank in 0..count {
                let share = NodeShare { rank, count };
                let turns = turn..turn + u64::from(count);
                let all: f64 = turns.map(|turn| share.part_of(whole, turn)).sum();
                prop_assert!(all >= 1.0, "{rank}");
            }
        }
    }
}
