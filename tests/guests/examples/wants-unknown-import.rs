//! A balancer that imports an interface which no gateway has.

use guest_sdk::{Balancer, Endpoints, Request};

wit_bindgen::generate!({
    inline: "
        package pointsman:balancer@1.1.0;
        interface nonsense { answer: func() -> u32; }
        world importer { import nonsense; }
    ",
});

#[derive(Default)]
struct WantsUnknownImport;

impl Balancer for WantsUnknownImport {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(pointsman::balancer::nonsense::answer() as usize)
    }
}

guest_sdk::export!(WantsUnknownImport);
