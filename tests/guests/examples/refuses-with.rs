//! Refuses each request with the status and the seconds in its header `x-refuse`; without the
//! header, it refuses with nothing said, and a request with `x-accept` is placed.

use guest_sdk::{Balancer, Endpoints, Request, facts, refuse};

#[derive(Default)]
struct RefusesWith;

impl Balancer for RefusesWith {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        let asked = facts::header("x-refuse").unwrap_or_default();
        let mut numbers = asked.split(' ');
        let status = numbers.next().and_then(|status| status.parse().ok());
        let seconds = numbers.next().and_then(|seconds| seconds.parse().ok());
        let refused: Option<usize> = match status {
            Some(status) => refuse(status, seconds),
            None => None,
        };
        if facts::header("x-accept").is_some() {
            Some(0)
        } else {
            refused
        }
    }
}

guest_sdk::export!(RefusesWith);
