//! From a configuration file of nginx to a document: its upstreams, and its servers with what they
//! pass on. What a document cannot say is listed with its line.
//!
//! What nginx refuses must not be answered by a wider route. So each `location` becomes a route, and
//! if the document cannot express what nginx does there, the route answers every request itself, with
//! the tag [`CLOSED`].

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

use super::export::document;
use crate::entity::{Kind, Row};
pub(super) use answers::refusal;
use grammar::Directive;
use inherited::Inherited;
pub(super) use paths::escaped;
use servers::Servers;

/// The tag of routes that answer requests for what is not converted.
pub(super) const CLOSED: &str = "not-converted";

/// The document for a file of nginx, and a line for each directive that it does not express.
///
/// # Errors
/// The file is not one of nginx, or its hosts cannot be told apart: where, and why.
pub(crate) fn convert_nginx(text: &str) -> Result<(String, Vec<String>), String> {
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
    Ok((document(&top), left.lines()))
}

/// The lists of a document.
#[derive(Default)]
struct Lists {
    services: Vec<Value>,
    /// Routes that answer requests themselves.
    routes: Vec<Value>,
    upstreams: Vec<Value>,
}

/// What the document does not express, by line.
#[derive(Default)]
struct Left(BTreeMap<usize, Vec<String>>);

impl Left {
    /// Adds a directive, once for each reason: it may hold for many locations.
    fn add(&mut self, directive: &Directive, why: &str) {
        let words = directive.words.join(" ");
        let told = format!("line {}: {words}: {why}", directive.line);
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
                lists.upstreams.extend(upstreams::upstream(directive, left));
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
