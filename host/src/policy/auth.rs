//! What authentication policies share: how a consumer is told to the endpoint, and what happens to
//! a request without a valid credential. Source: Kong 3.9, `kong.client.authenticate`.

use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::answer::Answer;
use super::identity::AuthenticatedCredential;
use super::request::Request;
use super::{Access, Verdict};
use crate::entity::consumer::Consumer;

const CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CONSUMER_CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// Whether another authentication policy has let the request through, so that this one, which
/// allows anonymous requests, does not look at it.
pub(super) fn is_done(request: &Request<'_>, anonymous: Option<&str>) -> bool {
    anonymous.is_some() && request.subject.credential.is_some()
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
    headers.remove(ANONYMOUS);
    request.subject.consumer = Some(consumer);
    request.subject.is_anonymous = false;
    request.subject.credential = Some(credential);
}

/// What happens to a request without a valid credential: it goes on as the anonymous consumer if
/// the policy names one, and is refused otherwise.
pub(super) fn fail<'a>(
    request: &mut Request<'_>,
    anonymous: Option<&str>,
    refusal: impl FnOnce() -> Answer,
) -> Access<'a> {
    let Some(name) = anonymous else {
        return refusal().into();
    };
    let Some(consumer) = request.identities.consumer_named(name).cloned() else {
        tracing::error!("the anonymous consumer {name:?} does not exist");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Answer::error(status, "An unexpected error occurred").into();
    };
    let headers = &mut request.head.headers;
    name_consumer(headers, &consumer);
    headers.remove(CREDENTIAL);
    headers.insert(ANONYMOUS, HeaderValue::from_static("true"));
    request.subject.consumer = Some(consumer);
    request.subject.is_anonymous = true;
    request.subject.credential = None;
    Access::Done(Verdict::Continue)
}

fn name_consumer(headers: &mut HeaderMap, consumer: &Consumer) {
    set(headers, CONSUMER_ID, Some(&consumer.id.to_string()));
    set(headers, CONSUMER_CUSTOM_ID, consumer.custom_id.as_deref());
    set(headers, CONSUMER_USERNAME, consumer.username.as_deref());
}

/// Sets a header, or removes it where there is no value. A client cannot set it itself.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    match value.map(|value| HeaderValue::from_bytes(value.as_bytes())) {
        Some(Ok(value)) => {
            headers.insert(name, value);
        }
        _ => {
            headers.remove(name);
        }
    }
}

/// The refusal of a request without a valid credential. `challenge` is the value of
/// `WWW-Authenticate` without the realm.
pub(super) fn unauthorized(message: &str, challenge: &str, realm: Option<&str>) -> Answer {
    let challenge = match realm {
        Some(realm) => format!("{challenge} realm=\"{realm}\""),
        None => challenge.to_owned(),
    };
    let answer = Answer::error(StatusCode::UNAUTHORIZED, message);
    answer.with_header(http::header::WWW_AUTHENTICATE, &challenge)
}
