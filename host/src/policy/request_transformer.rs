//! `request-transformer`: changes requests before the endpoint sees them. Source: Kong 3.9,
//! `request-transformer`.
//!
//! First the path, then the method, headers, body and query are changed. Values are templates that
//! refer to the request as the policy has found it. A body of more than [`BODY_LIMIT`], or one that
//! is malformed, passes as it is.

mod multipart;

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HOST, HeaderMap};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::request::Request;
use super::transform::{Fields, Steps};
use super::{Access, DryRun, Policy, Verdict};
use crate::authority::Authority;
use crate::entity::plugin::pair::TemplatePair;
use crate::entity::plugin::request_transformer::Config;
use crate::path;
use crate::pattern::Pattern;
use crate::template::{Reference, Table, Template};
use crate::urlencoded::{self, Arguments};
use multipart::Multipart;

/// Largest body that is changed, in bytes. It is held in memory as a whole.
const BODY_LIMIT: usize = 1 << 20;

/// Bytes that are escaped in a path, besides those that are no ASCII.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Changes requests.
#[derive(Debug)]
pub(super) struct RequestTransformer {
    method: Option<Method>,
    path: Option<Template>,
    headers: Steps<Template>,
    body: Steps<Template>,
    query: Steps<Template>,
    /// The new names of fields of bodies and of arguments, which are templates as well.
    rename_body: Vec<(String, Template)>,
    rename_query: Vec<(String, Template)>,
}

/// What templates refer to: the request as the policy has found it.
struct Original<'r> {
    headers: HeaderMap,
    arguments: Arguments,
    regex: Option<&'r Pattern>,
    path: &'r [u8],
}

impl Original<'_> {
    fn value(&self, reference: &Reference) -> Option<Cow<'_, str>> {
        let name = reference.name.as_str();
        match reference.table {
            Table::Headers => {
                // `$(headers.x_name)` stands for `X-Name`, as for OpenResty: a name with a dash
                // cannot be written behind a dot.
                let dashed = || self.headers.get(name.replace('_', "-"));
                let value = self.headers.get(name).or_else(dashed)?;
                Some(String::from_utf8_lossy(value.as_bytes()))
            }
            Table::QueryParams => {
                let mut arguments = self.arguments.iter();
                let (_, value) = arguments.find(|(found, _)| found == name)?;
                Some(value.as_deref().unwrap_or_default().into())
            }
            Table::UriCaptures => {
                let captured = self.regex?.capture(self.path, name)?;
                Some(String::from_utf8_lossy(captured))
            }
        }
    }

    fn render(&self, template: &Template) -> String {
        template.render(|reference| self.value(reference))
    }

    /// The steps with the values of this request. A step whose setting has no value is left out; a
    /// template that refers to nothing gives an empty value. Source: Kong.
    fn steps(&self, steps: &Steps<Template>, rename: &[(String, Template)]) -> Steps<String> {
        let rendered = |pairs: &[(String, Template)]| -> Vec<(String, String)> {
            let pairs = pairs.iter().filter(|(_, template)| !template.is_empty());
            let pairs = pairs.map(|(name, template)| (name.clone(), self.render(template)));
            pairs.collect()
        };
        let mut renamed = steps.rename.clone();
        renamed.extend(rendered(rename));
        Steps {
            remove: steps.remove.clone(),
            rename: renamed,
            replace: rendered(&steps.replace),
            add: rendered(&steps.add),
            append: rendered(&steps.append),
        }
    }
}

/// Headers with the `Host` that the endpoint gets, which is always there and cannot be removed.
struct WithHost<'h> {
    headers: &'h mut HeaderMap,
    host: &'h mut Option<String>,
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case(HOST.as_str())
}

impl Fields<String> for WithHost<'_> {
    fn has(&self, name: &str) -> bool {
        is_host(name) || self.headers.has(name)
    }

    fn remove(&mut self, name: &str) {
        if !is_host(name) {
            Fields::remove(self.headers, name);
        }
    }

    fn rename(&mut self, old: &str, new: &str) {
        if is_host(old) {
            return;
        }
        if is_host(new) {
            let value = self.headers.remove(old);
            if let Some(Ok(value)) = value.as_ref().map(|value| value.to_str()) {
                self.set(new, value.to_owned());
            }
            return;
        }
        self.headers.rename(old, new);
    }

    fn set(&mut self, name: &str, value: String) {
        if !is_host(name) {
            self.headers.set(name, value);
        } else if Authority::parse(&value).is_some() {
            *self.host = Some(value);
        }
    }

    fn append(&mut self, name: &str, value: String) {
        if !is_host(name) {
            Fields::append(self.headers, name, value);
        }
    }
}

/// The media types of bodies that are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Form,
    Multipart,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Option<Self> {
        // Bytes that are not text change nothing about the kind: servers ignore unknown parameters.
        let content_type = String::from_utf8_lossy(headers.get(CONTENT_TYPE)?.as_bytes());
        let content_type = content_type.to_ascii_lowercase();
        let kinds = [
            ("application/json", Self::Json),
            ("multipart/form-data", Self::Multipart),
            ("application/x-www-form-urlencoded", Self::Form),
        ];
        let mut kinds = kinds.into_iter();
        let found = kinds.find(|(name, _)| content_type.contains(name));
        found.map(|(_, kind)| kind)
    }
}

/// A body with its steps done; `None` if it is malformed, or nothing is changed.
fn changed(kind: Kind, headers: &HeaderMap, body: &Bytes, steps: &Steps<String>) -> Option<Bytes> {
    match kind {
        Kind::Json => {
            let mut members: Map<String, Value> = match body.is_empty() {
                true => Map::new(),
                false => serde_json::from_slice(body).ok()?,
            };
            let texts = |pairs: &[(String, String)]| -> Vec<(String, Value)> {
                let pairs = pairs.iter();
                pairs
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect()
            };
            let steps = Steps {
                remove: steps.remove.clone(),
                rename: steps.rename.clone(),
                replace: texts(&steps.replace),
                add: texts(&steps.add),
                append: texts(&steps.append),
            };
            let before = members.clone();
            steps.apply(&mut members);
            (members != before).then(|| Value::Object(members).to_string().into())
        }
        Kind::Form => {
            let sent = urlencoded::arguments(body);
            let mut fields = sent.clone();
            steps.apply(&mut fields);
            (fields != sent).then(|| urlencoded::write(&fields, body).into())
        }
        Kind::Multipart => {
            let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
            let mut parts = Multipart::read(content_type, body)?;
            steps.apply(&mut parts);
            let written = parts.write();
            (written != body).then_some(written)
        }
    }
}

impl RequestTransformer {
    /// # Errors
    /// The method is not one of HTTP.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let method = config.http_method.map(|method| {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes());
            method.map_err(|error| error.to_string())
        });
        let pairs = |pairs: Vec<TemplatePair>| -> Vec<(String, Template)> {
            let pairs = pairs.into_iter();
            pairs.map(|pair| (pair.name, pair.value)).collect()
        };
        let (remove, rename) = (config.remove, config.rename);
        let (replace, add, append) = (config.replace.values, config.add, config.append);
        Ok(Self {
            method: method.transpose()?,
            path: config.replace.uri.filter(|path| !path.is_empty()),
            headers: Steps {
                remove: remove.headers.into_iter().map(|pair| pair.name).collect(),
                rename: (rename.headers.into_iter())
                    .map(|pair| (pair.name, pair.value))
                    .collect(),
                replace: pairs(replace.headers),
                add: pairs(add.headers),
                append: pairs(append.headers),
            },
            body: Steps {
                remove: remove.body.into_iter().map(|pair| pair.name).collect(),
                rename: Vec::new(),
                replace: pairs(replace.body),
                add: pairs(add.body),
                append: pairs(append.body),
            },
            query: Steps {
                remove: (remove.querystring.into_iter())
                    .map(|pair| pair.name)
                    .collect(),
                rename: Vec::new(),
                replace: pairs(replace.querystring),
                add: pairs(add.querystring),
                append: pairs(append.querystring),
            },
            rename_body: pairs(rename.body),
            rename_query: pairs(rename.querystring),
        })
    }

    fn changes_body(&self) -> bool {
        !self.body.is_empty() || !self.rename_body.is_empty()
    }

    /// Whether the fields of a form become arguments: the new method has no use for a body.
    fn moves_form(&self, headers: &HeaderMap) -> bool {
        let has_no_body =
            |method: &Method| [Method::GET, Method::HEAD, Method::TRACE].contains(method);
        self.method.as_ref().is_some_and(has_no_body) && Kind::of(headers) == Some(Kind::Form)
    }

    /// Changes a request whose body was read as far as it is needed.
    fn change(&self, request: &mut Request<'_>, body: Option<&Bytes>) -> Verdict {
        let original = Original {
            headers: request.head.headers.clone(),
            arguments: request.query.arguments(),
            regex: request.regex,
            path: request.path,
        };
        if let Some(path) = &self.path {
            let Some(path) = upstream_path(&original.render(path)) else {
                tracing::error!("the path of a request would not begin with a slash");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Answer::error(status, "An unexpected error occurred").into();
            };
            *request.upstream_path = Some(path);
        }
        if let Some(method) = &self.method {
            request.head.method = method.clone();
            if let Some(body) = body.filter(|_| self.moves_form(&request.head.headers)) {
                let mut arguments = request.query.arguments();
                arguments.extend(urlencoded::arguments(body));
                request.query.set_arguments(&arguments);
            }
        }
        if !self.headers.is_empty() {
            let steps = original.steps(&self.headers, &[]);
            steps.apply(&mut WithHost {
                headers: &mut request.head.headers,
                host: request.upstream_host,
            });
        }
        if self.changes_body()
            && let Some(kind) = Kind::of(&request.head.headers)
        {
            let steps = original.steps(&self.body, &self.rename_body);
            let changed = |body: &Bytes| changed(kind, &request.head.headers, body, &steps);
            match (request.body, body) {
                (Some(sent), Some(body)) => {
                    if let Some(changed) = changed(body) {
                        sent.replace(changed);
                    }
                }
                // A request without a body may get one. Source: Kong.
                (None, _) => *request.added_body = changed(&Bytes::new()),
                (Some(_), None) => {}
            }
        }
        if !self.query.is_empty() || !self.rename_query.is_empty() {
            let sent = request.query.arguments();
            let mut arguments = sent.clone();
            let steps = original.steps(&self.query, &self.rename_query);
            steps.apply(&mut arguments);
            if arguments != sent {
                request.query.set_arguments(&arguments);
            }
        }
        Verdict::Continue
    }

    async fn change_with_body(&self, request: &mut Request<'_>) -> Verdict {
        let read = match request.body {
            Some(body) => body.read(BODY_LIMIT).await,
            None => Ok(None),
        };
        match read {
            Ok(Some(body)) => self.change(request, Some(&body)),
            Ok(None) => {
                tracing::warn!("a body of more than {BODY_LIMIT} bytes is not changed");
                self.change(request, None)
            }
            Err(refusal) => Verdict::Answer(refusal),
        }
    }
}

/// A path in the form that is sent; `None` if it does not begin with a slash.
fn upstream_path(path: &str) -> Option<String> {
    let normal = path::normalize(path.as_bytes());
    path.starts_with('/')
        .then(|| percent_encode(&normal, ESCAPED).to_string())
}

impl Policy for RequestTransformer {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let needs_body = self.changes_body() || self.moves_form(&request.head.headers);
        if needs_body && request.body.is_some() {
            return Access::Pending(self.change_with_body(request).boxed_local());
        }
        Access::Done(self.change(request, None))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn steps() -> Steps<String> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Steps {
            remove: vec!["gone".into()],
            rename: vec![pair("old", "new")],
            replace: vec![pair("a", "1")],
            add: vec![pair("b", "2&3")],
            append: vec![pair("c", "4")],
        }
    }

    fn change(content_type: &str, body: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let changed = changed(Kind::of(&headers)?, &headers, &body, &steps())?;
        Some(String::from_utf8(changed.into()).unwrap())
    }

    #[test]
    fn every_kind_of_body_is_changed_in_the_same_steps() {
        let json = r#"{"gone":1,"a":0,"old":[1.5],"c":"3"}"#;
        let expected = r#"{"a":"1","c":["3","4"],"new":[1.5],"b":"2&3"}"#;
        assert_eq!(change("application/json", json).as_deref(), Some(expected));
        let form = "gone=1&a=0&old=x+y&c=3&flag";
        let expected = "a=1&new=x%20y&c=3&flag&b=2%263&c=4";
        let form_type = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(change(form_type, form).as_deref(), Some(expected));
        let part = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let sent = [
            part("gone", "1"),
            part("a", "0"),
            part("old", "y"),
            part("c", "3"),
        ];
        let sent = sent.concat() + "--x--\r\n";
        let expected = [
            part("a", "1"),
            part("new", "y"),
            part("c", "3"),
            part("b", "2&3"),
            part("c", "4"),
        ];
        let expected = expected.concat() + "--x--\r\n";
        let changed = change("multipart/form-data; boundary=x", &sent);
        assert_eq!(changed, Some(expected));
    }

    #[test]
    fn a_body_that_is_malformed_or_of_another_type_is_not_changed() {
        for (content_type, body) in [
            ("application/json", "[1]"),
            ("application/json", "{"),
            ("multipart/form-data; boundary=x", "--y\r\n"),
            ("multipart/form-data", "x"),
            ("text/plain", "a=b"),
        ] {
            assert_eq!(change(content_type, body), None, "{content_type}: {body}");
        }
        let empty = change("application/json", "");
        assert_eq!(empty.as_deref(), Some(r#"{"b":"2&3","c":["4"]}"#));
    }

    #[test]
    fn a_path_is_escaped_and_begins_with_a_slash() {
        for (path, expected) in [
            ("/a/b", Some("/a/b")),
            ("/a b?c#d", Some("/a%20b%3Fc%23d")),
            ("/a/../b", Some("/b")),
            ("/é\r\n", Some("/%C3%A9%0D%0A")),
            ("/%41%2f", Some("/A%2F")),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(upstream_path(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_host_is_replaced_and_never_removed() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "sent".parse().unwrap());
        let mut host = None;
        let mut fields = WithHost {
            headers: &mut headers,
            host: &mut host,
        };
        fields.remove("Host");
        fields.rename("host", "x");
        fields.append("host", "other".into());
        fields.set("host", "a b".into());
        assert!(fields.has("host") && !fields.has("x"));
        fields.set("Host", "new.example:80".into());
        assert_eq!(host.as_deref(), Some("new.example:80"));
        assert_eq!(headers[HOST], "sent");
    }
}
