//! Credentials and groups of consumers. Source of all messages: Kong 3.9.

use serde_json::{Value, json};

use crate::harness::{Gateway, until};

/// A gateway with the consumers `luka` and `mila`.
fn with_consumers() -> Gateway {
    let gateway = Gateway::start();
    for name in ["luka", "mila"] {
        let consumer = json!({ "username": name, "custom_id": format!("id of {name}") });
        gateway
            .admin_json("POST", "/consumers", &consumer)
            .expect(201);
    }
    gateway
}

fn post(gateway: &Gateway, path: &str, input: Value) -> Value {
    gateway.admin_json("POST", path, &input).expect(201).json()
}

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

fn refused(gateway: &Gateway, method: &str, path: &str, input: Value, status: u16) -> String {
    let reply = gateway.admin_json(method, path, &input).expect(status);
    reply.json()["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_consumer_is_found_by_its_custom_id() {
    let gateway = with_consumers();
    let found = get(&gateway, "/consumers?custom_id=id+of+mila");
    assert_eq!(found["data"][0]["username"], "mila");
    assert_eq!(
        (found["data"].as_array().unwrap().len(), &found["next"]),
        (1, &Value::Null)
    );
    let none = get(&gateway, "/consumers?custom_id=x");
    assert_eq!(none, json!({ "data": [], "next": null }));
    let empty = gateway
        .admin("GET", "/consumers?custom_id=", &[])
        .expect(400);
    assert_eq!(
        empty.json(),
        json!({ "message": "custom_id must be an unempty string" })
    );
}

#[test]
fn a_key_is_generated_unless_it_is_given() {
    let gateway = with_consumers();
    let path = "/consumers/luka/key-auth";
    let given = post(&gateway, path, json!({ "key": "top-secret-key" }));
    assert_eq!(
        (&given["key"], &given["ttl"]),
        (&json!("top-secret-key"), &Value::Null)
    );
    assert_eq!(given.get("updated_at"), None);
    let made = post(&gateway, path, json!({}));
    let key = made["key"].as_str().unwrap();
    assert!(
        key.len() == 32 && key.bytes().all(|b| b.is_ascii_alphanumeric()),
        "{key}"
    );
    assert_eq!(get(&gateway, &format!("{path}/{key}")), made);
    assert_eq!(get(&gateway, &format!("/key-auths/{key}")), made);
    assert_eq!(
        get(&gateway, &format!("/key-auths/{key}/consumer"))["username"],
        "luka"
    );
    let other = format!("/consumers/mila/key-auth/{key}");
    gateway.admin("GET", &other, &[]).expect(404);
    gateway.admin("DELETE", &other, &[]).expect(404);
    assert_eq!(
        refused(&gateway, "POST", path, json!({ "key": null }), 400),
        "schema violation (key: required field missing)"
    );
    assert_eq!(
        refused(
            &gateway,
            "POST",
            "/consumers/mila/key-auth",
            json!({ "key": key }),
            409
        ),
        "UNIQUE violation detected on '{key=\"<secret>\"}'"
    );
}

#[test]
fn a_key_with_a_ttl_ends_by_itself() {
    let gateway = with_consumers();
    let path = "/consumers/luka/key-auth";
    let long = post(&gateway, path, json!({ "key": "long", "ttl": 100 }));
    assert_eq!(long["ttl"], 100);
    let left = get(&gateway, "/key-auths/long")["ttl"].as_u64().unwrap();
    assert!((1..=100).contains(&left), "{left}");
    // A change that does not name the ttl keeps the end.
    let patched = gateway
        .admin_json("PATCH", "/key-auths/long", &json!({ "tags": ["a"] }))
        .expect(200);
    assert!(
        patched.json()["ttl"]
            .as_u64()
            .is_some_and(|left| left <= 100)
    );
    let endless = gateway
        .admin_json("PATCH", "/key-auths/long", &json!({ "ttl": 0 }))
        .expect(200);
    assert_eq!(endless.json()["ttl"], Value::Null);

    // A form has only texts.
    let short = gateway.admin("POST", path, &[("key", "short"), ("ttl", "1")]);
    let short = short.expect(201).json();
    assert_eq!(short["ttl"], 1);
    until("the key ends", || {
        gateway.admin("GET", "/key-auths/short", &[]).status == 404
    });
    let rows = get(&gateway, path);
    assert_eq!(rows["data"].as_array().unwrap().len(), 1, "{rows}");
    gateway
        .admin_json("PATCH", "/key-auths/short", &json!({}))
        .expect(404);
    post(&gateway, path, json!({ "key": "short", "id": short["id"] }));

    for wrong in [json!(-1), json!(1.5), json!("x"), json!(100_000_001)] {
        let reply = gateway
            .admin_json("POST", path, &json!({ "ttl": wrong }))
            .expect(400);
        let message = "must be an integer between 0 and 100000000";
        assert_eq!(
            reply.json(),
            json!({
                "code": 11,
                "name": "invalid options",
                "message": format!("invalid option (ttl: {message})"),
                "options": { "ttl": message },
            })
        );
    }
}

#[test]
fn a_password_is_never_shown_and_hashed_once() {
    let gateway = with_consumers();
    let path = "/consumers/luka/basic-auth";
    let made = post(&gateway, path, json!({ "username": "u", "password": "p" }));
    let hash = made["password"].as_str().unwrap();
    assert!(
        hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{hash}"
    );
    let tagged = gateway.admin_json("PATCH", "/basic-auths/u", &json!({ "tags": ["a"] }));
    assert_eq!(tagged.expect(200).json()["password"], hash);
    let again = gateway.admin_json("PATCH", "/basic-auths/u", &json!({ "password": "p" }));
    assert_eq!(again.expect(200).json()["password"], hash);
    let replaced = json!({ "password": "p" });
    let replaced = gateway
        .admin_json("PUT", &format!("{path}/u"), &replaced)
        .expect(200);
    assert_eq!(replaced.json()["password"], hash);
    assert_eq!(
        refused(&gateway, "POST", path, json!({ "username": "v" }), 400),
        "schema violation (password: required field missing)"
    );
}

/// Made with `openssl genpkey -algorithm ed448`.
const ED448_KEY: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MEMwBQYDK2VxAzoA/lX2XKjMeNCHC1FKwRrH2AT8A9pIjyoPagjyXEvaJtal+Hsv\n\
    kucgNa43SNEigRPa3Aw677AswdkA\n\
    -----END PUBLIC KEY-----\n";

/// A key of RSA with 1024 bits.
const SHORT_KEY: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7F+PjA+RqqC7M4ruL6FEOpJZB\n\
    lVFjdLLTCOxM/FrbUlxVyW1cajFGEol4FMXikQgtZGPzECp53uUyWFK9utYb7gFo\n\
    R7hV5be6bKo2WY7rXONzIAGpyMndHV+7O2F0WmmJvnttTR4GJXA8JGxt5nAjWMGm\n\
    7ZeJkQlhoH7jMH4ruQIDAQAB\n\
    -----END PUBLIC KEY-----\n";

#[test]
fn the_algorithm_of_a_token_says_whether_it_needs_a_public_key() {
    let gateway = with_consumers();
    let path = "/consumers/luka/jwt";
    let made = post(&gateway, path, json!({}));
    assert_eq!(made["algorithm"], "HS256");
    for generated in ["key", "secret"] {
        assert_eq!(made[generated].as_str().map(str::len), Some(32));
    }
    let conditional = "failed conditional validation given value of field 'algorithm'";
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
    ] {
        for (key, why) in [
            (Value::Null, "required field missing"),
            (json!("x"), "invalid key"),
            (
                json!(SHORT_KEY),
                "a key of RSA must have 2048 bits or more (RFC 7518)",
            ),
            (
                json!(ED448_KEY),
                "keys of Ed448 are not supported: use one of Ed25519",
            ),
        ] {
            let input = json!({ "algorithm": algorithm, "rsa_public_key": key });
            assert_eq!(
                refused(&gateway, "POST", path, input, 400),
                format!("2 schema violations ({conditional}; rsa_public_key: {why})")
            );
        }
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let input = json!({ "algorithm": "EdDSA", "rsa_public_key": pair.public_key_pem() });
    post(&gateway, path, input);
    assert!(
        refused(&gateway, "POST", path, json!({ "algorithm": "none" }), 400).starts_with(
            "schema violation (algorithm: expected one of: HS256, HS384, HS512, RS256"
        )
    );
}

#[test]
fn a_group_is_named_below_its_consumer_alone() {
    let gateway = with_consumers();
    let path = "/consumers/luka/acls";
    let made = post(&gateway, path, json!({ "group": "admins" }));
    let consumer = made["consumer"]["id"].as_str().unwrap();
    assert_eq!(
        refused(&gateway, "POST", path, json!({ "group": "admins" }), 409),
        format!(
            "UNIQUE violation detected on '{{consumer={{id=\"{consumer}\"}},group=\"admins\"}}'"
        )
    );
    post(
        &gateway,
        "/consumers/mila/acls",
        json!({ "group": "admins" }),
    );
    assert_eq!(get(&gateway, &format!("{path}/admins")), made);
    let put = gateway
        .admin_json("PUT", &format!("{path}/users"), &json!({}))
        .expect(200);
    assert_eq!(put.json()["group"], "users");
    assert_eq!(get(&gateway, "/acls")["data"].as_array().unwrap().len(), 3);
    let by_name = gateway.admin("GET", "/acls/admins", &[]).expect(400);
    assert_eq!(by_name.json()["code"], 1);
    gateway
        .admin("DELETE", &format!("{path}/admins"), &[])
        .expect(204);
    gateway
        .admin("DELETE", &format!("{path}/admins"), &[])
        .expect(404);
}

#[test]
fn all_that_a_consumer_has_is_deleted_with_it() {
    let gateway = with_consumers();
    post(&gateway, "/consumers/luka/key-auth", json!({}));
    post(&gateway, "/consumers/luka/jwt", json!({}));
    post(&gateway, "/consumers/luka/acls", json!({ "group": "g" }));
    let basic = json!({ "username": "u", "password": "p" });
    post(&gateway, "/consumers/luka/basic-auth", basic);
    post(&gateway, "/consumers/mila/key-auth", json!({}));
    gateway.admin("DELETE", "/consumers/luka", &[]).expect(204);
    for (path, left) in [
        ("/key-auths", 1),
        ("/jwts", 0),
        ("/acls", 0),
        ("/basic-auths", 0),
    ] {
        assert_eq!(
            get(&gateway, path)["data"].as_array().unwrap().len(),
            left,
            "{path}"
        );
    }
    assert_eq!(
        refused(&gateway, "POST", "/consumers/luka/key-auth", json!({}), 404),
        "Not found"
    );
}
