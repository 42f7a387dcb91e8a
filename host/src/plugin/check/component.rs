//! Checks of a component before it is asked for a pick.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Finding, output};
use crate::balancer::{Engine, LoadError, LoadedBalancer, try_settings};
use crate::component::{ComponentError, Schema};

/// A component's description of itself.
#[derive(Debug, Serialize)]
pub(super) struct ComponentFacts {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) digest: String,
    /// In bytes.
    pub(super) size: usize,
    exports: Vec<String>,
    imports: Vec<String>,
    columns: Vec<Cow<'static, str>>,
    config_schema: Value,
}

impl ComponentFacts {
    pub(super) fn of(plugin: &LoadedBalancer) -> Self {
        Self {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            digest: plugin.digest.clone(),
            size: plugin.size,
            exports: plugin.exports.clone(),
            imports: plugin.imports.clone(),
            columns: plugin.columns.iter().map(|column| column.name()).collect(),
            config_schema: plugin.config_schema.clone(),
        }
    }
}

/// The checks of loading, in the order in which the gateway makes them.
const STEPS: [&str; 6] = [
    "component",
    "interface",
    "imports",
    "description",
    "columns",
    "schema",
];

/// The step at which a component is refused.
fn step(error: &LoadError) -> usize {
    match error {
        LoadError::Component(ComponentError::Schema(_)) => 5,
        LoadError::Component(_) | LoadError::Limit(_) => 0,
        LoadError::NoPolicy { .. } | LoadError::Exports(_) => 1,
        LoadError::Capability { .. } | LoadError::Imports(_) => 2,
        LoadError::Describe(_) => 3,
        LoadError::Column { .. } => 4,
    }
}

/// Loads a component as the gateway does.
pub(super) fn load(
    engine: &Engine,
    bytes: &[u8],
    checks: &mut Vec<Finding>,
) -> Option<Arc<LoadedBalancer>> {
    let plugin = match engine.load_trusted(bytes) {
        Ok(plugin) => plugin,
        Err(error) => {
            let sentence = output::with(error.to_string());
            checks.push(Finding::fail(STEPS[step(&error)], sentence));
            return None;
        }
    };
    let size = plugin.size;
    let own = plugin.exports.iter().map(String::as_str);
    let own: Vec<&str> = own.filter(|name| name.starts_with("pointsman:")).collect();
    let columns: Vec<Cow<'_, str>> = plugin.columns.iter().map(|column| column.name()).collect();
    let (name, version) = (&plugin.name, &plugin.version);
    let sentences = [
        format!("it is a component of {size} bytes"),
        format!("it exports {}", own.join(", ")),
        imports(&plugin.imports),
        format!("it is {name} {version}"),
        match columns.as_slice() {
            [] => "it asks for no load columns".into(),
            some => format!("it asks for the load columns {}", some.join(", ")),
        },
        "its config-schema is a JSON Schema".into(),
    ];
    checks.extend(
        STEPS
            .into_iter()
            .zip(sentences)
            .map(|(id, sentence)| Finding::pass(id, sentence)),
    );
    notes(&plugin, checks);
    Some(plugin)
}

/// The imports of a component in a sentence.
fn imports(names: &[String]) -> String {
    let (own, wasi): (Vec<&String>, Vec<&String>) = names
        .iter()
        .partition(|name| name.starts_with("pointsman:"));
    let own: Vec<&str> = own.into_iter().map(String::as_str).collect();
    match (own.as_slice(), wasi.len()) {
        ([], 0) => "it imports nothing".into(),
        ([], many) => {
            format!("it imports {many} interfaces of WASI, with nothing behind them here")
        }
        (own, many) => format!(
            "it imports {}, and {many} interfaces of WASI, with nothing behind them here",
            own.join(", ")
        ),
    }
}

/// Warnings about a component that loads.
fn notes(plugin: &LoadedBalancer, checks: &mut [Finding]) {
    let mut note = |id: &str, sentence: String| {
        if let Some(finding) = checks.iter_mut().find(|finding| finding.id == id) {
            *finding = Finding::warn(finding.id, sentence);
        }
    };
    let (name, version) = (&plugin.name, &plugin.version);
    if name.is_empty() {
        note(
            "description",
            "it has no name: describe should give it one".into(),
        );
    } else if !is_semantic(version) {
        note(
            "description",
            format!("its version {version:?} is not a semantic version such as 1.2.0"),
        );
    }
    let schema = Schema::compile(&plugin.config_schema);
    let unnamed = json!({ "no such setting": 1 });
    if schema.is_ok_and(|schema| schema.violations(&unnamed).is_none()) {
        note(
            "schema",
            "its config-schema takes settings that it does not name, so a typing error is not noticed: \
             say \"additionalProperties\": false"
                .into(),
        );
    }
}

/// Whether a version has three numbers, with or without a suffix.
fn is_semantic(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u64>().is_ok())
}

/// Whether the schema and the component accept the settings.
pub(super) fn settings(
    engine: &Engine,
    plugin: &LoadedBalancer,
    config: &str,
    checks: &mut Vec<Finding>,
) -> bool {
    let refused = refusal(engine, plugin, config);
    let own = config.trim() != "{}";
    checks.push(match &refused {
        None if own => Finding::pass("settings", "it takes these settings"),
        None => Finding::pass("settings", "it works without settings"),
        Some(sentence) if own => Finding::fail("settings", sentence),
        Some(sentence) => Finding::fail(
            "settings",
            format!("{sentence}; this is without settings, and --config gives some"),
        ),
    });
    refused.is_none()
}

fn refusal(engine: &Engine, plugin: &LoadedBalancer, config: &str) -> Option<String> {
    let settings: Value = match serde_json::from_str(config) {
        Ok(settings @ Value::Object(_)) => settings,
        Ok(_) => return Some("settings are a JSON object".into()),
        Err(error) => return Some(format!("the settings are not JSON: {error}")),
    };
    // The schema was valid when the component was loaded.
    if let Ok(schema) = Schema::compile(&plugin.config_schema)
        && let Some(wrong) = schema.violations(&settings)
    {
        let wrong: Vec<String> = match &wrong {
            Value::Object(fields) => fields
                .iter()
                .map(|(field, message)| {
                    format!("/{field}: {}", message.as_str().unwrap_or_default())
                })
                .collect(),
            whole => vec![whole.as_str().unwrap_or_default().to_owned()],
        };
        return Some(format!(
            "its schema refuses the settings: {}",
            wrong.join("; ")
        ));
    }
    let refused = try_settings(engine, plugin, config).err()?;
    Some(output::with(refused))
}
