//! A balancer of a later version: beside `policy`, which it exports through the SDK, it exports an
//! interface that this gateway does not call. It must load and pick as any other.
//!
//! It also shows that a plugin can be linked from two worlds, the SDK's and one more, which is
//! how later interfaces reach plugins (wit/README.md).

use guest_sdk::{Balancer, Endpoints, Request};

#[derive(Default)]
struct ExtraExport;

impl Balancer for ExtraExport {
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
        let position = request.entropy.checked_rem(endpoints.len() as u64)?;
        Some(position as usize)
    }
}

guest_sdk::export!(ExtraExport);

wit_bindgen::generate!({
    inline: "
        package pointsman:balancer@1.9.0;
        interface events {
            record finished { endpoint: u64, status: u32, latency-us: u64 }
            interests: func() -> list<string>;
            request-finished: func(event: finished);
        }
        world observer { export events; }
    ",
});

use exports::pointsman::balancer::events::{Finished, Guest};

impl Guest for ExtraExport {
    fn interests() -> Vec<String> {
        vec!["finished".into()]
    }

    fn request_finished(event: Finished) {
        println!(
            "endpoint {} answered {} after {} us",
            event.endpoint, event.status, event.latency_us
        );
    }
}

export!(ExtraExport);
