use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Random;

impl Balancer for Random {
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let position = request.entropy.checked_rem(endpoints.len() as u64)?;
        Some(position as usize)
    }
}

guest_sdk::export!(Random);

#[cfg(test)]
mod tests;
