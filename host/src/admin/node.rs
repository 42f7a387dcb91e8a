//! Endpoints of Kong that concern parts of a node which are built differently here: its cache, and
//! its configuration as one document.

use axum::routing::get;
use http::StatusCode;

use super::ApiEndpoint;
use super::error::Error;

pub(super) fn endpoints() -> [ApiEndpoint; 3] {
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
        (
            "/config".into(),
            get(document).post(document),
            "GET, HEAD, OPTIONS, POST",
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

/// Source: Kong 3.9, `kong.api.routes.config`, with a database.
async fn document() -> Error {
    Error::bad_request(
        "this endpoint is only available when Kong is configured to not use a database",
    )
}
