//! What requests are counted by.

use std::fmt;
use std::net::IpAddr;

use http::StatusCode;
use ring::digest;
use uuid::Uuid;

use super::Verdict;
use super::answer::Answer;
use super::request::Request;
use crate::entity::plugin::Plugin;

/// The requests that are counted together: those of one client, at the route and service that the
/// plugin is for. Two plugins for the same route and service so share their counts. Source: Kong,
/// `get_local_key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RateKey {
    pub(super) scope: RateScope,
    pub(super) identity: RateIdentity,
}

/// The route and the service that a plugin is for; nil for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RateScope {
    route: Uuid,
    service: Uuid,
}

/// What clients are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RateIdentity {
    /// The primary key of a consumer, a credential or a service.
    Id(Uuid),
    /// The address of a client.
    Address(IpAddr),
    /// A digest of a text that the client has sent. The text itself may be long, and may be a
    /// secret, which has no place in a Redis server.
    Text([u8; 16]),
}

impl RateKey {
    /// What the counters of `rate-limiting` in a Redis server are named by. Source: Kong.
    pub(super) fn name(&self) -> String {
        format!("ratelimit:{self}")
    }
}

impl RateScope {
    pub(super) fn of(plugin: &Plugin) -> Self {
        Self {
            route: plugin.route.map_or(Uuid::nil(), |key| key.id),
            service: plugin.service.map_or(Uuid::nil(), |key| key.id),
        }
    }
}

impl RateIdentity {
    /// By the consumer, or by the credential if the consumer is not known.
    pub(super) fn consumer(request: &Request<'_>) -> Self {
        match &request.subject.consumer {
            Some(consumer) => Self::Id(consumer.id),
            None => Self::credential(request),
        }
    }

    /// By the credential, or by the address if there is none.
    pub(super) fn credential(request: &Request<'_>) -> Self {
        match &request.subject.credential {
            Some(credential) => Self::Id(credential.id),
            None => Self::address(request),
        }
    }

    /// By the address of the client.
    pub(super) fn address(request: &Request<'_>) -> Self {
        Self::Address(request.client.address.ip().to_canonical())
    }

    /// By a text.
    pub(super) fn text(text: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, text);
        let mut start = [0; 16];
        for (to, from) in start.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self::Text(start)
    }
}

impl fmt::Display for RateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateScope { route, service } = self.scope;
        write!(f, "{route}:{service}:")?;
        match self.identity {
            RateIdentity::Id(id) => write!(f, "{id}"),
            RateIdentity::Address(address) => write!(f, "{address}"),
            RateIdentity::Text(digest) => {
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// What happens to a request that cannot be counted. Source: Kong.
pub(super) fn uncounted(fault_tolerant: bool) -> Verdict {
    if fault_tolerant {
        return Verdict::Continue;
    }
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Answer::error(status, "An unexpected error occurred").into()
}
