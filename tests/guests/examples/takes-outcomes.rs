//! Tags each pick with its number, chooses the position of its try, and logs what came of each.

use guest_sdk::{Balancer, Ended, Endpoints, Request, info, tag};

#[derive(Default)]
struct TakesOutcomes {
    picks: u64,
}

impl Balancer for TakesOutcomes {
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.picks += 1;
        tag(self.picks);
        Some(request.attempt as usize % endpoints.len())
    }

    fn try_ended(&mut self, ended: &Ended) {
        // Outside a pick, this has no effect.
        tag(99);
        let Ended { tag, why, status, retry_after, bytes, .. } = ended;
        let first = ended.first_byte.is_some_and(|first| first <= ended.took);
        info!("{tag} {why:?} {status:?} {retry_after:?} {bytes} {first}");
    }
}

guest_sdk::export!(TakesOutcomes, outcomes);
