//! Chooses the first position that was not tried, and logs what it knows of the tries of each
//! retry. It asks in other calls too, where there are none.

use guest_sdk::{Balancer, Endpoints, Request, info, tries};

#[derive(Default)]
struct AvoidsTried;

impl Balancer for AvoidsTried {
    fn configure(&mut self, _: &str) -> Result<(), String> {
        match tries::last_status() {
            None => Ok(()),
            Some(status) => Err(format!("a status in configure: {status}")),
        }
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        assert!((0..endpoints.len()).all(|position| !tries::was_tried(position)));
    }

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let (tried, free): (Vec<_>, Vec<_>) =
            (0..endpoints.len()).partition(|position| tries::was_tried(*position));
        if request.attempt > 0 {
            let status = tries::last_status();
            info!("retry {}: {status:?} {tried:?}", request.attempt);
        }
        Some(free.first().copied().unwrap_or(0))
    }
}

guest_sdk::export!(AvoidsTried);
