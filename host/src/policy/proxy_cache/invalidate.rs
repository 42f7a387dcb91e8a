//! Responses that are removed because a request has changed what they describe (RFC 9111, 4.4).

use http::{Method, StatusCode, Version};

use super::ProxyCache;
use super::key::{Identity, Slot};
use crate::policy::request::Request;

/// The versions of requests, which Kong's key has for those without a query.
const VERSIONS: [Version; 3] = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];

impl ProxyCache {
    /// The slots of the responses that a request outdates if it succeeds: those of its target, for
    /// its consumer, by all methods that the plugin stores. Only with `cache_control`; Kong removes
    /// none.
    pub(super) fn outdated_by(&self, request: &Request<'_>) -> Vec<Slot> {
        if !self.config.cache_control || request.head.method.is_safe() {
            return Vec::new();
        }
        let asked = self.key_parts(request);
        // As in the key, what the client has sent counts: another policy may have added a query.
        let versions = match asked.target.contains('?') {
            true => &VERSIONS[..1],
            false => &VERSIONS[..],
        };
        let mut slots = Vec::new();
        let names = self.config.request_method.iter();
        let methods = names.filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
        for method in &methods.collect::<Vec<_>>() {
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
