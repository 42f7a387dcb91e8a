//! The component host: loads balancers, and asks them.
//!
//! - [`Engine`] holds what all components share: the compiler, the sandbox, the clock that interrupts.
//! - [`Plugin`] is a component that was checked: compiled, linked, described. Any number of upstreams
//!   share it.
//! - [`Balancer`] belongs to one upstream: its endpoint table and the instance that was told of it,
//!   behind one lock that is held for a fraction of a microsecond.
//!
//! A plugin is never trusted: whatever it does, a request gets an endpoint as long as there is one.

mod bindings;
mod cache;
mod canary;
mod check;
mod child;
mod choose;
mod compile;
mod engine;
mod explain;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod instance;
mod journal;
mod limits;
mod notes;
mod output;
mod rerun;
mod sandbox;
mod schema;
mod shadow;
mod shipped;
mod space;
mod tally;
mod tape;
mod workers;

pub use canary::{Canary, Figures as CanaryFigures, Placed, Side, Verdict};
pub use check::{LoadError, Observed};
pub use choose::{Balancer, Choice, Counters, Faults, Handover, Recording, Request};
pub use compile::compile_worker;
pub use engine::{Engine, Error, Plugin, Settings, digest, try_settings};
pub use explain::{Explained, Question, Said};
pub use facts::{BODY_START, Facts};
pub use journal::{Journal, Line};
pub use limits::Limits;
pub use notes::Told;
pub use rerun::Rerun;
pub(crate) use schema::Schema;
pub use schema::schema_worker;
pub use shadow::{Report as ShadowReport, Shadow, ShadowSettings};
pub use shipped::{SHIPPED, Shipped};
pub use tally::{HostChoices, PickTimes};

#[cfg(test)]
pub(crate) mod tests;
