//! Describes its settings by a schema that is nested deeper than what is stored can be.

use guest_sdk::{Balancer, Endpoints, Request};

const DEPTH: usize = 125;
const OPEN: &[u8] = br#"{"not":"#;
const LENGTH: usize = DEPTH * (OPEN.len() + 1) + 2;

/// `{"not":{"not":… {} …}}`
const SCHEMA: [u8; LENGTH] = {
    let mut text = [b'}'; LENGTH];
    let mut at = 0;
    while at < DEPTH * OPEN.len() {
        text[at] = OPEN[at % OPEN.len()];
        at += 1;
    }
    text[at] = b'{';
    text
};

#[derive(Default)]
struct DeepSchema;

impl Balancer for DeepSchema {
    const CONFIG_SCHEMA: &'static str = match std::str::from_utf8(&SCHEMA) {
        Ok(text) => text,
        Err(_) => panic!("it is ASCII"),
    };

    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        Some(0)
    }
}

guest_sdk::export!(DeepSchema);
