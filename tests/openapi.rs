//! The OpenAPI document, as clients get it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Gateway;

#[test]
fn the_document_has_every_endpoint_with_its_methods() {
    let gateway = Gateway::start();
    let reply = gateway.admin("GET", "/openapi.json", &[]).expect(200);
    assert_eq!(
        reply.header("content-type"),
        "application/json; charset=utf-8"
    );
    let document = reply.json();
    assert_eq!(document["openapi"], "3.1.0");
    let endpoints = gateway.admin("GET", "/endpoints", &[]).expect(200).json();
    let endpoints = endpoints["data"].as_array().unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), endpoints.len());
    for endpoint in endpoints {
        let path = endpoint.as_str().unwrap();
        let item = paths[path].as_object().unwrap();
        // A method that is not in the document is refused with those that are.
        let filled = path.replace(['{', '}'], "");
        let refused = gateway.admin("TRACE", &filled, &[]).expect(405);
        let allowed = refused.header("allow").to_ascii_lowercase();
        let methods = allowed.split(", ");
        let methods: Vec<&str> = methods
            .filter(|method| !["head", "options"].contains(method))
            .collect();
        let mut described: Vec<&str> = item.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, methods, "{path}");
    }
}

/// What a generator of clients needs: names of its functions, their arguments, and all types.
#[test]
fn the_document_names_operations_and_resolves_what_it_refers_to() {
    let gateway = Gateway::start();
    let document = gateway
        .admin("GET", "/openapi.json", &[])
        .expect(200)
        .json();
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let parts: Vec<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path}: {name}");
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(is_word), "{name}");
            let parameters = operation["parameters"].as_array().unwrap().iter();
            let in_path = parameters.filter(|parameter| parameter["in"] == "path");
            let in_path: Vec<&str> = in_path
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(in_path, parts, "{method} {path}");
            let distinct: BTreeSet<_> = in_path.iter().collect();
            assert_eq!(distinct.len(), in_path.len(), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            let succeeds = responses.keys().any(|status| status.starts_with('2'));
            assert!(succeeds, "{method} {path}");
        }
    }
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.insert(reference.to_owned());
            }
            fields
                .values()
                .for_each(|value| collect_references(value, found));
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

/// The fuzzer sends what the document allows and what it does not, and compares the answers with
/// it. `scripts/test` installs it.
#[test]
fn a_fuzzer_for_openapi_finds_no_difference() {
    let gateway = Gateway::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = root.join("target/schemathesis-4.32.5/bin/schemathesis");
    assert!(
        program.exists(),
        "{} is missing: scripts/test installs it",
        program.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .current_dir(folder.path())
        .arg("--config-file")
        .arg(root.join("tests/schemathesis.toml"))
        .args(["run", "--seed", "1", "--max-examples", "10"])
        .args(["--checks", "all", "--suppress-health-check", "all"])
        .args(["--request-timeout", "60"])
        // A recording and live figures last as long as their client wants, and a component is not
        // JSON.
        .args(["--exclude-path-regex", "/(record|live)$"])
        .args(["--exclude-operation-id", "post_balancers"])
        .args(["--exclude-operation-id", "post_balancers_versions"])
        .args(["--exclude-operation-id", "put_balancers_item"])
        .arg(format!("http://{}/openapi.json", gateway.admin))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
}
