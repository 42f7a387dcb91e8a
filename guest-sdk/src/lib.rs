//! Write a load balancer for Pointsman: a type, the [`Balancer`] trait, and one line.
//!
//! ```
//! use guest_sdk::{Balancer, Endpoints, Request};
//!
//! #[derive(Default)]
//! struct Random;
//!
//! impl Balancer for Random {
//!     fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
//!         (request.entropy as usize).checked_rem(endpoints.len())
//!     }
//! }
//!
//! guest_sdk::export!(Random);
//! ```
//!
//! `cargo build --release --target wasm32-wasip2` makes a component of it that the gateway loads. A
//! balancer is a function of its state and its arguments: time and randomness come with each request,
//! so tests need no gateway and no WebAssembly.
//!
//! ```
//! # use guest_sdk::{Balancer, Endpoint, Endpoints, Request};
//! # #[derive(Default)]
//! # struct Random;
//! # impl Balancer for Random {
//! #     fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
//! #         (request.entropy as usize).checked_rem(endpoints.len())
//! #     }
//! # }
//! let endpoints = Endpoints::new(vec![Endpoint { id: 7, weight: 100 }, Endpoint { id: 8, weight: 100 }]);
//! let request = Request { entropy: 5, now: 0, affinity: None, attempt: 0 };
//! assert_eq!(Random.pick(&request, &endpoints), Some(1));
//! ```

mod endpoints;
mod export;

pub use endpoints::{Column, Endpoints};

/// One place that a request may go: a stable `id` (equal on every gateway for the same host and port)
/// and a `weight` from 1 to 65535, its share of the traffic relative to the others.
pub use bindings::exports::pointsman::balancer::policy::Endpoint;

/// The request to be placed: `entropy`, uniform random bits that are new for each call; `now`,
/// microseconds on a clock that never goes back; `affinity`, the hash of what the upstream's `hash_on`
/// names, if the request carries it; `attempt`, 0 for the first try and 1 for the first retry.
pub use bindings::exports::pointsman::balancer::policy::Request;

/// Chooses where each request of one upstream goes.
///
/// The gateway makes one instance for each upstream and never calls it twice at once.
pub trait Balancer: Default {
    /// JSON Schema of the upstream's settings for this balancer.
    const CONFIG_SCHEMA: &'static str = r#"{"type":"object","additionalProperties":false}"#;

    /// The load columns that `pick` reads. Each costs a few nanoseconds a pick for every endpoint, so
    /// ask for what you read, and nothing else.
    const COLUMNS: &'static [Column] = &[];

    /// Reads the upstream's settings, a JSON object as text. Called once, first.
    ///
    /// # Errors
    /// A sentence for the person who wrote the settings.
    fn configure(&mut self, config: &str) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// Learns the table that `pick` chooses from until the next call. An endpoint that stays keeps
    /// its id, but not its position.
    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        let _ = endpoints;
    }

    /// Returns a position in `endpoints`, or `None` to refuse the request.
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize>;
}

#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "balancer",
        pub_export_macro: true,
        export_macro_name: "__export",
        runtime_path: "wit_bindgen::rt",
    });
}

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::__export as export;
    pub use crate::bindings::exports::pointsman::balancer::policy::{Description, Guest};
    pub use crate::export::{Slot, describe, new};
}
