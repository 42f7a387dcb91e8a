//! What a rule does to requests and responses, as plugins of its routes.

use serde_json::{Value, json};

use super::{At, Left};
use crate::entity::Row;

/// What the filters of a rule ask for.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) plugins: Vec<Value>,
    /// The host that endpoints are sent.
    pub(super) host: Option<String>,
    /// What takes the place of the prefix that was matched.
    pub(super) prefix: Option<String>,
    /// Where clients are sent, in place of an endpoint.
    pub(super) redirect: Option<Redirect>,
}

/// Where clients are sent. What is missing is that of the request.
pub(super) struct Redirect {
    scheme: Option<String>,
    hostname: Option<String>,
    port: Option<u64>,
    path: Option<String>,
    status: u64,
}

impl Filters {
    /// Reads the filters of a rule; none if requests would be treated in another way without one
    /// that cannot be expressed.
    pub(super) fn read(rule: &At<'_>, left: &mut Left) -> Option<Self> {
        let mut filters = Self::default();
        let mut request = Row::new();
        for filter in rule.list("filters") {
            let taken = match filter.text("type").unwrap_or_default() {
                "RequestHeaderModifier" => match filter.get("requestHeaderModifier") {
                    Some(modifier) => headers(&modifier, left, &mut request),
                    None => true,
                },
                "ResponseHeaderModifier" => match filter.get("responseHeaderModifier") {
                    Some(modifier) => {
                        let mut config = Row::new();
                        let taken = headers(&modifier, left, &mut config);
                        let plugin = json!({ "name": "response-transformer", "config": config });
                        filters.plugins.push(plugin);
                        taken
                    }
                    None => true,
                },
                "RequestRedirect" => {
                    let found = filter.get("requestRedirect");
                    found.is_none_or(|redirect| filters.redirect(&redirect, left))
                }
                "URLRewrite" => {
                    let found = filter.get("urlRewrite");
                    found.is_none_or(|rewrite| filters.rewrite(&rewrite, left, &mut request))
                }
                "RequestMirror" => {
                    left.add(&filter, "requests are not mirrored");
                    true
                }
                _ => {
                    left.add(&filter, "this filter is not converted");
                    false
                }
            };
            if !taken {
                return None;
            }
        }
        if !request.is_empty() {
            let plugin = json!({ "name": "request-transformer", "config": request });
            filters.plugins.push(plugin);
        }
        Some(filters)
    }

    fn redirect(&mut self, redirect: &At<'_>, left: &mut Left) -> bool {
        left.others(
            redirect,
            &["scheme", "hostname", "port", "path", "statusCode"],
        );
        let mut target = None;
        if let Some(path) = redirect.get("path") {
            let Some(full) = path.text("replaceFullPath") else {
                left.add(&path, "a redirect replaces the whole path or none");
                return false;
            };
            target = Some(full.to_owned());
        }
        let text = |name| redirect.text(name).map(str::to_owned);
        self.redirect = Some(Redirect {
            scheme: text("scheme"),
            hostname: text("hostname"),
            port: redirect.number("port"),
            path: target,
            status: redirect.number("statusCode").unwrap_or(302),
        });
        true
    }

    fn rewrite(&mut self, rewrite: &At<'_>, left: &mut Left, request: &mut Row) -> bool {
        left.others(rewrite, &["hostname", "path"]);
        self.host = rewrite.text("hostname").map(str::to_owned);
        let Some(path) = rewrite.get("path") else {
            return true;
        };
        if let Some(full) = path.text("replaceFullPath") {
            if is_template(full) {
                left.add(&path, "this path would be read as a template");
                return false;
            }
            let replace = request.entry("replace").or_insert_with(|| json!({}));
            replace["uri"] = full.into();
        }
        self.prefix = path.text("replacePrefixMatch").map(str::to_owned);
        true
    }
}

impl Redirect {
    /// The plugin for requests to these hosts, over TLS or not; none if the location depends on the
    /// request.
    pub(super) fn plugin(
        &self,
        hosts: &[&str],
        has_tls: Option<bool>,
    ) -> Result<Value, &'static str> {
        let own = has_tls.map(|has_tls| if has_tls { "https" } else { "http" });
        let scheme = self.scheme.as_deref().or(own);
        let scheme =
            scheme.ok_or("the scheme of the redirect depends on the request, so name one")?;
        let host = match (&self.hostname, hosts) {
            (Some(host), _) => host.as_str(),
            (None, [host]) if !host.starts_with('*') => host,
            _ => {
                return Err("the host of the redirect depends on the request, so \
                     name one");
            }
        };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = self.path.as_deref().unwrap_or("/");
        Ok(json!({
            "name": "redirect",
            "config": {
                "status_code": self.status,
                "location": format!("{scheme}://{host}{port}{path}"),
                "keep_incoming_path": self.path.is_none(),
            },
        }))
    }
}

/// Whether a transformer would read a value as a template.
fn is_template(value: &str) -> bool {
    value.contains("$(")
}

/// Adds changes of headers to the settings of a transformer.
fn headers(modifier: &At<'_>, left: &mut Left, config: &mut Row) -> bool {
    left.others(modifier, &["set", "add", "remove"]);
    let pairs = |name: &str| {
        let all = modifier.list(name).into_iter();
        let pair = |at: At<'_>| Some(format!("{}:{}", at.text("name")?, at.text("value")?));
        all.filter_map(pair).collect::<Vec<String>>()
    };
    let (set, add) = (pairs("set"), pairs("add"));
    if set.iter().chain(&add).any(|pair| is_template(pair)) {
        left.add(modifier, "a value would be read as a template");
        return false;
    }
    let remove = modifier.list("remove");
    let remove: Vec<&str> = remove.iter().filter_map(|at| at.value.as_str()).collect();
    let mut put = |step: &str, list: Value| {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            let step = config.entry(step).or_insert_with(|| json!({}));
            step["headers"] = list;
        }
    };
    put("remove", json!(remove));
    // `replace` changes a header that is there, and `add` adds one that is not.
    put("replace", json!(set));
    put("add", json!(set));
    put("append", json!(add));
    true
}
