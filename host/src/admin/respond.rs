//! What every response of the Admin API carries.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CONNECTION, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue, SERVER, VARY,
};
use tracing::Instrument;

use super::access::{self, Page};
use super::error::Error;
use super::{arguments, changes, token};
use crate::config::{AdminAccess, AdminToken};
use crate::proxy::PRODUCT;
use crate::transfer_coding;

const X_KONG_ADMIN_LATENCY: HeaderName = HeaderName::from_static("x-kong-admin-latency");

/// Admits or refuses the request, tells the browser which page may read the answer, and reports how
/// long it took.
pub(super) async fn frame(
    State(settings): State<Arc<AdminAccess>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let (page, admitted) = access::admit(&settings, &request);
    // Checked for all requests alike: many handlers do not read the query.
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let admitted = admitted.and_then(|()| arguments::check_query(query));
    let admitted = admitted.and_then(|()| token::authorize(&settings.tokens, &request));
    let mut response = match admitted {
        // Each line of the log about this request has the name of its token.
        Ok(Some(AdminToken { name, .. })) => {
            let span = tracing::info_span!("admin", token = name);
            changes::by(name, next.run(request).instrument(span)).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    if let Some(content_type) = headers.get_mut(CONTENT_TYPE)
        && content_type == "application/json"
    {
        *content_type = HeaderValue::from_static("application/json; charset=utf-8");
    }
    let readers = match page {
        Page::None => Some(HeaderValue::from_static("*")),
        Page::Admitted(origin) => Some(origin),
        Page::Foreign => None,
    };
    match readers {
        Some(readers) => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, readers);
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        None => {
            headers.remove(ACCESS_CONTROL_ALLOW_METHODS);
            headers.remove(ACCESS_CONTROL_ALLOW_HEADERS);
        }
    }
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let latency = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(X_KONG_ADMIN_LATENCY, HeaderValue::from(latency));
    response
}

/// Refuses a body with a transfer coding that is not decoded here.
pub(super) async fn only_chunked(request: Request, next: Next) -> Response {
    let Some(status) = transfer_coding::refusal(request.headers()) else {
        return next.run(request).await;
    };
    let mut response = Error::Plain(status, transfer_coding::REFUSAL.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Names the gateway in the answer.
pub(super) async fn server(State(()): State<()>, mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(SERVER, HeaderValue::from_static(PRODUCT));
    response
}

/// The answer to a method that an endpoint does not have.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    let error = Error::Plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed".into());
    // RFC 9110, 15.5.6. Kong leaves it out.
    ([(ALLOW, allowed)], error).into_response()
}

/// The answer to OPTIONS.
pub(super) fn options(request: &HeaderMap, allowed: &'static str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(allowed),
    );
    let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let wanted = wanted.unwrap_or(HeaderValue::from_static("Content-Type"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    response
}
