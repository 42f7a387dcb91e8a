use super::*;

fn refusal(schema: &Value) -> String {
    let refused = parse(&schema.to_string()).map(drop);
    refused.map_or_else(|error| error.to_string(), |()| String::new())
}

/// Definitions, each of which refers to the next one twice by a keyword.
fn doubling(keyword: &str, levels: usize) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
        definitions.insert(
            format!("d{level}"),
            json!({ keyword: [next.clone(), next] }),
        );
    }
    definitions.insert(format!("d{levels}"), json!({ "type": "object" }));
    json!({ "$defs": definitions, "$ref": "#/$defs/d0" })
}

#[test]
fn a_schema_that_doubles_by_any_keyword_is_refused() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let said = refusal(&doubling(keyword, 25));
        assert!(said.contains("more than 10000 schemas"), "{said}");
        assert_eq!(refusal(&doubling(keyword, 8)), "");
    }
    // By properties, by `items` of an earlier draft, by `if` and `then`; each through a place
    // that is not a keyword.
    for mut schema in [
        json!({"properties": {"a": {"$ref": "#/x/0"}, "b": {"$ref": "#/x/0"}}}),
        json!({"items": [{"$ref": "#/x/0"}, {"$ref": "#/x/0"}]}),
        json!({"if": {"$ref": "#/x/0"}, "then": {"$ref": "#/x/0"}}),
    ] {
        let rest: Vec<Value> = (1..=25)
            .map(|level| {
                let next = json!({ "$ref": format!("#/x/{level}") });
                json!({ "allOf": [next.clone(), next] })
            })
            .chain([json!(true)])
            .collect();
        schema["x"] = rest.into();
        let said = refusal(&schema);
        assert!(said.contains("more than 10000 schemas"), "{said}");
    }
}

#[test]
fn a_schema_is_bounded_in_size_depth_and_patterns() {
    let deep = (0..70).fold(json!(true), |inner, _| json!({ "not": inner }));
    let long = json!({ "description": "x".repeat(70_000) });
    let chain: Map<String, Value> = (0..100)
        .map(|n| {
            (
                n.to_string(),
                json!({ "$ref": format!("#/$defs/{}", n + 1) }),
            )
        })
        .chain([("100".to_owned(), json!(true))])
        .collect();
    let patterns: Map<String, Value> = (0..101).map(|n| (format!("^{n}$"), json!(true))).collect();
    for (schema, part) in [
        (deep, "deeper than 60"),
        (long, "and may have 65536"),
        (
            json!({ "$defs": chain, "$ref": "#/$defs/0" }),
            "deeper than 60",
        ),
        (
            json!({ "patternProperties": patterns }),
            "more than 100 regular",
        ),
        (json!({ "$ref": "#" }), "leads back"),
        (
            json!({ "properties": { "a": { "$ref": "#/properties/a" } } }),
            "leads back",
        ),
        (json!({ "$ref": "http://127.0.0.1/" }), "leads nowhere"),
        (
            json!({ "$ref": "https://json-schema.org/draft/2020-12/schema" }),
            "leads nowhere",
        ),
        (json!({ "$ref": "#/$defs/none" }), "leads nowhere"),
        (json!({ "$id": "a:b" }), "$id is not taken"),
        (json!({ "$dynamicRef": "#" }), "$dynamicRef is not taken"),
        (json!([]), "found an array"),
    ] {
        let said = refusal(&schema);
        assert!(said.contains(part), "{schema}: {said}");
    }
    // A plugin may give its fields these names.
    let named = json!({"properties": {"id": {"type": "string"}, "$id": {}, "$ref": {}}});
    assert_eq!(refusal(&named), "");
}

#[test]
fn a_pattern_is_linear_and_of_a_bounded_size() {
    for pattern in ["(a{1000}){1000}", "(?=a)b", "("] {
        let schema = json!({ "pattern": pattern });
        assert!(Schema::compile(&schema).is_err(), "{pattern}");
    }
    let schema = json!({ "pattern": r"^[\w-]{1,64}$" });
    let compiled = Schema::compile(&schema).map_err(|error| panic!("{error}"));
    assert!(compiled.is_ok_and(|schema| schema.violations(&json!("a-b")).is_none()));
}

#[test]
fn violations_are_reported_by_field() {
    let schema = json!({
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 2}, "deep": {"type": "object",
            "properties": {"name": {"type": "string"}}}},
        "additionalProperties": false,
    });
    let violations = |schema: &Value, config: &Value| match Schema::compile(schema) {
        Ok(schema) => schema.violations(config),
        Err(error) => Some(error.into()),
    };
    assert_eq!(violations(&schema, &json!({"size": 3})), None);
    let wrong = violations(&schema, &json!({"size": 1, "deep": {"name": 5}}));
    let wrong = wrong.unwrap_or_default();
    assert!(
        wrong["size"]
            .as_str()
            .is_some_and(|text| text.contains("2")),
        "{wrong}"
    );
    assert!(wrong["deep.name"].is_string(), "{wrong}");
    let unknown = Some(json!({"other": "unknown field"}));
    assert_eq!(violations(&schema, &json!({"other": 1})), unknown);
    let closed = json!({"type": "object", "additionalProperties": false});
    assert_eq!(violations(&closed, &json!({"other": 1})), unknown);
    assert!(violations(&schema, &json!([])).is_some());
    assert!(violations(&json!({"type": 5}), &json!({})).is_some());
}

#[test]
fn the_report_of_violations_is_bounded() {
    let schema = json!({"additionalProperties": {"type": "integer"}});
    let long = "x".repeat(10_000);
    let many: Map<String, Value> = (0..1000)
        .map(|n| (format!("{n}"), long.clone().into()))
        .collect();
    let schema = Schema::compile(&schema).map_err(|error| panic!("{error}"));
    let wrong = schema
        .ok()
        .and_then(|schema| schema.violations(&many.into()));
    let wrong = wrong.unwrap_or_default();
    assert_eq!(wrong.as_object().map(Map::len), Some(MISTAKES));
    assert!(wrong.to_string().len() < MISTAKES * (SENTENCE + 50));
}
