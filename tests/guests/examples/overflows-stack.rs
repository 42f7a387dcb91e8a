//! Calls itself without end in each pick. What is done with the inner call's answer depends on the
//! order, so that no optimiser can turn it into a loop.

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct OverflowsStack;

impl Balancer for OverflowsStack {
    fn pick(&mut self, request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(deeper(request.entropy | 1) as usize)
    }
}

fn deeper(seed: u64) -> u64 {
    // An odd number in steps of two is never 0.
    if seed == 0 {
        return 1;
    }
    deeper(seed.wrapping_add(2)).rotate_left(seed as u32 & 31) ^ seed
}

guest_sdk::export!(OverflowsStack);
