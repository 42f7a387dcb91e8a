//! `proxy_set_header` as fields of routes and as the plugin `request-transformer`.

use serde_json::{Value, json};

use super::inherited::Inherited;
use super::{Left, is_valid_plugin};
use crate::entity::Row;

/// What endpoints are sent besides the headers of the request.
#[derive(Default)]
pub(super) struct Headers {
    pub(super) preserves_host: bool,
    pub(super) plugin: Option<Value>,
}

/// Headers that the gateway sends as well, with the values that it gives them.
const OWN: [(&str, &[&str]); 6] = [
    ("x-real-ip", &["$remote_addr"]),
    (
        "x-forwarded-for",
        &["$proxy_add_x_forwarded_for", "$remote_addr"],
    ),
    ("x-forwarded-proto", &["$scheme"]),
    ("x-forwarded-host", &["$host", "$http_host"]),
    ("x-forwarded-port", &["$server_port"]),
    // It passes upgrades on by itself.
    ("upgrade", &["$http_upgrade"]),
];

fn is_header(name: &str, value: &str) -> bool {
    let config = json!({ "add": { "headers": [format!("{name}:{value}")] } });
    !name.contains(':')
        && is_valid_plugin(&json!({ "name": "request-transformer", "config": config }))
}

impl Headers {
    pub(super) fn read(inherited: &Inherited<'_>, left: &mut Left) -> Self {
        let mut headers = Self::default();
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for directive in &inherited.headers {
            let [name, value] = directive.values() else {
                left.add(directive, "not converted");
                continue;
            };
            let lower = name.to_ascii_lowercase();
            let is_own = OWN
                .iter()
                .any(|(own, values)| *own == lower && values.contains(&value.as_str()));
            match (lower.as_str(), value.as_str()) {
                ("host", "$host" | "$http_host") => headers.preserves_host = true,
                ("host", "$proxy_host") | ("connection", _) => {}
                _ if is_own => {}
                (_, "") if !is_header(name, "x") => {}
                (_, "") => remove.push(name.clone()),
                _ if value.contains('$') || value.contains("{vault://") => {
                    left.add(directive, "only texts without variables are converted");
                }
                _ if !is_header(name, value) => left.add(directive, "there is no such header"),
                _ => set.push(format!("{name}:{value}")),
            }
        }
        let mut config = Row::new();
        // `replace` changes a header that is there, and `add` adds one that is not.
        for (step, list) in [("remove", &remove), ("replace", &set), ("add", &set)] {
            if !list.is_empty() {
                config.insert(step.into(), json!({ "headers": list }));
            }
        }
        if !config.is_empty() {
            headers.plugin = Some(json!({ "name": "request-transformer", "config": config }));
        }
        headers
    }
}
