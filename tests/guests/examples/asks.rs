//! Picks the position that the header `x-position` names, 0 without one, and logs all facts that it
//! can read of the request.

use guest_sdk::{Balancer, Endpoints, Request, facts, info};

#[derive(Default)]
struct Asks;

impl Balancer for Asks {
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        assert_eq!(facts::method(), None, "there is no request now");
        Ok(())
    }

    fn endpoints_changed(&mut self, _endpoints: &Endpoints) {
        assert_eq!(facts::path(), None, "there is no request now");
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let known = [
            facts::method(),
            facts::path(),
            facts::query(),
            facts::client(),
            facts::header("x-Several"),
            facts::header("no such header"),
        ];
        info!("{}", known.map(|fact| fact.unwrap_or_else(|| "-".into())).join(" "));
        let position = facts::header("X-Position").and_then(|text| text.parse().ok());
        Some(position.unwrap_or(0) % endpoints.len())
    }
}

guest_sdk::export!(Asks);
