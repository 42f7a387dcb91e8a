//! The JSON Schema of a component's settings, and the validation of settings against it.
//!
//! A schema comes from a plugin and is not trusted: a few hundred bytes of it can expand to
//! gigabytes, for example by `allOf` with the same `$ref` twice, nested twenty times. So its size,
//! its depth and its number of subschemas with all references followed are checked before it is
//! compiled. The gateway compiles and applies the schema of an uploaded component in a worker
//! process only (see [`super::child`]).

use std::collections::HashMap;
use std::process::ExitCode;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::check::ComponentError;
use super::child;

/// Largest schema, in bytes.
const SIZE: usize = 64 << 10;

/// Deepest nesting of a schema with its references followed, and of its JSON. Twice as much, with
/// the levels that a stored row adds, is still below the 128 levels that the JSON parser takes.
const DEPTH: usize = 60;

/// Most subschemas of a schema with its references followed.
const SUBSCHEMAS: usize = 10_000;

/// Most regular expressions in a schema, and the largest one compiled, in bytes.
const PATTERNS: usize = 100;
const PATTERN_SIZE: usize = 256 << 10;

/// Largest settings, in bytes of JSON.
pub(crate) const SETTINGS: usize = 1 << 20;

/// Most violations that are reported of settings, and the longest message about one of their
/// fields, in bytes.
const MISTAKES: usize = 100;
const SENTENCE: usize = 500;

/// Largest address space of a worker, in bytes: its allocator alone reserves one GiB.
pub(crate) const MEMORY: u64 = 2 << 30;

/// Keywords that are refused. Their meaning depends on where a reference came from, so the
/// subschemas cannot be counted.
const REFUSED: &[&str] = &[
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords that hold one schema. In earlier drafts, some of them hold a list of schemas or
/// something else.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
];

/// Keywords that hold a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords that hold schemas by name.
const NAMED: &[&str] = &[
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// The schema of a description, if it is valid JSON and within its limits. It must be an object, or
/// a boolean, to be a JSON Schema at all.
pub(crate) fn parse(text: &str) -> Result<Value, ComponentError> {
    let refused = |reason: String| ComponentError::Schema(reason);
    if text.len() > SIZE {
        let size = text.len();
        return Err(refused(format!("it has {size} bytes, and may have {SIZE}")));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        let kind = match schema {
            Value::Null => "null",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            _ => "an array",
        };
        return Err(refused(format!("expected an object, found {kind}")));
    }
    check(&schema).map_err(refused)?;
    Ok(schema)
}

/// Whether a schema is within its limits. An error is a sentence about what is not.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    if nesting(schema, 0) > DEPTH {
        return Err(format!("it is nested deeper than {DEPTH} levels"));
    }
    let mut count = Count {
        root: schema,
        known: HashMap::new(),
        patterns: 0,
    };
    count.schema(schema, 0).map(drop)
}

/// Levels of nesting, counted up to a little more than [`DEPTH`].
fn nesting(value: &Value, above: usize) -> usize {
    if above > DEPTH {
        return above;
    }
    let inner = |value| nesting(value, above + 1);
    match value {
        Value::Array(items) => items.iter().map(inner).max().unwrap_or(above + 1),
        Value::Object(fields) => fields.values().map(inner).max().unwrap_or(above + 1),
        _ => above,
    }
}

/// The size of a part of a schema with its references followed.
#[derive(Debug, Clone, Copy)]
struct Extent {
    subschemas: usize,
    depth: usize,
}

/// Counts the subschemas and the depth of a schema with its references followed. Each place is
/// visited once.
struct Count<'s> {
    root: &'s Value,
    /// The extent by the place of a schema in the document; none while it is being counted.
    known: HashMap<*const Value, Option<Extent>>,
    patterns: usize,
}

impl<'s> Count<'s> {
    fn schema(&mut self, schema: &'s Value, above: usize) -> Result<Extent, String> {
        let place: *const Value = schema;
        let mut extent = Extent {
            subschemas: 1,
            depth: 1,
        };
        if above > DEPTH {
            return Err(too_deep());
        }
        match self.known.get(&place) {
            Some(Some(known)) => {
                let known = *known;
                return within(known, above).map(|()| known);
            }
            Some(None) => {
                return Err("a reference in it leads back to where it came from".into());
            }
            None => {}
        }
        let Value::Object(keywords) = schema else {
            self.known.insert(place, Some(extent));
            return Ok(extent);
        };
        self.known.insert(place, None);
        for (keyword, value) in keywords {
            for part in self.parts(keyword, value)? {
                let inner = self.schema(part, above + 1)?;
                extent.subschemas = extent.subschemas.saturating_add(inner.subschemas);
                extent.depth = extent.depth.max(inner.depth + 1);
            }
            within(extent, above)?;
        }
        self.known.insert(place, Some(extent));
        Ok(extent)
    }

    /// The schemas that a keyword holds, or refers to.
    fn parts(&mut self, keyword: &str, value: &'s Value) -> Result<Vec<&'s Value>, String> {
        if REFUSED.contains(&keyword) {
            return Err(format!("the keyword {keyword} is not taken"));
        }
        if keyword == "pattern" {
            self.count_patterns(1)?;
        }
        if keyword == "patternProperties" {
            self.count_patterns(value.as_object().map_or(0, Map::len))?;
        }
        Ok(match value {
            Value::String(reference) if keyword == "$ref" => {
                vec![self.referred(reference)?]
            }
            // The `$id` of draft 4. A property of that name is below `properties`.
            Value::String(_) if keyword == "id" => {
                return Err("the keyword id is not taken".into());
            }
            Value::Object(_) | Value::Bool(_) if ONE.contains(&keyword) => vec![value],
            Value::Array(parts) if ONE.contains(&keyword) || LIST.contains(&keyword) => {
                parts.iter().collect()
            }
            Value::Object(parts) if NAMED.contains(&keyword) => parts.values().collect(),
            _ => Vec::new(),
        })
    }

    fn referred(&self, reference: &str) -> Result<&'s Value, String> {
        let pointer = reference.strip_prefix('#').and_then(|pointer| {
            let pointer = percent_encoding::percent_decode_str(pointer);
            self.root.pointer(&pointer.decode_utf8_lossy())
        });
        pointer.ok_or_else(|| {
            let reference: String = reference.chars().take(100).collect();
            format!(
                "the reference {reference:?} leads nowhere: only those to a place of the schema itself are \
                 followed, such as #/$defs/name"
            )
        })
    }

    fn count_patterns(&mut self, more: usize) -> Result<(), String> {
        self.patterns += more;
        if self.patterns > PATTERNS {
            return Err(format!("it has more than {PATTERNS} regular expressions"));
        }
        Ok(())
    }
}

fn within(extent: Extent, above: usize) -> Result<(), String> {
    if extent.subschemas > SUBSCHEMAS {
        return Err(format!(
            "it comes to more than {SUBSCHEMAS} schemas once its references are followed"
        ));
    }
    if above + extent.depth > DEPTH {
        return Err(too_deep());
    }
    Ok(())
}

fn too_deep() -> String {
    format!("it is nested deeper than {DEPTH} levels once its references are followed")
}

/// A compiled schema.
pub(crate) struct Schema<'s> {
    schema: &'s Value,
    validator: Validator,
}

impl<'s> Schema<'s> {
    /// Compiles a schema in this process. It is for workers, for programs whose user provides the
    /// schema, and for the schemas that ship with the gateway.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn compile(schema: &'s Value) -> Result<Self, String> {
        check(schema)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE);
        let validator = jsonschema::options()
            // Matching takes time linear in the text, whatever the pattern.
            .with_pattern_options(patterns)
            .offline()
            .build(schema)
            .map_err(|error| cut(error.to_string()))?;
        Ok(Self { schema, validator })
    }

    /// The violations, by field or for the whole; none if there are none.
    pub(crate) fn violations(&self, config: &Value) -> Option<Value> {
        let mut fields = unknown(self.schema, config);
        for error in self.validator.iter_errors(config) {
            let place = error.instance_path().to_string();
            let message = cut(error.to_string());
            if place.is_empty() {
                // `unknown` has reported this by field already, which the validator does not do.
                let is_known = matches!(
                    error.kind(),
                    ValidationErrorKind::AdditionalProperties { .. }
                        | ValidationErrorKind::FalseSchema
                );
                if is_known && !fields.is_empty() {
                    continue;
                }
                return Some(message.into());
            }
            let name = cut(place.trim_start_matches('/').replace('/', "."));
            fields.entry(name).or_insert(message.into());
            if fields.len() >= MISTAKES {
                break;
            }
        }
        (!fields.is_empty()).then(|| fields.into())
    }
}

/// The fields that a closed schema does not name.
fn unknown(schema: &Value, config: &Value) -> Map<String, Value> {
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
        && schema.get("patternProperties").is_none();
    let Some(config) = config.as_object().filter(|_| is_closed) else {
        return Map::new();
    };
    let known = schema.get("properties").and_then(Value::as_object);
    let names = config.keys();
    let names = names.filter(|name| !known.is_some_and(|known| known.contains_key(*name)));
    names
        .take(MISTAKES)
        .map(|name| (cut(name.clone()), "unknown field".into()))
        .collect()
}

/// Cuts a message, because it may quote all of the settings.
fn cut(mut sentence: String) -> String {
    if sentence.len() > SENTENCE {
        sentence.truncate(sentence.floor_char_boundary(SENTENCE));
        sentence.push_str(" ...");
    }
    sentence
}

/// The input of a worker: a schema, and settings to validate.
pub(crate) fn question(schema: &Value, settings: &[&Value]) -> Vec<u8> {
    json!({ "schema": schema, "settings": settings })
        .to_string()
        .into_bytes()
}

/// Parses the output of a worker: the violations of each of the settings, or null.
pub(crate) fn answer(bytes: &[u8]) -> Result<Vec<Option<Value>>, String> {
    let violations: Vec<Value> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let violations = violations.into_iter();
    Ok(violations
        .map(|wrong| (!wrong.is_null()).then_some(wrong))
        .collect())
}

/// The schema worker: a [`question`] on standard input, its [`answer`] on standard output. Its
/// argument is the CPU time that it may take, in seconds.
pub fn schema_worker() -> ExitCode {
    let seconds = std::env::args().nth(2).and_then(|text| text.parse().ok());
    let Some(seconds) = seconds else {
        eprintln!("schema-worker is for the gateway's own use");
        return ExitCode::FAILURE;
    };
    child::serve(MEMORY, seconds, |question| {
        let question: Value =
            serde_json::from_slice(&question).map_err(|error| error.to_string())?;
        let schema = Schema::compile(&question["schema"])?;
        let settings = question["settings"].as_array().into_iter().flatten();
        let violations: Vec<Option<Value>> = settings.map(|one| schema.violations(one)).collect();
        Ok(json!(violations).to_string().into_bytes())
    })
}

#[cfg(test)]
mod tests;
