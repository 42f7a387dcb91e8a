//! Computes for `steps` steps at each `every`th pick after the first `after` ones, and picks the
//! first endpoint: a step is about a nanosecond.

use std::hint::black_box;

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct Dear {
    steps: u64,
    every: u64,
    after: u64,
    picks: u64,
}

impl Balancer for Dear {
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object"}"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let number = |name: &str| {
            let rest = config.split(name).nth(1).unwrap_or("0");
            let digits = rest.chars().skip_while(|c| !c.is_ascii_digit());
            let digits: String = digits.take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        self.steps = number("steps");
        self.every = number("every").max(1);
        self.after = number("after");
        Ok(())
    }

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        self.picks += 1;
        if self.picks > self.after && self.picks.is_multiple_of(self.every) {
            for step in 0..self.steps {
                black_box(step);
            }
        }
        Some(0)
    }
}

guest_sdk::export!(Dear);
