//! Picks the first endpoint with the label `zone:a`, and logs what it can learn of each endpoint
//! when the table changes.

use guest_sdk::{Balancer, Endpoints, Request, info};

#[derive(Default)]
struct Labels(Option<usize>);

impl Balancer for Labels {
    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        let known = |position: usize| {
            let known = [
                endpoints.label(position, "zone"),
                endpoints.label(position, "none"),
                endpoints.host(position),
                endpoints.address(position),
            ];
            known
                .map(|text| text.unwrap_or_else(|| "-".into()))
                .join(" ")
        };
        let all: Vec<String> = (0..endpoints.len()).map(known).collect();
        info!("{}", all.join(", "));
        let in_a = |position: &usize| endpoints.label(*position, "zone").as_deref() == Some("a");
        self.0 = (0..endpoints.len()).find(in_a);
    }

    fn pick(&mut self, _request: &Request, endpoints: &Endpoints) -> Option<usize> {
        assert_eq!(
            endpoints.label(0, "zone"),
            None,
            "nothing is known in a pick"
        );
        assert_eq!(endpoints.host(0), None, "nothing is known in a pick");
        self.0
    }
}

guest_sdk::export!(Labels);
