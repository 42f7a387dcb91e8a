//! `key-auth`.

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Raw, Reply, add_consumer, add_credential, add_plugin, received, sha256,
    until, with_route,
};

/// A gateway whose service asks for a key, with a consumer `c` that has the key `k`.
fn with_key_auth(config: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_route();
    add_consumer(&gateway, "c");
    add_credential(&gateway, "c", "key-auth", json!({ "key": "k" }));
    add_plugin(&gateway, "key-auth", config, json!({}));
    (gateway, backend)
}

fn post(gateway: &Gateway, path: &str, content_type: &str, body: &str) -> Reply {
    let body = Some((content_type, body.as_bytes().to_vec()));
    gateway.send(gateway.proxy, "POST", path, &[], body)
}

#[track_caller]
fn refused(reply: Reply, message: &str) {
    let reply = reply.expect(401);
    assert_eq!(reply.header("www-authenticate"), "Key");
    let body = reply.json();
    assert_eq!(body["message"], message);
    assert_eq!(body["request_id"], reply.header("x-kong-request-id"));
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const MULTIPART: &str = "multipart/form-data; boundary=b";

/// A part of a multipart form.
fn part(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// Servers read such a body, so a key in it counts, and is hidden where that is asked for.
#[test]
fn bytes_that_are_no_text_in_a_content_type_hide_no_body() {
    let config = json!({"key_in_body": true, "hide_credentials": true});
    let (gateway, _backend) = with_key_auth(config);
    for (content_type, body, left) in [
        (
            &b"application/x-www-form-urlencoded; x=\xff"[..],
            "a=1&apikey=k",
            "a=1",
        ),
        (b"application/json;\xe9=1", r#"{"apikey": "k"}"#, "{}"),
    ] {
        let mut request = Vec::new();
        request.extend(b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: ");
        request.extend(content_type);
        request.extend(format!("\r\ncontent-length: {}\r\n\r\n{body}", body.len()).bytes());
        let answer = Raw::connect(gateway.proxy).send(&request).read_to_end();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(&sha256(left.as_bytes())), "{answer}");
    }
}

#[test]
fn a_key_names_the_consumer() {
    let (gateway, backend) = with_route();
    let consumer = json!({ "username": "c", "custom_id": "42" });
    let consumer = gateway
        .admin_json("POST", "/consumers", &consumer)
        .expect(201)
        .json();
    let credential = add_credential(&gateway, "c", "key-auth", json!({ "key": "k" }));
    add_plugin(&gateway, "key-auth", json!({}), json!({}));
    let headers = received(gateway.get_with("/", &[("apikey", "k")]));
    assert_eq!(headers["x-consumer-id"], consumer["id"]);
    assert_eq!(headers["x-consumer-username"], "c");
    assert_eq!(headers["x-consumer-custom-id"], "42");
    assert_eq!(headers["x-credential-identifier"], credential["id"]);
    assert_eq!(headers["apikey"], "k");
    let headers = received(gateway.get("/?apikey=k"));
    assert_eq!(headers["x-consumer-id"], consumer["id"]);
    refused(gateway.get("/"), "No API key found in request");
    for empty in ["/?apikey=", "/?apikey"] {
        refused(gateway.get(empty), "No API key found in request");
    }
    refused(gateway.get("/?apikey=K"), "Unauthorized");
    refused(
        gateway.get("/?apikey=k&apikey=k"),
        "Duplicate API key found",
    );
    let twice = [("apikey", "k"), ("apikey", "k")];
    refused(gateway.get_with("/", &twice), "Duplicate API key found");
    assert_eq!(backend.served(), 2);
    let reply = gateway
        .get_with("/", &[("accept", "text/plain")])
        .expect(401);
    assert!(
        reply.text().starts_with("No API key found in request\n"),
        "{}",
        reply.text()
    );
}

#[test]
fn a_client_cannot_set_the_headers_that_name_the_consumer() {
    let (gateway, _backend) = with_key_auth(json!({}));
    let forged = [
        "x-consumer-id",
        "x-consumer-custom-id",
        "x-consumer-username",
        "x-credential-identifier",
        "x-anonymous-consumer",
        "x-consumer-groups",
        "x-authenticated-groups",
    ];
    let mut sent: Vec<(&str, &str)> = forged.iter().map(|name| (*name, "forged")).collect();
    sent.push(("apikey", "k"));
    let headers = received(gateway.get_with("/", &sent));
    assert!(!headers.to_string().contains("forged"), "{headers}");
    assert_eq!(headers["x-consumer-username"], "c");
    assert_eq!(headers["x-consumer-custom-id"], Value::Null);
    // Nor can it have them removed.
    let hops = forged.join(", ");
    let sent = [("connection", hops.as_str()), ("apikey", "k")];
    let headers = received(gateway.get_with("/", &sent));
    assert_eq!(headers["x-consumer-username"], "c");
    assert!(headers["x-credential-identifier"].is_string(), "{headers}");
}

#[test]
fn the_first_place_that_has_a_name_decides() {
    let (gateway, _backend) = with_key_auth(json!({
        "key_names": ["x-first", "x-second"], "key_in_body": true,
    }));
    let passes = |path: &str, headers: &[(&str, &str)], body: &str| {
        let body = Some((FORM, body.as_bytes().to_vec()));
        gateway
            .send(gateway.proxy, "POST", path, headers, body)
            .status
            == 200
    };
    assert!(passes("/", &[("X-FIRST", "k")], ""));
    assert!(passes("/?x-second=k", &[], ""));
    assert!(passes("/", &[], "x-second=k"));
    // The header, then the query, then the body.
    assert!(passes(
        "/?x-first=wrong",
        &[("x-first", "k")],
        "x-first=wrong"
    ));
    assert!(!passes("/?x-first=k", &[("x-first", "wrong")], "x-first=k"));
    assert!(passes("/?x-first=k", &[], "x-first=wrong"));
    assert!(!passes("/?x-first=wrong", &[], "x-first=k"));
    // Then the next name.
    assert!(passes("/", &[("x-second", "wrong")], "x-first=k"));
    assert!(!passes("/", &[("x-second", "k")], "x-first=wrong"));
}

#[test]
fn a_place_that_is_not_to_have_keys_is_not_looked_at() {
    let (gateway, _backend) = with_key_auth(json!({ "key_in_header": false }));
    refused(
        gateway.get_with("/", &[("apikey", "k")]),
        "No API key found in request",
    );
    gateway.get("/?apikey=k").expect(200);
    refused(
        post(&gateway, "/", FORM, "apikey=k"),
        "No API key found in request",
    );
    let (gateway, _backend) = with_key_auth(json!({ "key_in_query": false }));
    refused(gateway.get("/?apikey=k"), "No API key found in request");
    gateway.get_with("/", &[("apikey", "k")]).expect(200);
}

#[test]
fn a_key_may_be_in_a_form_in_json_and_in_a_multipart_form() {
    let (gateway, _backend) = with_key_auth(json!({ "key_in_body": true }));
    let multipart = part("a", "1") + &part("apikey", "k") + "--b--\r\n";
    let twice = part("apikey", "k") + &part("apikey", "k") + "--b--\r\n";
    for (content_type, body) in [
        (FORM, "a=1&apikey=%6B"),
        (JSON, r#"{"a": 1, "apikey": "k"}"#),
        (MULTIPART, multipart.as_str()),
    ] {
        let reply = post(&gateway, "/", content_type, body).expect(200).json();
        assert_eq!(reply["headers"]["x-consumer-username"], "c");
        assert_eq!(reply["sha256"], sha256(body.as_bytes()), "{content_type}");
    }
    for (content_type, body) in [
        (FORM, "apikey=k&apikey=k"),
        (JSON, r#"{"apikey": ["k"]}"#),
        (JSON, r#"{"apikey": "k", "apikey": "k"}"#),
        (MULTIPART, twice.as_str()),
    ] {
        refused(
            post(&gateway, "/", content_type, body),
            "Duplicate API key found",
        );
    }
    for (content_type, body) in [
        (FORM, ""),
        (FORM, "apikey="),
        (JSON, r#"{"apikey": 1}"#),
        (JSON, r#"{"apikey": "k""#),
        (JSON, r#"["apikey", "k"]"#),
        (MULTIPART, "apikey=k"),
        ("text/plain", "apikey=k"),
    ] {
        let reply = post(&gateway, "/", content_type, body);
        refused(reply, "No API key found in request");
    }
    // A body that is too long to be held in memory passes, if the key is elsewhere.
    let large = format!("apikey=k&a={}", "x".repeat(2 << 20));
    let reply = post(&gateway, "/?apikey=k", FORM, &large).expect(200);
    assert_eq!(reply.json()["sha256"], sha256(large.as_bytes()));
}

#[test]
fn a_hidden_key_is_in_no_place_of_the_request_to_the_endpoint() {
    let (gateway, _backend) = with_key_auth(json!({
        "key_in_body": true, "hide_credentials": true,
    }));
    let multipart = part("apikey", "k") + &part("a", "1") + "--b--\r\n";
    let left = part("a", "1") + "--b--\r\n";
    for (content_type, body, left) in [
        (FORM, "a=%31&apikey=k&b", "a=%31&b"),
        (JSON, r#"{"apikey": "k", "n": 1.0}"#, r#"{"n": 1.0}"#),
        (MULTIPART, multipart.as_str(), left.as_str()),
    ] {
        let key_elsewhere = post(&gateway, "/?apikey=k&x=%31", content_type, body);
        for reply in [post(&gateway, "/?x=%31", content_type, body), key_elsewhere] {
            let reply = reply.expect(200).json();
            assert_eq!(reply["uri"], "/?x=%31");
            assert_eq!(reply["length"], left.len());
            assert_eq!(reply["sha256"], sha256(left.as_bytes()), "{content_type}");
        }
    }
    let reply = gateway
        .get_with("/?apikey=k", &[("apikey", "k")])
        .expect(200)
        .json();
    assert_eq!(
        (&reply["uri"], &reply["headers"]["apikey"]),
        (&json!("/"), &Value::Null)
    );
    // Another body is sent as it is.
    let reply = post(&gateway, "/?apikey=k", "text/plain", "apikey=k")
        .expect(200)
        .json();
    assert_eq!(reply["sha256"], sha256(b"apikey=k"));
}

#[test]
fn a_realm_is_told() {
    let (gateway, _backend) = with_key_auth(json!({ "realm": "the \"best\"" }));
    let reply = gateway.get("/").expect(401);
    assert_eq!(
        reply.header("www-authenticate"),
        r#"Key realm="the \"best\"""#
    );
}

#[test]
fn a_preflight_request_needs_no_key_where_it_is_allowed() {
    let (gateway, _backend) = with_key_auth(json!({ "run_on_preflight": false }));
    let options =
        |headers: &[(&str, &str)]| gateway.send(gateway.proxy, "OPTIONS", "/", headers, None);
    let headers = received(options(&[("x-consumer-id", "forged")]));
    assert_eq!(headers["x-consumer-id"], Value::Null);
    refused(gateway.get("/"), "No API key found in request");
    let (gateway, _backend) = with_key_auth(json!({}));
    let reply = gateway.send(gateway.proxy, "OPTIONS", "/", &[], None);
    refused(reply, "No API key found in request");
}

#[test]
fn a_key_is_valid_from_the_next_request_on_until_it_is_deleted() {
    let (gateway, _backend) = with_key_auth(json!({}));
    let status = |key: &str| gateway.get_with("/", &[("apikey", key)]).status;
    for round in 0..20 {
        let key = format!("key-{round}");
        assert_eq!(status(&key), 401);
        let made = add_credential(&gateway, "c", "key-auth", json!({ "key": key }));
        assert_eq!(status(&key), 200);
        let path = format!("/consumers/c/key-auth/{}", made["id"].as_str().unwrap());
        let changed = format!("changed-{round}");
        let change = json!({ "key": changed });
        gateway.admin_json("PATCH", &path, &change).expect(200);
        assert_eq!((status(&key), status(&changed)), (401, 200));
        gateway.admin("DELETE", &path, &[]).expect(204);
        assert_eq!(status(&changed), 401);
    }
    // The keys of a deleted consumer are deleted.
    gateway.admin("DELETE", "/consumers/c", &[]).expect(204);
    assert_eq!(status("k"), 401);
    // A generated key.
    add_consumer(&gateway, "d");
    let made = add_credential(&gateway, "d", "key-auth", json!({}));
    assert_eq!(status(made["key"].as_str().unwrap()), 200);
}

#[test]
fn an_expired_key_is_unknown() {
    let (gateway, _backend) = with_key_auth(json!({}));
    let made = add_credential(
        &gateway,
        "c",
        "key-auth",
        json!({ "key": "short", "ttl": 1000 }),
    );
    let get = || gateway.get_with("/", &[("apikey", "short")]);
    get().expect(200);
    let path = format!("/key-auths/{}", made["id"].as_str().unwrap());
    gateway
        .admin_json("PATCH", &path, &json!({ "ttl": 1 }))
        .expect(200);
    until("the key expires", || get().status == 401);
    refused(get(), "Unauthorized");
    gateway.get_with("/", &[("apikey", "k")]).expect(200);
}

#[test]
fn a_consumer_that_changes_its_name_keeps_its_keys() {
    let (gateway, _backend) = with_key_auth(json!({}));
    let change = json!({ "username": "renamed" });
    gateway
        .admin_json("PATCH", "/consumers/c", &change)
        .expect(200);
    let headers = received(gateway.get_with("/", &[("apikey", "k")]));
    assert_eq!(headers["x-consumer-username"], "renamed");
}
