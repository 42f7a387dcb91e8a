//! `request-termination`: answers requests itself. Source: Kong 3.9, `request-termination`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde_json::map::{Entry, Map};
use serde_json::{Value, json};

use super::answer::Answer;
use super::logs::document::Documents;
use super::request::{MatchedIds, Request};
use super::{Access, DryRun, Policy, Verdict};
use crate::entity::Kind;
use crate::entity::plugin::request_termination::Config;
use crate::node;
use crate::urlencoded::{self, Arguments};

/// Answers requests itself.
#[derive(Debug)]
pub(super) struct RequestTermination {
    config: Config,
    /// Reads the entities of a description.
    documents: Arc<Documents>,
}

impl RequestTermination {
    pub(super) fn new(config: Config, documents: Arc<Documents>) -> Self {
        Self { config, documents }
    }

    /// The route and the service of a request, read apart from the worker, which waits for no lock
    /// of the store.
    async fn matched(&self, matched: MatchedIds<'_>) -> (Value, Option<Value>) {
        let (route, service) = (matched.route, matched.service);
        let documents = Arc::clone(&self.documents);
        let read = tokio::task::spawn_blocking(move || {
            let service = service.map(|id| documents.whole(Kind::Service, id));
            (documents.whole(Kind::Route, route), service)
        });
        let ids = |_| {
            (
                json!({ "id": route }),
                service.map(|id| json!({ "id": id })),
            )
        };
        read.await.unwrap_or_else(ids)
    }

    fn is_triggered(&self, request: &Request<'_>) -> bool {
        let Some(trigger) = &self.config.trigger else {
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
            (name.as_str().to_owned(), value.into_owned().into())
        }));
        let content_type = headers.get(CONTENT_TYPE);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let body = body.as_deref().unwrap_or_default();
        let (path, client) = (request.path, &request.client);
        let (route, service) = self.matched(request.matched).await;
        let mut document = json!({
            "kong": {
                "node_id": node::id(),
                "worker_pid": std::process::id(),
                "hostname": node::hostname(),
            },
            "request": {
                "scheme": client.scheme,
                "host": client.host,
                "port": client.port,
                "headers": shown,
                "query": by_name(with_flags(request.query.arguments())),
                "raw_body": String::from_utf8_lossy(body),
                "method": request.head.method.as_str(),
                "path": String::from_utf8_lossy(path),
                "uri_captures": captures(request),
            },
            "matched_route": route,
        });
        // What has no value is left out.
        if let Some(message) = self.config.message.as_deref().or(message_of(status)) {
            document["message"] = message.into();
        }
        if let Some(body) = parsed(body, content_type.as_deref().unwrap_or_default()) {
            document["request"]["body"] = body;
        }
        if let Some(service) = service {
            document["matched_service"] = service;
        }
        let answer = Answer::raw(status, document.to_string());
        answer.with_header(CONTENT_TYPE, JSON).into()
    }

    fn status(&self) -> StatusCode {
        // The declaration allows no other status.
        StatusCode::from_u16(self.config.status_code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// The longest body that a description of the request has, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// Values by their names; a name with several values has a list of them.
fn by_name(pairs: impl Iterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in pairs {
        match all.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value),
                first => *first = json!([first.take(), value]),
            },
        }
    }
    all
}

/// Arguments as they are shown: `true` for one without a value. Source: OpenResty.
fn with_flags(arguments: Arguments) -> impl Iterator<Item = (String, Value)> {
    let arguments = arguments.into_iter();
    arguments.map(|(name, value)| (name, value.map_or(Value::Bool(true), Value::from)))
}

/// A body in JSON or of a form.
fn parsed(body: &[u8], content_type: &str) -> Option<Value> {
    let media_type = content_type.split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => {
            Some(by_name(with_flags(urlencoded::arguments(body))).into())
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
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        if !self.is_triggered(request) {
            return Access::PASS;
        }
        let config = &self.config;
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
