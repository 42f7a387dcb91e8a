//! Plugins of Kong that this gateway does not have.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Gateway, Setup};
use crate::plugins::post;

/// 501 wherever a plugin is written. Where Kong's clients ask about one, they get the statuses that
/// they know: 400 for an invalid one, 404 for one without a schema.
#[test]
fn a_plugin_that_only_kong_has_is_told_from_a_typo() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    gateway
        .admin(
            "POST",
            "/services/s/routes",
            &[("name", "r"), ("paths[]", "/")],
        )
        .expect(201);
    gateway
        .admin("POST", "/consumers", &[("username", "c")])
        .expect(201);
    let there = post(
        &gateway,
        json!({ "name": "prometheus", "instance_name": "p" }),
    )
    .expect(201);
    let there = there.json()["id"].as_str().unwrap().to_owned();
    let absent = json!({ "name": "hmac-auth", "config": { "clock_skew": 300 } });
    let id = "11111111-1111-4111-8111-111111111111";
    let sentence = |body: &Value| {
        let sentence = body["fields"]["name"].as_str().unwrap().to_owned();
        assert_eq!(
            body["message"],
            format!("schema violation (name: {sentence})")
        );
        assert_eq!(
            (&body["code"], &body["name"]),
            (&json!(2), &json!("schema violation"))
        );
        assert_eq!(body["fields"], json!({ "name": sentence }));
        let start = "Pointsman does not have Kong's plugin 'hmac-auth'; it has acl, ";
        assert!(sentence.starts_with(start), "{sentence}");
        assert!(sentence.contains(" key-auth, "), "{sentence}");
        sentence
    };
    for (method, path) in [
        ("POST", "/plugins"),
        ("POST", "/services/s/plugins"),
        ("POST", "/routes/r/plugins"),
        ("POST", "/consumers/c/plugins"),
        ("PUT", &format!("/plugins/{id}")),
        ("PUT", &format!("/services/s/plugins/{id}")),
        ("PATCH", &format!("/plugins/{there}")),
        ("PATCH", "/plugins/p"),
    ] {
        let refused = gateway.admin_json(method, path, &absent);
        assert_eq!(refused.status, 501, "{method} {path}: {}", refused.text());
        sentence(&refused.json());
    }
    let form = [("name", "hmac-auth")];
    sentence(&gateway.admin("POST", "/plugins", &form).expect(501).json());
    // Also one of Kong Enterprise.
    let enterprise = json!({ "name": "openid-connect" });
    let enterprise = post(&gateway, enterprise).expect(501).json();
    assert!(
        enterprise["message"]
            .as_str()
            .unwrap()
            .contains("Kong's plugin 'openid-connect'")
    );

    let validated = gateway.admin_json("POST", "/schemas/plugins/validate", &absent);
    let sentence = sentence(&validated.expect(400).json());
    for path in ["/schemas/plugins/hmac-auth", "/plugins/schema/hmac-auth"] {
        let missing = gateway.admin("GET", path, &[]).expect(404);
        assert_eq!(missing.json(), json!({ "message": sentence }), "{path}");
    }
    let document = json!({ "_format_version": "3.0", "plugins": [absent] });
    let without_database = Setup::new().arg("--database", "off").start();
    let path = "/config?flatten_errors=1";
    let refused = without_database.admin_json("POST", path, &document);
    let refused = refused.expect(400).json();
    let errors = &refused["flattened_errors"][0]["errors"];
    let expected = json!([{ "type": "field", "field": "name", "message": sentence }]);
    assert_eq!(errors, &expected, "{refused}");
    let openapi = gateway
        .admin("GET", "/openapi.json", &[])
        .expect(200)
        .json();
    let is_described =
        |path: &str, method: &str| !openapi["paths"][path][method]["responses"]["501"].is_null();
    assert!(is_described("/plugins", "post") && !is_described("/plugins", "get"));
    assert!(!is_described("/services", "post"));
    // Nothing was written.
    let plugins = gateway.admin("GET", "/plugins", &[]).expect(200).json();
    assert_eq!(plugins["data"].as_array().unwrap().len(), 1, "{plugins}");

    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    for command in ["validate", "import"] {
        let mut pointsman = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        pointsman.args(["config", command]).arg(file.path());
        pointsman.env("POINTSMAN_ADMIN", format!("http://{}", gateway.admin));
        let output = pointsman.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains(&sentence), "{command}: {said}");
    }
}
