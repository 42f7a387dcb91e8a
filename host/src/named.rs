//! Endpoints that an author names, for `pointsman simulate` and `pointsman plugin check`. A
//! balancer whose settings name endpoints chooses among them as in a gateway.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

use crate::authority::Authority;
use crate::endpoint::Endpoint;

/// Default port of a target. Source: Kong.
const PORT: u16 = 8000;

/// Digits of an id, as the Admin API shows it.
const DIGITS: usize = 16;

/// An endpoint as an author describes it, with at least one of `label`, `host` and `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// A label for the endpoint: `${label}` in the balancer's settings stands for the id.
    pub(crate) label: Option<String>,
    /// The address or the name of the target.
    host: Option<String>,
    /// The port of the target; 8000 if it is not given.
    port: Option<u16>,
    /// The id of the endpoint, in the hexadecimal digits that the Admin API shows.
    id: Option<String>,
}

impl Named {
    /// The id of the endpoint: the given one, or the one that a gateway would give to its address.
    /// A host name is not resolved here, so its id differs from the one in a gateway.
    ///
    /// # Errors
    /// What is wrong with the endpoint, in a sentence.
    pub(crate) fn id(&self) -> Result<u64, String> {
        if let Some(text) = &self.id {
            let digits = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
            let id = u64::from_str_radix(text, 16).ok().filter(|_| digits);
            return id.ok_or_else(|| {
                format!(
                    "the endpoint id {text:?} is invalid: expected {DIGITS} hexadecimal digits, as the \
                     Admin API shows them"
                )
            });
        }
        let host = self.host.as_ref().or(self.label.as_ref());
        let host = host.ok_or("an endpoint needs a label, a host or an id")?;
        let ip = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = SocketAddr::new(ip, self.port.unwrap_or(PORT));
        Ok(Endpoint::id_of(host, address))
    }

    /// The name of the endpoint in messages and figures.
    pub(crate) fn name(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        match (&self.label, &self.host, &self.id) {
            (Some(label), _, _) => label.clone(),
            (_, Some(host), _) if host.contains(':') => format!("[{host}]{port}"),
            (_, Some(host), _) => format!("{host}{port}"),
            (_, _, id) => id.clone().unwrap_or_default(),
        }
    }
}

/// `[LABEL=]HOST:PORT`, or an id in place of host and port.
impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (label, rest) = match text.split_once('=') {
            Some((label, rest)) => (Some(label.to_owned()), rest),
            None => (None, text),
        };
        let mut named = Self {
            label: label.filter(|label| !label.is_empty()),
            ..Self::default()
        };
        let target = Authority::of_setting(rest).and_then(|target| {
            let host = target.host.bare().to_owned();
            target.port.map(|port| (host, port))
        });
        if let Some((host, port)) = target {
            (named.host, named.port) = (Some(host), Some(port));
        } else if rest.len() == DIGITS && rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            named.id = Some(rest.to_owned());
        } else if named.label.is_none() || !rest.is_empty() {
            return Err(format!(
                "expected HOST:PORT or an id of {DIGITS} hexadecimal digits, with LABEL= before it if wanted, \
                 and not {text:?}"
            ));
        }
        Ok(named)
    }
}

/// The ids of all endpoints. Ids and labels have to be unique.
///
/// # Errors
/// What is wrong with one of them, in a sentence.
pub(crate) fn ids<'a>(all: impl Iterator<Item = &'a Named>) -> Result<Vec<u64>, String> {
    let (mut ids, mut labels) = (Vec::new(), HashSet::new());
    let mut known = HashSet::new();
    for named in all {
        let id = named.id()?;
        if !known.insert(id) {
            return Err(format!("the endpoint {} is named twice", named.name()));
        }
        if named
            .label
            .as_ref()
            .is_some_and(|label| !labels.insert(label))
        {
            return Err(format!("two endpoints have the label {}", named.name()));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Replaces each `${label}` in the settings by the id of that endpoint. If no endpoint has a label,
/// the settings are not changed.
///
/// # Errors
/// No endpoint has the label.
pub(crate) fn resolve<'a>(
    settings: &str,
    all: impl Iterator<Item = &'a Named>,
) -> Result<String, String> {
    let labelled: Vec<(&str, u64)> = all
        .filter_map(|named| Some((named.label.as_deref()?, named.id().ok()?)))
        .collect();
    let mut resolved = String::new();
    let mut rest = settings;
    while let Some((before, after)) = rest.split_once("${").filter(|_| !labelled.is_empty()) {
        let (label, after) = after
            .split_once('}')
            .ok_or("the settings have a ${ without its }")?;
        let Some((_, id)) = labelled.iter().find(|(known, _)| *known == label) else {
            let known: Vec<&str> = labelled.iter().map(|(label, _)| *label).collect();
            return Err(format!(
                "no endpoint has the label {label:?}, only {}",
                known.join(", ")
            ));
        };
        resolved.push_str(before);
        resolved.push_str(&format!("{id:016x}"));
        rest = after;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn named(text: &str) -> Named {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_the_id_that_a_gateway_gives_it() {
        let address: SocketAddr = "192.0.2.1:9001".parse().unwrap();
        let expected = Endpoint::id_of("192.0.2.1", address);
        assert_eq!(named("192.0.2.1:9001").id(), Ok(expected));
        assert_eq!(named("big=192.0.2.1:9001").id(), Ok(expected));
        let shown = format!("{expected:016x}");
        assert_eq!(named(&shown).id(), Ok(expected));
        assert_eq!(
            named("[2001:db8::1]:80").id(),
            Ok(Endpoint::id_of(
                "2001:db8::1",
                "[2001:db8::1]:80".parse::<SocketAddr>().unwrap()
            ))
        );
        for wrong in ["", "192.0.2.1", "=", "0123", "a:b"] {
            assert!(wrong.parse::<Named>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_in_settings_become_ids() {
        let all = [
            named("big=192.0.2.1:80"),
            named("192.0.2.2:80"),
            named("small="),
        ];
        let id = |number: usize| format!("{:016x}", all[number].id().unwrap());
        assert_eq!(
            resolve(r#"{"a": "${big}", "b": ["${small}"]}"#, all.iter()).unwrap(),
            format!(r#"{{"a": "{}", "b": ["{}"]}}"#, id(0), id(2))
        );
        let unknown = resolve(r#"{"a": "${huge}"}"#, all.iter()).unwrap_err();
        assert!(
            unknown.contains("huge") && unknown.contains("big, small"),
            "{unknown}"
        );
        // Without labels, `${x}` is part of the balancer's settings.
        assert_eq!(resolve("${x}", all[1..2].iter()).unwrap(), "${x}");
    }

    #[test]
    fn ids_and_labels_are_unique() {
        let twice = [named("a=192.0.2.1:80"), named("b=192.0.2.1:80")];
        assert!(ids(twice.iter()).unwrap_err().contains("b is named twice"));
        let same = [named("a=192.0.2.1:80"), named("a=192.0.2.2:80")];
        assert!(ids(same.iter()).unwrap_err().contains("the label a"));
    }
}
