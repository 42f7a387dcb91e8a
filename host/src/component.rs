//! The component host: compiles and runs WebAssembly components from outside, within bounds.
//!
//! - [`ComponentHost`] holds what all components share: the compiler, the compiled components, and
//!   the epoch clock that interrupts calls.
//! - [`Guest`] is all that an instance can reach. The WASI interfaces are empty; a part of the
//!   gateway that uses components adds its own interfaces.
//! - [`Sandbox`] is one instance in a store of its own. Each call is bounded in time and memory.
//!
//! It does not know what a component is for. The module `balancer` knows that for balancers: what
//! they export, what they may import, and how they are called.

mod cache;
mod check;
mod child;
mod compile;
mod guest;
mod host;
mod journal;
mod output;
mod sandbox;
mod schema;
mod space;
mod wasi;
mod workers;

pub use check::ComponentError;
pub(crate) use check::{WASI, exports, imports};
pub use compile::compile_worker;
pub(crate) use guest::Guest;
pub(crate) use host::{Compiled, ComponentHost, HostSettings, InUse, Origin};
pub use host::{StartError, digest};
pub(crate) use journal::Journals;
pub use journal::{Journal, Line};
pub(crate) use output::{Output, level_of};
pub(crate) use sandbox::{GuestFault, Sandbox};
pub(crate) use schema::Schema;
pub(crate) use schema::parse as parse_schema;
pub use schema::schema_worker;
pub(crate) use wasi::add_wasi;
