//! Fields of declarations as JSON Schema (draft 2020-12, which OpenAPI 3.1 uses).

use serde_json::{Value, json};

use crate::entity::{Check, Declaration, Field, Kind, Preset, Row, Shape};

/// Input that a declaration accepts besides its fields, because it is rewritten into them.
const SHORTHANDS: &[(Kind, &str)] = &[(Kind::Service, "url")];

/// Which side a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// What a client sends.
    Input,
    /// What an answer has.
    Output,
}

/// The row of an entity in an answer.
pub(super) fn row(declaration: &Declaration) -> Value {
    let shown = declaration.fields.iter().filter(|field| !field.extension);
    let required: Vec<&str> = shown.map(|field| field.name).collect();
    json!({
        "type": "object",
        "properties": properties(declaration.fields, declaration.fractional_times, Side::Output),
        "required": required,
    })
}

/// The body of POST and PUT.
pub(super) fn input(declaration: &Declaration) -> Value {
    let mut schema = patch(declaration);
    let is_needed = |field: &&Field| field.required && is_null(field);
    let needed = declaration.fields.iter().filter(is_needed);
    let mut needed: Vec<&str> = needed.map(|field| field.name).collect();
    if SHORTHANDS.iter().any(|(kind, _)| *kind == declaration.kind) {
        // The shorthand may stand for them.
        needed.clear();
    }
    schema["required"] = json!(needed);
    schema
}

/// The body of PATCH: every field is optional.
pub(super) fn patch(declaration: &Declaration) -> Value {
    let mut fields = properties(
        declaration.fields,
        declaration.fractional_times,
        Side::Input,
    );
    for (_, name) in SHORTHANDS
        .iter()
        .filter(|(kind, _)| *kind == declaration.kind)
    {
        fields.insert((*name).into(), json!({ "type": ["string", "null"] }));
    }
    json!({ "type": "object", "properties": fields, "additionalProperties": false })
}

/// The body of a request that has these fields, outside of an entity.
pub(super) fn fields(fields: &[Field]) -> Value {
    let needed = fields
        .iter()
        .filter(|field| field.required && is_null(field));
    let needed: Vec<&str> = needed.map(|field| field.name).collect();
    json!({
        "type": "object",
        "properties": properties(fields, false, Side::Input),
        "required": needed,
        "additionalProperties": false,
    })
}

/// Whether a field has no value if a request does not name it.
fn is_null(field: &Field) -> bool {
    let is_filled = matches!(
        field.shape,
        Shape::Record(_) | Shape::Id | Shape::CreatedAt | Shape::UpdatedAt
    );
    matches!(field.default, Preset::Null) && !is_filled
}

fn properties(fields: &[Field], fractional_times: bool, side: Side) -> Row {
    let shown = fields.iter().map(|field| {
        let mut schema = property(field, fractional_times, side);
        let is_set = matches!(field.shape, Shape::Id | Shape::CreatedAt | Shape::UpdatedAt);
        if !(field.required || is_set && side == Side::Output) {
            schema = nullable(schema);
        }
        let is_constant = !matches!(field.default, Preset::Null | Preset::Generated(_));
        if side == Side::Input
            && is_constant
            && let Some(schema) = schema.as_object_mut()
        {
            schema.insert("default".into(), field.preset());
        }
        (field.name.to_owned(), schema)
    });
    shown.collect()
}

/// The schema of a value that is not null.
fn property(field: &Field, fractional_times: bool, side: Side) -> Value {
    let inner = |field: &Field| property(field, fractional_times, side);
    let mut schema = match &field.shape {
        Shape::String if field.may_be_empty => json!({ "type": "string" }),
        Shape::String => json!({ "type": "string", "minLength": 1 }),
        Shape::Integer => json!({ "type": "integer", "format": "int64" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Uuid | Shape::Id => json!({ "type": "string", "format": "uuid" }),
        // The gateway sets it, whatever a request says.
        Shape::UpdatedAt if side == Side::Input => json!({}),
        Shape::CreatedAt | Shape::UpdatedAt if fractional_times => json!({ "type": "number" }),
        Shape::CreatedAt | Shape::UpdatedAt => json!({ "type": "integer", "format": "int64" }),
        Shape::TimeToLive => json!({ "type": "integer", "minimum": 0, "maximum": 100_000_000 }),
        Shape::Array(element) | Shape::Set(element) => {
            json!({ "type": "array", "items": inner(element) })
        }
        Shape::Map { values, .. } => {
            json!({ "type": "object", "additionalProperties": inner(values) })
        }
        // The fields depend on the value of another field.
        Shape::Record([]) | Shape::Settings => json!({ "type": "object" }),
        Shape::Record(fields) => json!({
            "type": "object",
            "properties": properties(fields, fractional_times, side),
            "additionalProperties": side == Side::Output,
        }),
        Shape::Reference(to) => reference(*to, side),
        Shape::Any => json!({}),
    };
    if let Some(schema) = schema.as_object_mut() {
        for check in field.checks {
            add_check(check, schema);
        }
    }
    match (&field.shape, side) {
        // An empty list or object may be written as either.
        (Shape::Array(_) | Shape::Set(_), Side::Input) => {
            json!({ "anyOf": [schema, { "type": "object", "maxProperties": 0 }] })
        }
        (Shape::Map { .. }, Side::Input) => {
            json!({ "anyOf": [schema, { "type": "array", "maxItems": 0 }] })
        }
        _ => schema,
    }
}

/// A row of another entity: by its id or, in a request, by its name.
fn reference(to: Kind, side: Side) -> Value {
    let mut by = json!({ "id": { "type": "string", "format": "uuid" } });
    if side == Side::Input
        && let Some(key) = to.declaration().endpoint_key
    {
        by[key] = json!({ "type": "string", "minLength": 1 });
    }
    json!({ "type": "object", "properties": by })
}

/// A check as a keyword; a check that is a function has none.
fn add_check(check: &Check, schema: &mut Row) {
    let mut add = |name: &str, value: Value| schema.insert(name.into(), value);
    match check {
        Check::Between(least, most) => {
            add("minimum", json!(least));
            add("maximum", json!(most));
        }
        Check::BetweenNumbers(least, most) => {
            add("minimum", json!(least));
            add("maximum", json!(most));
        }
        Check::GreaterThan(bound) => {
            add("exclusiveMinimum", json!(bound));
        }
        Check::OneOf(words) => {
            add("enum", json!(words));
        }
        Check::OneOfIntegers(numbers) => {
            add("enum", json!(numbers));
        }
        Check::NotOneOf(words) => {
            add("not", json!({ "enum": words }));
        }
        Check::AtLeast(count) => {
            let is_map = schema.get("type").is_some_and(|of| of == "object");
            let name = if is_map { "minProperties" } else { "minItems" };
            schema.insert(name.into(), json!(count));
        }
        Check::Regex => {
            add("format", json!("regex"));
        }
        Check::Nothing(_) => *schema = Row::from_iter([("type".into(), "null".into())]),
        Check::ExclusiveSubsets(_)
        | Check::Text(_)
        | Check::Matches(_)
        | Check::List(_)
        | Check::Record(_) => {}
    }
}

/// A schema that also allows null.
fn nullable(mut schema: Value) -> Value {
    let Some(object) = schema.as_object_mut() else {
        return schema;
    };
    if object.contains_key("anyOf") {
        if let Some(any) = object.get_mut("anyOf").and_then(Value::as_array_mut) {
            any.push(json!({ "type": "null" }));
        }
        return schema;
    }
    if let Some(values) = object.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    if let Some(of) = object.get_mut("type")
        && *of != "null"
    {
        *of = json!([of.clone(), "null"]);
    }
    schema
}
