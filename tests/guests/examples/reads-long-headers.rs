//! Reads headers whose names have 300,000 letters.

use guest_sdk::{Balancer, Endpoints, Request, facts};

#[derive(Default)]
struct ReadsLongHeaders;

impl Balancer for ReadsLongHeaders {
    fn pick(&mut self, _request: &Request, _endpoints: &Endpoints) -> Option<usize> {
        for letter in ["a", "b", "c", "d"] {
            assert_eq!(facts::header(&letter.repeat(300_000)), None);
        }
        Some(0)
    }
}

guest_sdk::export!(ReadsLongHeaders);
