#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::{Value, json};

crate::settings! {
    /// One endpoint.
    struct Place {
        /// Its name
        name: String, "minLength": 1;
    }
}

crate::settings! {
    /// Settings of all kinds.
    pub(crate) struct Options {
        /// A "number"
        /// of \ things
        count: u32 = 131_072, "minimum": 1, "maximum": 4_000;
        part: f64 = 0.5, "exclusiveMinimum": -1;
        /// Whether
        is_on: bool = true;
        /// How
        r#type: String = "a \"b\"", "enum": ["a \"b\"", "c_d"];
        limit: Option<u64>, "minimum": 0;
        usual: Option<i64> = -3;
        places: Vec<Place>;
        first: Place;
    }
}

crate::settings! {
    struct Near {} with zones
}

#[test]
fn a_schema_says_what_is_declared() {
    let schema: Value = serde_json::from_str(Options::SCHEMA).unwrap();
    let place = json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"type": "string", "minLength": 1, "description": "Its name"}},
    });
    let expected = json!({
        "type": "object",
        "properties": {
            "count": {
                "type": "integer", "minimum": 1, "maximum": 4_000, "default": 131_072,
                "description": "A \"number\" of \\ things",
            },
            "part": {"type": "number", "exclusiveMinimum": -1, "default": 0.5},
            "is_on": {"type": "boolean", "default": true, "description": "Whether"},
            "type": {
                "type": "string", "enum": ["a \"b\"", "c_d"], "default": "a \"b\"", "description": "How",
            },
            "limit": {"type": "integer", "minimum": 0},
            "usual": {"type": "integer", "default": -3},
            "places": {"type": "array", "items": place},
            "first": place,
        },
        "required": ["first"],
        "additionalProperties": false,
    });
    assert_eq!(schema, expected);
}

#[test]
fn what_is_not_set_has_its_default() {
    assert_eq!(Options::default().count, 131_072);
    let missing = Options::read("{}").unwrap_err();
    assert!(missing.contains("first"), "{missing}");
    let options = Options::read(r#"{"first": {"name": "y"}}"#).unwrap();
    assert_eq!(
        (options.count, options.part, options.is_on),
        (131_072, 0.5, true)
    );
    assert_eq!(
        (&*options.r#type, options.limit, options.usual),
        ("a \"b\"", None, Some(-3))
    );
    assert!(options.places.is_empty());
    let set = r#"{"count": 7, "type": "c_d", "usual": null, "places": [{"name": "x"}], "first": {"name": "y"}}"#;
    let options = Options::read(set).unwrap();
    assert_eq!(
        (options.count, &*options.r#type, options.usual),
        (7, "c_d", Some(-3))
    );
    assert_eq!((&*options.places[0].name, &*options.first.name), ("x", "y"));
    let error = Options::read(r#"{"counts": 1}"#).unwrap_err();
    assert!(error.contains("counts"), "{error}");
}

#[test]
fn zones_have_their_settings() {
    let schema: Value = serde_json::from_str(Near::SCHEMA).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.keys().eq(["prefer", "spill_at"]));
    assert_eq!(properties["spill_at"]["exclusiveMinimum"], 0);
    assert!(schema["required"].as_array().unwrap().is_empty());
    let near = Near::read(r#"{"prefer": "zone:a", "spill_at": 8}"#).unwrap();
    assert_eq!(
        (near.prefer.as_deref(), near.spill_at),
        (Some("zone:a"), Some(8.0))
    );
}
