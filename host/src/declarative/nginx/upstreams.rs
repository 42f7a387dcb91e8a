//! Upstreams of nginx: their servers as targets, and their algorithm.

use serde_json::{Value, json};

use super::grammar::Directive;
use super::{Left, is_valid};
use crate::entity::target::{MOST_LIMIT, MOST_WEIGHT, same_target};
use crate::entity::{Kind, Row};

/// An upstream with its targets.
pub(super) struct Converted<'d> {
    pub(super) row: Row,
    /// The directives that the targets were made of, in their order.
    pub(super) servers: Vec<&'d Directive>,
}

/// The upstream; `None` if none can have its name. Then no service can have a URL with it either.
pub(super) fn upstream<'d>(upstream: &'d Directive, left: &mut Left) -> Option<Converted<'d>> {
    let mut row = Row::from_iter([("name".to_owned(), upstream.value().into())]);
    if !is_valid(Kind::Upstream, &row) {
        left.add(upstream, "not converted: no upstream can have this name");
        return None;
    }
    let mut servers = Vec::new();
    for directive in &upstream.block {
        let values = directive.values();
        match directive.name() {
            "server" => servers.extend(Server::read(directive, left)),
            "least_conn" => {
                row.insert("algorithm".into(), "least-connections".into());
            }
            "ip_hash" => {
                row.insert("algorithm".into(), "consistent-hashing".into());
                row.insert("hash_on".into(), "ip".into());
            }
            "hash" => {
                let mut hashed = row.clone();
                hashed.insert("algorithm".into(), "consistent-hashing".into());
                hashed.extend(hash_on(directive.value()).unwrap_or_default());
                match hashed.contains_key("hash_on") && is_valid(Kind::Upstream, &hashed) {
                    true => row = hashed,
                    false => left.add(directive, "requests are not hashed on this"),
                }
            }
            "random" if values.is_empty() => {
                row.insert("algorithm".into(), "random".into());
            }
            "random" if values == ["two"] || values == ["two", "least_conn"] => {
                row.insert("algorithm".into(), "p2c".into());
            }
            _ => left.add(directive, "not converted"),
        }
    }
    let (targets, servers) = targets(servers, left);
    row.insert("targets".into(), targets.into());
    Some(Converted { row, servers })
}

/// A `server` of an upstream.
struct Server<'d> {
    directive: &'d Directive,
    target: String,
    weight: u64,
    max_conns: Option<u64>,
    stage: Stage,
}

/// When a server gets requests; the earliest stage comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Active,
    Backup,
    Down,
}

impl<'d> Server<'d> {
    fn read(directive: &'d Directive, left: &mut Left) -> Option<Self> {
        let address = directive.value();
        let has_port = match address.rsplit_once(']') {
            Some((_, rest)) => rest.starts_with(':'),
            None => address.contains(':'),
        };
        let target = match has_port {
            true => address.to_owned(),
            false => format!("{address}:80"),
        };
        if same_target(&target).is_none() {
            left.add(directive, "not converted: no target can have this address");
            return None;
        }
        let mut server = Self {
            directive,
            target,
            weight: 1,
            max_conns: None,
            stage: Stage::Active,
        };
        let mut others = Vec::new();
        for parameter in directive.values().get(1..).unwrap_or_default() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name, value.parse::<u64>()) {
                ("weight", Ok(weight)) => server.weight = weight,
                ("backup", _) => server.stage = server.stage.max(Stage::Backup),
                ("down", _) => server.stage = Stage::Down,
                ("max_conns", Ok(most)) => server.max_conns = Some(most),
                _ => others.push(parameter.as_str()),
            }
        }
        if !others.is_empty() {
            left.add(directive, &format!("not converted: {}", others.join(", ")));
        }
        Some(server)
    }

    fn is_same_target(&self, other: &Self) -> bool {
        same_target(&self.target) == same_target(&other.target)
    }

    /// Adds a server at the same address: nginx gives each its own share of the requests and its
    /// own connections. Where they differ in more than that, the one that gets requests earlier
    /// stays.
    fn add(&mut self, other: Self, left: &mut Left) {
        if self.stage == other.stage && self.max_conns.is_some() == other.max_conns.is_some() {
            self.weight = self.weight.saturating_add(other.weight);
            // With 0, nginx has no limit.
            let limits = self.max_conns.zip(other.max_conns);
            self.max_conns = limits.map(|(one, other)| match one.min(other) {
                0 => 0,
                _ => one.saturating_add(other),
            });
            return;
        }
        let lost = match other.stage < self.stage {
            true => std::mem::replace(self, other),
            false => other,
        };
        let line = self.directive.line;
        let why = format!("not converted: the server of line {line} is the same target");
        left.add(lost.directive, &why);
    }

    fn into_target(self, has_weights: bool, left: &mut Left) -> Value {
        let bounded = |value: u64, most: u64, what: &str, left: &mut Left| {
            if value > most {
                let why = format!("the {what} of a target is {most} at most");
                left.add(self.directive, &why);
            }
            value.min(most)
        };
        let mut row = Row::from_iter([("target".to_owned(), self.target.into())]);
        match self.stage {
            Stage::Down => drop(row.insert("weight".into(), 0.into())),
            _ if has_weights => {
                let weight = bounded(self.weight, MOST_WEIGHT.into(), "weight", left);
                row.insert("weight".into(), weight.into());
            }
            _ => {}
        }
        if self.stage == Stage::Backup {
            row.insert("failover".into(), true.into());
        }
        if let Some(most) = self.max_conns {
            let most = bounded(most, MOST_LIMIT.into(), "limit of connections", left);
            let breakers = json!({ "circuit_breakers": { "max_connections": most } });
            row.insert("pointsman".into(), breakers);
        }
        row.into()
    }
}

/// The targets of an upstream, each once, and the directives that they were made of.
fn targets<'d>(servers: Vec<Server<'d>>, left: &mut Left) -> (Vec<Value>, Vec<&'d Directive>) {
    let mut merged: Vec<Server<'_>> = Vec::new();
    for server in servers {
        match merged.iter_mut().find(|one| one.is_same_target(&server)) {
            Some(one) => one.add(server, left),
            None => merged.push(server),
        }
    }
    // A server without a weight has 1, and a target 100: then each has the same share as well.
    let has_weights = merged.iter().any(|server| server.weight != 1);
    let targets = merged.into_iter();
    targets
        .map(|server| {
            let directive = server.directive;
            (server.into_target(has_weights, left), directive)
        })
        .unzip()
}

/// The fields of an upstream that hash on a variable of nginx.
fn hash_on(variable: &str) -> Option<Row> {
    let named = |hash_on: &str, field: &str, name: String| {
        Row::from_iter([
            ("hash_on".to_owned(), hash_on.into()),
            (field.to_owned(), name.into()),
        ])
    };
    if let Some(name) = variable.strip_prefix("$http_") {
        return Some(named("header", "hash_on_header", name.replace('_', "-")));
    }
    if let Some(name) = variable.strip_prefix("$arg_") {
        return Some(named("query_arg", "hash_on_query_arg", name.to_owned()));
    }
    let hash_on = match variable {
        "$remote_addr" | "$binary_remote_addr" => "ip",
        "$uri" => "path",
        _ => return None,
    };
    Some(Row::from_iter([("hash_on".to_owned(), hash_on.into())]))
}

/// A Unix socket of a `proxy_pass`. A service names it by an upstream.
pub(super) struct PassedSocket {
    scheme: String,
    target: String,
    /// What replaces the location; empty for nothing.
    uri: String,
}

impl PassedSocket {
    /// The socket that a URL names, if it names one. Source: nginx, `proxy_pass`.
    pub(super) fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (unix, rest) = rest.split_once(':')?;
        if !unix.eq_ignore_ascii_case("unix") {
            return None;
        }
        let (path, uri) = rest.split_once(':').unwrap_or((rest, ""));
        Some(Self {
            scheme: scheme.to_owned(),
            target: format!("unix:{path}"),
            uri: uri.to_owned(),
        })
    }

    /// Whether a target can have its path, and a service what replaces the location.
    pub(super) fn is_valid(&self) -> bool {
        let is_path = self.uri.is_empty() || self.uri.starts_with('/');
        is_path && self.target.starts_with("unix:/") && same_target(&self.target).is_some()
    }

    /// The target.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The URL of a service that names it by this upstream.
    pub(super) fn url(&self, upstream: &str) -> String {
        format!("{}://{upstream}{}", self.scheme, self.uri)
    }

    /// A name for its upstream: the end of its path in letters, digits and hyphens, because a label
    /// of a host has 63 characters at most.
    pub(super) fn name(&self) -> String {
        let path = self.target.trim_start_matches("unix:");
        let words = path.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let joined = words.join("-");
        let from = joined.len().saturating_sub(LONGEST_NAME);
        format!("unix-{}", joined[from..].trim_matches('-'))
            .trim_end_matches('-')
            .to_owned()
    }

    /// Its upstream, which has one target. `pass` is the directive that names the socket.
    pub(super) fn upstream<'d>(&self, name: &str, pass: &'d Directive) -> Converted<'d> {
        let targets = json!([{ "target": self.target }]);
        let fields = [
            ("name".to_owned(), name.into()),
            ("targets".to_owned(), targets),
        ];
        Converted {
            row: Row::from_iter(fields),
            servers: vec![pass],
        }
    }
}

/// Most characters of a path in the name of its upstream.
const LONGEST_NAME: usize = 50;
