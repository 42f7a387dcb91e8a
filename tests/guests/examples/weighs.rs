//! Picks the endpoint with the least cost in flight. What a request weighs is in its header
//! `x-cost`: the part until the first byte, and the rest. Logs the load of all endpoints at each
//! pick.

use guest_sdk::{Balancer, Column, Endpoints, Request, Weighted, facts, info};

#[derive(Default)]
struct Weighs;

const COLUMNS: [Column; 4] = [
    Column::InFlight,
    Column::InFlightCost,
    Column::Unanswered,
    Column::UnansweredCost,
];

impl Balancer for Weighs {
    const COLUMNS: &'static [Column] = &COLUMNS;

    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        Some(self.pick_weighted(request, endpoints)?.position)
    }

    fn pick_weighted(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<Weighted> {
        let load = COLUMNS.map(|column| format!("{:?}", endpoints.column(column)));
        info!("{}", load.join(" "));
        let costs = facts::header("x-cost").unwrap_or_default();
        let mut costs = costs.split(' ').map(|cost| cost.parse().unwrap_or(0));
        let cost = |position: &usize| endpoints.column(Column::InFlightCost)[*position];
        Some(Weighted {
            position: (0..endpoints.len()).min_by_key(cost)?,
            first_byte: costs.next().unwrap_or(0),
            rest: costs.next().unwrap_or(0),
        })
    }
}

guest_sdk::export!(Weighs, weighted);
