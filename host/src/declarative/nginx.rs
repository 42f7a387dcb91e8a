//! From a configuration file of nginx to a document: its upstreams, and its servers with what they
//! pass on. What a document cannot say is listed with its line.
//!
//! What nginx refuses must not be answered by a wider route. So each `location` becomes a route,
//! and if the document cannot express what nginx does there, the route answers every request
//! itself, with the tag [`CLOSED`].

mod access;
mod answers;
mod dump;
mod grammar;
mod headers;
mod inherited;
mod locations;
mod paths;
mod routes;
mod server;
mod servers;
mod upstreams;

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::context::NoGateway;
use super::export::document;
use super::origins::Origins;
use crate::entity::{Kind, Row};
use crate::policy;
pub(super) use answers::refusal;
use grammar::Directive;
use inherited::Inherited;
pub(super) use paths::escaped;
use servers::Servers;
use upstreams::{Converted, PassedSocket};

/// The tag of routes that answer requests for what is not converted.
pub(super) const CLOSED: &str = "not-converted";

/// The document for a file of nginx, and a line for each directive that it does not express. A
/// gateway with these settings would take it.
///
/// # Errors
/// The file is not one of nginx, or its hosts cannot be told apart, or there is no entity for some
/// of its directives: where, and why, one mistake a line.
pub(crate) fn convert_nginx(
    text: &str,
    context: &NoGateway,
) -> Result<(String, Vec<String>), String> {
    let directives = dump::read(text)?;
    let (mut left, mut lists) = (Left::default(), Lists::default());
    let mut servers = Servers::default();
    // Without a block `http`, the file is one that such a block includes.
    let is_whole = directives.iter().any(|own| own.name() == "http");
    let around = match is_whole {
        true => Inherited::default(),
        false => Inherited::default().within(&directives),
    };
    file(&directives, &around, &mut servers, &mut left, &mut lists)?;
    servers.convert(&mut left, &mut lists)?;
    let mut top = Row::new();
    for (name, list) in [
        ("services", lists.services),
        ("routes", lists.routes),
        ("upstreams", lists.upstreams),
    ] {
        if !list.is_empty() {
            top.insert(name.into(), list.into());
        }
    }
    let document = lists.origins.checked(document(&top), context)?;
    Ok((document, left.lines()))
}

/// The lists of a document.
#[derive(Default)]
struct Lists {
    services: Vec<Value>,
    /// Routes that answer requests themselves.
    routes: Vec<Value>,
    upstreams: Vec<Value>,
    /// The upstreams that stand for Unix sockets of `proxy_pass`: their names, by their targets.
    sockets: BTreeMap<String, String>,
    origins: Origins,
}

impl Lists {
    fn add_upstream(&mut self, directive: &Directive, upstream: Converted<'_>) {
        let place = self.upstreams.len();
        self.origins.add("upstreams", place, told(directive));
        for (number, server) in upstream.servers.into_iter().enumerate() {
            let (around, own) = (("upstreams", place), ("targets", number));
            self.origins.add_inside(around, own, told(server));
        }
        self.upstreams.push(upstream.row.into());
    }

    /// The name of the upstream that stands for a socket, or a name that it can have.
    fn name_of(&self, socket: &PassedSocket) -> String {
        if let Some(name) = self.sockets.get(socket.target()) {
            return name.clone();
        }
        let is_taken = |name: &str| {
            let mut names = self.upstreams.iter().filter_map(|own| own["name"].as_str());
            names.any(|own| own.eq_ignore_ascii_case(name))
        };
        let (name, mut number) = (socket.name(), 1);
        let mut free = name.clone();
        while is_taken(&free) {
            number += 1;
            free = format!("{name}-{number}");
        }
        free
    }

    /// Adds the upstream of a socket, unless there is one. `pass` is a directive that names it.
    fn add_socket(&mut self, pass: &Directive, socket: &PassedSocket) {
        let name = self.name_of(socket);
        if self
            .sockets
            .insert(socket.target().to_owned(), name.clone())
            .is_none()
        {
            self.add_upstream(pass, socket.upstream(&name, pass));
        }
    }

    /// Adds a service. `origin` is the directive that it was made of, as [`told`] has it.
    fn add_service(&mut self, service: Row, origin: &str) {
        let place = self.services.len();
        self.origins.add("services", place, origin.to_owned());
        self.services.push(service.into());
    }

    /// Adds a route without a service, likewise.
    fn add_route(&mut self, route: Row, origin: &str) {
        let place = self.routes.len();
        self.origins.add("routes", place, origin.to_owned());
        self.routes.push(route.into());
    }
}

/// A directive with its line.
fn told(directive: &Directive) -> String {
    format!("line {}: {}", directive.line, directive.words.join(" "))
}

/// What the document does not express, by line.
#[derive(Default)]
struct Left(BTreeMap<usize, Vec<String>>);

impl Left {
    /// Adds a directive, once for each reason: it may hold for many locations.
    fn add(&mut self, directive: &Directive, why: &str) {
        let told = format!("{}: {why}", told(directive));
        let of_line = self.0.entry(directive.line).or_default();
        if !of_line.contains(&told) {
            of_line.push(told);
        }
    }

    fn lines(self) -> Vec<String> {
        self.0.into_values().flatten().collect()
    }
}

/// Whether there can be an entity with these fields, whose references are named elsewhere.
fn is_valid(kind: Kind, row: &Row) -> bool {
    kind.declaration().create(Uuid::nil(), row.clone()).is_ok()
}

/// Whether there can be a plugin with this name and these settings.
fn is_valid_plugin(plugin: &Value) -> bool {
    let created = plugin.as_object().and_then(|row| {
        let declaration = Kind::Plugin.declaration();
        declaration.create(Uuid::nil(), row.clone()).ok()
    });
    created.is_some_and(|row| policy::check_row(&row).is_ok())
}

/// Reads the top of a file, or its block `http`.
///
/// # Errors
/// Two upstreams have the same name, which nginx refuses as well.
fn file<'d>(
    directives: &'d [Directive],
    inherited: &Inherited<'d>,
    servers: &mut Servers<'d>,
    left: &mut Left,
    lists: &mut Lists,
) -> Result<(), String> {
    for directive in directives {
        match directive.name() {
            "http" => {
                let inner = inherited.within(&directive.block);
                file(&directive.block, &inner, servers, left, lists)?;
            }
            "upstream" => {
                let name = directive.value();
                let mut others = lists.upstreams.iter();
                let is_taken = others.any(|other| {
                    let other = other["name"].as_str();
                    other.is_some_and(|other| other.eq_ignore_ascii_case(name))
                });
                if is_taken {
                    return Err(format!("line {}: duplicate upstream \"{name}\"", directive.line));
                }
                if let Some(upstream) = upstreams::upstream(directive, left) {
                    lists.add_upstream(directive, upstream);
                }
            }
            "server" => servers.add(directive, inherited, left),
            "include" if inherited.guards.iter().any(|own| own.line == directive.line) => left.add(
                directive,
                "what it includes is not in this file, and may refuse requests: write it in the place \
                 of this line",
            ),
            "include" => left.add(directive, "what it includes is not in this file"),
            name if inherited::is_inherited(name) => {}
            _ => left.add(directive, "not converted"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
