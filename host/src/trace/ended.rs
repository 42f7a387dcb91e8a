//! How a try has ended, as the balancer that picked its endpoint is told, and as a trace has it.

use std::io::ErrorKind;

/// Why a try ended; see `outcome` in `wit/balancer.wit`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndReason {
    /// The response came in full, or a stream or WebSocket was closed by one side.
    #[default]
    Complete,
    /// The gateway repeats the request in place of passing the response on.
    Retried,
    /// The client has left, or did not send its whole request.
    Client,
    /// The endpoint did not accept, broke off, or sent no valid response.
    Broken,
    /// The endpoint did not accept, answer or go on in time.
    Timeout,
    /// The endpoint is being taken out.
    Drained,
    /// The endpoint saw nothing of the request.
    Unsent,
}

impl EndReason {
    /// All of them, in the order of their numbers in a trace.
    pub const ALL: [Self; 7] = [
        Self::Complete,
        Self::Retried,
        Self::Client,
        Self::Broken,
        Self::Timeout,
        Self::Drained,
        Self::Unsent,
    ];

    /// Of a tunnel that bytes no longer pass through, by the errors of both sides.
    pub(crate) fn of_tunnel(endpoint: Option<ErrorKind>, client: Option<ErrorKind>) -> Self {
        match (endpoint, client) {
            (None, None) => Self::Complete,
            // It did not read what it was sent.
            (Some(ErrorKind::TimedOut), _) => Self::Timeout,
            (Some(_), _) => Self::Broken,
            (None, Some(_)) => Self::Client,
        }
    }

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Retried => "retried",
            Self::Client => "client",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Drained => "drained",
            Self::Unsent => "unsent",
        }
    }
}

/// A try that has ended; see `outcome` in `wit/balancer.wit`. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndedTry {
    /// Id of the endpoint.
    pub endpoint: u64,
    /// What the pick has given it.
    pub tag: u64,
    /// When it ended, on the clock of picks.
    pub now: u64,
    /// Status of the response.
    pub status: Option<u16>,
    /// Seconds to wait, as the response asks.
    pub retry_after: Option<u32>,
    /// From the pick to the first byte of the body.
    pub first_byte: Option<u64>,
    /// From the pick to the end.
    pub took: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Why it ended.
    pub why: EndReason,
}
