//! `request-termination`: answers requests itself. Source: Kong 3.9, `request-termination`.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde_json::json;

use super::answer::Answer;
use super::request::Request;
use super::{Access, Policy};
use crate::entity::plugin::request_termination::Config;

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
    fn echo(&self, request: &Request<'_>, status: StatusCode) -> Answer {
        let headers = &request.head.headers;
        let mut shown = serde_json::Map::new();
        for name in headers.keys() {
            let values = headers.get_all(name).iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
            let values: Vec<_> = values.collect();
            let value = match values.as_slice() {
                [single] => json!(single),
                several => json!(several),
            };
            shown.insert(name.as_str().to_owned(), value);
        }
        let query: serde_json::Map<_, _> = request
            .query
            .arguments()
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let (path, client, matched) = (request.path, &request.client, &request.matched);
        let document = json!({
            "message": self.0.message.as_deref().unwrap_or_else(|| message_of(status)),
            "kong": {
                "worker_pid": std::process::id(),
                "hostname": hostname(),
            },
            "request": {
                "scheme": client.scheme,
                "host": client.host,
                "port": client.port,
                "headers": shown,
                "query": query,
                "method": request.head.method.as_str(),
                "path": String::from_utf8_lossy(path),
                "uri_captures": {},
            },
            "matched_route": { "id": matched.route, "name": matched.route_name },
            "matched_service": matched.service.map(|id| json!({ "id": id })),
        });
        let answer = Answer::raw(status, document.to_string());
        answer.with_header(CONTENT_TYPE, JSON)
    }
}

const JSON: &str = "application/json; charset=utf-8";

fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// The message of a status where none is set. Source: Kong.
fn message_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "Unauthorized",
        404 => "Not found",
        405 => "Method not allowed",
        500 => "An unexpected error occurred",
        502 => "Bad Gateway",
        503 => "Service unavailable",
        _ => "",
    }
}

impl Policy for RequestTermination {
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        if !self.is_triggered(request) {
            return Access::PASS;
        }
        let config = &self.0;
        // The declaration allows no other status.
        let status = StatusCode::from_u16(config.status_code);
        let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        if config.echo {
            return self.echo(request, status).into();
        }
        match &config.body {
            Some(body) => {
                let answer = Answer::raw(status, body.clone());
                match &config.content_type {
                    Some(content_type) => answer.with_header(CONTENT_TYPE, content_type).into(),
                    None => answer.into(),
                }
            }
            None => {
                let message = config.message.as_deref();
                Answer::message(status, message.unwrap_or_else(|| message_of(status))).into()
            }
        }
    }
}
