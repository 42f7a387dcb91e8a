//! The requirements on a component that serves as a balancer.

use thiserror::Error;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::columns::{Column, MAX_REPORTED_COLUMNS};
use crate::component::{self, ComponentError, WASI};

/// The interface that a balancer must export, and those that it may export.
const POLICY: &str = "pointsman:balancer/policy@1.";
const STATE: &str = "pointsman:balancer/state@1.";
const WORK: &str = "pointsman:balancer/work@1.";
const OUTCOME: &str = "pointsman:balancer/outcome@1.";

/// The interface by which a balancer asks about requests.
const FACTS: &str = "pointsman:balancer/request-facts@1.";

/// The function of that interface that returns the start of a body.
const BODY_START: &str = "body-start";

/// The interface by which a balancer asks about bodies beyond their start.
const BODY_FACTS: &str = "pointsman:balancer/body-facts@1.";

/// The interface by which a balancer asks about endpoints, and the one by which it says how a
/// request is refused.
const ENDPOINT_FACTS: &str = "pointsman:balancer/endpoint-facts@1.";
const REFUSAL: &str = "pointsman:balancer/refusal@1.";

/// The interface by which a balancer asks about earlier tries of a request.
const TRIES: &str = "pointsman:balancer/tries@1.";

/// Interfaces that a balancer may import besides those of WASI, without their versions.
const PROVIDED: &[&str] = &[
    "pointsman:balancer/body-facts",
    "pointsman:balancer/endpoint-facts",
    "pointsman:balancer/load",
    "pointsman:balancer/log",
    "pointsman:balancer/outcome-tag",
    "pointsman:balancer/refusal",
    "pointsman:balancer/request-facts",
    "pointsman:balancer/tries",
];

/// Why a component is refused.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences are the documentation")]
pub enum LoadError {
    #[error(transparent)]
    Component(#[from] ComponentError),
    #[error(
        "the component lacks the interface pointsman:balancer/policy@1.0.0; it exports {}",
        list(exports)
    )]
    NoPolicy { exports: Vec<String> },
    #[error(
        "the component imports {import}, which this gateway does not provide to balancers: a balancer has no network, no files and no services, only what is in its arguments"
    )]
    Capability { import: String },
    #[error(
        "an import of the component does not match the interface that this gateway provides: {0}"
    )]
    Imports(String),
    #[error("an interface that the component exports is not the one of that name and version: {0}")]
    Exports(String),
    #[error("the component needs more than an instance of it may have: {0}")]
    Limit(String),
    #[error("the component fails when it is asked to describe itself: {0}")]
    Describe(String),
    #[error(
        "the component asks for the load column {column:?}, which this gateway does not know; it knows {}",
        list(known)
    )]
    Column { column: String, known: Vec<String> },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

/// The interfaces that a component exports, if they and its imports are acceptable.
pub(super) fn interfaces(engine: &Engine, component: &Component) -> Result<Vec<String>, LoadError> {
    let exports = component::exports(engine, component);
    if !exports.iter().any(|name| name.starts_with(POLICY)) {
        return Err(LoadError::NoPolicy { exports });
    }
    for import in component::imports(engine, component) {
        let name = import.split('@').next().unwrap_or(&import);
        if !PROVIDED.contains(&name) && !WASI.contains(&name) {
            return Err(LoadError::Capability { import });
        }
    }
    Ok(exports)
}

/// Whether a component with these exports can save and restore its state.
pub(super) fn hands_over(exports: &[String]) -> bool {
    exports.iter().any(|name| name.starts_with(STATE))
}

/// Whether a component with these imports may ask about the requests that it chooses for.
pub(super) fn reads_facts(imports: &[String]) -> bool {
    let asks = |name: &String| name.starts_with(FACTS) || name.starts_with(BODY_FACTS);
    imports.iter().any(asks)
}

/// Whether a component with these imports may ask about bodies beyond their start.
pub(super) fn scans_bodies(imports: &[String]) -> bool {
    imports.iter().any(|name| name.starts_with(BODY_FACTS))
}

/// Whether a component with these exports says what requests weigh.
pub(super) fn weighs(exports: &[String]) -> bool {
    exports.iter().any(|name| name.starts_with(WORK))
}

/// Whether a component with these exports is told what came of its picks.
pub(super) fn takes_outcomes(exports: &[String]) -> bool {
    exports.iter().any(|name| name.starts_with(OUTCOME))
}

/// Whether a component with these imports may ask about earlier tries of a request.
pub(super) fn asks_about_tries(imports: &[String]) -> bool {
    imports.iter().any(|name| name.starts_with(TRIES))
}

/// Whether a trace of a component with these exports and imports may have what earlier versions of
/// the contract do not know.
pub(super) fn needs_new_trace(exports: &[String], imports: &[String]) -> bool {
    let is_new = |name: &String| {
        [BODY_FACTS, ENDPOINT_FACTS, REFUSAL]
            .iter()
            .any(|new| name.starts_with(new))
    };
    weighs(exports) || takes_outcomes(exports) || imports.iter().any(is_new)
}

/// Whether a component may ask for the start of a request's body.
pub(super) fn reads_bodies(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    let mut facts = ty
        .imports(engine)
        .filter(|(name, _)| name.starts_with(FACTS));
    facts.any(|(_, item)| match item.ty {
        ComponentItem::ComponentInstance(facts) => facts.get_export(engine, BODY_START).is_some(),
        _ => false,
    })
}

/// The columns that a description names.
pub(super) fn columns(names: &[String]) -> Result<Vec<Column>, LoadError> {
    let known = |name: &String| {
        Column::named(name).ok_or_else(|| LoadError::Column {
            column: name.clone(),
            known: (Column::ALL.iter().map(|column| column.name().into_owned()))
                .chain(["reported:NAME".to_owned()])
                .collect(),
        })
    };
    if names
        .iter()
        .filter(|name| Column::is_reported(name))
        .count()
        > MAX_REPORTED_COLUMNS
    {
        let message = format!("it asks for more than {MAX_REPORTED_COLUMNS} columns reported:NAME");
        return Err(LoadError::Limit(message));
    }
    names.iter().map(known).collect()
}
