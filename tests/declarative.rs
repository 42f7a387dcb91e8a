//! The configuration as one document: Kong's `/config`, `/pointsman/config`, and the settings of a
//! gateway without a database.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Load, MY_SERVICE, Reply, Setup, guest, of_every_kind, put_document, until,
};

/// A document with a service and a route to a backend.
fn to_backend(backend: &Backend, path: &str) -> String {
    let address = backend.address;
    format!(
        "_format_version: '3.0'
services:
- name: my-service
  url: http://{address}
  routes:
  - name: my-route
    paths: [{path}]
"
    )
}

fn text_of(gateway: &Gateway) -> String {
    gateway
        .admin("GET", "/pointsman/config", &[])
        .expect(200)
        .text()
}

fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("GET", path, &[])
}

fn post(gateway: &Gateway, text: &str, query: &str) -> Reply {
    let body = ("application/yaml", text.as_bytes().to_vec());
    let path = format!("/config{query}");
    gateway.send(gateway.admin, "POST", &path, &[], Some(body))
}

fn without_database() -> Setup {
    Setup::new().arg("--database", "off")
}

/// The names of the lists in a document.
fn lists(text: &str) -> Vec<&str> {
    let top = text.lines().filter(|line| line.ends_with(':'));
    let top = top.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    top.map(|line| line.trim_end_matches(':')).collect()
}

#[test]
fn what_is_exported_imports_into_an_empty_gateway_as_it_was() {
    let first = Gateway::start();
    let changes = put_document(&first, &of_every_kind(), "")
        .expect(200)
        .json();
    assert_eq!(
        changes["changes"].as_array().unwrap().len(),
        18,
        "{changes}"
    );
    let exported = text_of(&first);
    let mut kinds = lists(&exported);
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "acls",
            "basicauth_credentials",
            "ca_certificates",
            "certificates",
            "consumers",
            "jwt_secrets",
            "key_sets",
            "keyauth_credentials",
            "keys",
            "plugins",
            "routes",
            "services",
            "snis",
            "targets",
            "upstreams",
            "vaults",
        ]
    );
    let second = Gateway::start();
    put_document(&second, &exported, "").expect(200);
    assert_eq!(text_of(&second), exported);
    let again = put_document(&second, &exported, "").expect(200).json();
    assert_eq!(again, json!({ "changes": [] }));
}

#[test]
fn an_import_is_one_step_and_in_effect_when_it_is_answered() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let gateway = Gateway::start();
    put_document(&gateway, &to_backend(&old, "/"), "").expect(200);
    assert_eq!(gateway.backend_of("/"), "old");
    // What would change is told, and nothing is.
    let trial = put_document(&gateway, &to_backend(&new, "/"), "?dry_run=true");
    let trial = trial.expect(200).json();
    assert_eq!(trial["changes"][0]["fields"], json!(["port"]), "{trial}");
    assert_eq!(gateway.backend_of("/"), "old");
    put_document(&gateway, &to_backend(&new, "/"), "").expect(200);
    assert_eq!(gateway.backend_of("/"), "new");
    // A wrong document changes nothing, and each mistake is told with its line.
    let wrong = format!("{}- name: x\n", to_backend(&old, "/"));
    let refused = put_document(&gateway, &wrong, "").expect(400).json();
    assert_eq!(refused["code"], 14);
    assert_eq!(
        refused["pointsman"]["errors"],
        json!(["line 8: services[1] (x): host: required field missing"])
    );
    assert_eq!(gateway.backend_of("/"), "new");
    // What is not in the document is deleted.
    put_document(&gateway, "_format_version: '3.0'", "").expect(200);
    gateway.get("/").expect(404);
    assert_eq!(
        text_of(&gateway),
        "_format_version: '3.0'\n_transform: false\n"
    );
}

#[test]
fn imports_cost_no_request_even_if_they_replace_all_entities() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let gateway = Gateway::start();
    // Other entities, with other ids, that answer the same requests.
    let documents = backends.each_ref().map(|backend| {
        let name = backend.address.port().to_string();
        to_backend(backend, "/").replace("my-", &format!("s{name}-"))
    });
    put_document(&gateway, &documents[1], "").expect(200);
    let load = Load::start(gateway.proxy, "/", 4);
    for _ in 0..10 {
        for document in &documents {
            put_document(&gateway, document, "").expect(200);
            load.wait_for(20);
        }
    }
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.by_backend.len(), 2);
}

#[test]
fn a_document_says_which_version_of_a_balancer_is_active() {
    let gateway = Gateway::start();
    let first = gateway.upload("own", guest("first")).expect(201).json();
    let with = |digest: &Value| {
        format!(
            "_format_version: '3.0'
balancers:
- {{name: own, digest: {digest}, tags: [x]}}
upstreams:
- {{name: u, algorithm: own}}
"
        )
    };
    put_document(&gateway, &with(&first["digest"]), "").expect(200);
    let shown = get(&gateway, "/balancers/own").expect(200).json();
    assert_eq!(shown["tags"], json!(["x"]));
    let exported = text_of(&gateway);
    assert_eq!(lists(&exported), ["balancers", "upstreams"]);
    put_document(&gateway, &exported, "").expect(200);
    let unknown = put_document(&gateway, &with(&json!("0".repeat(64))), "").expect(400);
    assert!(unknown.text().contains("upload that component first"));
}

#[test]
fn kongs_config_loads_a_document_without_a_database() {
    let backend = Backend::start("a");
    let gateway = without_database().start();
    get(&gateway, "/status/ready").expect(503);
    // Kong's ingress controller loads its configuration again into a gateway that says so.
    assert_eq!(
        get(&gateway, "/status").json()["configuration_hash"],
        "0".repeat(32)
    );
    let text = to_backend(&backend, "/");
    let loaded = post(&gateway, &text, "").expect(201).json();
    assert_eq!(loaded["services"][MY_SERVICE]["name"], "my-service");
    assert_eq!(gateway.backend_of("/"), "a");
    get(&gateway, "/status/ready").expect(200);
    let status = get(&gateway, "/status").json();
    assert_eq!(status["configuration_hash"].as_str().unwrap().len(), 32);
    assert_eq!(status.get("database"), None);
    let root = get(&gateway, "/").json();
    assert_eq!(root["configuration"]["database"], "off");
    post(&gateway, &text, "?check_hash=1").expect(304);
    let form = [("config", &*text), ("check_hash", "1")];
    gateway.admin("POST", "/config", &form).expect(304);
    gateway.admin("POST", "/config", &form[..1]).expect(201);
    // The document as an object, as ingress controllers send it.
    let object = json!({
        "_format_version": "3.0",
        "services": [{ "id": MY_SERVICE, "name": "my-service", "host": "a.example", "tags": ["t"] }],
    });
    let path = "/config?check_hash=1&flatten_errors=1";
    for _ in 0..2 {
        gateway.admin_json("POST", path, &object).expect(201);
    }
    // What is shown loads again.
    let shown = get(&gateway, "/config").expect(200).json();
    let shown = shown["config"].as_str().unwrap();
    let form = [("config", shown)];
    gateway.admin("POST", "/config", &form).expect(201);
    assert_eq!(get(&gateway, "/config").json()["config"], shown);
    for (method, path, message) in [
        ("POST", "/routes", "cannot create 'routes' entities"),
        (
            "POST",
            "/services/my-service/routes",
            "cannot create 'routes' entities",
        ),
        (
            "PATCH",
            "/services/my-service",
            "cannot update 'services' entities by 'name'",
        ),
        (
            "DELETE",
            &*format!("/services/{MY_SERVICE}"),
            "cannot remove 'services' entities",
        ),
        (
            "PUT",
            &*format!("/consumers/{MY_SERVICE}"),
            "cannot create or update 'consumers' entities",
        ),
    ] {
        let refused = gateway
            .admin(method, path, &[("name", "x")])
            .expect(405)
            .json();
        assert_eq!(refused["code"], 12);
        assert_eq!(refused["name"], "operation unsupported");
        let message = format!("{message} when not using a database");
        assert_eq!(refused["message"], message);
    }
    let refused = gateway.admin("DELETE", "/services", &[]).expect(405).json();
    assert_eq!(refused["message"], "Method not allowed");
}

#[test]
fn a_wrong_document_is_refused_as_kong_refuses_it() {
    let gateway = without_database().start();
    let object = json!({
        "_format_version": "3.0",
        "services": [{ "id": MY_SERVICE, "name": "s", "host": "a b", "tags": ["t"] }],
    });
    let path = "/config?flatten_errors=yes";
    let refused = gateway.admin_json("POST", path, &object).expect(400).json();
    assert_eq!(refused["code"], 14);
    assert_eq!(refused["name"], "invalid declarative configuration");
    assert_eq!(refused["fields"], json!({}));
    assert_eq!(refused["message"], "declarative config is invalid: {}");
    let flat = &refused["flattened_errors"][0];
    assert_eq!(flat["entity_id"], MY_SERVICE);
    assert_eq!(flat["entity_tags"], json!(["t"]));
    let error = json!({ "type": "field", "field": "host", "message": "invalid value: a b" });
    assert_eq!(flat["errors"], json!([error]));
    let refused = gateway
        .admin_json("POST", "/config", &object)
        .expect(400)
        .json();
    let message = "declarative config is invalid: {services={{host=\"invalid value: a b\"}}}";
    assert_eq!(refused["message"], message);
    let refused = post(&gateway, "a: [", "").expect(400).json();
    let error = refused["fields"]["error"].as_str().unwrap();
    assert!(error.starts_with("failed parsing declarative configuration: "));
    let nothing = gateway.send(gateway.admin, "POST", "/config", &[], None);
    let message = json!({ "message": "expected a declarative configuration" });
    assert_eq!(nothing.expect(400).json(), message);
    let body = ("text/plain", b"x".to_vec());
    let other = gateway.send(gateway.admin, "POST", "/config", &[], Some(body));
    other.expect(415);
}

#[test]
fn the_file_of_the_settings_is_loaded_at_the_start_on_sighup_and_when_it_changes() {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kong.yml");
    let setup = || {
        Setup::with_data(&folder.path().join("data"))
            .arg("--database", "off")
            .arg("--declarative-config", file.display())
    };
    std::fs::write(&file, "_format_version: '3.0'\nservices:\n- name: x\n").unwrap();
    let (_, said) = setup().fail();
    let shown = file.display();
    assert!(
        said.contains(&format!("error parsing declarative config file {shown}:")),
        "{said}"
    );
    assert!(said.contains("line 3: services[0] (x): host: required field missing"));
    std::fs::write(&file, to_backend(&old, "/")).unwrap();
    let gateway = setup().start();
    assert_eq!(gateway.backend_of("/"), "old");
    let hang_up = || {
        let pid = gateway.pid().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status();
        assert!(sent.unwrap().success());
    };
    let hash = || get(&gateway, "/status").json()["configuration_hash"].clone();
    let first = hash();
    std::fs::write(&file, to_backend(&new, "/")).unwrap();
    hang_up();
    until("the file is loaded again", || hash() != first);
    until("it is in effect", || gateway.backend_of("/") == "new");
    // A file that is replaced by another one is loaded without a signal.
    let second = hash();
    let beside = folder.path().join("new.yml");
    std::fs::write(&beside, to_backend(&old, "/")).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    until("the changed file is loaded", || hash() != second);
    until("it is in effect", || gateway.backend_of("/") == "old");
    // A file that is gone changes nothing.
    std::fs::remove_file(&file).unwrap();
    gateway.wait_for_log("kong.yml is gone: what was loaded from it stays in effect");
    assert_eq!(gateway.backend_of("/"), "old");
    // A file that is wrong changes nothing, and is told until it is right again.
    std::fs::write(&file, "_format_version: '1.0'\n").unwrap();
    let wrong = || get(&gateway, "/status/ready").json()["pointsman"]["declarative_config"].clone();
    until("the wrong file is told", || {
        let wrong = wrong()["wrong"].to_string();
        wrong.contains("_format_version: expected one of")
    });
    let in_effect = |number: u8| {
        let metrics = gateway.admin("GET", "/metrics", &[]).text();
        metrics.contains(&format!(
            "\npointsman_declarative_config_in_effect {number}\n"
        ))
    };
    assert!(in_effect(0));
    assert_eq!(gateway.backend_of("/"), "old");
    std::fs::write(&file, to_backend(&new, "/")).unwrap();
    until("the file is right again", || {
        wrong().is_null() && in_effect(1)
    });
    until("it is in effect", || gateway.backend_of("/") == "new");
    // A pipe in its place keeps nothing waiting: neither the next signal nor the next file. Nor
    // does it if a signal has found no file before.
    let is_wrong = |why: &str| wrong()["wrong"].to_string().contains(why);
    for is_missed in [false, true] {
        std::fs::remove_file(&file).unwrap();
        if is_missed {
            hang_up();
            until("the missing file is told", || is_wrong("No such file"));
        }
        make_pipe(&file);
        until("the pipe is told", || is_wrong("it is a pipe"));
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, to_backend(&new, "/")).unwrap();
        hang_up();
        until("the pipe has gone", || wrong().is_null());
    }
    // Without the setting, the last configuration that was loaded is in effect again.
    drop(gateway.kill());
    let again = Setup::with_data(&folder.path().join("data")).arg("--database", "off");
    let again = again.start();
    assert_eq!(again.backend_of("/"), "new");
    get(&again, "/status/ready").expect(200);
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[test]
fn a_pipe_that_was_read_at_the_start_stays_in_effect_after_a_signal() {
    let backend = Backend::start("b");
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("kong.yml");
    make_pipe(&pipe);
    let setup = without_database().arg("--declarative-config", pipe.display());
    let document = to_backend(&backend, "/");
    // The pipe is opened once the gateway reads.
    let writer = std::thread::spawn(move || std::fs::write(&pipe, document));
    let gateway = setup.start();
    writer.join().unwrap().unwrap();
    assert_eq!(gateway.backend_of("/"), "b");
    gateway.signal("-HUP");
    gateway.wait_for_log("which is read at the start only");
    let ready = get(&gateway, "/status/ready").expect(200).json();
    assert_eq!(ready["pointsman"]["declarative_config"], Value::Null);
    assert_eq!(gateway.backend_of("/"), "b");
}

#[test]
fn what_the_store_or_a_balancer_refuses_is_reported_at_its_line() {
    let gateway = Gateway::start();
    let other = [("name", "taken"), ("url", "http://b.example")];
    gateway.admin("POST", "/services", &other).expect(201);
    let errors = |text: &str| {
        let refused = put_document(&gateway, text, "").expect(400).json();
        refused["pointsman"]["errors"].clone()
    };
    let taken = "_format_version: '3.0'
_info: {select_tags: [team]}
services:
- {name: own, host: a.example}
- {name: taken, host: a.example}
";
    assert_eq!(
        errors(taken),
        json!([
            "line 5: services[1] (taken): uniqueness violation: 'services' entity with name set to \
             'taken' exists already"
        ])
    );
    let settings = "_format_version: '3.0'
upstreams:
- name: u
  algorithm: round-robin
  pointsman:
    balancer_limits: {pick_timeout: 10000}
";
    let told = errors(settings);
    let told = told[0].as_str().unwrap();
    let begins = "line 6: upstreams[0] (u): pointsman.balancer_limits.pick_timeout: expected ";
    assert!(told.starts_with(begins), "{told}");
    get(&gateway, "/upstreams/u").expect(404);
}

#[test]
fn a_dry_run_refuses_what_an_import_would_refuse() {
    let gateway = Gateway::start();
    let service = [("name", "taken"), ("url", "http://b.example")];
    gateway.admin("POST", "/services", &service).expect(201);
    for name in ["of-others", "of-team"] {
        let consumer = [("username", name)];
        gateway.admin("POST", "/consumers", &consumer).expect(201);
    }
    let key = [("key", "one-key")];
    gateway
        .admin("POST", "/consumers/of-others/key-auth", &key)
        .expect(201);
    let mut tagged = vec![("name", "own"), ("url", "http://b.example")];
    tagged.push(("tags[]", "team"));
    gateway.admin("POST", "/services", &tagged).expect(201);
    let route = [("name", "still-there"), ("paths[]", "/")];
    gateway
        .admin("POST", "/services/own/routes", &route)
        .expect(201);
    let document = |rest: &str| {
        format!("_format_version: '3.0'\n_info: {{select_tags: [team]}}\nservices:\n{rest}")
    };
    let own = "- {name: own, host: a.example}\n";
    for (rest, told) in [
        (
            format!("{own}- {{name: taken, host: a.example}}\n"),
            &["with name set to 'taken' exists already"][..],
        ),
        (
            format!("{own}consumers:\n- username: c\n  keyauth_credentials: [{{key: one-key}}]\n"),
            &["with the same key exists already"],
        ),
        (
            "- {name: another, host: a.example}\n".into(),
            &[
                r#"without the service \"own\" ("#,
                r#"the route \"still-there\" ("#,
            ],
        ),
    ] {
        let text = document(&rest);
        for query in ["?dry_run=true", ""] {
            let said = put_document(&gateway, &text, query).expect(400).text();
            for told in told {
                assert!(said.contains(told), "{query}: {said}");
            }
        }
    }
}

#[test]
fn a_key_that_another_credential_has_is_not_shown() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/consumers", &[("username", "c")])
        .expect(201);
    let key = [("key", "not-to-be-told")];
    gateway
        .admin("POST", "/consumers/c/key-auth", &key)
        .expect(201);
    let refused = gateway
        .admin("POST", "/consumers/c/key-auth", &key)
        .expect(409);
    let refused = refused.text();
    assert!(refused.contains("UNIQUE violation"), "{refused}");
    assert!(!refused.contains("not-to-be-told"), "{refused}");
}
