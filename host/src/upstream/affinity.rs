//! Affinity of requests to endpoints, as an upstream configures it. Source: Kong 3.9, `hash_on`;
//! sticky sessions as in Kong Enterprise 3.11.

use std::sync::Arc;

use http::HeaderName;

use super::session::SessionKey;
use crate::balancer::SHIPPED;
use crate::entity::upstream as entity;

/// The affinity of requests to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AffinityPolicy {
    /// A hash of the first key that a request carries.
    Hash {
        /// `hash_on`.
        on: Key,
        /// `hash_fallback`.
        fallback: Key,
        /// The cookie of a [`Key::Cookie`].
        cookie: Cookie,
    },
    /// A cookie that names the endpoint, readable by a gateway that has the key.
    Session(Cookie, Arc<SessionKey>),
}

/// The input of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Nothing.
    None,
    /// The consumer, or the credential of a request without one.
    Consumer,
    /// The client's address.
    Ip,
    /// A header, all of its values.
    Header(HeaderName),
    /// A cookie, which is set where it is missing.
    Cookie,
    /// The normalised path.
    Path,
    /// An argument of the query, all of its values.
    QueryArg(String),
    /// What a group of the route's path has captured, by name or number.
    UriCapture(String),
}

/// A cookie that the gateway sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// The paths that it is sent for.
    pub path: String,
}

impl Cookie {
    fn of(name: &Option<String>, path: &Option<String>) -> Option<Self> {
        Some(Self {
            name: name.clone()?,
            path: path.clone().unwrap_or_else(|| "/".into()),
        })
    }
}

impl AffinityPolicy {
    /// Reads the entity; none without affinity.
    pub(super) fn of(upstream: &entity::Upstream) -> Option<Self> {
        let path = &upstream.sticky_sessions_cookie_path;
        // The cookie field survives a change to another of Kong's algorithms, where it has no
        // meaning. For a custom balancer it may have one.
        let theirs = upstream.algorithm == "sticky-sessions"
            || (!SHIPPED.iter().any(|s| s.name == upstream.algorithm)
                && upstream
                    .hashing
                    .hash_on
                    .as_deref()
                    .is_none_or(|on| on == "none"));
        if theirs && let Some(cookie) = Cookie::of(&upstream.sticky_sessions_cookie, path) {
            return Some(Self::Session(cookie, SessionKey::of_process()));
        }
        let hash = &upstream.hashing;
        let on = key(
            hash.hash_on.as_deref(),
            &hash.hash_on_header,
            &hash.hash_on_query_arg,
            &hash.hash_on_uri_capture,
        );
        let fallback = key(
            hash.hash_fallback.as_deref(),
            &hash.hash_fallback_header,
            &hash.hash_fallback_query_arg,
            &hash.hash_fallback_uri_capture,
        );
        if on == Key::None && fallback == Key::None {
            return None;
        }
        let cookie = Cookie::of(&hash.hash_on_cookie, &hash.hash_on_cookie_path);
        let cookie = cookie.unwrap_or(Cookie {
            name: String::new(),
            path: String::new(),
        });
        Some(Self::Hash {
            on,
            fallback,
            cookie,
        })
    }
}

fn key(
    kind: Option<&str>,
    header: &Option<String>,
    query_arg: &Option<String>,
    uri_capture: &Option<String>,
) -> Key {
    let found = match kind {
        Some("consumer") => Some(Key::Consumer),
        Some("ip") => Some(Key::Ip),
        Some("path") => Some(Key::Path),
        Some("cookie") => Some(Key::Cookie),
        Some("header") => (header.as_deref())
            .and_then(|name| HeaderName::try_from(name).ok())
            .map(Key::Header),
        Some("query_arg") => query_arg.clone().map(Key::QueryArg),
        Some("uri_capture") => uri_capture.clone().map(Key::UriCapture),
        _ => None,
    };
    found.unwrap_or(Key::None)
}
