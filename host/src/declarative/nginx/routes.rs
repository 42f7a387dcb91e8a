//! What becomes of locations: routes for all hosts of a server, with a service where they pass
//! requests on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::answers::{DirectResponse, Redirect, refusal};
use super::grammar::Directive;
use super::paths::{LocationMatch, Paths, before_all, pattern};
use super::server::Server;
use super::{CLOSED, Left, Lists, is_valid_plugin, told};
use crate::entity::Row;

/// Adds routes to the lists of a document.
pub(super) struct Converting<'a> {
    /// Counts the locations, for the order of regular expressions.
    pub(super) number: usize,
    /// The directive of which routes are being made, with its line; empty for none.
    pub(super) origin: String,
    /// The ranks of wildcards among each other.
    pub(super) ranks: &'a BTreeMap<String, usize>,
    pub(super) left: &'a mut Left,
    pub(super) lists: &'a mut Lists,
}

/// What becomes of the requests of a location.
pub(super) enum LocationAction {
    /// They are passed on to this service, with these fields of the route.
    Passed {
        service: Row,
        route: Row,
    },
    Answered(DirectResponse),
    /// What nginx does with them is not converted.
    Closed,
}

impl Converting<'_> {
    /// Answers all requests for a host.
    pub(super) fn close_host(&mut self, host: &str) {
        let paths = Paths {
            paths: vec!["/".into()],
            priority: None,
            is_wider: false,
        };
        let hosts: Vec<String> = [host.to_owned()]
            .into_iter()
            .filter(|host| !host.is_empty())
            .collect();
        self.route(&hosts, &[], paths, None, LocationAction::Closed);
    }

    /// Answers requests that a rewrite of a server is for, before all its locations.
    pub(super) fn rewrite(&mut self, rewrite: &Directive, server: &Server<'_>) {
        self.origin = told(rewrite);
        let (path, _) = pattern(rewrite.value(), false);
        let why = format!("not converted: requests for {path} are answered with 503");
        self.left.add(rewrite, &why);
        for (hosts, rank) in self.groups(server) {
            let paths = Paths {
                paths: vec![path.clone()],
                priority: Some(before_all(rank)),
                is_wider: true,
            };
            self.route(&hosts, &[], paths, None, LocationAction::Closed);
        }
    }

    /// Answers requests whose path has one of these characters escaped. nginx would compare the
    /// character with its locations, some of which refuse requests; the gateway does not.
    pub(super) fn close_escaped(&mut self, server: &Server<'_>, characters: &BTreeSet<char>) {
        self.origin = told(server.directive);
        let mut paths = Vec::new();
        for character in characters {
            let code = format!("%{:02X}", u32::from(*character));
            let why = format!(
                "nginx compares {code} as {character}: paths with {code} are answered with 503"
            );
            self.left.add(server.directive, &why);
            // Only the second digit may be a letter.
            let (first, last) = code.split_at(2);
            let last = match last.to_ascii_lowercase() {
                lower if lower != last => format!("[{last}{lower}]"),
                digit => digit,
            };
            paths.push(format!("~/{{0}}(?s:.*){first}{last}"));
        }
        for (hosts, rank) in self.groups(server) {
            let paths = Paths {
                paths: paths.clone(),
                priority: Some(before_all(rank)),
                is_wider: false,
            };
            self.route(&hosts, &[], paths, None, LocationAction::Closed);
        }
    }

    /// The hosts of a server whose routes are alike: those without a wildcard, and each other one.
    fn groups(&self, server: &Server<'_>) -> Vec<(Vec<String>, Option<usize>)> {
        let (wildcards, plain): (Vec<_>, Vec<_>) = server
            .hosts
            .iter()
            .filter(|host| !host.is_empty())
            .cloned()
            .partition(|host| host.contains('*'));
        let mut groups = Vec::new();
        if !plain.is_empty() {
            groups.push((plain, None));
        }
        for host in wildcards {
            let rank = self.ranks.get(&host).copied();
            groups.push((vec![host], rank));
        }
        if server.hosts.iter().any(String::is_empty) {
            groups.push((Vec::new(), None));
        }
        groups
    }

    /// Adds the routes for a place, for all hosts of a server.
    pub(super) fn place(
        &mut self,
        server: &Server<'_>,
        place: &LocationMatch,
        restriction: Option<Value>,
        adds_bare: bool,
        outcome: &dyn Fn(&[String]) -> LocationAction,
    ) {
        self.number += 1;
        let number = self.number;
        for (hosts, rank) in self.groups(server) {
            let mut paths = place.paths(number, rank);
            if adds_bare {
                paths.add_without_slash(&place.text, rank);
            }
            // Only clients of this machine reach the address.
            let restriction = match server.is_local() {
                true => Some(local(restriction.as_ref())),
                false => restriction.clone(),
            };
            let protocols = match (server.is_plain, server.has_tls) {
                (true, false) => &["http"][..],
                (false, true) => &["https"],
                _ => &["http", "https"],
            };
            let mut outcome = outcome(&hosts);
            if let LocationAction::Answered(DirectResponse::ToHost(redirect)) = &outcome {
                let [host] = hosts.as_slice() else {
                    for host in hosts.iter().filter(|host| !host.contains('*')) {
                        let answer = self.redirected(server, redirect, host);
                        let paths = Paths {
                            paths: paths.paths.clone(),
                            ..paths
                        };
                        let host = [host.clone()];
                        self.route(&host, protocols, paths, restriction.clone(), answer);
                    }
                    if hosts.is_empty() {
                        self.close_redirect(server);
                        self.route(&hosts, protocols, paths, None, LocationAction::Closed);
                    }
                    continue;
                };
                outcome = match host.contains('*') {
                    true => {
                        self.close_redirect(server);
                        LocationAction::Closed
                    }
                    false => self.redirected(server, redirect, host),
                };
            }
            if let (LocationAction::Passed { route, .. }, Some(status)) =
                (&mut outcome, server.redirect)
            {
                route.insert("https_redirect_status_code".into(), status.into());
            }
            self.route(&hosts, protocols, paths, restriction, outcome);
        }
    }

    /// What answers a redirect of the requests for a host.
    fn redirected(
        &mut self,
        server: &Server<'_>,
        redirect: &Redirect,
        host: &str,
    ) -> LocationAction {
        let plugin = redirect.plugin(host);
        if is_valid_plugin(&plugin) {
            return LocationAction::Answered(DirectResponse::Plugin(plugin));
        }
        let why = format!("no redirect can lead to {host}: it is answered with 503");
        self.left.add(server.directive, &why);
        LocationAction::Closed
    }

    fn close_redirect(&mut self, server: &Server<'_>) {
        self.left.add(
            server.directive,
            "the host of a redirect depends on the request: it is answered with 503",
        );
    }

    /// Adds a route, with its service if it has one.
    fn route(
        &mut self,
        hosts: &[String],
        protocols: &[&str],
        paths: Paths,
        restriction: Option<Value>,
        outcome: LocationAction,
    ) {
        let own = hosts.first().map_or("default", String::as_str);
        let number = self.lists.services.len() + self.lists.routes.len() + 1;
        let name = format!("{}-{number}", as_name(own));
        let mut row = Row::from_iter([
            ("name".to_owned(), name.clone().into()),
            ("paths".to_owned(), paths.paths.into()),
        ]);
        if let Some(priority) = paths.priority {
            row.insert("regex_priority".into(), priority.into());
        }
        if !hosts.is_empty() {
            row.insert("hosts".into(), hosts.into());
        }
        if !protocols.is_empty() {
            row.insert("protocols".into(), json!(protocols));
        }
        let mut plugins: Vec<Value> = restriction.into_iter().collect();
        let service = match outcome {
            LocationAction::Passed { service, mut route } => {
                if let Some(Value::Array(own)) = route.shift_remove("plugins") {
                    plugins.extend(own);
                }
                row.extend(route);
                let mut named = Row::from_iter([("name".to_owned(), name.into())]);
                named.extend(service);
                Some(named)
            }
            LocationAction::Answered(DirectResponse::Plugin(plugin)) => {
                plugins.push(plugin);
                None
            }
            LocationAction::Answered(DirectResponse::ToHost(_)) | LocationAction::Closed => {
                row.insert("tags".into(), json!([CLOSED]));
                plugins = vec![refusal(503)];
                None
            }
        };
        if !plugins.is_empty() {
            row.insert("plugins".into(), plugins.into());
        }
        match service {
            Some(mut service) => {
                service.insert("routes".into(), json!([row]));
                self.lists.add_service(service, &self.origin);
            }
            None => self.lists.add_route(row, &self.origin),
        }
    }
}

/// A host as part of the name of an entity, which has fewer characters.
fn as_name(host: &str) -> String {
    let host = host.replace('*', "any");
    let is_taken = |letter: char| letter.is_ascii_alphanumeric() || ".-_~".contains(letter);
    host.replace(|letter: char| !is_taken(letter), "-")
}

/// The restriction for an address that only clients of this machine reach, with what a location
/// restricts in addition.
fn local(restriction: Option<&Value>) -> Value {
    let list = |name: &str| {
        let list = restriction?.pointer(&format!("/config/{name}"))?.as_array();
        list.cloned()
    };
    let is_local = |range: &Value| {
        let begins = ["127.", "::1"].iter();
        begins
            .clone()
            .any(|begin| range.as_str().is_some_and(|range| range.starts_with(begin)))
    };
    let mut config = Row::new();
    let allowed = match list("allow") {
        None => vec!["127.0.0.0/8".into(), "::1".into()],
        Some(listed) => {
            let mut allowed: Vec<Value> = listed.into_iter().filter(is_local).collect();
            if allowed.is_empty() {
                // An address that no client has.
                allowed.push("0.0.0.0/32".into());
            }
            allowed
        }
    };
    config.insert("allow".into(), allowed.into());
    if let Some(denied) = list("deny") {
        config.insert("deny".into(), denied.into());
    }
    json!({ "name": "ip-restriction", "config": config })
}
