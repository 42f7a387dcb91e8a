//! Loads balancers, and asks them for endpoints.
//!
//! - [`Engine`] is the component host for balancers: it loads them, and provides the interfaces
//!   that they may import.
//! - [`LoadedBalancer`] is a component that was checked: it is compiled and linked, and its
//!   description was read. Any number of upstreams share it.
//! - [`Balancer`] belongs to one upstream: it holds the endpoint table and the instance that was
//!   given that table, behind one lock, which a pick holds for a fraction of a microsecond.
//!
//! A plugin is never trusted: whatever it does, a request gets an endpoint if the table has one,
//! unless the plugin answers that it refuses the request.

mod bindings;
mod body;
mod canary;
mod check;
mod choose;
mod columns;
mod details;
mod endpoint_facts;
mod engine;
mod explain;
mod facts;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod imports;
mod instance;
mod kept_facts;
mod limits;
mod loaded;
mod note;
mod notes;
mod observer;
mod outcomes;
mod request;
mod rerun;
mod shadow;
mod shipped;
mod tally;
mod tape;

pub use body::{BODY_MOST, BODY_USUAL, BodyAnswer, ReadBody};
pub(crate) use canary::evidence::{Evidence, WINDOW, is_enough};
pub use canary::{Figures as CanaryFigures, Placed, RunningCanary, Side, Verdict};
pub use check::LoadError;
pub(crate) use choose::CostBudget;
pub use choose::{Balancer, Counters, Faults, Handover, Recording};
pub use columns::Observed;
pub use details::ChoiceDetails;
pub use engine::{Engine, Settings, try_settings};
pub use explain::{Explained, Question, Said};
pub use facts::{BODY_START, RequestFacts};
pub use limits::PickLimits;
pub use loaded::LoadedBalancer;
pub use note::{BalancerVersion, ChosenBy, Pick, PickNote};
pub use notes::Told;
pub use request::{Choice, PickRequest, Refusal};
pub use rerun::Rerun;
pub use shadow::{Report as ShadowReport, Shadow, ShadowSettings, ShadowThread};
pub use shipped::{SHIPPED, Shipped};
pub use tally::{FallbackPicks, PickTimes};

#[cfg(test)]
pub(crate) mod tests;
