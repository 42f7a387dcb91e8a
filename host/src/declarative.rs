//! Configuration as files, in Kong's declarative format: read into checked rows, written from rows.
//! Source: Kong 3.9, `kong.db.schema.others.declarative_config` and `kong.db.declarative`.
//!
//! A file has lists of entities under their names in the store. An entity may also stand in a list
//! inside an entity that it refers to. `syntax.rs` reads YAML and JSON into values that know their
//! lines, `collect.rs` finds the entities in them, `ids.rs` gives ids to those without one,
//! `read.rs` makes rows of them, and `check.rs` checks the rows as the Admin API does.
//! `mistakes.rs` has the errors in Kong's shapes. `nginx.rs` and `kubernetes.rs` make documents of
//! other files, which `origins.rs` checks.

mod check;
mod collect;
mod components;
mod configuration;
mod context;
mod defaults;
mod diff;
mod export;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ids;
mod item;
mod kubernetes;
mod mistakes;
mod nginx;
mod origins;
mod read;
mod syntax;
#[cfg(test)]
mod tests;
mod workspaces;

pub(crate) use components::Components;
pub(crate) use configuration::{Configuration, Entity, is_selected};
pub(crate) use context::{CheckContext, NoGateway};
pub(crate) use diff::{ChangeKind, Difference, changes};
pub(crate) use export::{Exported, export};
pub(crate) use kubernetes::{convert_kubernetes, is_manifest};
pub(crate) use mistakes::Mistakes;
pub(crate) use nginx::convert_nginx;
pub(crate) use read::read;
pub(crate) use syntax::{LONGEST, Syntax, Text};
