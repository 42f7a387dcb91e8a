//! Prints a line for each table of endpoints that it gets, and none for a pick.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct PrintsTable;

impl Balancer for PrintsTable {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        println!("a table of {}", endpoints.len());
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        endpoints.len().checked_sub(1)
    }
}

guest_sdk::export!(PrintsTable);
