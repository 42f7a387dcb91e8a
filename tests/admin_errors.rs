//! Errors of the Admin API: Kong's codes and messages, and what was not found.

use serde_json::json;

use crate::command_line::error_of;
use crate::harness::{Gateway, guest};

#[test]
fn kongs_entities_that_are_not_supported_are_named() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    let message = |path: &str| {
        let reply = gateway.admin("GET", path, &[]).expect(404);
        reply.json()["message"].as_str().unwrap().to_owned()
    };
    for (path, entity) in [
        ("/hmac-auths", "hmac-auths"),
        ("/consumers/luka/hmac-auth", "hmac-auth"),
        ("/oauth2", "oauth2"),
        ("/filter-chains", "filter-chains"),
        ("/services/s/filter-chains", "filter-chains"),
        ("/sessions", "sessions"),
    ] {
        let said = message(path);
        assert!(said.contains(&format!("'{entity}'")), "{path}: {said}");
        for there in ["services", "routes", "upstreams", "targets", "balancers"] {
            assert!(said.contains(there), "{path}: {said}");
        }
    }
    for path in ["/konsumers", "/services/s/targets", "/x", "/services/s/x"] {
        assert_eq!(message(path), "Not found", "{path}");
    }
}

/// Method, path and fields of a request, and the status, code and message of its answer.
type Case<'a> = (&'a str, &'a str, Fields<'a>, u16, i64, &'a str);

type Fields<'a> = &'a [(&'a str, &'a str)];

#[test]
fn errors_have_kongs_codes_and_messages() {
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
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    gateway
        .admin("POST", "/upstreams/u/targets", &[("target", "a:1")])
        .expect(201);
    let unknown_id = "11111111-2222-4333-8444-555555555555";
    let unknown_service = format!(
        "the foreign key '{{id=\"{unknown_id}\"}}' does not reference an existing 'services' entity."
    );
    let missing = format!("could not find the entity with primary key '{{id=\"{unknown_id}\"}}'");
    let by_id = format!("/services/{unknown_id}");
    let cases: &[Case<'_>] = &[
        (
            "POST",
            "/services",
            &[("name", "s"), ("host", "h")],
            409,
            5,
            "UNIQUE violation detected on '{name=\"s\"}'",
        ),
        (
            "POST",
            "/services",
            &[("name", "x")],
            400,
            2,
            "schema violation (host: required field missing)",
        ),
        (
            "POST",
            "/services",
            &[
                ("host", "h"),
                ("port", "x"),
                ("foo", "1"),
                ("retries", "-1"),
            ],
            400,
            2,
            "3 schema violations (foo: unknown field; port: expected an integer; \
             retries: value should be between 0 and 32767)",
        ),
        (
            "POST",
            "/services",
            &[("host", "h"), ("name", "a b")],
            400,
            2,
            "schema violation (name: invalid value 'a b': the only accepted ascii characters are \
             alphanumerics or ., -, _, and ~)",
        ),
        (
            "POST",
            "/services",
            &[("host", "h:80")],
            400,
            2,
            "schema violation (host: must not have a port)",
        ),
        (
            "POST",
            "/services",
            &[("host", "h"), ("protocol", "ftp")],
            400,
            2,
            "schema violation (protocol: expected one of: grpc, grpcs, http, https, tcp, tls, \
             tls_passthrough, udp)",
        ),
        (
            "POST",
            "/services",
            &[("host", "h"), ("path", "x")],
            400,
            2,
            "schema violation (path: should start with: /)",
        ),
        (
            "POST",
            "/services",
            &[("host", "h"), ("protocol", "tcp"), ("path", "/x")],
            400,
            2,
            "2 schema violations (failed conditional validation given value of field 'protocol'; \
             path: value must be null)",
        ),
        (
            "POST",
            "/routes",
            &[("name", "q")],
            400,
            2,
            "schema violation (must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when \
             'protocols' is 'https')",
        ),
        (
            "POST",
            "/routes",
            &[
                ("protocols[]", "http"),
                ("protocols[]", "tcp"),
                ("paths[]", "/"),
            ],
            400,
            2,
            "schema violation (protocols: these sets are mutually exclusive: ('http', 'https'), \
             ('tcp', 'tls', 'udp'))",
        ),
        (
            "POST",
            "/routes",
            &[("paths[]", "/"), ("service.id", unknown_id)],
            400,
            4,
            &unknown_service,
        ),
        (
            "POST",
            "/routes",
            &[("paths[]", "/"), ("service.name", "zz")],
            400,
            13,
            "foreign key unresolved (service.name: the foreign key cannot be resolved with \
             '{name=\"zz\"}' for an existing 'services' entity)",
        ),
        (
            "POST",
            "/routes",
            &[("paths[]", "/a"), ("paths[]", "b")],
            400,
            2,
            "schema violation (paths.2: should start with: / (fixed path) or ~/ (regex path))",
        ),
        ("PATCH", &by_id, &[("port", "1")], 404, 6, &missing),
        (
            "PATCH",
            "/services/zz",
            &[("port", "1")],
            404,
            6,
            "could not find the entity with '{name=\"zz\"}'",
        ),
        (
            "DELETE",
            "/services/s",
            &[],
            400,
            4,
            "an existing 'routes' entity references this 'services' entity",
        ),
        (
            "POST",
            "/upstreams",
            &[("name", "1.2.3.4")],
            400,
            2,
            "schema violation (name: Invalid name ('1.2.3.4'); no ip addresses allowed)",
        ),
        (
            "POST",
            "/upstreams",
            &[("name", "v"), ("slots", "1")],
            400,
            2,
            "schema violation (slots: value should be between 10 and 65536)",
        ),
        (
            "POST",
            "/upstreams",
            &[("name", "v"), ("hash_on", "header")],
            400,
            2,
            "2 schema violations (failed conditional validation given value of field 'hash_on'; \
             hash_on_header: required field missing)",
        ),
        (
            "POST",
            "/upstreams",
            &[
                ("name", "v"),
                ("hash_on", "consumer"),
                ("hash_fallback", "consumer"),
            ],
            400,
            2,
            "2 schema violations (failed conditional validation given value of field 'hash_on'; \
             hash_fallback: expected one of: none, ip, header, cookie, path, query_arg, uri_capture)",
        ),
        (
            "POST",
            "/upstreams",
            &[("name", "v"), ("healthchecks.active.type", "x")],
            400,
            2,
            "schema violation (healthchecks.active.type: expected one of: tcp, http, https, grpc, grpcs)",
        ),
        (
            "POST",
            "/upstreams/u/targets",
            &[("target", "a b")],
            400,
            2,
            "schema violation (target: Invalid target; not a valid hostname or ip address)",
        ),
        (
            "POST",
            "/upstreams/u/targets",
            &[("target", "b:1"), ("weight", "65536")],
            400,
            2,
            "schema violation (weight: value should be between 0 and 65535)",
        ),
        (
            "GET",
            "/services?size=0",
            &[],
            400,
            9,
            "size must be an integer between 1 and 1000",
        ),
        (
            "GET",
            "/services?size=x",
            &[],
            400,
            9,
            "size must be a number",
        ),
        (
            "GET",
            "/services?offset=%21",
            &[],
            400,
            7,
            "'!' is not a valid offset: bad base64 encoding",
        ),
        (
            "GET",
            "/services?tags=a,b/c",
            &[],
            400,
            11,
            "invalid option (tags: invalid filter syntax)",
        ),
        (
            "GET",
            "/services?tags=%FF",
            &[],
            400,
            11,
            "invalid option (tags: invalid filter syntax)",
        ),
        (
            "GET",
            "/services?tags=",
            &[],
            400,
            11,
            "invalid option (tags: cannot be null)",
        ),
    ];
    for (method, path, fields, status, code, message) in cases {
        let said = gateway.admin(method, path, fields).expect(*status).json();
        assert_eq!(said["message"], *message, "{method} {path}");
        assert_eq!(said["code"], *code, "{said}");
    }
    let twice = gateway
        .admin("POST", "/upstreams/u/targets", &[("target", "a:1")])
        .expect(409)
        .json();
    assert_eq!(twice["fields"]["target"], "a:1");
    assert!(twice["fields"]["upstream"]["id"].is_string());
    for path in [
        "/services/zz",
        "/nothing",
        "/targets",
        "/services/zz/routes",
        "/upstreams/u/targets/z:1",
    ] {
        assert_eq!(
            gateway.admin("GET", path, &[]).expect(404).json(),
            json!({"message": "Not found"})
        );
    }
}

#[test]
fn a_404_names_what_was_not_found() {
    let gateway = Gateway::start();
    gateway.upload("mine", guest("first")).expect(201);
    for (method, path, named) in [
        ("POST", "/upstreams/nowhere/record", "nowhere"),
        ("POST", "/upstreams/nowhere/explain", "nowhere"),
        ("GET", "/upstreams/nowhere/shadow", "nowhere"),
        ("GET", "/balancers/nothing/logs", "nothing"),
        ("GET", "/balancers/nothing/versions", "nothing"),
        ("POST", "/balancers/nothing/rollback", "nothing"),
        ("POST", "/balancers/mine/versions/abcd/promote", "abcd"),
        (
            "POST",
            "/balancers/mine/versions/01234567/promote",
            "01234567",
        ),
        (
            "DELETE",
            "/balancers/mine/versions/01234567/canary",
            "01234567",
        ),
    ] {
        let said = gateway.admin(method, path, &[]).expect(404).json();
        let message = said["message"].as_str().unwrap();
        assert!(message.contains(&format!("{named:?}")), "{path}: {message}");
    }
    let admin = format!("http://{}", gateway.admin);
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("trace");
    for (arguments, named) in [
        (
            &["record", "nowhere", "-o", out.to_str().unwrap()][..],
            "nowhere",
        ),
        (&["plugin", "rollback", "nothing"], "nothing"),
        (&["plugin", "canary", "nothing", "01234567"], "nothing"),
        (&["plugin", "canary", "mine", "01234567"], "01234567"),
    ] {
        let said = error_of(&[arguments, &["--admin", &admin]].concat());
        assert!(said.contains(named), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // For Kong's own paths the answer is Kong's.
    let kong = gateway.admin("GET", "/upstreams/nowhere/health", &[]);
    assert_eq!(kong.expect(404).json(), json!({"message": "Not found"}));
}
