//! What authentication policies share: how a consumer is told to the endpoint, and what happens to
//! a request without a valid credential. Source: Kong 3.9, `kong.client.authenticate`.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};

use super::Verdict;
use super::answer::Answer;
use super::identity::AuthenticatedCredential;
use super::request::Request;
use crate::entity::consumer::Consumer;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");
/// The groups of the consumer.
pub(super) const CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
/// The groups that an authentication policy has found out by itself.
pub(super) const AUTHENTICATED_GROUPS: HeaderName =
    HeaderName::from_static("x-authenticated-groups");

/// Whether an authentication policy does not look at a request: at a CORS preflight request if it
/// is not to, and at one that another policy has authenticated if it allows anonymous requests.
pub(super) fn skips(
    request: &mut Request<'_>,
    runs_on_preflight: bool,
    anonymous: Option<&str>,
) -> bool {
    let is_authenticated = request.subject.credential.is_some();
    if !runs_on_preflight && request.head.method == Method::OPTIONS {
        if request.subject.consumer.is_none() {
            // No policy has named a consumer, so the client has.
            remove_all(&mut request.head.headers);
        }
        return true;
    }
    anonymous.is_some() && is_authenticated
}

/// Has the request come from this consumer.
pub(super) fn authenticate(
    request: &mut Request<'_>,
    consumer: Arc<Consumer>,
    credential: AuthenticatedCredential,
) {
    let headers = &mut request.head.headers;
    name_consumer(headers, &consumer);
    set(headers, CREDENTIAL, Some(&credential.identifier));
    request.subject.consumer = Some(consumer);
    request.subject.is_anonymous = false;
    request.subject.credential = Some(credential);
}

/// What happens to a request without a valid credential: it goes on as the anonymous consumer if
/// the policy names one, and is refused otherwise.
pub(super) fn fail(
    request: &mut Request<'_>,
    anonymous: Option<&str>,
    refusal: impl FnOnce() -> Answer,
) -> Verdict {
    let Some(name) = anonymous else {
        return refusal().into();
    };
    let Some(consumer) = request.identities.consumer_named(name).cloned() else {
        let message = format!("anonymous consumer {name} is configured but doesn't exist");
        tracing::error!("{message}");
        return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, message).into();
    };
    let headers = &mut request.head.headers;
    name_consumer(headers, &consumer);
    headers.insert(ANONYMOUS, HeaderValue::from_static("true"));
    request.subject.consumer = Some(consumer);
    request.subject.is_anonymous = true;
    request.subject.credential = None;
    Verdict::Continue
}

/// Tells the endpoint the consumer, and nothing that the client or an earlier policy has told of
/// another one.
fn name_consumer(headers: &mut HeaderMap, consumer: &Consumer) {
    remove_all(headers);
    set(headers, CONSUMER_ID, Some(&consumer.id.to_string()));
    set(headers, CONSUMER_CUSTOM_ID, consumer.custom_id.as_deref());
    set(headers, CONSUMER_USERNAME, consumer.username.as_deref());
}

/// Removes all headers by which an endpoint is told who a request is from.
fn remove_all(headers: &mut HeaderMap) {
    static NAMES: [HeaderName; 7] = [
        CONSUMER_ID,
        CONSUMER_CUSTOM_ID,
        CONSUMER_USERNAME,
        CREDENTIAL,
        ANONYMOUS,
        CONSUMER_GROUPS,
        AUTHENTICATED_GROUPS,
    ];
    // Few requests have any. To go through their names once is cheaper than to look up each.
    if headers.keys().any(|name| NAMES.contains(name)) {
        for name in &NAMES {
            headers.remove(name);
        }
    }
}

/// Sets a header to a text, unless there is none, or it cannot be in a header.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    let value = value.map(|value| HeaderValue::from_bytes(value.as_bytes()));
    if let Some(Ok(value)) = value {
        headers.insert(name, value);
    }
}

/// The refusal of a request without a valid credential. `scheme` is the one of the credentials that
/// would be accepted (RFC 9110, 11.6.1).
pub(super) fn unauthorized(message: &str, scheme: &str, realm: Option<&str>) -> Answer {
    let answer = Answer::error(StatusCode::UNAUTHORIZED, message);
    answer.with_header(WWW_AUTHENTICATE, &challenge(scheme, realm))
}

/// The credentials in the value of an `Authorization` header, if they are of this scheme, which may
/// be in any case (RFC 9110, 11.4).
pub(super) fn credentials<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let value = value.trim_ascii();
    let (found, credentials) = value.split_at_checked(scheme.len())?;
    let is_scheme = found.eq_ignore_ascii_case(scheme.as_bytes());
    (is_scheme && credentials.first()?.is_ascii_whitespace())
        .then(|| credentials.trim_ascii_start())
}

/// A challenge of this scheme.
pub(super) fn challenge(scheme: &str, realm: Option<&str>) -> String {
    match realm {
        Some(realm) => {
            let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{scheme} realm=\"{realm}\"")
        }
        None => scheme.to_owned(),
    }
}
