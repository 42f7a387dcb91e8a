//! What a document says about all its entities: decK's `_info` and `_plugin_configs`.

use std::collections::HashSet;

use serde_json::Value;

use super::mistakes::Mistakes;
use super::syntax::{Step, TextBudget};
use crate::entity::{Kind, Row};

/// What a document says about all its entities.
#[derive(Debug, Default)]
pub(super) struct Info {
    /// Tags that every entity of the document gets.
    pub(super) select_tags: Vec<String>,
    /// Fields of entities that do not have them, by kind.
    defaults: Vec<(Kind, Row)>,
    /// Settings that plugins share, by name.
    plugin_configs: Row,
}

/// The kinds that decK knows defaults for.
const WITH_DEFAULTS: [(&str, Kind); 4] = [
    ("service", Kind::Service),
    ("route", Kind::Route),
    ("upstream", Kind::Upstream),
    ("target", Kind::Target),
];

impl Info {
    /// Takes it out of a document.
    pub(super) fn take(document: &mut Row, mistakes: &mut Mistakes) -> Self {
        let mut info = Self::default();
        let mut record = |name: &str, value: Option<Value>, around: &[&str]| match value {
            None | Some(Value::Null) => Row::new(),
            Some(Value::Object(record)) => record,
            Some(_) => {
                let names = around.iter().copied().chain([name]);
                let steps = names.map(|name| Step::Name(name.to_owned()));
                mistakes.at(steps.collect(), "expected a record");
                Row::new()
            }
        };
        info.plugin_configs = record(
            "_plugin_configs",
            document.shift_remove("_plugin_configs"),
            &[],
        );
        let mut given = record("_info", document.shift_remove("_info"), &[]);
        let tags = given.shift_remove("select_tags");
        let mut defaults = record("defaults", given.shift_remove("defaults"), &["_info"]);
        for (name, kind) in WITH_DEFAULTS {
            let fields = record(name, defaults.shift_remove(name), &["_info", "defaults"]);
            info.defaults.push((kind, fields));
        }
        // Entities with these tags may be referred to; here every stored entity may be.
        given.shift_remove("default_lookup_tags");
        let at = |names: [&str; 2]| names.map(|name| Step::Name(name.to_owned())).to_vec();
        match tags {
            None | Some(Value::Null) => {}
            Some(Value::Array(tags)) if tags.iter().all(Value::is_string) => {
                let tags = tags.iter().filter_map(Value::as_str);
                let mut seen = HashSet::new();
                let tags = tags.filter(|tag| seen.insert(*tag));
                info.select_tags = tags.map(str::to_owned).collect();
            }
            Some(_) => mistakes.at(at(["_info", "select_tags"]), "expected an array of texts"),
        }
        for name in given.keys() {
            mistakes.at(at(["_info", name]), "unknown field");
        }
        for name in defaults.keys() {
            let mut steps = at(["_info", "defaults"]);
            steps.push(Step::Name(name.clone()));
            mistakes.at(steps, "unknown field");
        }
        info
    }

    /// Adds to an entity what it does not say itself, as far as the budget allows.
    ///
    /// # Errors
    /// It names shared settings that do not exist, or the budget is spent: a few lines could stand
    /// for billions of values.
    pub(super) fn complete(
        &self,
        kind: Kind,
        input: &mut Row,
        budget: &mut TextBudget,
    ) -> Result<(), String> {
        for (_, fields) in self.defaults.iter().filter(|(of, _)| *of == kind) {
            fill(input, fields, budget)?;
        }
        if !self.select_tags.is_empty()
            && let Value::Array(tags) = input
                .entry("tags")
                .or_insert_with(|| Vec::<Value>::new().into())
        {
            let known: HashSet<String> = tags
                .iter()
                .filter_map(|tag| tag.as_str().map(str::to_owned))
                .collect();
            for tag in self.select_tags.iter().filter(|tag| !known.contains(*tag)) {
                budget.take(1, tag.len())?;
                tags.push(tag.as_str().into());
            }
        }
        if kind == Kind::Plugin
            && let Some(name) = input.shift_remove("_config")
        {
            let name = name.as_str().unwrap_or_default();
            let shared = self.plugin_configs.get(name).and_then(Value::as_object);
            let shared = shared.ok_or_else(|| format!("_plugin_configs has no '{name}'"))?;
            let config = input.entry("config").or_insert_with(|| Row::new().into());
            if let Value::Object(config) = config {
                fill(config, shared, budget)?;
            }
        }
        Ok(())
    }
}

/// Adds the fields that a record does not have, in records inside it as well.
fn fill(record: &mut Row, defaults: &Row, budget: &mut TextBudget) -> Result<(), String> {
    for (name, default) in defaults {
        match (record.get_mut(name), default) {
            (Some(Value::Object(inner)), Value::Object(defaults)) => fill(inner, defaults, budget)?,
            (Some(_), _) => budget.take(1, 0)?,
            (None, default) => {
                budget.take(0, name.len())?;
                budget.take_value(default)?;
                record.insert(name.clone(), default.clone());
            }
        }
    }
    Ok(())
}
