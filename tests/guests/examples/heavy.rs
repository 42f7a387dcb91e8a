//! Computes or holds memory, as much as configured, and picks the first endpoint.

use std::hint::black_box;

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Heavy {
    steps: usize,
    bytes: usize,
    held: Vec<u8>,
}

impl Balancer for Heavy {
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object"}"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let number = |name: &str| {
            let rest = config.split(name).nth(1).unwrap_or("0");
            let digits = rest.chars().skip_while(|c| !c.is_ascii_digit());
            let digits: String = digits.take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        self.steps = number("steps");
        self.bytes = number("bytes");
        Ok(())
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        for step in 0..self.steps {
            black_box(step);
        }
        self.held.resize(self.bytes, 1);
        Some(0)
    }
}

guest_sdk::export!(Heavy);
