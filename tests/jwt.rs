//! `jwt`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Reply, TOKENS, add_consumer, add_credential, add_plugin, received, with_route,
};

/// A gateway whose service asks for a token, with a consumer `c` whose credential has the key `i`
/// and the secret `s`.
fn with_jwt(config: Value) -> (Gateway, Backend) {
    let (gateway, backend) = with_route();
    add_consumer(&gateway, "c");
    add_credential(&gateway, "c", "jwt", json!({ "key": "i", "secret": "s" }));
    add_plugin(&gateway, "jwt", config, json!({}));
    (gateway, backend)
}

/// A token with this header and these claims, signed with HS256.
fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

fn token(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256", "typ": "JWT" }), claims, "s")
}

fn get(gateway: &Gateway, token: &str) -> Reply {
    gateway.get_with("/", &[("authorization", &format!("Bearer {token}"))])
}

#[track_caller]
fn refused(reply: Reply, body: Value) {
    let reply = reply.expect(401);
    assert_eq!(reply.json(), body);
    assert_eq!(
        reply.header("www-authenticate"),
        "Bearer error=\"invalid_token\""
    );
}

#[track_caller]
fn refused_with(reply: Reply, message: &str) {
    refused(reply, json!({ "message": message }));
}

#[test]
fn a_token_names_the_consumer() {
    let (gateway, _backend) = with_jwt(json!({}));
    let token = token(&json!({ "iss": "i" }));
    let headers = received(get(&gateway, &token));
    assert_eq!(headers["x-consumer-username"], "c");
    assert_eq!(headers["x-credential-identifier"], "i");
    assert_eq!(headers["authorization"], format!("Bearer {token}"));
    let reply = gateway.get("/").expect(401);
    assert_eq!(reply.json(), json!({ "message": "Unauthorized" }));
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    assert!(reply.header("content-type").starts_with("application/json"));
}

#[test]
fn a_token_is_found_in_the_query_in_cookies_and_in_headers() {
    let (gateway, _backend) = with_jwt(json!({
        "uri_param_names": ["jwt", "token"], "cookie_names": ["c"],
        "header_names": ["authorization", "x-token"],
    }));
    let token = token(&json!({ "iss": "i" }));
    let other = signed(&json!({ "alg": "HS256" }), &json!({ "iss": "i" }), "s");
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=b; c={token}");
    for path in [
        format!("/?jwt={token}"),
        format!("/?token={token}&a"),
        "/".into(),
    ] {
        for headers in [&[][..], &[("cookie", &*cookie)], &[("x-token", &*bearer)]] {
            let expected = if path == "/" && headers.is_empty() {
                401
            } else {
                200
            };
            let reply = gateway.get_with(&path, headers);
            assert_eq!(reply.status, expected, "{path} {headers:?}");
        }
    }
    for value in ["bearer", "BEARER", " Bearer "] {
        let value = format!("{value} {token}");
        gateway
            .get_with("/", &[("authorization", value.trim())])
            .expect(200);
    }
    for value in [
        "Bearer",
        &token,
        &format!("Basic {token}"),
        &format!("Bearer{token}"),
    ] {
        let reply = gateway.get_with("/", &[("authorization", value)]);
        assert_eq!(
            reply.expect(401).json()["message"],
            "Unauthorized",
            "{value}"
        );
    }
    let message = "Multiple tokens provided";
    refused_with(gateway.get(&format!("/?jwt={token}&jwt={other}")), message);
    refused_with(
        gateway.get_with(&format!("/?jwt={other}"), &[("cookie", &cookie)]),
        message,
    );
    refused_with(gateway.get_with("/?jwt", &[("cookie", &cookie)]), message);
    refused_with(gateway.get("/?jwt"), "Unrecognizable token");
    assert_eq!(
        gateway.get("/?jwt=").expect(401).json()["message"],
        "Unauthorized"
    );
}

#[test]
fn a_token_that_is_not_valid_is_refused_with_the_reason() {
    let (gateway, backend) = with_jwt(json!({}));
    let header = json!({ "alg": "HS256" });
    let with_header = |header: Value| signed(&header, &json!({ "iss": "i" }), "s");
    refused_with(get(&gateway, "a.b.c"), "Bad token; invalid JSON");
    let typ = json!({ "alg": "HS256", "typ": "x" });
    refused_with(get(&gateway, &with_header(typ)), "Bad token; invalid typ");
    let none = json!({ "alg": "none" });
    refused_with(get(&gateway, &with_header(none)), "Bad token; invalid alg");
    let half = token(&json!({ "iss": "i" }));
    let (half, _) = half.rsplit_once('.').unwrap();
    refused_with(
        get(&gateway, &format!("{half}.%")),
        "Bad token; invalid signature",
    );
    refused_with(get(&gateway, &format!("{half}.")), "Invalid signature");
    for (claims, message) in [
        (json!({}), "No mandatory 'iss' in claims"),
        (json!({ "iss": null }), "No mandatory 'iss' in claims"),
        (json!({ "iss": "" }), "Invalid 'iss' in claims"),
        (
            json!({ "iss": "x" }),
            "No credentials found for given 'iss'",
        ),
        (json!({ "iss": 1 }), "No credentials found for given 'iss'"),
    ] {
        refused_with(get(&gateway, &token(&claims)), message);
    }
    let other = json!({ "alg": "HS512" });
    refused_with(get(&gateway, &with_header(other)), "Invalid algorithm");
    let wrong = signed(&header, &json!({ "iss": "i" }), "wrong");
    refused_with(get(&gateway, &wrong), "Invalid signature");
    assert_eq!(backend.served(), 0);
}

#[test]
fn tokens_of_each_algorithm_are_accepted() {
    let (gateway, _backend) = with_jwt(json!({}));
    for (algorithm, key, token) in TOKENS {
        let is_hmac = algorithm.starts_with("HS");
        let credential = json!({
            "key": algorithm.to_lowercase(),
            "algorithm": algorithm,
            "secret": if is_hmac { key } else { "unused" },
            "rsa_public_key": if is_hmac { Value::Null } else { key.into() },
        });
        let made = gateway.admin_json("POST", "/consumers/c/jwt", &credential);
        made.expect(201);
        let headers = received(get(&gateway, token));
        assert_eq!(headers["x-credential-identifier"], algorithm.to_lowercase());
        let (text, signature) = token.rsplit_once('.').unwrap();
        let turned: String = signature.chars().rev().collect();
        refused_with(
            get(&gateway, &format!("{text}.{turned}")),
            "Invalid signature",
        );
    }
}

#[test]
fn an_algorithm_that_kong_does_not_have_is_refused_when_it_is_written() {
    let (gateway, _backend) = with_jwt(json!({}));
    for algorithm in ["none", "es512", "RS1"] {
        let credential = json!({ "algorithm": algorithm });
        let reply = gateway.admin_json("POST", "/consumers/c/jwt", &credential);
        let message = "expected one of: HS256, HS384, HS512, RS256, RS384, RS512, ES256, ES384, \
                       ES512, PS256, PS384, PS512, EdDSA";
        assert_eq!(reply.expect(400).json()["fields"]["algorithm"], message);
    }
}

#[test]
fn another_claim_and_the_header_may_name_the_credential() {
    let (gateway, _backend) = with_jwt(json!({ "key_claim_name": "kid" }));
    get(&gateway, &token(&json!({ "kid": "i" }))).expect(200);
    let header = json!({ "alg": "HS256", "kid": "i" });
    get(&gateway, &signed(&header, &json!({}), "s")).expect(200);
    let claim_first = signed(&header, &json!({ "kid": "x" }), "s");
    refused_with(
        get(&gateway, &claim_first),
        "No credentials found for given 'kid'",
    );
    let token = token(&json!({ "iss": "i" }));
    refused_with(get(&gateway, &token), "No mandatory 'kid' in claims");
}

#[test]
fn a_secret_may_be_in_base64() {
    let (gateway, _backend) = with_jwt(json!({ "secret_is_base64": true }));
    let binary = json!({ "key": "j", "secret": "AP-_" });
    add_credential(&gateway, "c", "jwt", binary);
    // `s` is not in base64.
    refused_with(
        get(&gateway, &token(&json!({ "iss": "i" }))),
        "Invalid key/secret",
    );
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(r#"{"iss":"j"}"#));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[0x00, 0xff, 0xbf]);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    get(&gateway, &format!("{text}.{signature}")).expect(200);
}

#[test]
fn claims_are_verified_where_it_is_asked_for() {
    let (gateway, _backend) = with_jwt(json!({
        "claims_to_verify": ["exp", "nbf"], "maximum_expiration": 3600,
    }));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let with = |exp: Value, nbf: Value| {
        get(
            &gateway,
            &token(&json!({ "iss": "i", "exp": exp, "nbf": nbf })),
        )
    };
    with((now + 1800).into(), (now - 10).into()).expect(200);
    refused(
        with((now - 1).into(), now.into()),
        json!({ "exp": "token expired" }),
    );
    let early = with((now + 1800).into(), (now + 1000).into());
    refused(early, json!({ "nbf": "token not valid yet" }));
    let number = "must be a number";
    refused(
        with("1".into(), Value::Null),
        json!({ "exp": number, "nbf": number }),
    );
    let long = with((now + 10_000).into(), now.into());
    refused(long, json!({ "exp": "exceeds maximum allowed expiration" }));
    // Signatures come first, so that a client learns nothing of claims that it has made up.
    let claims = json!({ "iss": "i", "exp": 1, "nbf": 1 });
    let wrong = signed(&json!({ "alg": "HS256" }), &claims, "wrong");
    refused_with(get(&gateway, &wrong), "Invalid signature");
}

#[test]
fn a_realm_is_told() {
    let (gateway, _backend) = with_jwt(json!({ "realm": "shop" }));
    let reply = gateway.get("/").expect(401);
    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"shop\"");
    let reply = get(&gateway, "x").expect(401);
    let challenge = "Bearer realm=\"shop\" error=\"invalid_token\"";
    assert_eq!(reply.header("www-authenticate"), challenge);
}

#[test]
fn a_preflight_request_needs_no_token_where_it_is_allowed() {
    for (runs, status) in [(true, 401), (false, 200)] {
        let (gateway, _backend) = with_jwt(json!({ "run_on_preflight": runs }));
        let reply = gateway.send(gateway.proxy, "OPTIONS", "/", &[], None);
        assert_eq!(reply.status, status);
        gateway.get("/").expect(401);
    }
}

#[test]
fn a_changed_secret_is_in_effect_for_the_next_request() {
    let (gateway, _backend) = with_jwt(json!({}));
    let token = token(&json!({ "iss": "i" }));
    get(&gateway, &token).expect(200);
    let change = json!({ "secret": "new" });
    gateway.admin_json("PATCH", "/jwts/i", &change).expect(200);
    refused_with(get(&gateway, &token), "Invalid signature");
    gateway
        .admin("DELETE", "/consumers/c/jwt/i", &[])
        .expect(204);
    refused_with(
        get(&gateway, &token),
        "No credentials found for given 'iss'",
    );
}
