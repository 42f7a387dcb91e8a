//! Takes turns, and panics at every tenth pick.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PanicsSometimes {
    picks: usize,
}

impl Balancer for PanicsSometimes {
    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.picks += 1;
        assert!(
            !self.picks.is_multiple_of(10),
            "this is pick {}",
            self.picks
        );
        self.picks.checked_rem(endpoints.len())
    }
}

guest_sdk::export!(PanicsSometimes);
