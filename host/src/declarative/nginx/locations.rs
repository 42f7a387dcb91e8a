//! What nginx does with the requests of a location: it passes them on, or answers them. What is not
//! known here is answered by the gateway.

use std::collections::BTreeSet;

use serde_json::json;

use super::access::{Access, access};
use super::answers::{DirectResponse, of_return, refusal};
use super::grammar::Directive;
use super::headers::Headers;
use super::inherited::{Inherited, is_harmless, is_inherited};
use super::paths::{Comparison, LocationMatch};
use super::routes::{Converting, LocationAction};
use super::server::Server;
use super::upstreams::PassedSocket;
use super::{Left, is_valid, told};
use crate::entity::{Kind, Row};

/// A location with what holds in it.
struct Location<'d> {
    /// Whether it is inside another one.
    is_nested: bool,
    directive: &'d Directive,
    inherited: Inherited<'d>,
    place: LocationMatch,
}

impl Converting<'_> {
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
        let all = LocationMatch {
            comparison: Comparison::Prefix,
            text: "/".into(),
        };
        self.origin = told(server.directive);
        if !closes.is_empty() {
            for (directive, why) in closes {
                let why = format!("{why}: all requests for its server are answered with 503");
                self.left.add(directive, &why);
            }
            self.place(server, &all, None, false, &|_| LocationAction::Closed);
            return true;
        }
        if let Some(answer) = answer {
            self.place(server, &all, None, false, &|_| {
                LocationAction::Answered(answer.clone())
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
        let mut compared = BTreeSet::from(['/']);
        for location in &locations {
            match self.location(server, location, &locations) {
                true => {
                    has_closed = true;
                    compared.extend(location.place.reserved());
                }
                false => has_open = true,
            }
        }
        refuses |= has_closed;
        if has_open && has_closed {
            self.close_escaped(server, &compared);
        }
        // The routes of other servers are not for these hosts.
        if !has_all && server.hosts.iter().any(|host| !host.is_empty()) {
            let answer = DirectResponse::Plugin(refusal(404));
            self.origin = told(server.directive);
            self.place(server, &all, None, false, &|_| {
                LocationAction::Answered(answer.clone())
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
            let Some(place) = LocationMatch::of(directive) else {
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
        self.origin = told(location.directive);
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
        let is_pattern = matches!(place.comparison, Comparison::Pattern { .. });
        if !is_pattern && (!place.text.starts_with('/') || place.text.contains("//")) {
            self.left.add(
                location.directive,
                "paths begin with /, and have no // in them: no request is compared with it",
            );
            return false;
        }
        let why = if location.is_nested && is_pattern {
            Some(
                "a regular expression inside a location: all requests that match it are answered \
                 with 503"
                    .into(),
            )
        } else if is_wider {
            Some(format!(
                "the gateway has no such regular expression: all requests that match {} are answered \
                 with 503",
                paths.join(", ")
            ))
        } else if is_between {
            Some(
                "nginx tries regular expressions before this location but not before the location ^~ \
                 around it, which cannot be expressed: its requests are answered with 503"
                    .into(),
            )
        } else {
            None
        };
        if let Some(why) = why {
            self.left.add(location.directive, &why);
            outcome = LocationAction::Closed;
        }
        let access = match &outcome {
            LocationAction::Closed => Access::All,
            _ => access(&location.inherited, self.left),
        };
        let mut plugins = Vec::new();
        match access {
            Access::All => {}
            Access::None => {
                outcome = LocationAction::Answered(DirectResponse::Plugin(refusal(403)))
            }
            Access::Some(plugin) => plugins.push(plugin),
        }
        let refuses = !plugins.is_empty() || !matches!(outcome, LocationAction::Passed { .. });
        // nginx redirects requests without the slash, unless another location is for them.
        let bare = place.text.strip_suffix('/').unwrap_or_default();
        let redirects =
            matches!(outcome, LocationAction::Passed { .. }) || has_pass(location.directive);
        let adds_bare = place.is_prefix()
            && redirects
            && !all.iter().any(|other| {
                let is_text = matches!(other.place.comparison, Comparison::Pattern { .. });
                !is_text && other.place.text == bare
            });
        let place = match is_between {
            true => LocationMatch {
                comparison: Comparison::FirstPrefix,
                text: place.text.clone(),
            },
            false => place.clone(),
        };
        let plugin = plugins.pop();
        self.place(server, &place, plugin, adds_bare, &|_| match &outcome {
            LocationAction::Passed { service, route } => LocationAction::Passed {
                service: service.clone(),
                route: route.clone(),
            },
            LocationAction::Answered(answer) => LocationAction::Answered(answer.clone()),
            LocationAction::Closed => LocationAction::Closed,
        });
        refuses
    }

    /// What becomes of the requests of a location.
    fn outcome(&mut self, location: &Location<'_>) -> LocationAction {
        let inherited = &location.inherited;
        let mut service = Row::new();
        let (mut url, mut answer, mut is_internal) = (None, None, false);
        let mut closes: Vec<(&Directive, &str)> = Vec::new();
        for directive in &location.directive.block {
            match (directive.name(), directive.values()) {
                ("proxy_pass", [to]) if !to.contains('$') => {
                    url = Some((directive, to.clone()));
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
                // The addresses alone let fewer clients pass than nginx does with `satisfy any`.
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
            return LocationAction::Closed;
        }
        if is_internal {
            return LocationAction::Answered(DirectResponse::Plugin(refusal(404)));
        }
        if let Some(answer) = answer {
            return LocationAction::Answered(answer);
        }
        let Some((pass, url)) = url else {
            // nginx refuses clients before it looks for what to send them.
            if access(inherited, &mut Left::default()) == Access::None {
                return LocationAction::Answered(DirectResponse::Plugin(refusal(403)));
            }
            let why = "it passes nothing on: its requests are answered with 503";
            self.left.add(location.directive, why);
            return LocationAction::Closed;
        };
        let socket = PassedSocket::of(&url);
        if socket.as_ref().is_some_and(|socket| !socket.is_valid()) {
            let why = "no target can have this address: requests are answered with 503";
            self.left.add(pass, why);
            return LocationAction::Closed;
        }
        let url = match &socket {
            Some(socket) => socket.url(&self.lists.name_of(socket)),
            None => url,
        };
        // With a path, nginx replaces what the location has matched by it.
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let replaces = authority.contains('/');
        if replaces && !location.place.is_prefix() {
            let why = "only a location that is a prefix can have a path in proxy_pass: its requests are \
                       answered with 503";
            self.left.add(location.directive, why);
            return LocationAction::Closed;
        }
        if !url.starts_with("https://") {
            service.shift_remove("tls_verify");
        }
        service.insert("url".into(), url.into());
        if !is_valid(Kind::Service, &service) {
            // nginx refuses such a file as well.
            let why = "no service can have this URL or these times: requests are answered with 503";
            self.left.add(pass, why);
            return LocationAction::Closed;
        }
        if let Some(socket) = socket {
            self.lists.add_socket(pass, &socket);
        }
        let headers = Headers::read(inherited, self.left);
        let mut route = Row::from_iter([
            ("strip_path".to_owned(), replaces.into()),
            ("preserve_host".to_owned(), headers.preserves_host.into()),
        ]);
        if let Some(plugin) = headers.plugin {
            route.insert("plugins".into(), json!([plugin]));
        }
        LocationAction::Passed { service, route }
    }
}

/// Whether requests of a location are passed on, in any way.
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
