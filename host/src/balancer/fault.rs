//! A fault of a balancer.

use std::time::Duration;

use super::limits::SHARE_PER_MILLE;
use crate::component::GuestFault;

/// A fault of a balancer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// A call of it failed.
    #[error(transparent)]
    Guest(#[from] GuestFault),
    /// It answered, and its picks took more CPU time than they may.
    #[error(
        "{picks} of its picks took more than {limit:?} of CPU time (setting balancer_pick_cost), {excess:?} more \
         in all, and that is more than {SHARE_PER_MILLE} thousandths of the time since"
    )]
    Cost {
        /// How many they were.
        picks: u32,
        /// CPU time that one of them may take.
        limit: Duration,
        /// CPU time beyond that, of all of them.
        excess: Duration,
    },
    /// Its answer is an invalid position.
    #[error("it chose position {position} of a table of {length}")]
    OutOfRange {
        /// The answer.
        position: u32,
        /// Endpoints in the table.
        length: usize,
    },
    /// It refused its settings.
    #[error("it refused its settings: {0}")]
    Configuration(String),
    /// It saved too many bytes.
    #[error("it saved {size} bytes, and may save {limit}")]
    StateSize {
        /// Bytes that it saved.
        size: usize,
        /// Bytes that it may save.
        limit: usize,
    },
    /// It refused the state that its predecessor saved.
    #[error("it refused what was saved: {0}")]
    State(String),
}
