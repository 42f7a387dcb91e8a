//! Vaults, keys and sets of keys. Source of all messages: Kong 3.9.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, RawServer, Setup, until};

fn post(gateway: &Gateway, path: &str, input: &Value) -> Value {
    gateway.admin_json("POST", path, input).expect(201).json()
}

fn refused(gateway: &Gateway, method: &str, path: &str, input: &Value, status: u16) -> Value {
    gateway
        .admin_json(method, path, input)
        .expect(status)
        .json()
}

#[test]
fn a_vault_has_the_settings_of_its_type() {
    let gateway = Gateway::start();
    let made = post(
        &gateway,
        "/vaults",
        &json!({ "prefix": "my-env", "name": "env" }),
    );
    assert_eq!(made["config"], json!({ "prefix": null }));
    let files = json!({ "name": "file", "config": { "folder": "/run/secrets" } });
    let put = gateway
        .admin_json("PUT", "/vaults/files", &files)
        .expect(200)
        .json();
    assert_eq!(put["prefix"], "files");
    for (wrong, message) in [
        (
            json!({ "prefix": "x-y", "name": "gcp" }),
            "schema violation (name: vault 'gcp' is not installed)",
        ),
        (
            json!({ "prefix": "A", "name": "env" }),
            "schema violation (prefix: invalid value: A)",
        ),
        (
            json!({ "prefix": "env", "name": "env" }),
            "schema violation (prefix: must not be one of: env, file)",
        ),
        (
            json!({ "prefix": "xy", "name": "env", "config": { "prefix": "1" } }),
            "schema violation (config.prefix: invalid value: 1)",
        ),
        (
            json!({ "prefix": "xy", "name": "env", "config": { "ttl": 1 } }),
            "schema violation (config.ttl: unknown field)",
        ),
        (
            json!({ "prefix": "xy", "name": "file" }),
            "schema violation (config.folder: required field missing)",
        ),
    ] {
        assert_eq!(
            refused(&gateway, "POST", "/vaults", &wrong, 400)["message"],
            message
        );
    }
    let reserved = refused(
        &gateway,
        "PUT",
        "/vaults/env",
        &json!({ "name": "env" }),
        400,
    );
    assert_eq!(
        (&reserved["code"], &reserved["name"], &reserved["message"]),
        (
            &json!(10),
            &json!("invalid unique prefix"),
            &json!("must not be one of: env, file")
        )
    );
    gateway.admin("DELETE", "/vaults/my-env", &[]).expect(204);
    gateway.admin("DELETE", "/vaults/my-env", &[]).expect(204);
}

#[test]
fn a_key_is_unique_in_its_set_and_deleted_with_it() {
    let gateway = Gateway::start();
    post(&gateway, "/key-sets", &json!({ "name": "a set" }));
    post(&gateway, "/key-sets", &json!({ "name": "other" }));
    let jwk = json!({ "kid": "k", "kty": "oct", "k": "AAAA" }).to_string();
    let key = json!({ "name": "one", "kid": "k", "jwk": jwk });
    let made = post(&gateway, "/key-sets/a%20set/keys", &key);
    assert_eq!(made["pem"], Value::Null);
    let again = json!({ "kid": "k", "jwk": jwk });
    let taken = refused(&gateway, "POST", "/key-sets/a%20set/keys", &again, 409);
    assert_eq!(taken["code"], 5);
    post(&gateway, "/key-sets/other/keys", &again);
    post(&gateway, "/keys", &again);
    let set = gateway
        .admin("GET", "/keys/one/set", &[])
        .expect(200)
        .json();
    assert_eq!(set["name"], "a set");
    gateway
        .admin("GET", "/key-sets/a%20set/keys/one", &[])
        .expect(200);
    gateway
        .admin("GET", "/key-sets/other/keys/one", &[])
        .expect(404);
    gateway
        .admin("DELETE", "/key-sets/a%20set", &[])
        .expect(204);
    gateway.admin("GET", "/keys/one", &[]).expect(404);
    let left = gateway.admin("GET", "/keys", &[]).expect(200).json();
    assert_eq!(left["data"].as_array().unwrap().len(), 2);
}

#[test]
fn a_reference_in_the_settings_of_a_plugin_is_resolved_when_it_is_used() {
    let (sender, heads) = channel();
    let sender = Mutex::new(sender);
    let collector = RawServer::start(move |_, mut raw| {
        let head = raw.read_until("\r\n\r\n");
        sender.lock().unwrap().send(head).unwrap();
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let url = |path: &str| format!("http://{}/{path}", collector.address);
    let gateway = Setup::new()
        .env("LOGS_URL", url("first"))
        .env("OTHER_URL", url("second"))
        .start();
    let config = json!({ "http_endpoint": "{vault://logs/url}" });
    let plugin = json!({ "name": "http-log", "config": config });
    let made = post(&gateway, "/plugins", &plugin);
    assert_eq!(made["config"], {
        let mut expected = made["config"].clone();
        expected["http_endpoint"] = "{vault://logs/url}".into();
        expected
    });
    let vault =
        |prefix: &str| json!({ "prefix": "logs", "name": "env", "config": { "prefix": prefix } });
    gateway
        .admin_json("PUT", "/vaults/logs", &vault("LOGS_"))
        .expect(200);
    gateway.get("/");
    let head = heads.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(head.starts_with("POST /first "), "{head}");
    // A change of the vault is in effect for the next request.
    gateway
        .admin_json("PUT", "/vaults/logs", &vault("OTHER_"))
        .expect(200);
    gateway.get("/");
    let head = heads.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(head.starts_with("POST /second "), "{head}");
}

#[test]
fn a_file_with_another_value_is_in_effect_without_a_write() {
    let (sender, heads) = channel();
    let sender = Mutex::new(sender);
    let collector = RawServer::start(move |_, mut raw| {
        let head = raw.read_until("\r\n\r\n");
        sender.lock().unwrap().send(head).unwrap();
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str| {
        let url = format!("http://{}/{path}\n", collector.address);
        // A file that is there is replaced as a whole.
        let draft = folder.path().join("draft");
        std::fs::write(&draft, url).unwrap();
        std::fs::rename(draft, folder.path().join("url")).unwrap();
    };
    let received = |gateway: &Gateway| {
        gateway.get("/");
        heads.recv_timeout(Duration::from_secs(60)).unwrap()
    };
    write("first");
    let gateway = Gateway::start();
    let config = json!({ "folder": folder.path() });
    let vault = json!({ "prefix": "files", "name": "file", "config": config });
    post(&gateway, "/vaults", &vault);
    // A reference that never has a value holds up no other one.
    let headers = json!({ "x-none": "{vault://files/none}" });
    let config = json!({ "http_endpoint": "{vault://files/url}", "headers": headers });
    let plugin = json!({ "name": "http-log", "config": config });
    post(&gateway, "/plugins", &plugin);
    assert!(received(&gateway).starts_with("POST /first "));
    write("second");
    until("the new value is in effect", || {
        received(&gateway).starts_with("POST /second ")
    });
    // Without the file, the value in effect stays.
    std::fs::remove_file(folder.path().join("url")).unwrap();
    assert!(received(&gateway).starts_with("POST /second "));
    write("third");
    until("the new value is in effect", || {
        received(&gateway).starts_with("POST /third ")
    });
}
