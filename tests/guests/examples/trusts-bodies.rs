//! Takes it for granted that each request has a prompt and limits its answer, and so traps at
//! another one.

use guest_sdk::{Balancer, Endpoints, Request, Weighted, facts};

#[derive(Default)]
struct TrustsBodies;

impl Balancer for TrustsBodies {
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        self.pick_weighted(request, endpoints).map(|pick| pick.position)
    }

    fn pick_weighted(&mut self, request: &Request, endpoints: &Endpoints) -> Option<Weighted> {
        let position = (request.entropy % endpoints.len() as u64) as usize;
        let Some(_) = facts::method() else {
            return Some(Weighted::from(position));
        };
        let limit = facts::json_field("/max_tokens", 16).expect("a request has a limit");
        let (first_byte, _) = facts::prompt_length().expect("a request has a prompt");
        Some(Weighted { position, first_byte: first_byte as u32, rest: limit.parse().unwrap() })
    }
}

guest_sdk::export!(TrustsBodies, weighted);
