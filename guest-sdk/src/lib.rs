//! Everything needed to write a load balancer for Pointsman.
//!
//! A balancer is a type that implements [`Balancer`], and one line that makes a component of it. This
//! is a whole one:
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
//! # What a balancer may count on
//!
//! There is one instance for each upstream, its calls come one at a time, and its fields are its
//! memory. The gateway hands in the time and the randomness of each request: a balancer that reads
//! no other clock and draws no other random number gives the same picks for the same calls, on any
//! machine, so that recorded traffic can be replayed through it.
//!
//! A balancer that panics, or that takes too long, costs no request: the gateway chooses in its
//! place, logs the message, and makes a new instance, which starts from [`Default`].
//!
//! # What else there is
//!
//! - [`facts`]: method, path, headers, client and the start of the body of the request, for balancers that need
//!   more than numbers.
//! - [`log`]: lines for the people who run the gateway, as [`info!`] and its like.
//! - [`Balancer::save`] and [`Balancer::restore`]: what is learnt survives an upgrade.

mod draw;
pub mod facts;
pub mod log;

use std::cell::Cell;
use std::ops::Deref;

pub use draw::{Entropy, Lottery, mix};

use bindings::pointsman::balancer::load;

#[doc(inline)]
pub use bindings::exports::pointsman::balancer::policy::{Endpoint, Request};

/// Chooses where each request of one upstream goes.
///
/// The gateway makes the value by [`Default`], calls [`configure`](Self::configure) once and
/// [`endpoints_changed`](Self::endpoints_changed) at least once, and then asks for picks.
pub trait Balancer: Default {
    /// JSON Schema of the upstream's settings for this balancer. The gateway refuses settings that do
    /// not fit before the balancer sees them. Unless set, there are no settings.
    const CONFIG_SCHEMA: &'static str = r#"{"type":"object","additionalProperties":false}"#;

    /// What [`pick`](Self::pick) reads about the load of the endpoints. A column that is not named
    /// here is not there: reading it panics. None unless set, which makes for the cheapest pick.
    const COLUMNS: &'static [Column] = &[];

    /// Reads the upstream's settings, a JSON object (`{}` where it has none).
    ///
    /// # Errors
    ///
    /// A sentence for the person who wrote the settings: what is wrong, and what would be right.
    fn configure(&mut self, _config: &str) -> Result<(), String> {
        Ok(())
    }

    /// Learns the table that positions refer to until the next call. It holds only endpoints that may
    /// be chosen, and may be empty. What is remembered about an endpoint belongs to its `id`: an
    /// endpoint that stays keeps its id, but not its position.
    ///
    /// No request waits for this. [`Endpoints::look`] and [`Endpoints::each_change`] work already;
    /// columns come with a pick.
    fn endpoints_changed(&mut self, _endpoints: &Endpoints) {}

    /// Returns a position in `endpoints`, or `None` to refuse the request: the client gets a 503.
    /// The gateway does not ask while the table is empty.
    fn pick(&mut self, request: &Request, endpoints: &Endpoints) -> Option<usize>;

    /// What the next version of this balancer is to know, or the same one with other settings: asked after
    /// the last pick. Empty unless written, which hands over nothing.
    ///
    /// The next version may be a later one than this or an earlier one, so let the first byte tell the form
    /// of the rest. What belongs to an endpoint is best kept beside its `id`.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what a balancer of this name has saved, after [`configure`](Self::configure) and before
    /// the first table.
    ///
    /// # Errors
    ///
    /// A sentence for the log, if it is not understood. The gateway then makes another value, by
    /// [`Default`], that starts from nothing: no need to clean up.
    fn restore(&mut self, _saved: &[u8]) -> Result<(), String> {
        Err("this balancer takes over nothing: it has no `restore`".into())
    }
}

/// Something that the gateway knows about the load of every endpoint, as one number for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Column {
    /// Requests sent to the endpoint and not yet answered in full, over the whole gateway.
    InFlight,
    /// Microseconds until the endpoint answers: a moving average that jumps up to a slower answer at
    /// once, and halves about every 7 seconds without one; 0 while nothing is known.
    Latency,
    /// Microseconds that the endpoint took lately for requests that found about as many others in flight
    /// there as are now, a mean; [`Column::Latency`] while none did.
    LatencyAtLoad,
    /// How much of what it can do the endpoint says that it does, in thousandths: `application_utilization`
    /// of its ORCA report, or `cpu_utilization`; 0 while it has said nothing for 10 seconds.
    ReportedLoad,
    /// Requests that wait inside of the endpoint, as it says: `named_metrics.queue_size` or
    /// `named_metrics.num_requests_waiting` of its ORCA report; 0 as above.
    ReportedQueue,
}

impl Column {
    const COUNT: usize = Self::ReportedQueue as usize + 1;

    /// Name of the column in the contract between gateway and plugin.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Latency => "latency",
            Self::LatencyAtLoad => "latency-at-load",
            Self::ReportedLoad => "reported-load",
            Self::ReportedQueue => "reported-queue",
        }
    }
}

/// The endpoints that may be chosen, and how busy each is.
///
/// It is a slice of [`Endpoint`]: `endpoints.len()`, `endpoints[position].weight`, and so on.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    table: Vec<Endpoint>,
    columns: Vec<Column>,
    /// The columns one after another, each as long as the table.
    load: Vec<u32>,
    /// What the gateway calls the columns, once it has been asked.
    handles: [Cell<Option<u32>>; Column::COUNT],
}

impl Endpoints {
    /// Makes a table without columns. A balancer is given its table; this is for tests.
    #[must_use]
    pub fn new(table: Vec<Endpoint>) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Adds a column, with one value for each endpoint. For tests, as [`Endpoints::new`].
    ///
    /// ```
    /// # use guest_sdk::{Column, Endpoint, Endpoints};
    /// let endpoints = Endpoints::new(vec![Endpoint { id: 1, weight: 100 }, Endpoint { id: 2, weight: 100 }])
    ///     .with_column(Column::InFlight, &[4, 0]);
    /// assert_eq!(endpoints.in_flight(0), 4);
    /// ```
    ///
    /// # Panics
    ///
    /// If there are more or fewer values than endpoints.
    #[must_use]
    pub fn with_column(mut self, column: Column, values: &[u32]) -> Self {
        assert_eq!(
            values.len(),
            self.table.len(),
            "a column has one value for each endpoint"
        );
        self.columns.push(column);
        self.load.extend_from_slice(values);
        self
    }

    /// Requests sent to the endpoint at `position` and not yet answered in full, over the whole
    /// gateway.
    ///
    /// # Panics
    ///
    /// If [`Column::InFlight`] is not among [`Balancer::COLUMNS`], or there is no such position.
    #[must_use]
    pub fn in_flight(&self, position: usize) -> u32 {
        self.column(Column::InFlight)[position]
    }

    /// Microseconds until the endpoint at `position` answers; see [`Column::Latency`].
    ///
    /// # Panics
    ///
    /// If [`Column::Latency`] is not among [`Balancer::COLUMNS`], or there is no such position.
    #[must_use]
    pub fn latency(&self, position: usize) -> u32 {
        self.column(Column::Latency)[position]
    }

    /// Looks at two columns of two endpoints, whatever [`Balancer::COLUMNS`] are: for balancers that look
    /// at few of many. The first index of the answer is that of the position, the second that of the
    /// column. To look at one, name it twice.
    ///
    /// In a test, the values are those of [`Endpoints::with_column`], and 0 where there is none.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    pub fn look(&self, columns: [Column; 2], positions: [usize; 2]) -> [[u32; 2]; 2] {
        if cfg!(target_family = "wasm") {
            let [low, high] = columns.map(|column| self.handle(column));
            return fetch(low, high, positions);
        }
        positions.map(|position| columns.map(|column| self.given(column, position)))
    }

    /// Calls a function with each position whose number of requests in flight has changed since this was
    /// last done, and with the number as it is now, whatever [`Balancer::COLUMNS`] are: for balancers that
    /// keep endpoints in order. For a new table every number but 0 has changed.
    ///
    /// In a test, all have changed, and the numbers are those of [`Endpoints::with_column`].
    pub fn each_change(&self, mut learn: impl FnMut(usize, u32)) {
        if !cfg!(target_family = "wasm") {
            for position in 0..self.table.len() {
                learn(position, self.given(Column::InFlight, position));
            }
            return;
        }
        loop {
            let (a, b, c, d) = load::changes();
            for change in [a, b, c, d] {
                // No more of them.
                if change == u64::MAX {
                    return;
                }
                learn((change >> 32) as usize, change as u32);
            }
        }
    }

    /// What the gateway calls a column.
    fn handle(&self, column: Column) -> u32 {
        let known = &self.handles[column as usize];
        known.get().unwrap_or_else(|| {
            let asked = load::read(column.name()).unwrap_or_else(|| missing(column));
            known.set(Some(asked));
            asked
        })
    }

    /// What a test has given.
    fn given(&self, column: Column, position: usize) -> u32 {
        let index = self.columns.iter().position(|&present| present == column);
        let length = self.table.len();
        index.map_or(0, |index| self.load[index * length..][..length][position])
    }

    /// A whole column, one value for each position: the quickest way to look at all endpoints.
    ///
    /// # Panics
    ///
    /// If the column is not among [`Balancer::COLUMNS`].
    #[must_use]
    pub fn column(&self, column: Column) -> &[u32] {
        let Some(index) = self.columns.iter().position(|&present| present == column) else {
            missing(column)
        };
        let length = self.table.len();
        &self.load[index * length..][..length]
    }
}

fn fetch(low: u32, high: u32, positions: [usize; 2]) -> [[u32; 2]; 2] {
    // A position past the range of the wire is as much outside of the table as any other.
    let [first, second] = positions.map(|position| u32::try_from(position).unwrap_or(u32::MAX));
    let (first, second) = load::at_two(low, high, first, second);
    [first, second].map(|pair| [pair as u32, (pair >> 32) as u32])
}

#[cold]
fn missing(column: Column) -> ! {
    panic!(
        "the column `{}` was read but not asked for: name Column::{column:?} in Balancer::COLUMNS \
         (a test gives it by Endpoints::with_column)",
        column.name()
    )
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.table
    }
}

/// A first try, without affinity, at the start of time, with no random bit set: for tests, which
/// name the fields that matter and take the others from here.
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

/// Makes a component of a [`Balancer`]. To be used once, in the root of a `cdylib` crate.
///
/// The component is called as the package is, and has its version. On any target but WebAssembly
/// there is nothing to export, and only the type is checked, so that tests run natively.
#[macro_export]
#[rustfmt::skip] // The last line of the component's block is no Rust that it can read.
macro_rules! export {
    ($balancer:ty) => {
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
            $crate::__private::export!(Component with_types_in $crate::bindings);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $balancer = $crate::__private::new::<$balancer>;
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

/// What [`export!`] expands to. No part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::__export as export;
    pub use crate::bindings::exports::pointsman::balancer::policy::{Description, Guest};
    pub use crate::bindings::exports::pointsman::balancer::state::Guest as StateGuest;
    use crate::{Balancer, Endpoint, Endpoints, Request};

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
                .map(|column| column.name().into())
                .collect(),
        }
    }

    /// A balancer beside the table that it chooses from.
    pub struct Slot<B> {
        balancer: B,
        endpoints: Endpoints,
    }

    impl<B: Balancer> Default for Slot<B> {
        fn default() -> Self {
            let endpoints = Endpoints {
                columns: B::COLUMNS.to_vec(),
                ..Endpoints::default()
            };
            Self {
                balancer: B::default(),
                endpoints,
            }
        }
    }

    impl<B: Balancer> Slot<B> {
        pub fn configure(&mut self, config: &str) -> Result<(), String> {
            self.balancer.configure(config)
        }

        pub fn endpoints_changed(&mut self, table: Vec<Endpoint>) {
            self.endpoints.table = table;
            // What is left of the old table's load must not be read against the new one.
            self.endpoints.load = Vec::new();
            self.balancer.endpoints_changed(&self.endpoints);
        }

        pub fn pick(&mut self, request: &Request) -> Option<u32> {
            let position = self.balancer.pick(request, &self.endpoints)?;
            // A position past the range of the wire is as much outside of the table as any other.
            Some(u32::try_from(position).unwrap_or(u32::MAX))
        }

        pub fn pick_by_load(&mut self, request: &Request, load: Vec<u32>) -> Option<u32> {
            self.endpoints.load = load;
            self.pick(request)
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
