//! The Admin API as an OpenAPI 3.1 document, at `/openapi.json`.
//!
//! It is made from the list of endpoints that the router is made from, so it has every path and
//! every method. What they take and answer comes from the declarations of entities, and for the
//! other endpoints from `endpoints.rs`.

mod endpoints;
mod schemas;

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use self::endpoints::{Described, described, generic, page};
use super::info::shown_path;
use crate::entity::{Endpoints, Kind, ListOrder, ReferenceBy, Row};

/// What an endpoint of an entity has.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Rows of this kind.
    Collection(Kind),
    /// One row of this kind.
    Item(Kind),
}

/// The document for these endpoints: their paths, as the router has them, and their methods in the
/// form of `Allow`.
pub(super) fn document<'a>(endpoints: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let forms = forms();
    let mut paths: Vec<(String, Value)> = endpoints
        .map(|(path, allowed)| {
            let shown = shown_path(path);
            let mut item = Row::new();
            for method in allowed.split(", ") {
                let Ok(method) = method.parse::<Method>() else {
                    continue;
                };
                // HEAD is answered as GET, and OPTIONS everywhere alike.
                if method == Method::HEAD || method == Method::OPTIONS {
                    continue;
                }
                let operation = operation(path, &shown, &method, forms.get(path).copied());
                item.insert(method.as_str().to_ascii_lowercase(), operation);
            }
            (shown, item.into())
        })
        .collect();
    paths.sort_by(|one, other| one.0.split('/').cmp(other.0.split('/')));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pointsman Admin API",
            "description": "Kong's Admin API, and what Pointsman has beyond it. Bodies may also be \
                forms (application/x-www-form-urlencoded or multipart/form-data), with nested \
                fields as `a.b` and lists as `a[]`. Every answer with one entity has an ETag for \
                If-Match and If-None-Match. A HEAD request is answered as GET.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        // A token is needed only where the operator has set some.
        "security": [{}, { "token": [] }],
        "paths": Row::from_iter(paths),
        "components": {
            "schemas": component_schemas(),
            "responses": {
                "Error": {
                    "description": "The request is refused.",
                    "content": { "application/json": { "schema": reference("Error") } },
                },
                "UnsupportedMediaType": {
                    "description": "The body is neither JSON nor a form.",
                },
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the setting admin_tokens.",
                },
            },
        },
    })
}

/// The endpoints that are generated for entities, by their paths: as `entities::endpoints`.
fn forms() -> BTreeMap<String, Form> {
    let mut forms = BTreeMap::new();
    for kind in Kind::ALL {
        let declaration = kind.declaration();
        let (path, name) = (declaration.path, declaration.nested_path);
        if declaration.endpoints == Endpoints::Own {
            continue;
        }
        if declaration.endpoints == Endpoints::All {
            forms.insert(format!("/{path}"), Form::Collection(kind));
            forms.insert(format!("/{path}/{{key}}"), Form::Item(kind));
        }
        for reference in kind.references() {
            let ReferenceBy::Id = reference.by else {
                continue;
            };
            let below = format!("/{}/{{key}}/{name}", reference.to.declaration().path);
            if declaration.nested_order == ListOrder::NewestFirst {
                forms.insert(format!("{below}/all"), Form::Collection(kind));
            }
            forms.insert(format!("{below}/{{nested}}"), Form::Item(kind));
            forms.insert(below, Form::Collection(kind));
            if declaration.endpoints == Endpoints::All && reference.has_endpoint {
                let referred = format!("/{path}/{{key}}/{}", reference.field);
                forms.insert(referred, Form::Item(reference.to));
            }
        }
    }
    forms
}

fn operation(path: &str, shown: &str, method: &Method, form: Option<Form>) -> Value {
    let described = match form {
        Some(form) => of_entity(form, path, method),
        None => described(path, method).unwrap_or_else(|| generic(method)),
    };
    let in_path = names(shown).map(|name| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string", "minLength": 1 },
        })
    });
    let in_query = described.query.iter().map(|(name, schema, about)| {
        json!({ "name": name, "in": "query", "description": about, "schema": schema })
    });
    let is_item = matches!(form, Some(Form::Item(_)));
    let conditions = is_item.then(conditions).into_iter().flatten();
    let parameters: Vec<Value> = in_path.chain(in_query).chain(conditions).collect();
    let mut responses = Row::new();
    for (status, content) in &described.success {
        let mut response = json!({ "description": "Done." });
        if is_item && content.is_some() {
            let schema = json!({ "type": "string" });
            let tag = json!({ "description": "The version of the entity", "schema": schema });
            response["headers"] = json!({ "ETag": tag });
        }
        if let Some((media_type, schema)) = content {
            response["content"] = json!({ *media_type: { "schema": schema } });
        }
        responses.insert(status.to_string(), response);
    }
    for status in errors(method, form) {
        let error = match status {
            304 => json!({ "description": "The client has this entity already." }),
            415 => json!({ "$ref": "#/components/responses/UnsupportedMediaType" }),
            _ => json!({ "$ref": "#/components/responses/Error" }),
        };
        responses.insert(status.to_string(), error);
    }
    let mut operation = json!({
        "operationId": operation_id(shown, method, form),
        "summary": described.summary,
        "tags": [shown.split('/').nth(1).filter(|tag| !tag.is_empty()).unwrap_or("node")],
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((media_type, schema)) = described.body {
        // Without a field that a client has to name, an empty body says nothing wrong.
        let needed = schema.get("required").and_then(Value::as_array);
        let required = needed.is_some_and(|needed| !needed.is_empty());
        operation["requestBody"] = json!({
            "required": required,
            "content": { media_type: { "schema": schema } },
        });
    }
    operation
}

/// The headers that make a request depend on the version of its entity.
fn conditions() -> [Value; 2] {
    [
        ("If-Match", "Only if the entity has one of these ETags"),
        (
            "If-None-Match",
            "Only if the entity has none of these ETags",
        ),
    ]
    .map(|(name, about)| {
        let schema = json!({ "type": "string" });
        json!({ "name": name, "in": "header", "description": about, "schema": schema })
    })
}

/// The endpoints of entities.
fn of_entity(form: Form, path: &str, method: &Method) -> Described {
    let (kind, is_item) = match form {
        Form::Collection(kind) => (kind, false),
        Form::Item(kind) => (kind, true),
    };
    let names = Names::of(kind);
    let json = "application/json";
    let row = || Some((json, reference(&names.row)));
    let is_top_level = path.matches('/').count() == 1;
    let (summary, body, success) = match (method, is_item) {
        (&Method::GET, false) => {
            let page = page(&reference(&names.row));
            (
                "Lists entities, a page at a time",
                None,
                (200, Some((json, page))),
            )
        }
        (&Method::POST, _) => ("Creates an entity", Some(&names.input), (201, row())),
        (&Method::PUT, _) => (
            "Creates or replaces an entity",
            Some(&names.input),
            (200, row()),
        ),
        (&Method::PATCH, _) => (
            "Changes fields of an entity",
            Some(&names.patch),
            (200, row()),
        ),
        (&Method::DELETE, _) => ("Deletes an entity", None, (204, None)),
        _ => ("Shows an entity", None, (200, row())),
    };
    let mut described = Described {
        summary,
        query: Vec::new(),
        body: body.map(|name| (json, reference(name))),
        success: vec![success],
    };
    if !is_item && *method == Method::GET {
        described = described.pages();
        if is_top_level {
            let tags = json!({ "type": "string", "minLength": 1 });
            let about = "Only entities with all of these tags (`a,b`), or with one (`a/b`)";
            described = described.query("tags", tags, about);
        }
    }
    described
}

/// The statuses of refusals.
fn errors(method: &Method, form: Option<Form>) -> Vec<u16> {
    let mut statuses = vec![400, 401, 404, 421, 503];
    if *method != Method::GET {
        statuses.extend([403, 405, 408, 409, 413, 415]);
    }
    if matches!(form, Some(Form::Item(_))) {
        statuses.push(412);
        if *method == Method::GET {
            statuses.push(304);
        }
    }
    if form.is_none() {
        statuses.extend([412, 422, 501]);
    } else if let Some(Form::Collection(kind) | Form::Item(kind)) = form
        && kind
            .declaration()
            .subschemas
            .is_some_and(|by| by.absent.is_some())
        && [Method::POST, Method::PUT, Method::PATCH].contains(method)
    {
        // The entity is about something that Kong has and this gateway does not.
        statuses.push(501);
    }
    statuses.sort_unstable();
    statuses
}

/// The names of the parts of a path that a client fills in.
fn names(shown: &str) -> impl Iterator<Item = &str> {
    let segments = shown.split('/');
    segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// A name for generated clients, such as `list_services_routes`.
fn operation_id(shown: &str, method: &Method, form: Option<Form>) -> String {
    let verb = match (method, form) {
        (&Method::GET, Some(Form::Collection(_))) => "list",
        (&Method::POST, Some(_)) => "create",
        (&Method::PUT, Some(_)) => "replace",
        (&Method::PATCH, _) => "update",
        _ => &method.as_str().to_ascii_lowercase(),
    };
    let mut words = vec![verb.to_owned()];
    let mut collection = "";
    for segment in shown.split('/').filter(|segment| !segment.is_empty()) {
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            // The name of the collection says it already, unless this is the end of the path.
            Some(name) if name == collection.replace('-', "_") => {}
            Some(name) => words.push(name.to_owned()),
            None => words.push(segment.to_owned()),
        }
        collection = segment;
    }
    if form.is_none() && shown.ends_with('}') {
        words.push("item".into());
    }
    if words.len() == 1 {
        words.push("root".into());
    }
    words.join("_").replace(['-', '.'], "_")
}

/// The names of the schemas of an entity.
struct Names {
    row: String,
    input: String,
    patch: String,
}

impl Names {
    fn of(kind: Kind) -> Self {
        let words = kind.declaration().singular.split([' ', '_', '-']);
        let capitalized = words.map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        });
        let row = capitalized.collect::<String>();
        Self {
            input: format!("{row}Input"),
            patch: format!("{row}Patch"),
            row,
        }
    }
}

/// A reference to a schema of this document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn component_schemas() -> Row {
    let mut all = Row::new();
    for kind in Kind::ALL {
        let declaration = kind.declaration();
        if declaration.endpoints == Endpoints::Own {
            continue;
        }
        let names = Names::of(kind);
        all.insert(names.row, schemas::row(declaration));
        all.insert(names.input, schemas::input(declaration));
        all.insert(names.patch, schemas::patch(declaration));
    }
    let tag = json!({
        "type": "object",
        "properties": {
            "tag": { "type": "string" },
            "entity_name": { "type": "string" },
            "entity_id": { "type": "string", "format": "uuid" },
        },
        "required": ["tag", "entity_name", "entity_id"],
    });
    all.insert("Tag".into(), tag);
    let error = json!({
        "type": "object",
        "properties": {
            "message": { "type": "string" },
            "code": { "type": "integer", "minimum": 1, "maximum": 19 },
            "name": { "type": "string" },
            "fields": { "type": "object" },
            "options": { "type": "object" },
        },
        "required": ["message"],
    });
    all.insert("Error".into(), error);
    all
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::entities;

    fn of_entities() -> Value {
        let endpoints: Vec<_> = Kind::ALL
            .into_iter()
            .flat_map(entities::endpoints)
            .collect();
        let endpoints = endpoints
            .iter()
            .map(|(path, _, allowed)| (path.as_str(), *allowed));
        document(endpoints)
    }

    /// Calls a function with each object of a document.
    fn each(value: &Value, see: &mut impl FnMut(&Row)) {
        match value {
            Value::Object(object) => {
                see(object);
                object.values().for_each(|value| each(value, see));
            }
            Value::Array(values) => values.iter().for_each(|value| each(value, see)),
            _ => {}
        }
    }

    #[test]
    fn every_endpoint_of_an_entity_is_known_as_one() {
        let known: BTreeSet<String> = forms().into_keys().collect();
        let endpoints = Kind::ALL.into_iter().flat_map(entities::endpoints);
        let generated: BTreeSet<String> = endpoints.map(|(path, ..)| path).collect();
        assert_eq!(known, generated);
    }

    #[test]
    fn every_reference_leads_to_a_part_of_the_document() {
        let document = of_entities();
        let mut count = 0;
        each(&document, &mut |object| {
            if let Some(pointer) = object.get("$ref") {
                let pointer = pointer.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{pointer}");
                count += 1;
            }
        });
        assert!(count > 50, "{count}");
    }

    #[test]
    fn operations_have_different_names_and_every_part_of_a_path_is_a_parameter() {
        let document = of_entities();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(ids.insert(id.clone()), "{path}: {id}");
                let parameters = operation["parameters"].as_array().unwrap();
                let in_path = parameters.iter().filter(|one| one["in"] == "path");
                let in_path: Vec<&str> = in_path.map(|one| one["name"].as_str().unwrap()).collect();
                assert_eq!(in_path, names(path).collect::<Vec<_>>(), "{path}");
            }
        }
    }

    /// The schemas are valid, and hold for the rows that the declarations make.
    #[test]
    fn a_new_row_has_the_form_of_its_schema() {
        let document = of_entities();
        let input = json!({ "host": "a.example", "port": 81, "tags": ["a"] });
        let row = input.as_object().cloned().unwrap();
        let made = Kind::Service
            .declaration()
            .create(uuid::Uuid::new_v4(), row);
        let made = Value::from(made.unwrap());
        for (name, value, is_valid) in [
            ("Service", &made, true),
            ("ServiceInput", &input, true),
            ("ServicePatch", &json!({}), true),
            ("ServiceInput", &json!({ "host": 5 }), false),
            (
                "ServiceInput",
                &json!({ "host": "h", "port": 65_536 }),
                false,
            ),
            (
                "ServiceInput",
                &json!({ "host": "h", "protocol": "smtp" }),
                false,
            ),
            ("ServiceInput", &json!({ "host": "h", "hosts": [] }), false),
            ("ServiceInput", &json!({ "host": "h", "tags": {} }), true),
            ("RouteInput", &json!({ "service": { "name": "s" } }), true),
            ("RouteInput", &json!({ "service": "s" }), false),
        ] {
            let schema = &document["components"]["schemas"][name];
            let validator = jsonschema::draft202012::new(schema).unwrap();
            assert_eq!(validator.is_valid(value), is_valid, "{name}: {value}");
        }
    }
}
