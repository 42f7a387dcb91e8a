//! The messages of the Admin API, in Kong's words. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::admin_input::said;
use crate::harness::{Gateway, Setup};

#[test]
fn the_next_page_is_escaped_no_more_than_it_has_to_be() {
    let gateway = Gateway::start();
    for name in ["a", "b"] {
        let service = json!({"name": name, "host": "h", "tags": ["a_b", "c-d.e~f", "é ü&x"]});
        gateway
            .admin_json("POST", "/services", &service)
            .expect(201);
    }
    for (filter, shown) in [
        ("a_b", "a_b"),
        ("c-d.e~f", "c-d.e~f"),
        ("a_b%2Cc-d.e~f", "a_b%2Cc-d.e~f"),
        ("%C3%A9+%C3%BC%26x", "%C3%A9%20%C3%BC%26x"),
    ] {
        let path = format!("/services?size=1&tags={filter}");
        let page = gateway.admin("GET", &path, &[]).expect(200).json();
        let next = page["next"].as_str().unwrap();
        assert!(next.ends_with(&format!("&tags={shown}&size=1")), "{next}");
        let page = gateway.admin("GET", next, &[]).expect(200).json();
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{next}");
    }
}

#[test]
fn the_root_has_what_clients_of_kong_read() {
    let gateway = Setup::new()
        .arg("--admin-gui-url", "http://manager.example:8002/gui")
        .start();
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    assert_eq!(root["plugins"]["disabled_on_server"], json!({}));
    assert_eq!(root["plugins"]["enabled_in_cluster"], json!([]));
    let configuration = &root["configuration"];
    for (name, address) in [
        ("proxy_listeners", gateway.proxy),
        ("admin_listeners", gateway.admin),
    ] {
        let listeners = configuration[name].as_array().unwrap();
        assert_eq!(listeners.len(), 1);
        let listener = &listeners[0];
        assert_eq!(listener["ip"], address.ip().to_string());
        assert_eq!(listener["port"], address.port());
        assert_eq!(listener["listener"], address.to_string());
        for flag in [
            "ssl",
            "http2",
            "proxy_protocol",
            "deferred",
            "bind",
            "reuseport",
            "backlog=%d+",
            "ipv6only=on",
            "ipv6only=off",
            "so_keepalive=on",
            "so_keepalive=off",
            "so_keepalive=%w*:%w*:%d*",
        ] {
            // The proxy of the tests speaks HTTP/2.
            let is_set = name == "proxy_listeners" && flag == "http2";
            assert_eq!(listener[flag], is_set, "{name} {flag}");
        }
    }
    assert_eq!(configuration["stream_listeners"], json!({}));
    assert_eq!(configuration["role"], "traditional");
    assert_eq!(
        configuration["admin_listen"],
        json!([gateway.admin.to_string()])
    );
    let urls = json!(["http://manager.example:8002/gui"]);
    assert_eq!(configuration["admin_gui_url"], urls);
    let origins = json!(["http://manager.example:8002"]);
    assert_eq!(configuration["admin_gui_origin"], origins);
}

/// Section 2.1 of Kong's facts: the message of each rule, word for word.
#[test]
fn violations_have_kongs_messages() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let of_protocols = "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp";
    let condition = "failed conditional validation given value of field";
    let hash_on = json!([format!("{condition} 'hash_on'")]);
    let protocol = json!([format!("{condition} 'protocol'")]);
    let cases: Vec<(&str, Value, Value)> = vec![
        (
            "services",
            json!({}),
            json!({"host": "required field missing"}),
        ),
        (
            "services",
            json!({"host": null}),
            json!({"host": "required field missing"}),
        ),
        (
            "services",
            json!({"host": 5}),
            json!({"host": "expected a string"}),
        ),
        (
            "services",
            json!({"host": "h", "port": "80"}),
            json!({"port": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "port": 80.5}),
            json!({"port": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "enabled": "true"}),
            json!({"enabled": "expected a boolean"}),
        ),
        (
            "routes",
            json!({"paths": "/"}),
            json!({"paths": "expected an array"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "methods": "GET"}),
            json!({"methods": "expected a set"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "headers": "x"}),
            json!({"headers": "expected a map"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": 1}),
            json!({"healthchecks": "expected a record"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": {"threshold": "x"}}),
            json!({"healthchecks": {"threshold": "expected a number"}}),
        ),
        (
            "services",
            json!({"host": "h", "port": 65536}),
            json!({"port": "value should be between 0 and 65535"}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "ftp"}),
            json!({"protocol": of_protocols}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "tcp", "path": "/"}),
            json!({"@entity": protocol, "path": "value must be null"}),
        ),
        (
            "services",
            json!({"host": ""}),
            json!({"host": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "name": ""}),
            json!({"name": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "tags": [""]}),
            json!({"tags": ["length must be at least 1"]}),
        ),
        (
            "routes",
            json!({"protocols": []}),
            json!({"protocols": "length must be at least 1"}),
        ),
        (
            "services",
            json!({"host": "h", "path": "x"}),
            json!({"path": "should start with: /"}),
        ),
        (
            "routes",
            json!({"methods": ["get"]}),
            json!({"methods": ["invalid value: get"]}),
        ),
        (
            "services",
            json!({"host": "h", "foo": 1}),
            json!({"foo": "unknown field"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "healthchecks": {"active": {"foo": 1}}}),
            json!({"healthchecks": {"active": {"foo": "unknown field"}}}),
        ),
        (
            "services",
            json!({"host": "h", "id": "x"}),
            json!({"id": "expected a valid UUID"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": -1}),
            json!({"created_at": "expected a valid timestamp"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": 0}),
            json!({"created_at": "expected a valid timestamp"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": "x"}),
            json!({"created_at": "expected an integer"}),
        ),
        (
            "services",
            json!({"host": "h", "created_at": 1.5}),
            json!({"created_at": "expected an integer"}),
        ),
        (
            "upstreams/u/targets",
            json!({"target": "a", "created_at": "x"}),
            json!({"created_at": "expected a number"}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"protocol": "http"}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"name": null}}),
            json!({"service": {"id": "missing primary key"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"protocol": "foo"}}),
            json!({"service": {"protocol": of_protocols}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"id": "x"}}),
            json!({"service": {"id": "expected a valid UUID"}}),
        ),
        (
            "routes",
            json!({"paths": ["/"], "service": {"foo": 1}}),
            json!({"service": {"foo": "unknown field"}}),
        ),
        (
            "routes",
            json!({"protocols": ["http", "tcp"], "paths": ["/"]}),
            json!({"protocols": "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp')"}),
        ),
        (
            "routes",
            json!({"protocols": ["tls_passthrough", "grpc"], "snis": ["a"]}),
            json!({"protocols": "these sets are mutually exclusive: ('tls_passthrough'), ('grpc', 'grpcs')"}),
        ),
        (
            "routes",
            json!({"protocols": ["http"], "snis": ["a"]}),
            json!({
                "@entity": [
                    "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
                    "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'",
                ],
                "snis": "length must be 0",
            }),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on_header": "x", "hash_fallback_header": "x"}),
            json!({"@entity": ["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"]}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "header"}),
            json!({"@entity": hash_on, "hash_on_header": "required field missing"}),
        ),
        // A conditional rule is reported even if another field is invalid.
        (
            "services",
            json!({"host": "", "protocol": "tcp", "path": "x"}),
            json!({"@entity": protocol, "host": "length must be at least 1", "path": "value must be null"}),
        ),
        (
            "services",
            json!({"host": "h", "protocol": "foo", "path": "/"}),
            json!({"protocol": of_protocols}),
        ),
        // Section 8.
        (
            "upstreams",
            json!({"name": "v", "hash_on": "consumer", "hash_fallback": "bogus"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, ip, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "ip", "hash_fallback": "ip"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, consumer, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "path", "hash_fallback": "path"}),
            json!({"@entity": hash_on, "hash_fallback":
                "expected one of: none, consumer, header, cookie, query_arg, ip, uri_capture"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "cookie", "hash_on_cookie": "c", "hash_fallback": "ip"}),
            json!({"@entity": hash_on, "hash_fallback": "expected one of: none"}),
        ),
        (
            "upstreams",
            json!({"name": "v", "hash_on": "bogus"}),
            json!({"hash_on": "expected one of: none, consumer, ip, header, cookie, path, query_arg, uri_capture"}),
        ),
        (
            "upstreams/u/targets",
            json!({"target": "a b", "weight": -1}),
            json!({"target": "Invalid target; not a valid hostname or ip address"}),
        ),
    ];
    for (path, row, expected) in cases {
        let reply = gateway.admin_json("POST", &format!("/{path}"), &row);
        let wrong = reply.expect(400).json();
        assert_eq!(wrong["code"], 2, "{row}: {wrong}");
        assert_eq!(wrong["name"], "schema violation", "{row}: {wrong}");
        assert_eq!(wrong["fields"], expected, "{row}");
    }
    let spec =
        json!({"methods": ["GET"], "protocols": ["foo", "http"], "service": {"protocol": "foo"}});
    let reply = gateway.admin_json("POST", "/routes", &spec).expect(400);
    let expected = format!(
        "2 schema violations (protocols.1: {of_protocols}; service.protocol: {of_protocols})"
    );
    assert_eq!(said(&reply), expected);
    let target = json!({"target": "b:1"});
    gateway
        .admin_json("POST", "/upstreams/u/targets", &target)
        .expect(201);
    let change = json!({"target": "a b"});
    let reply = gateway.admin_json("PATCH", "/upstreams/u/targets/b:1", &change);
    let expected = "Invalid target ('a b'); not a valid hostname or ip address";
    assert_eq!(reply.expect(400).json()["fields"]["target"], expected);
    let unresolved = json!({"paths": ["/"], "service": {"name": "zz"}});
    let wrong = gateway
        .admin_json("POST", "/routes", &unresolved)
        .expect(400)
        .json();
    let inner =
        "the foreign key cannot be resolved with '{name=\"zz\"}' for an existing 'services' entity";
    assert_eq!(wrong["fields"], json!({"service": {"name": inner}}));
}

#[test]
fn a_name_that_no_entity_can_have_is_code_10() {
    let gateway = Gateway::start();
    let of_names = "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~";
    for (path, expected) in [
        ("/services/a%20b", of_names),
        ("/routes/a%20b", of_names),
        ("/services/a%20b/routes", of_names),
        (
            "/upstreams/1.2.3.4",
            "Invalid name ('1.2.3.4'); no ip addresses allowed",
        ),
        (
            "/upstreams/a%20b/targets",
            "Invalid name ('a b'); must be a valid hostname",
        ),
    ] {
        let item = path.matches('/').count() == 2;
        let methods: &[&str] = if item {
            &["GET", "PUT", "PATCH", "DELETE"]
        } else {
            &["GET", "POST"]
        };
        for method in methods {
            let fields: &[(&str, &str)] = match *method {
                "GET" | "DELETE" => &[],
                _ => &[("host", "h")],
            };
            let wrong = gateway.admin(method, path, fields).expect(400).json();
            let expected = json!({"code": 10, "name": "invalid unique name", "message": expected});
            assert_eq!(wrong, expected, "{method} {path}");
        }
    }
}

#[test]
fn an_invalid_unit_is_refused_with_the_valid_ones() {
    let gateway = Gateway::start();
    let wrong = gateway.admin("GET", "/status?unit=V", &[]).expect(400);
    let expected = json!({"message": "invalid unit 'V' (expected 'k/K', 'm/M', or 'g/G')"});
    assert_eq!(wrong.json(), expected);
    let wrong = gateway.admin("GET", "/status?scale=-1", &[]).expect(400);
    let expected = json!({"message": "scale must be equal or greater than 0"});
    assert_eq!(wrong.json(), expected);
    for query in [
        "unit=k",
        "unit=K&scale=0",
        "unit=g&scale=3",
        "unit=b",
        "unit=",
        "scale=x",
    ] {
        let path = format!("/status?{query}");
        gateway.admin("GET", &path, &[]).expect(200);
    }
}
