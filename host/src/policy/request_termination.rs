//! `request-termination`: answers requests itself. Source: Kong 3.9, `request-termination`.

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde_json::map::{Entry, Map};
use serde_json::{Value, json};

use super::answer::Answer;
use super::request::Request;
use super::{Access, Policy, Verdict};
use crate::entity::plugin::request_termination::Config;
use crate::{node, urlencoded};

/// Answers requests itself.
#[derive(Debug)]
pub(super) struct RequestTermination(Config);

impl RequestTermination {
    pub(super) fn new(config: Config) -> Self {
        Self(config)
    }

    fn is_triggered(&self, request: &Request<'_>) -> bool {
        let Some(trigger) = &self.0.trigger else {
            return true;
        };
        let header = HeaderName::from_bytes(trigger.as_bytes()).ok();
        header.is_some_and(|name| request.head.headers.contains_key(name))
            || request
                .query
                .arguments()
                .iter()
                .any(|(name, _)| name == trigger)
    }

    /// A description of the request. Source: Kong, `echo`.
    async fn echo(&self, request: &Request<'_>) -> Verdict {
        let body = match request.body {
            Some(body) => match body.read(LONGEST_BODY).await {
                Ok(body) => body,
                Err(refusal) => return Verdict::Answer(refusal),
            },
            None => None,
        };
        let status = self.status();
        let headers = &request.head.headers;
        let shown = by_name(headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.into_owned())
        }));
        let content_type = headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let body = body.as_deref();
        let (path, client, matched) = (request.path, &request.client, &request.matched);
        let document = json!({
            "message": self.0.message.as_deref().or(message_of(status)),
            "kong": {
                "node_id": *node::ID,
                "worker_pid": std::process::id(),
                "hostname": node::hostname(),
            },
            "request": {
                "scheme": client.scheme,
                "host": client.host,
                "port": client.port,
                "headers": shown,
                "query": by_name(request.query.arguments().into_iter()),
                "body": body.and_then(|body| parsed(body, content_type.unwrap_or_default())),
                "raw_body": body.map(String::from_utf8_lossy),
                "method": request.head.method.as_str(),
                "path": String::from_utf8_lossy(path),
                "uri_captures": captures(request),
            },
            "matched_route": { "id": matched.route, "name": matched.route_name },
            "matched_service": matched.service.map(|id| json!({ "id": id })),
        });
        let answer = Answer::raw(status, document.to_string());
        answer.with_header(CONTENT_TYPE, JSON).into()
    }

    fn status(&self) -> StatusCode {
        // The declaration allows no other status.
        StatusCode::from_u16(self.0.status_code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// The longest body that a description of the request has, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// Values by their names; a name with several values has a list of them.
fn by_name(pairs: impl Iterator<Item = (String, String)>) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in pairs {
        match all.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value.into());
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value.into()),
                first => *first = json!([first.take(), value]),
            },
        }
    }
    all
}

/// A body in JSON or of a form.
fn parsed(body: &[u8], content_type: &str) -> Option<Value> {
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => {
            let decoded = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pairs = urlencoded::pairs(body);
            let pairs = pairs.map(|(name, value)| (decoded(&name), decoded(&value)));
            Some(by_name(pairs).into())
        }
        _ => None,
    }
}

/// What the groups of the route's regular expression have matched.
fn captures(request: &Request<'_>) -> Value {
    let (mut named, mut unnamed) = (Map::new(), Vec::new());
    for (at, name) in request
        .regex
        .into_iter()
        .flat_map(|regex| regex.groups())
        .enumerate()
    {
        let text = request.capture(&(at + 1).to_string());
        let text = text.map(String::from_utf8_lossy);
        if let Some(name) = name {
            named.insert(name.to_owned(), json!(text));
        }
        unnamed.push(text);
    }
    json!({ "named": named, "unnamed": unnamed })
}

const JSON: &str = "application/json; charset=utf-8";

/// The message of a status where none is set, if there is one. Source: Kong.
fn message_of(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => return None,
    })
}

impl Policy for RequestTermination {
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        if !self.is_triggered(request) {
            return Access::PASS;
        }
        let config = &self.0;
        if config.echo {
            return Access::Pending(self.echo(request).boxed_local());
        }
        let status = self.status();
        if let Some(body) = &config.body {
            let answer = Answer::raw(status, body.clone());
            return match &config.content_type {
                Some(content_type) => answer.with_header(CONTENT_TYPE, content_type).into(),
                None => answer.into(),
            };
        }
        match config.message.as_deref().or(message_of(status)) {
            Some(message) => Answer::message(status, message).into(),
            None => Answer::raw(status, Bytes::new()).into(),
        }
    }
}
