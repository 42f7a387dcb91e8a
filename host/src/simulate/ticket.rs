//! Requests in progress, as targets know them.

/// Identifies a request in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    pub(super) slot: usize,
    /// Distinguishes requests that used the same slot.
    pub(super) serial: u64,
}
