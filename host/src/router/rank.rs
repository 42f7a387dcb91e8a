//! The order of the ways to match routes, which is total: `docs/operating.md#which-route-answers`.

use std::cmp::Reverse;

use uuid::Uuid;

use super::criteria::Closeness;

/// What decides between the ways to match a request: the greatest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Kong's number.
    pub(super) priority: u64,
    /// How closely the host matches.
    pub(super) closeness: Closeness,
    /// What is left is for the id, as in Kong: of two equal routes the greater id wins.
    pub(super) route: Uuid,
    /// Position of the path in its route: of equal ones the first wins.
    pub(super) path: Reverse<usize>,
}
