//! From manifests of the Kubernetes Gateway API to a document: gateways, their routes, and the
//! services that these lead to, as far as the manifests have them. What a document cannot say is
//! listed with its line.
//!
//! The requests of a rule that cannot be expressed are answered by the gateway itself, so that no
//! wider rule takes them.

mod backends;
mod filters;
mod gateways;
mod matches;
mod policies;
mod routes;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::context::NoGateway;
use super::export::document;
use super::origins::Origins;
use super::syntax::{Lines, Step, documents};
use crate::entity::Row;
use backends::Backends;
use gateways::Listeners;

/// A resource of Kubernetes.
struct Resource {
    kind: String,
    namespace: String,
    name: String,
    value: Value,
    lines: std::rc::Rc<Lines>,
    /// Where it is in its document: at its top, or in a list.
    steps: Vec<Step>,
}

/// A value inside a resource.
#[derive(Clone)]
struct At<'r> {
    resource: &'r Resource,
    steps: Vec<Step>,
    value: &'r Value,
}

impl<'r> At<'r> {
    fn top(resource: &'r Resource) -> Self {
        Self {
            resource,
            steps: Vec::new(),
            value: &resource.value,
        }
    }

    /// The value of a field, unless it is null.
    fn get(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self {
            resource: self.resource,
            steps: [&*self.steps, &[Step::Name(name.to_owned())]].concat(),
            value,
        })
    }

    /// The elements of a list.
    fn list(&self, name: &str) -> Vec<Self> {
        let Some(list) = self.get(name) else {
            return Vec::new();
        };
        let elements = list.value.as_array().into_iter().flatten().enumerate();
        let element = |(index, value)| Self {
            resource: self.resource,
            steps: [&*list.steps, &[Step::Index(index)]].concat(),
            value,
        };
        elements.map(element).collect()
    }

    fn text(&self, name: &str) -> Option<&'r str> {
        self.value.get(name)?.as_str()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value.get(name)?.as_u64()
    }

    /// The line, and what the value is: the line, the resource and the field.
    fn told(&self) -> (usize, String) {
        let steps = [&*self.resource.steps, &*self.steps].concat();
        let line = self.resource.lines.of(&steps).unwrap_or(0);
        let Resource {
            kind,
            namespace,
            name,
            ..
        } = self.resource;
        let field = match super::mistakes::shown_steps(&self.steps) {
            field if field.is_empty() => field,
            field => format!(": {field}"),
        };
        (
            line,
            format!("line {line}: {kind} {namespace}/{name}{field}"),
        )
    }

    /// The name of a resource of this kind and group that this refers to, with its namespace.
    fn refers(&self, kind: &str, group: &str) -> Option<(String, String)> {
        let is_kind = self.text("kind").unwrap_or(kind) == kind;
        let is_group = self.text("group").unwrap_or(group) == group;
        let namespace = self.text("namespace").unwrap_or(&self.resource.namespace);
        let name = self.text("name")?;
        (is_kind && is_group).then(|| (namespace.to_owned(), name.to_owned()))
    }
}

/// The resources, and what is left of them.
struct Manifests {
    resources: Vec<Resource>,
}

impl Manifests {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Resource> {
        let all = self.resources.iter();
        all.filter(move |resource| resource.kind == kind)
    }

    fn find(&self, kind: &str, (namespace, name): &(String, String)) -> Option<&Resource> {
        let mut all = self.of_kind(kind);
        all.find(|resource| resource.namespace == *namespace && resource.name == *name)
    }
}

/// What the document does not express, by line.
#[derive(Default)]
struct Left(BTreeMap<usize, Vec<String>>);

impl Left {
    fn add(&mut self, at: &At<'_>, why: &str) {
        let (line, place) = at.told();
        let told = format!("{place}: {why}");
        let of_line = self.0.entry(line).or_default();
        if !of_line.contains(&told) {
            of_line.push(told);
        }
    }

    /// Adds the fields of a record that are not among these. Returns whether there are none.
    fn others(&mut self, at: &At<'_>, known: &[&str]) -> bool {
        let mut is_whole = true;
        for name in at.value.as_object().into_iter().flat_map(Map::keys) {
            if !known.contains(&name.as_str())
                && let Some(other) = at.get(name)
            {
                self.add(&other, "not converted");
                is_whole = false;
            }
        }
        is_whole
    }
}

/// The lists of a document.
#[derive(Default)]
struct Lists {
    services: Vec<Value>,
    /// Routes that answer requests themselves.
    routes: Vec<Value>,
    upstreams: Vec<Value>,
    certificates: Vec<Value>,
    origins: Origins,
}

impl Lists {
    /// Adds a service that was made of this value.
    fn add_service(&mut self, service: Row, of: &At<'_>) {
        self.origins
            .add("services", self.services.len(), of.told().1);
        self.services.push(service.into());
    }

    /// Adds a route without a service, likewise.
    fn add_route(&mut self, route: Value, of: &At<'_>) {
        self.origins.add("routes", self.routes.len(), of.told().1);
        self.routes.push(route);
    }

    fn add_upstream(&mut self, upstream: Row, of: &At<'_>) {
        self.origins
            .add("upstreams", self.upstreams.len(), of.told().1);
        self.upstreams.push(upstream.into());
    }

    fn add_certificate(&mut self, certificate: Value, of: &At<'_>) {
        self.origins
            .add("certificates", self.certificates.len(), of.told().1);
        self.certificates.push(certificate);
    }
}

/// Whether a text is a manifest of Kubernetes rather than a file of nginx.
pub(crate) fn is_manifest(text: &str) -> bool {
    let mut lines = text
        .lines()
        .map(|line| line.trim_start().trim_start_matches(['{', '"']));
    lines.any(|line| line.starts_with("apiVersion"))
}

/// The document for manifests, and a line for each part of them that it does not express. A gateway
/// with these settings would take it.
///
/// # Errors
/// The text cannot be read, or there is no entity for a part of it: where, and why, one mistake a
/// line.
pub(crate) fn convert_kubernetes(
    text: &str,
    context: &NoGateway,
) -> Result<(String, Vec<String>), String> {
    let mut resources = Vec::new();
    for (value, lines) in documents(text)? {
        collect(value, &std::rc::Rc::new(lines), Vec::new(), &mut resources);
    }
    let manifests = Manifests { resources };
    let (mut left, mut lists) = (Left::default(), Lists::default());
    unknown_kinds(&manifests, &mut left);
    let listeners = Listeners::read(&manifests, &mut left, &mut lists);
    let mut backends = Backends::read(&manifests, &mut left);
    routes::convert(&manifests, &listeners, &mut backends, &mut left, &mut lists);
    let mut top = Row::new();
    for (name, list) in [
        ("certificates", lists.certificates),
        ("services", lists.services),
        ("routes", lists.routes),
        ("upstreams", lists.upstreams),
    ] {
        if !list.is_empty() {
            top.insert(name.into(), list.into());
        }
    }
    let document = lists.origins.checked(document(&top), context)?;
    let left = left.0.into_values().flatten();
    Ok((document, left.collect()))
}

/// Takes the resources out of a document, which may be a list of them.
fn collect(
    value: Value,
    lines: &std::rc::Rc<Lines>,
    steps: Vec<Step>,
    resources: &mut Vec<Resource>,
) {
    let text = |pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.map(str::to_owned)
    };
    let kind = text("/kind").unwrap_or_default();
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get("items")
    {
        for (index, item) in items.iter().enumerate() {
            let inner = [Step::Name("items".into()), Step::Index(index)];
            collect(item.clone(), lines, [&*steps, &inner].concat(), resources);
        }
        return;
    }
    if value.is_null() {
        return;
    }
    resources.push(Resource {
        kind,
        namespace: text("/metadata/namespace").unwrap_or_else(|| "default".into()),
        name: text("/metadata/name").unwrap_or_default(),
        value,
        lines: std::rc::Rc::clone(lines),
        steps,
    });
}

/// The kinds that are read, here or where others refer to them.
const KINDS: [&str; 8] = [
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "BackendTLSPolicy",
    "Service",
    "EndpointSlice",
    "Secret",
    "ConfigMap",
];

fn unknown_kinds(manifests: &Manifests, left: &mut Left) {
    for resource in &manifests.resources {
        if !KINDS.contains(&resource.kind.as_str()) && !policies::is_guard(resource) {
            left.add(&At::top(resource), "not converted");
        }
    }
}

/// Milliseconds of a duration of the Gateway API (GEP-2257): numbers with the units h, m, s and ms.
fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut all) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, after) = units
            .iter()
            .find_map(|(name, millis)| Some((*millis, unit.strip_prefix(name)?)))?;
        all = all.checked_add(number.checked_mul(unit)?)?;
        rest = after;
    }
    Some(all).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests;
