//! Everything needed to write a load balancer for Pointsman.
//!
//! A balancer is a type that implements [`Balancer`], with one line that exports it as a component.
//! This is a complete one:
//!
//! ```
//! use guest_sdk::{Balancer, Endpoints, Request};
//!
//! #[derive(Default)]
//! struct Random;
//!
//! impl Balancer for Random {
//!     fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
//!         let position = request.entropy.checked_rem(endpoints.len() as u64)?;
//!         Some(position as usize)
//!     }
//! }
//!
//! guest_sdk::export!(Random);
//! ```
//!
//! With `crate-type = ["cdylib"]` in the manifest, `cargo build --release --target wasm32-wasip2`
//! builds the component. `cargo test` needs neither WebAssembly nor a gateway, since a balancer is
//! plain Rust:
//!
//! ```
//! # use guest_sdk::{Balancer, Endpoint, Endpoints, Request};
//! # #[derive(Default)]
//! # struct Random;
//! # impl Balancer for Random {
//! #     fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize> {
//! #         let position = request.entropy.checked_rem(endpoints.len() as u64)?;
//! #         Some(position as usize)
//! #     }
//! # }
//! let endpoints = Endpoints::new(vec![Endpoint { id: 1, weight: 100 }, Endpoint { id: 2, weight: 100 }]);
//! let request = Request { entropy: 7, ..Request::default() };
//! assert_eq!(Random.pick(&request, &endpoints), Some(1));
//! ```
//!
//! # What the gateway guarantees
//!
//! There is one instance for each upstream, its calls come one at a time, and its state is in its
//! fields. The gateway passes the time and random bits with each request. A balancer that uses no
//! other clock and no other random numbers makes the same picks for the same calls on any machine,
//! so recorded traffic can be replayed through it.
//!
//! If a balancer panics or takes too long, no request fails: the gateway picks instead, logs the
//! message, and makes a new instance, which starts from [`Default`].
//!
//! # Further parts
//!
//! - [`facts`]: method, path, headers, client and body of the request, for balancers that need more
//!   than numbers.
//! - [`Endpoints::label`]: labels of endpoints, such as their zones; [`Zones`] prefers endpoints by
//!   a label.
//! - [`Balancer::pick_weighted`]: picks that say what a request weighs, for balancers that count
//!   work and not requests.
//! - [`prefix`]: prompts in bodies, and which endpoints had their beginnings lately.
//! - [`refuse`]: the status and `Retry-After` with which a request is refused.
//! - [`Balancer::try_ended`] and [`tag`]: what came of each pick, for balancers that learn from it.
//! - [`settings!`]: the settings of a balancer, declared once: their type and their JSON Schema.
//! - [`tries`]: what came of the earlier tries of a request, for its retries.
//! - [`log`]: log lines for operators, with [`info!`] and similar macros.
//! - [`Balancer::save`] and [`Balancer::restore`]: a balancer keeps what it has learnt through an
//!   upgrade.

mod draw;
mod endpoints;
pub mod facts;
pub mod json;
pub mod log;
mod outcome;
mod part;
pub mod prefix;
mod prefix_index;
mod prefix_saved;
mod prefix_text;
mod refusal;
pub mod settings;
pub mod tries;
mod weighted;
mod zones;

pub use draw::{Entropy, Lottery, mix};
pub use endpoints::{Column, Endpoints};
pub use outcome::{EndReason, Ended, last_tag, tag};
pub use refusal::{last_refusal, refuse};
pub use weighted::Weighted;
pub use zones::Zones;

#[doc(inline)]
pub use bindings::exports::pointsman::balancer::policy::{Endpoint, Request};

/// Picks the endpoint for each request of one upstream.
///
/// The gateway makes the value by [`Default`], calls [`configure`](Self::configure) once and
/// [`endpoints_changed`](Self::endpoints_changed) at least once, and then calls
/// [`pick`](Self::pick).
pub trait Balancer: Default {
    /// JSON Schema of the upstream's settings for this balancer, such as [`settings!`] makes. The
    /// gateway refuses settings that do not match it, before the balancer gets them. The default
    /// allows no settings.
    const CONFIG_SCHEMA: &'static str = r#"{"type":"object","additionalProperties":false}"#;

    /// The load columns that [`pick`](Self::pick) reads. To read a column that is not named here
    /// panics. The default is none, and then a pick costs the least.
    const COLUMNS: &'static [Column] = &[];

    /// Reads the upstream's settings, a JSON object (`{}` where it has none).
    ///
    /// # Errors
    ///
    /// A sentence for the operator that wrote the settings: what is wrong, and what would be right.
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        Ok(())
    }

    /// Takes the table that positions refer to until the next call. It contains only endpoints that
    /// may be picked, and may be empty. Keep state about an endpoint under its `id`: an endpoint
    /// that stays keeps its id, but may get another position.
    ///
    /// A pick that comes meanwhile waits for this call, for the upstream's `pick_timeout` at most,
    /// and is then made by the gateway. [`Endpoints::look`] and [`Endpoints::each_change`] can be
    /// used in it; the columns of [`COLUMNS`](Self::COLUMNS) are available only in a pick.
    fn endpoints_changed(&mut self, _endpoints: &Endpoints) {}

    /// Returns a position in `endpoints`, or `None` to refuse the request: the client gets a 503,
    /// or what [`refuse`] says.
    /// The gateway does not call this while the table is empty.
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize>;

    /// As [`pick`](Self::pick), with what the request weighs. The gateway calls it in place of
    /// `pick` for a balancer that is exported with `export!(Type, weighted)`; gateways before 1.4
    /// of the contract call `pick`.
    ///
    /// The gateway counts the cost at the endpoint, and takes each of its two parts back once that
    /// part is done: exactly, whatever becomes of the request. The sums are in
    /// [`Column::InFlightCost`] and [`Column::UnansweredCost`].
    fn pick_weighted(&mut self, request: &Request, endpoints: &Endpoints) -> Option<Weighted> {
        self.pick(request, endpoints).map(Weighted::from)
    }

    /// Called once for each pick that returned a position, when its try has ended. The gateway
    /// calls it for a balancer that is exported with `export!(Type, outcomes)`, between picks, in
    /// the order in which tries end; since 1.4 of the contract.
    ///
    /// If more than 1024 ended tries are queued, the newest are dropped: bound the state that is
    /// kept for each tag.
    fn try_ended(&mut self, _ended: &Ended) {}

    /// Returns the state for the next version of this balancer, or for the same version with other
    /// settings. Called after the last pick. The default returns no bytes, which means no state.
    ///
    /// The next version may be later or earlier than this one, so the first byte should give the
    /// format of the rest. State about an endpoint is best saved together with its `id`.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over the state that a balancer of this name has saved. Called after
    /// [`configure`](Self::configure) and before the first table.
    ///
    /// # Errors
    ///
    /// A sentence for the log, if this version does not understand the state. The gateway then
    /// discards this value and makes another one by [`Default`], which starts without state, so
    /// `restore` need not clean up.
    fn restore(&mut self, _saved: &[u8]) -> Result<(), String> {
        Err("this balancer takes over nothing: it has no `restore`".into())
    }
}

/// A first try, without affinity, at time 0, with all random bits 0. For tests, which set the
/// fields that matter and take the others from here.
impl Default for Request {
    fn default() -> Self {
        Self {
            entropy: 0,
            now: 0,
            affinity: None,
            attempt: 0,
        }
    }
}

/// Exports a [`Balancer`] as a component. Use it once, in the root of a `cdylib` crate.
///
/// The component has the name and the version of the package. On targets other than WebAssembly
/// there is nothing to export, and the macro only checks the type, so that tests run natively.
///
/// `export!(Type, weighted)` exports a balancer with [`Balancer::pick_weighted`], and
/// `export!(Type, outcomes)` one with [`Balancer::try_ended`]. A balancer may have both:
/// `export!(Type, weighted, outcomes)`.
#[macro_export]
#[rustfmt::skip] // It cannot parse the last line of the component's block.
macro_rules! export {
    ($balancer:ty $(, $part:ident)*) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static SLOT: ::std::cell::RefCell<$crate::__private::Slot<$balancer>> =
                    ::std::default::Default::default();
            }
            struct Component;
            impl $crate::__private::StateGuest for Component {
                fn save() -> ::std::vec::Vec<u8> {
                    SLOT.with_borrow(|slot| slot.save())
                }
                fn restore(
                    saved: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    SLOT.with_borrow_mut(|slot| slot.restore(&saved))
                }
            }
            impl $crate::__private::Guest for Component {
                fn describe() -> $crate::__private::Description {
                    $crate::__private::describe::<$balancer>(
                        ::std::env!("CARGO_PKG_NAME"),
                        ::std::env!("CARGO_PKG_VERSION"),
                    )
                }
                fn configure(
                    config: ::std::string::String,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    SLOT.with_borrow_mut(|slot| slot.configure(&config))
                }
                fn endpoints_changed(endpoints: ::std::vec::Vec<$crate::Endpoint>) {
                    SLOT.with_borrow_mut(|slot| slot.endpoints_changed(endpoints))
                }
                fn pick(request: $crate::Request) -> ::std::option::Option<u32> {
                    SLOT.with_borrow_mut(|slot| slot.pick(&request))
                }
                fn pick_by_load(
                    request: $crate::Request,
                    load: ::std::vec::Vec<u32>,
                ) -> ::std::option::Option<u32> {
                    SLOT.with_borrow_mut(|slot| slot.pick_by_load(&request, load))
                }
            }
            $($crate::__export_part!($part, Component, SLOT);)*
            $crate::__private::export!(Component with_types_in $crate::bindings);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $balancer = $crate::__private::new::<$balancer>;
    };
}

/// An interface that a balancer exports if [`export!`] names it.
#[doc(hidden)]
#[macro_export]
#[rustfmt::skip] // As above.
macro_rules! __export_part {
    (weighted, $component:ident, $slot:ident) => {
        impl $crate::__private::weighted::Guest for $component {
            fn pick_weighted(
                entropy: u64,
                now: u64,
                affinity: ::std::option::Option<u64>,
                attempt: u32,
                load: ::std::vec::Vec<u32>,
            ) -> ::std::option::Option<$crate::__private::weighted::Weighted> {
                let request = $crate::Request { entropy, now, affinity, attempt };
                $slot.with_borrow_mut(|slot| slot.pick_weighted(&request, load))
            }
        }
        $crate::__private::weighted::export!($component with_types_in $crate::bindings_of_work);
    };
    (outcomes, $component:ident, $slot:ident) => {
        impl $crate::__private::outcomes::Guest for $component {
            fn try_ended(ended: $crate::__private::outcomes::Ended) {
                $slot.with_borrow_mut(|slot| slot.try_ended(ended))
            }
        }
        $crate::__private::outcomes::export!($component with_types_in $crate::bindings_of_outcome);
    };
    ($other:ident, $component:ident, $slot:ident) => {
        ::std::compile_error!("a balancer can be exported as `weighted` and with `outcomes`");
    };
}

#[doc(hidden)]
#[allow(
    unsafe_code,
    reason = "generated: the component model's memory interface"
)]
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated: hidden, but for two types re-exported"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "stateful-balancer",
        pub_export_macro: true,
        export_macro_name: "__export",
        runtime_path: "wit_bindgen::rt",
        additional_derives: [PartialEq, Eq],
    });
}

#[doc(hidden)]
#[allow(
    unsafe_code,
    reason = "generated: the component model's memory interface"
)]
#[allow(missing_docs, unreachable_pub, reason = "generated: hidden")]
pub mod bindings_of_work {
    wit_bindgen::generate!({
        path: "../wit",
        world: "weighing",
        pub_export_macro: true,
        export_macro_name: "__export_work",
        runtime_path: "wit_bindgen::rt",
    });
}

#[doc(hidden)]
#[allow(
    unsafe_code,
    reason = "generated: the component model's memory interface"
)]
#[allow(missing_docs, unreachable_pub, reason = "generated: hidden")]
pub mod bindings_of_outcome {
    wit_bindgen::generate!({
        path: "../wit",
        world: "outcome-aware",
        pub_export_macro: true,
        export_macro_name: "__export_outcome",
        runtime_path: "wit_bindgen::rt",
    });
}

/// What [`export!`] expands to. Not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::__export as export;
    pub use crate::bindings::exports::pointsman::balancer::policy::{Description, Guest};
    pub use crate::bindings::exports::pointsman::balancer::state::Guest as StateGuest;
    /// What `export!(Type, weighted)` expands to as well.
    pub mod weighted {
        pub use crate::bindings_of_work::__export_work as export;
        pub use crate::bindings_of_work::exports::pointsman::balancer::work::{Guest, Weighted};
    }
    /// What `export!(Type, outcomes)` expands to as well.
    pub mod outcomes {
        pub use crate::bindings_of_outcome::__export_outcome as export;
        pub use crate::bindings_of_outcome::exports::pointsman::balancer::outcome::{Ended, Guest};
    }
    use crate::{Balancer, EndReason, Ended, Endpoint, Endpoints, Request};

    pub fn new<B: Balancer>() -> B {
        B::default()
    }

    pub fn describe<B: Balancer>(name: &str, version: &str) -> Description {
        Description {
            name: name.into(),
            version: version.into(),
            config_schema: B::CONFIG_SCHEMA.into(),
            columns: B::COLUMNS
                .iter()
                .map(|column| column.name().into_owned())
                .collect(),
        }
    }

    /// A balancer together with its table.
    pub struct Slot<B> {
        balancer: B,
        endpoints: Endpoints,
    }

    impl<B: Balancer> Default for Slot<B> {
        fn default() -> Self {
            Self {
                balancer: B::default(),
                endpoints: Endpoints::empty(B::COLUMNS),
            }
        }
    }

    impl<B: Balancer> Slot<B> {
        pub fn configure(&mut self, config: &str) -> Result<(), String> {
            self.balancer.configure(config)
        }

        pub fn endpoints_changed(&mut self, table: Vec<Endpoint>) {
            self.endpoints.table = table;
            // The load of the old table must not be read by positions of the new one.
            self.endpoints.load = Vec::new();
            self.balancer.endpoints_changed(&self.endpoints);
        }

        pub fn pick(&mut self, request: &Request) -> Option<u32> {
            let position = self.balancer.pick(request, &self.endpoints)?;
            // A position that does not fit into `u32` is invalid, and so is `u32::MAX`.
            Some(u32::try_from(position).unwrap_or(u32::MAX))
        }

        pub fn pick_by_load(&mut self, request: &Request, load: Vec<u32>) -> Option<u32> {
            self.endpoints.load = load;
            self.pick(request)
        }

        pub fn pick_weighted(
            &mut self,
            request: &Request,
            load: Vec<u32>,
        ) -> Option<weighted::Weighted> {
            self.endpoints.load = load;
            let pick = self.balancer.pick_weighted(request, &self.endpoints)?;
            Some(weighted::Weighted {
                position: u32::try_from(pick.position).unwrap_or(u32::MAX),
                first_byte: pick.first_byte,
                rest: pick.rest,
            })
        }

        pub fn try_ended(&mut self, ended: outcomes::Ended) {
            self.balancer.try_ended(&Ended {
                endpoint: ended.endpoint,
                tag: ended.tag,
                now: ended.now,
                status: ended.status,
                retry_after: ended.retry_after,
                first_byte: ended.first_byte,
                took: ended.took,
                bytes: ended.bytes,
                why: EndReason::named(&ended.why),
            });
        }

        pub fn save(&self) -> Vec<u8> {
            self.balancer.save()
        }

        pub fn restore(&mut self, saved: &[u8]) -> Result<(), String> {
            self.balancer.restore(saved)
        }
    }
}

#[cfg(test)]
mod tests;
