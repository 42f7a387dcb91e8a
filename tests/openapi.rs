//! The OpenAPI document, as clients get it.

use std::path::Path;
use std::process::Command;

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
        // A recording and live figures last as long as their client wants, and a component is not JSON.
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
