//! Locations as routes: with a service where they pass requests on, and otherwise with an answer of
//! the gateway itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::access::{Access, access};
use super::answers::{Answer, of_return, refusal};
use super::grammar::Directive;
use super::headers::Headers;
use super::inherited::{Inherited, is_harmless, is_inherited};
use super::paths::{Comparison, Paths, Place, before_all, pattern};
use super::server::Server;
use super::{CLOSED, Left, Lists};
use crate::entity::Row;

pub(super) struct Converting<'a> {
    /// Counts the locations, for the order of regular expressions.
    pub(super) number: usize,
    /// The ranks of wildcards among each other.
    pub(super) ranks: &'a BTreeMap<String, usize>,
    pub(super) left: &'a mut Left,
    pub(super) lists: &'a mut Lists,
}

/// A location with what holds in it.
struct Location<'d> {
    /// Whether it is inside another one.
    is_nested: bool,
    directive: &'d Directive,
    inherited: Inherited<'d>,
    place: Place,
}

/// What becomes of the requests of a location.
enum Outcome {
    /// They are passed on to this service, with these fields of the route.
    Passed {
        service: Row,
        route: Row,
    },
    Answered(Answer),
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
        self.route(&hosts, &[], paths, None, Outcome::Closed);
    }

    /// Adds the routes of a server. Returns whether it refuses requests.
    pub(super) fn server(&mut self, server: &Server<'_>) -> bool {
        let mut refuses = false;
        let mut closes = Vec::new();
        let mut answer = None;
        for directive in &server.directive.block {
            match directive.name() {
                "listen" | "server_name" | "location" => {}
                "return" if answer.is_none() => match of_return(directive) {
                    Ok(own) => answer = Some(own),
                    Err(why) => closes.push((directive, why)),
                },
                "rewrite" => {
                    self.rewrite(directive, server);
                    refuses = true;
                }
                "ssl_verify_client" if directive.value() == "off" => {}
                name if is_inherited(name) => {}
                name if is_harmless(name) => self.left.add(directive, "not converted"),
                _ => closes.push((directive, "not converted")),
            }
        }
        let all = Place {
            comparison: Comparison::Prefix,
            text: "/".into(),
        };
        if !closes.is_empty() {
            for (directive, why) in closes {
                let why = format!("{why}: all requests for its server are answered with 503");
                self.left.add(directive, &why);
            }
            self.place(server, &all, None, false, &|_| Outcome::Closed);
            return true;
        }
        if let Some(answer) = answer {
            self.place(server, &all, None, false, &|_| {
                Outcome::Answered(answer.clone())
            });
            return true;
        }
        let mut locations = Vec::new();
        self.collect(
            &server.directive.block,
            &server.inherited,
            false,
            &mut locations,
        );
        let has_all = locations
            .iter()
            .any(|location| location.place.is_prefix() && location.place.text == "/");
        let (mut has_open, mut has_closed) = (false, false);
        for location in &locations {
            match self.location(server, location, &locations) {
                true => has_closed = true,
                false => has_open = true,
            }
        }
        refuses |= has_closed;
        if has_open && has_closed {
            self.close_escaped_slashes(server);
        }
        // The routes of other servers are not for these hosts.
        if !has_all && server.hosts.iter().any(|host| !host.is_empty()) {
            let answer = Answer::Plugin(refusal(404));
            self.place(server, &all, None, false, &|_| {
                Outcome::Answered(answer.clone())
            });
        }
        refuses
    }

    /// The locations of a block and of the locations inside it.
    fn collect<'d>(
        &mut self,
        block: &'d [Directive],
        around: &Inherited<'d>,
        is_nested: bool,
        found: &mut Vec<Location<'d>>,
    ) {
        for directive in block.iter().filter(|own| own.name() == "location") {
            let Some(place) = Place::of(directive) else {
                self.left.add(
                    directive,
                    "not converted: no request of a client is compared with it",
                );
                continue;
            };
            let inherited = around.within(&directive.block);
            self.collect(&directive.block, &inherited, true, found);
            found.push(Location {
                is_nested,
                directive,
                inherited,
                place,
            });
        }
    }

    /// Adds the routes of a location. Returns whether it refuses requests.
    fn location(
        &mut self,
        server: &Server<'_>,
        location: &Location<'_>,
        all: &[Location<'_>],
    ) -> bool {
        let mut outcome = self.outcome(location);
        let place = &location.place;
        // A regular expression comes before this prefix, but not before the one around it.
        let is_between = place.comparison == Comparison::Prefix
            && all.iter().any(|other| {
                other.place.comparison == Comparison::FirstPrefix
                    && place.text.starts_with(&other.place.text)
            })
            && all
                .iter()
                .any(|other| matches!(other.place.comparison, Comparison::Pattern { .. }));
        let (is_wider, paths) = {
            let paths = place.paths(self.number, None);
            (paths.is_wider, paths.paths)
        };
        if !place.text.starts_with('/') && place.is_prefix() {
            self.left.add(
                location.directive,
                "paths begin with /: no request is compared with it",
            );
            return false;
        }
        let is_pattern = matches!(place.comparison, Comparison::Pattern { .. });
        let why = if location.is_nested && is_pattern {
            Some(
                "a regular expression inside a location: all requests that match it are answered \
                 with 503"
                    .into(),
            )
        } else if is_wider {
            Some(format!(
                "this regular expression is not one here: all requests that match {} are answered with \
                 503",
                paths.join(", ")
            ))
        } else if is_between {
            Some(
                "regular expressions come before it and not before the location ^~ around it, which \
                 cannot be expressed: its requests are answered with 503"
                    .into(),
            )
        } else {
            None
        };
        if let Some(why) = why {
            self.left.add(location.directive, &why);
            outcome = Outcome::Closed;
        }
        let access = match &outcome {
            Outcome::Closed => Access::All,
            _ => access(&location.inherited, self.left),
        };
        let mut plugins = Vec::new();
        match access {
            Access::All => {}
            Access::None => outcome = Outcome::Answered(Answer::Plugin(refusal(403))),
            Access::Some(plugin) => plugins.push(plugin),
        }
        let refuses = !plugins.is_empty() || !matches!(outcome, Outcome::Passed { .. });
        // nginx redirects requests without the slash, unless another location is for them.
        let bare = place.text.strip_suffix('/').unwrap_or_default();
        let redirects = matches!(outcome, Outcome::Passed { .. }) || has_pass(location.directive);
        let adds_bare = place.is_prefix()
            && redirects
            && !all.iter().any(|other| {
                let is_text = matches!(other.place.comparison, Comparison::Pattern { .. });
                !is_text && other.place.text == bare
            });
        let place = match is_between {
            true => Place {
                comparison: Comparison::FirstPrefix,
                text: place.text.clone(),
            },
            false => place.clone(),
        };
        let plugin = plugins.pop();
        self.place(server, &place, plugin, adds_bare, &|_| match &outcome {
            Outcome::Passed { service, route } => Outcome::Passed {
                service: service.clone(),
                route: route.clone(),
            },
            Outcome::Answered(answer) => Outcome::Answered(answer.clone()),
            Outcome::Closed => Outcome::Closed,
        });
        refuses
    }

    /// What becomes of the requests of a location.
    fn outcome(&mut self, location: &Location<'_>) -> Outcome {
        let inherited = &location.inherited;
        let mut service = Row::new();
        let (mut url, mut answer, mut is_internal) = (None, None, false);
        let mut closes: Vec<(&Directive, &str)> = Vec::new();
        for directive in &location.directive.block {
            match (directive.name(), directive.values()) {
                ("proxy_pass", [to]) if !to.contains('$') && !to.contains("://unix:") => {
                    url = Some(to.clone());
                }
                ("return", _) if answer.is_none() => match of_return(directive) {
                    Ok(own) => answer = Some(own),
                    Err(why) => closes.push((directive, why)),
                },
                ("internal", _) => is_internal = true,
                ("location", values) => {
                    if values.len() > 1 && values[0].starts_with('~') {
                        closes.push((directive, "a regular expression inside a location"));
                    }
                }
                (name, _) if is_inherited(name) => {}
                (name, _) if is_harmless(name) => self.left.add(directive, "not converted"),
                _ => closes.push((directive, "not converted")),
            }
        }
        let is_either = inherited
            .get("satisfy")
            .is_some_and(|own| own.value() == "any");
        for directive in inherited.authentication() {
            let has_others = is_either && !inherited.access.is_empty();
            match has_others && directive.name() != "ssl_verify_client" {
                // Fewer clients pass than with either of both.
                true => self
                    .left
                    .add(directive, "not converted: only addresses are compared"),
                false => closes.push((directive, "not converted")),
            }
        }
        closes.extend(inherited.guards.iter().map(|own| (*own, "not converted")));
        if let Some(verify) = inherited.get("proxy_ssl_verify") {
            service.insert("tls_verify".into(), (verify.value() == "on").into());
        }
        for (name, field) in [
            ("proxy_connect_timeout", "connect_timeout"),
            ("proxy_read_timeout", "read_timeout"),
            ("proxy_send_timeout", "write_timeout"),
        ] {
            let Some(directive) = inherited.get(name) else {
                continue;
            };
            match millis(directive.value()) {
                Some(millis) => drop(service.insert(field.into(), millis.into())),
                None => self.left.add(
                    directive,
                    "not a time of milliseconds, seconds, minutes or hours",
                ),
            }
        }
        if !closes.is_empty() {
            for (directive, why) in closes {
                let path = location.directive.words.join(" ");
                let why = format!("{why}: requests for {path} are answered with 503");
                self.left.add(directive, &why);
            }
            return Outcome::Closed;
        }
        if is_internal {
            return Outcome::Answered(Answer::Plugin(refusal(404)));
        }
        if let Some(answer) = answer {
            return Outcome::Answered(answer);
        }
        let Some(url) = url else {
            // nginx refuses clients before it looks for what to send them.
            if access(inherited, &mut Left::default()) == Access::None {
                return Outcome::Answered(Answer::Plugin(refusal(403)));
            }
            let why = "it passes nothing on: its requests are answered with 503";
            self.left.add(location.directive, why);
            return Outcome::Closed;
        };
        // With a path, nginx replaces what the location has matched by it.
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let replaces = authority.contains('/');
        if replaces && !location.place.is_prefix() {
            let why = "only a location that is a prefix can have a path in proxy_pass: its requests are \
                       answered with 503";
            self.left.add(location.directive, why);
            return Outcome::Closed;
        }
        if !url.starts_with("https://") {
            service.shift_remove("tls_verify");
        }
        service.insert("url".into(), url.into());
        let headers = Headers::read(inherited, self.left);
        let mut route = Row::from_iter([
            ("strip_path".to_owned(), replaces.into()),
            ("preserve_host".to_owned(), headers.preserves_host.into()),
        ]);
        if let Some(plugin) = headers.plugin {
            route.insert("plugins".into(), json!([plugin]));
        }
        Outcome::Passed { service, route }
    }

    /// Answers requests that a rewrite of a server is for, before all its locations.
    fn rewrite(&mut self, rewrite: &Directive, server: &Server<'_>) {
        let (path, _) = pattern(rewrite.value(), false);
        let why = format!("not converted: requests for {path} are answered with 503");
        self.left.add(rewrite, &why);
        for (hosts, rank) in self.groups(server) {
            let paths = Paths {
                paths: vec![path.clone()],
                priority: Some(before_all(rank)),
                is_wider: true,
            };
            self.route(&hosts, &[], paths, None, Outcome::Closed);
        }
    }

    /// Answers requests whose path has an escaped slash. nginx would compare the slash with its
    /// locations, some of which refuse requests; the gateway does not.
    fn close_escaped_slashes(&mut self, server: &Server<'_>) {
        let why =
            "nginx compares an escaped slash as a slash: paths with %2F are answered with 503";
        self.left.add(server.directive, why);
        for (hosts, rank) in self.groups(server) {
            let paths = Paths {
                paths: vec!["~/{0}(?s:.*)%2[Ff]".into()],
                priority: Some(before_all(rank)),
                is_wider: false,
            };
            self.route(&hosts, &[], paths, None, Outcome::Closed);
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
    fn place(
        &mut self,
        server: &Server<'_>,
        place: &Place,
        restriction: Option<Value>,
        adds_bare: bool,
        outcome: &dyn Fn(&[String]) -> Outcome,
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
            if let Outcome::Answered(Answer::ToHost(redirect)) = &outcome {
                let [host] = hosts.as_slice() else {
                    for host in hosts.iter().filter(|host| !host.contains('*')) {
                        let answer = Answer::Plugin(redirect.plugin(host));
                        let paths = Paths {
                            paths: paths.paths.clone(),
                            ..paths
                        };
                        let host = [host.clone()];
                        let answer = Outcome::Answered(answer);
                        self.route(&host, protocols, paths, restriction.clone(), answer);
                    }
                    if hosts.is_empty() {
                        self.close_redirect(server);
                        self.route(&hosts, protocols, paths, None, Outcome::Closed);
                    }
                    continue;
                };
                outcome = match host.contains('*') {
                    true => {
                        self.close_redirect(server);
                        Outcome::Closed
                    }
                    false => Outcome::Answered(Answer::Plugin(redirect.plugin(host))),
                };
            }
            if let (Outcome::Passed { route, .. }, Some(status)) = (&mut outcome, server.redirect) {
                route.insert("https_redirect_status_code".into(), status.into());
            }
            self.route(&hosts, protocols, paths, restriction, outcome);
        }
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
        outcome: Outcome,
    ) {
        let own = hosts.first().map_or("default", String::as_str);
        let number = self.lists.services.len() + self.lists.routes.len() + 1;
        let name = format!("{}-{number}", own.replace('*', "any"));
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
            Outcome::Passed { service, mut route } => {
                if let Some(Value::Array(own)) = route.shift_remove("plugins") {
                    plugins.extend(own);
                }
                row.extend(route);
                let mut named = Row::from_iter([("name".to_owned(), name.into())]);
                named.extend(service);
                Some(named)
            }
            Outcome::Answered(Answer::Plugin(plugin)) => {
                plugins.push(plugin);
                None
            }
            Outcome::Answered(Answer::ToHost(_)) | Outcome::Closed => {
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
                self.lists.services.push(service.into());
            }
            None => self.lists.routes.push(row.into()),
        }
    }
}

/// Whether requests of a location are passed on, in any way.
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

fn has_pass(location: &Directive) -> bool {
    let mut names = location.block.iter().map(Directive::name);
    names.any(|name| name.ends_with("_pass"))
}

/// A time of nginx in milliseconds.
fn millis(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
