//! What nginx answers itself: `return`, and what is not converted.

use serde_json::{Value, json};

use super::grammar::Directive;
use super::is_valid_plugin;

/// An answer of the gateway itself, as a plugin.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DirectResponse {
    Plugin(Value),
    /// A redirect whose beginning depends on the host of the request.
    ToHost(Redirect),
}

/// A redirect to this host with the path of the request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Redirect {
    pub(super) status: u16,
    scheme: String,
}

impl Redirect {
    /// Whether it leads from requests in clear text to those over TLS.
    pub(super) fn is_to_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// The plugin for requests to a host.
    pub(super) fn plugin(&self, host: &str) -> Value {
        redirect(self.status, &format!("{}://{host}/", self.scheme), true)
    }
}

/// Refuses all requests.
pub(in super::super) fn refusal(status: u16) -> Value {
    json!({ "name": "request-termination", "config": { "status_code": status } })
}

fn redirect(status: u16, location: &str, keeps_path: bool) -> Value {
    json!({
        "name": "redirect",
        "config": {
            "status_code": status, "location": location, "keep_incoming_path": keeps_path,
        },
    })
}

/// What a `return` answers, or why that cannot be expressed.
pub(super) fn of_return(directive: &Directive) -> Result<DirectResponse, &'static str> {
    let (status, text) = match directive.values() {
        [only] => match only.parse::<u16>() {
            Ok(status) => (status, None),
            Err(_) => (302, Some(only)),
        },
        [status, text] => (status.parse().unwrap_or(0), Some(text)),
        _ => (0, None),
    };
    if !(100..=599).contains(&status) {
        return Err("no such status can be answered");
    }
    // nginx closes the connection.
    let status = if status == 444 { 403 } else { status };
    let Some(text) = text else {
        return Ok(DirectResponse::Plugin(refusal(status)));
    };
    if [301, 302, 303, 307, 308].contains(&status) {
        return location(status, text);
    }
    if text.contains('$') {
        return Err("only texts without variables are converted");
    }
    let mut plugin = refusal(status);
    if text.is_empty() {
        return Ok(DirectResponse::Plugin(plugin));
    }
    plugin["config"]["body"] = text.as_str().into();
    plugin["config"]["content_type"] = "text/plain".into();
    Ok(DirectResponse::Plugin(plugin))
}

fn location(status: u16, text: &str) -> Result<DirectResponse, &'static str> {
    let (start, keeps_path) = match text.strip_suffix("$request_uri") {
        Some(start) => (start, true),
        None => (text, false),
    };
    let (scheme, host) = start.split_once("://").unwrap_or_default();
    if scheme != "http" && scheme != "https" {
        return Err("only redirects to an address with http:// or https:// are converted");
    }
    if keeps_path && ["$host", "$http_host", "$server_name"].contains(&host) {
        let scheme = scheme.to_owned();
        return Ok(DirectResponse::ToHost(Redirect { status, scheme }));
    }
    if host.contains('$') || keeps_path && host.contains('/') {
        return Err(
            "only redirects without variables, or with $host and $request_uri, are converted",
        );
    }
    let plugin = redirect(status, start, keeps_path);
    match is_valid_plugin(&plugin) {
        true => Ok(DirectResponse::Plugin(plugin)),
        false => Err("no redirect can lead there"),
    }
}
