//! What a shadow and the first balancer have chosen, as sums.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::endpoint_address::EndpointAddress;

/// Addresses that are no longer in the table and whose picks are still kept. The number is bounded,
/// so that names whose addresses change all the time do not fill the memory.
const MAX_REMOVED: usize = 1000;

/// An endpoint as it was at the time of a pick.
pub(super) struct Figures {
    pub(super) id: u64,
    pub(super) address: EndpointAddress,
    pub(super) in_flight: u32,
    pub(super) latency: u32,
}

/// Sums over compared picks; in pairs, the first balancer's value comes first.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) compared: u64,
    pub(super) agreed: u64,
    pub(super) unanswered: u64,
    /// Picks for whose requests the start of the body was known, and those that have more of it.
    pub(super) bodies: [u64; 2],
    pub(super) refused: [u64; 2],
    /// Picks for which both chose an endpoint, and the requests in flight there.
    pub(super) both: u64,
    pub(super) in_flight: [u64; 2],
    /// Those of them where both latencies are known.
    pub(super) latencies: u64,
    pub(super) latency: [u64; 2],
    pub(super) picks: HashMap<u64, Picks>,
    pub(super) cost: Duration,
    pub(super) costed: u64,
}

pub(super) struct Picks {
    pub(super) address: EndpointAddress,
    pub(super) of: [u64; 2],
}

impl Tally {
    pub(super) fn add(&mut self, first: Option<Figures>, second: Option<Figures>) {
        self.compared += 1;
        let id = |figures: &Option<Figures>| figures.as_ref().map(|figures| figures.id);
        self.agreed += u64::from(id(&first) == id(&second));
        if let (Some(a), Some(b)) = (&first, &second) {
            self.both += 1;
            self.in_flight[0] += u64::from(a.in_flight);
            self.in_flight[1] += u64::from(b.in_flight);
            if a.latency > 0 && b.latency > 0 {
                self.latencies += 1;
                self.latency[0] += u64::from(a.latency);
                self.latency[1] += u64::from(b.latency);
            }
        }
        for (side, chosen) in [first, second].into_iter().enumerate() {
            match chosen {
                None => self.refused[side] += 1,
                Some(figures) => {
                    let picks = self.picks.entry(figures.id).or_insert(Picks {
                        address: figures.address,
                        of: [0, 0],
                    });
                    picks.of[side] += 1;
                }
            }
        }
    }

    /// Removes addresses that are no longer in the table, if there are many.
    pub(super) fn keep(&mut self, table: &[Arc<Endpoint>]) {
        if self.picks.len() > table.len() + MAX_REMOVED {
            let ids: std::collections::HashSet<u64> = table.iter().map(|e| e.id).collect();
            self.picks.retain(|id, _| ids.contains(id));
        }
    }
}
