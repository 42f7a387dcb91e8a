//! Responses that are removed because a request has changed what they describe (RFC 9111, 4.4).

use http::{Method, StatusCode, Version};

use super::ProxyCache;
use super::key::{Identity, Slot};
use crate::policy::request::Request;

/// The versions of requests, which Kong's key has for those without a query.
const VERSIONS: [Version; 3] = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];

impl ProxyCache {
    /// The slots of the responses that a request outdates if it succeeds: those of its target, for
    /// its consumer. Only with `cache_control`; Kong removes none.
    pub(super) fn outdated_by(&self, request: &Request<'_>) -> Vec<Slot> {
        if !self.config.cache_control || request.head.method.is_safe() {
            return Vec::new();
        }
        let asked = self.key_parts(request);
        let versions = match asked.query {
            Some(_) => &VERSIONS[..1],
            None => &VERSIONS[..],
        };
        let mut slots = Vec::new();
        for method in [&Method::GET, &Method::HEAD] {
            for version in versions {
                let of_version = super::KeyParts {
                    method,
                    version: *version,
                    ..asked
                };
                slots.push(Identity::of(&of_version, &self.same).slot);
            }
        }
        slots
    }
}

/// Whether a status says that a request has been successful.
pub(super) fn is_success(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}
