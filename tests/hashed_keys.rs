//! Keys of `key-auth` that are stored as keyed hashes, the setting `hash_keys`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Reply, Setup, add_consumer, add_credential, add_plugin, received,
    with_backend,
};

fn setup(data: &Path, hash_keys: &str) -> Setup {
    Setup::with_data(data).arg("--hash-keys", hash_keys)
}

/// A gateway whose requests need a key, with the consumers `a` and `b`.
fn with_key_auth(setup: Setup) -> (Gateway, Backend) {
    let (gateway, backend) = with_backend(setup);
    for consumer in ["a", "b"] {
        add_consumer(&gateway, consumer);
    }
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    (gateway, backend)
}

fn get(gateway: &Gateway, key: &str) -> Reply {
    gateway.get_with("/", &[("apikey", key)])
}

#[track_caller]
fn assert_hashed(shown: &Value) {
    let shown = shown["key"].as_str().unwrap();
    assert!(
        shown.starts_with("hmac-sha256:") && shown.len() == 76,
        "{shown}"
    );
}

fn rows(gateway: &Gateway) -> Value {
    gateway.admin("GET", "/key-auths", &[]).expect(200).json()
}

#[test]
fn a_key_is_stored_and_shown_as_a_hash_and_names_its_consumer() {
    let data = tempfile::tempdir().unwrap();
    let (gateway, _backend) = with_key_auth(setup(data.path(), "on"));
    let made = add_credential(&gateway, "a", "key-auth", json!({ "key": "top-secret" }));
    assert_hashed(&made);
    assert!(!rows(&gateway).to_string().contains("top-secret"));
    let headers = received(get(&gateway, "top-secret"));
    assert_eq!(headers["x-consumer-username"], "a");
    assert_eq!(headers["x-credential-identifier"], made["id"]);
    // The hash is no key.
    get(&gateway, made["key"].as_str().unwrap()).expect(401);
    get(&gateway, "other").expect(401);
    let again = json!({ "key": "top-secret" });
    let taken = gateway.admin_json("POST", "/consumers/b/key-auth", &again);
    let taken = taken.expect(409).json();
    assert_eq!(
        (&taken["code"], &taken["fields"]["key"]),
        (&json!(5), &json!("<secret>"))
    );
    let named = gateway
        .admin("GET", "/key-auths/top-secret", &[])
        .expect(200);
    assert_eq!(named.json()["id"], made["id"]);
    // A change that does not name the key keeps it, and one that names it replaces it.
    let path = format!("/consumers/a/key-auth/{}", made["id"].as_str().unwrap());
    let tagged = json!({ "tags": ["t"] });
    gateway.admin_json("PATCH", &path, &tagged).expect(200);
    get(&gateway, "top-secret").expect(200);
    let changed = gateway.admin_json("PATCH", &path, &json!({ "key": "new" }));
    assert_hashed(&changed.expect(200).json());
    get(&gateway, "new").expect(200);
    get(&gateway, "top-secret").expect(401);
    let file = data.path().join("hash.key");
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_missing_hash_key_file_is_not_replaced_while_stored_keys_need_it() {
    let data = tempfile::tempdir().unwrap();
    let (gateway, _backend) = with_key_auth(setup(data.path(), "on"));
    let made = add_credential(&gateway, "a", "key-auth", json!({ "key": "k" }));
    gateway.terminate();
    gateway.wait();
    let file = data.path().join("hash.key");
    let kept = data.path().join("kept");
    std::fs::rename(&file, &kept).unwrap();
    let (status, log) = setup(data.path(), "on").fail();
    assert!(!status.success());
    assert!(
        log.contains("is missing") && log.contains("restore the file"),
        "{log}"
    );
    assert!(!file.exists());
    // Without the setting the gateway starts, so that the keys can be deleted.
    let gateway = setup(data.path(), "off").start();
    get(&gateway, "k").expect(401);
    let path = format!("/consumers/a/key-auth/{}", made["id"].as_str().unwrap());
    gateway.terminate();
    gateway.wait();
    std::fs::rename(&kept, &file).unwrap();
    let gateway = setup(data.path(), "on").start();
    get(&gateway, "k").expect(200);
    gateway.admin("DELETE", &path, &[]).expect(204);
    gateway.terminate();
    gateway.wait();
    std::fs::remove_file(&file).unwrap();
    let _gateway = setup(data.path(), "on").start();
    assert!(file.exists());
}

#[test]
fn a_generated_key_is_shown_once() {
    let data = tempfile::tempdir().unwrap();
    let (gateway, _backend) = with_key_auth(setup(data.path(), "on"));
    let made = add_credential(&gateway, "a", "key-auth", json!({}));
    let put = gateway.admin_json("PUT", "/consumers/b/key-auth/own-name", &json!({}));
    assert_hashed(&put.expect(200).json());
    let key = made["key"].as_str().unwrap();
    assert_eq!(key.len(), 32);
    get(&gateway, key).expect(200);
    get(&gateway, "own-name").expect(200);
    for row in rows(&gateway)["data"].as_array().unwrap() {
        assert_hashed(row);
    }
}

#[test]
fn keys_that_were_stored_before_go_on_working_whether_hashes_are_wanted_or_not() {
    let data = tempfile::tempdir().unwrap();
    let (gateway, backend) = with_key_auth(setup(data.path(), "off"));
    let made = add_credential(&gateway, "a", "key-auth", json!({ "key": "old" }));
    assert_eq!(made["key"], "old");
    assert!(!data.path().join("hash.key").exists());
    gateway.terminate();
    gateway.wait();
    let gateway = setup(data.path(), "on").start();
    assert_hashed(&rows(&gateway)["data"][0]);
    get(&gateway, "old").expect(200);
    gateway.terminate();
    gateway.wait();
    let gateway = setup(data.path(), "off").start();
    get(&gateway, "old").expect(200);
    add_credential(&gateway, "b", "key-auth", json!({ "key": "clear" }));
    get(&gateway, "clear").expect(200);
    let again = json!({ "key": "old" });
    let taken = gateway.admin_json("POST", "/consumers/b/key-auth", &again);
    assert_eq!(taken.expect(409).json()["fields"]["key"], "<secret>");
    assert_eq!(backend.served(), 3);
}

#[test]
fn a_hash_can_be_taken_to_a_gateway_that_has_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.key");
    let with_file = || {
        let setup = Setup::new().arg("--hash-keys", "on");
        with_key_auth(setup.arg("--hash-keys-file", file.display()))
    };
    let (first, _backend) = with_file();
    let made = add_credential(&first, "a", "key-auth", json!({ "key": "k" }));
    let (second, _other) = with_file();
    let taken = json!({ "id": made["id"], "key": made["key"] });
    let row = add_credential(&second, "b", "key-auth", taken);
    assert_eq!(row["key"], made["key"]);
    assert_eq!(received(get(&second, "k"))["x-consumer-username"], "b");
}
