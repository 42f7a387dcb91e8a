//! Why a try failed, and how records name it.

use thiserror::Error;

use super::super::wire;
use crate::connect::ConnectError;
use crate::endpoint::EndReason;
use crate::policy::record::TryOutcome;

/// Why a try failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The request was not sent.
    #[error("{0}")]
    Connect(ConnectError),
    /// The exchange broke off before the head of a response was received.
    #[error("no valid response: {0}")]
    Exchange(wire::Error),
    /// The endpoint read or sent nothing for too long.
    #[error("no response in time")]
    Timeout,
    /// The endpoint was drained, and requests in flight had to end.
    #[error("the endpoint is gone")]
    Drained,
    /// The client sent nothing for too long.
    #[error("the client did not send the body in time")]
    ClientTimeout,
}

impl Failure {
    /// Whether a time limit was exceeded, and not that of the client.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Connect(ConnectError::Timeout)
                | Self::Exchange(wire::Error::Unresponsive)
        )
    }

    /// A code for it, in records.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Timeout) => "connect_timeout",
            Self::Connect(ConnectError::Full) => "too_many_connections",
            Self::Connect(_) => "connect_failed",
            Self::Exchange(wire::Error::Client(_)) => "request_body",
            Self::Exchange(wire::Error::Request(_)) => "request_not_sendable",
            Self::Exchange(wire::Error::Refused) => "refused",
            Self::Exchange(wire::Error::GoneAway | wire::Error::Closed) => "closed",
            Self::Exchange(wire::Error::Io(_)) => "broken",
            Self::Exchange(wire::Error::Unresponsive) => "unresponsive",
            Self::Exchange(_) => "invalid_response",
            Self::Timeout => "timeout",
            Self::Drained => "drained",
            Self::ClientTimeout => "request_timeout",
        }
    }

    /// Why the try has ended, as the balancer is told.
    pub(super) fn end_reason(&self) -> EndReason {
        match self {
            Self::ClientTimeout
            | Self::Exchange(wire::Error::Client(_) | wire::Error::Request(_)) => EndReason::Client,
            Self::Drained => EndReason::Drained,
            Self::Connect(ConnectError::Full) => EndReason::Unsent,
            failure if failure.is_timeout() => EndReason::Timeout,
            _ => EndReason::Broken,
        }
    }

    /// How a record names it.
    pub(super) fn outcome(&self) -> TryOutcome {
        match self {
            Self::ClientTimeout | Self::Exchange(wire::Error::Client(_)) => TryOutcome::Abandoned,
            failure if failure.is_timeout() => TryOutcome::TimedOut,
            _ => TryOutcome::Failed,
        }
    }
}
