//! The order of the alternatives of all routes, which is total:
//! `docs/operating.md#which-route-answers`.

use std::cmp::Reverse;

use uuid::Uuid;

use super::criteria::Closeness;

/// The rank of an alternative: of the alternatives that match a request, the one with the greatest
/// rank is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Kong's 64-bit priority.
    pub(super) priority: u64,
    /// How closely the host matches.
    pub(super) closeness: Closeness,
    /// After that the id decides, as in Kong: of two equal routes the greater id wins.
    pub(super) route: Uuid,
    /// Position of the path in its route: of equal alternatives the first one wins.
    pub(super) path: Reverse<usize>,
}
