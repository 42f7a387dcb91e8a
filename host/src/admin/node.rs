//! Endpoints of Kong that concern a part of a node which is built differently here: its cache.

use axum::routing::get;
use http::StatusCode;

use super::ApiEndpoint;
use super::error::Error;

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    [
        (
            "/cache".into(),
            axum::routing::delete(purge),
            "DELETE, OPTIONS",
        ),
        (
            "/cache/{key}".into(),
            get(cached).delete(purge),
            "DELETE, GET, HEAD, OPTIONS",
        ),
    ]
}

/// Every request is answered from the rows in effect, so no key is ever cached.
async fn cached() -> Error {
    Error::not_found()
}

/// What is purged is gone: there is nothing to remove.
async fn purge() -> StatusCode {
    StatusCode::NO_CONTENT
}
