//! The Admin API in Kong's dialect. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw};

/// The JSON of an answer without what differs from run to run.
fn shape(mut row: Value) -> Value {
    let fields = row.as_object_mut().unwrap();
    for name in ["id", "created_at", "updated_at"] {
        assert!(fields.remove(name).is_some(), "{name} is missing");
    }
    row
}

#[test]
fn rows_have_kongs_defaults() {
    let gateway = Gateway::start();
    let service = gateway.admin(
        "POST",
        "/services",
        &[("name", "s"), ("url", "https://httpbin.konghq.com")],
    );
    assert_eq!(
        shape(service.expect(201).json()),
        json!({
            "name": "s", "protocol": "https", "host": "httpbin.konghq.com", "port": 443, "path": null,
            "retries": 5, "connect_timeout": 60000, "write_timeout": 60000, "read_timeout": 60000,
            "client_certificate": null, "tls_verify": null, "tls_verify_depth": null,
            "ca_certificates": null, "enabled": true, "tags": null,
        })
    );
    let id = gateway.admin("GET", "/services/s", &[]).json()["id"].clone();
    let route = gateway.admin(
        "POST",
        "/services/s/routes",
        &[("paths[]", "/mock"), ("name", "r")],
    );
    assert_eq!(
        shape(route.expect(201).json()),
        json!({
            "name": "r", "protocols": ["http", "https"], "methods": null, "hosts": null,
            "paths": ["/mock"], "headers": null, "snis": null, "sources": null, "destinations": null,
            "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
            "path_handling": "v0", "preserve_host": false, "request_buffering": true,
            "response_buffering": true, "service": {"id": id}, "tags": null,
        })
    );
    let upstream = gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201)
        .json();
    let upstream_id = upstream["id"].clone();
    assert_eq!(
        shape(upstream),
        json!({
            "name": "u", "algorithm": "round-robin", "hash_on": "none", "hash_fallback": "none",
            "hash_on_header": null, "hash_fallback_header": null, "hash_on_cookie": null,
            "hash_on_cookie_path": "/", "hash_on_query_arg": null, "hash_fallback_query_arg": null,
            "hash_on_uri_capture": null, "hash_fallback_uri_capture": null, "slots": 10000,
            "host_header": null, "client_certificate": null, "use_srv_name": false, "tags": null,
            "healthchecks": {
                "threshold": 0,
                "active": {
                    "type": "http", "timeout": 1, "concurrency": 10, "http_path": "/",
                    "https_sni": null, "https_verify_certificate": true, "headers": null,
                    "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
                    "unhealthy": {
                        "interval": 0, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                        "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
                    },
                },
                "passive": {
                    "type": "http",
                    "healthy": {
                        "http_statuses": [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301,
                            302, 303, 304, 305, 306, 307, 308],
                        "successes": 0,
                    },
                    "unhealthy": {
                        "http_statuses": [429, 500, 503],
                        "tcp_failures": 0, "timeouts": 0, "http_failures": 0,
                    },
                },
            },
        })
    );
    let target = gateway.admin("POST", "/upstreams/u/targets", &[("target", "A.example")]);
    let target = target.expect(201).json();
    assert!(target["created_at"].is_f64());
    assert_eq!(
        shape(target),
        json!({"target": "A.example:8000", "weight": 100, "upstream": {"id": upstream_id}, "tags": null})
    );
}

#[test]
fn put_replaces_patch_merges_and_delete_can_be_repeated() {
    let gateway = Gateway::start();
    let made = gateway
        .admin("PUT", "/services/s", &[("host", "h"), ("retries", "9")])
        .expect(200)
        .json();
    assert_eq!((&made["name"], &made["retries"]), (&json!("s"), &json!(9)));
    let replaced = gateway
        .admin("PUT", "/services/s", &[("host", "g")])
        .expect(200)
        .json();
    assert_eq!(replaced["id"], made["id"]);
    assert_eq!(
        (&replaced["host"], &replaced["retries"]),
        (&json!("g"), &json!(5))
    );
    let patched = gateway
        .admin_json(
            "PATCH",
            "/services/s",
            &json!({"path": "/p", "tags": ["b", "a", "b"]}),
        )
        .expect(200)
        .json();
    assert_eq!(
        (&patched["path"], &patched["host"]),
        (&json!("/p"), &json!("g"))
    );
    assert_eq!(patched["tags"], json!(["b", "a"]));
    let cleared = gateway
        .admin_json("PATCH", "/services/s", &json!({"path": null}))
        .expect(200)
        .json();
    assert_eq!(cleared["path"], Value::Null);
    let refused = gateway
        .admin_json("PATCH", "/services/s", &json!({"host": null}))
        .expect(400)
        .json();
    assert_eq!(refused["fields"], json!({"host": "required field missing"}));

    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let deep = [("healthchecks.passive.unhealthy.timeouts", "3")];
    let deep = gateway
        .admin("PATCH", "/upstreams/u", &deep)
        .expect(200)
        .json();
    assert_eq!(deep["healthchecks"]["passive"]["unhealthy"]["timeouts"], 3);
    assert_eq!(deep["healthchecks"]["active"]["timeout"], 1);

    gateway.admin("DELETE", "/services/s", &[]).expect(204);
    gateway.admin("DELETE", "/services/s", &[]).expect(204);
    gateway
        .admin("DELETE", "/upstreams/u/targets/z:1", &[])
        .expect(404);
}

#[test]
fn nested_paths_reach_children_and_parents() {
    let gateway = Gateway::start();
    for name in ["a", "b"] {
        gateway
            .admin("POST", "/services", &[("name", name), ("host", "h")])
            .expect(201);
        let routes = format!("/services/{name}/routes");
        gateway
            .admin(
                "POST",
                &routes,
                &[("name", &format!("r-{name}")), ("paths[]", "/")],
            )
            .expect(201);
    }
    let listed = gateway
        .admin("GET", "/services/a/routes", &[])
        .expect(200)
        .json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["next"], Value::Null);
    gateway
        .admin("GET", "/services/a/routes/r-a", &[])
        .expect(200);
    gateway
        .admin("GET", "/services/a/routes/r-b", &[])
        .expect(404);
    let of_route = gateway
        .admin("GET", "/routes/r-b/service", &[])
        .expect(200)
        .json();
    assert_eq!(of_route["name"], "b");
    let patched = gateway
        .admin("PATCH", "/routes/r-b/service", &[("retries", "1")])
        .expect(200)
        .json();
    assert_eq!(patched["retries"], 1);
    gateway
        .admin("DELETE", "/routes/r-b/service", &[])
        .expect(405);
    gateway
        .admin(
            "PATCH",
            "/services/a/routes/r-a",
            &[("strip_path", "false")],
        )
        .expect(200);
    gateway
        .admin("DELETE", "/services/a/routes/r-a", &[])
        .expect(204);
    gateway.admin("DELETE", "/services/a", &[]).expect(204);
}

#[test]
fn lists_are_paged_and_filtered_by_tags() {
    let gateway = Gateway::start();
    for number in 0..7 {
        let (name, tag) = (format!("s{number}"), format!("t{}", number % 2));
        let fields = [
            ("name", &*name),
            ("host", "h"),
            ("tags[]", "all"),
            ("tags[]", &tag),
        ];
        gateway.admin("POST", "/services", &fields).expect(201);
    }
    let mut path = "/services?size=3".to_owned();
    let mut names: Vec<Value> = Vec::new();
    let mut pages = 0;
    loop {
        let page = gateway.admin("GET", &path, &[]).expect(200).json();
        names.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["name"].clone()),
        );
        pages += 1;
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    names.sort_by_key(Value::to_string);
    names.dedup();
    assert_eq!((names.len(), pages), (7, 3));
    for (filter, count) in [
        ("all", 7),
        ("t0", 4),
        ("all,t1", 3),
        ("t0/t1", 7),
        ("none", 0),
    ] {
        let page = gateway
            .admin("GET", &format!("/services?tags={filter}"), &[])
            .expect(200)
            .json();
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{filter}");
    }
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    for port in 1..4 {
        gateway
            .admin(
                "POST",
                "/upstreams/u/targets",
                &[("target", &format!("a:{port}"))],
            )
            .expect(201);
    }
    let newest = gateway
        .admin("GET", "/upstreams/u/targets?size=2", &[])
        .expect(200)
        .json();
    assert_eq!(newest["data"][0]["target"], "a:3");
    assert_eq!(newest["offset"], "2");
    let all = gateway
        .admin("GET", "/upstreams/u/targets/all", &[])
        .expect(200)
        .json();
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
}

#[test]
fn bodies_are_read_in_every_content_type_that_kong_reads() {
    let gateway = Gateway::start();
    let send = |content_type: &str, body: &str| {
        let body = Some((content_type, body.as_bytes().to_vec()));
        gateway.send(gateway.admin, "POST", "/routes", &[], body)
    };
    let json = send("application/json; charset=utf-8", r#"{"paths": ["/j"]}"#)
        .expect(201)
        .json();
    assert_eq!(json["paths"], json!(["/j"]));
    let form = send(
        "application/x-www-form-urlencoded",
        "paths=/f&headers.x-v[]=1&methods[1]=GET",
    );
    let form = form.expect(201).json();
    assert_eq!(form["headers"], json!({"x-v": ["1"]}));
    assert_eq!(form["methods"], json!(["GET"]));
    let multipart = "--b\r\ncontent-disposition: form-data; name=\"paths[]\"\r\n\r\n/m\r\n\
                     --b\r\ncontent-disposition: form-data; name=\"strip_path\"\r\n\r\nfalse\r\n--b--\r\n";
    let multipart = send("multipart/form-data; boundary=b", multipart)
        .expect(201)
        .json();
    assert_eq!(multipart["paths"], json!(["/m"]));
    assert_eq!(multipart["strip_path"], false);
    let broken = send("application/json", "{").expect(400).json();
    assert_eq!(broken, json!({"message": "Cannot parse JSON body"}));
    assert!(send("text/plain", "x").expect(415).body.is_empty());
    let many: String = (0..1001).map(|n| format!("a{n}=1&")).collect();
    let many = send("application/x-www-form-urlencoded", &many)
        .expect(400)
        .json();
    assert_eq!(many, json!({"message": "Too many arguments"}));
    // A request without a content type and a body has no fields.
    let mut raw = Raw::connect(gateway.admin);
    raw.send(b"PUT /upstreams/u HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(raw.read_to_end().starts_with("HTTP/1.1 200"));
}

#[test]
fn every_answer_has_kongs_headers() {
    let gateway = Gateway::start();
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        gateway.send(gateway.admin, method, path, headers, None)
    };
    let plain = send("GET", "/services/", &[]).expect(200);
    assert_eq!(
        plain.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(plain.header("access-control-allow-origin"), "*");
    assert_eq!(plain.header("access-control-allow-credentials"), "true");
    assert_eq!(
        plain.header("server"),
        concat!("pointsman/", env!("CARGO_PKG_VERSION"))
    );
    assert!(plain.header("x-kong-admin-latency").parse::<u64>().is_ok());
    let origin = send("GET", "/services", &[("origin", "http://localhost:8002")]).expect(200);
    assert_eq!(
        origin.header("access-control-allow-origin"),
        "http://localhost:8002"
    );
    let options = send("OPTIONS", "/services/x", &[]).expect(204);
    assert_eq!(
        options.header("allow"),
        "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    );
    assert_eq!(
        options.header("access-control-allow-headers"),
        "Content-Type"
    );
    let wrong = send("DELETE", "/services", &[]).expect(405);
    assert_eq!(wrong.json(), json!({"message": "Method not allowed"}));
    assert!(send("HEAD", "/services", &[]).expect(200).body.is_empty());

    let root = send("GET", "/", &[]).expect(200).json();
    assert!(root["version"].as_str().unwrap().starts_with("3.9."));
    assert_eq!(root["configuration"]["database"], "postgres");
    let status = send("GET", "/status", &[]).expect(200).json();
    assert_eq!(status["database"]["reachable"], true);
    assert!(status["server"]["total_requests"].is_u64());
    send("GET", "/status?unit=x", &[]).expect(400);
    let endpoints = send("GET", "/endpoints", &[]).expect(200).json();
    let endpoints = endpoints["data"].as_array().unwrap();
    assert!(
        endpoints.contains(&json!("/upstreams/{upstreams}/targets/{targets}")),
        "{endpoints:?}"
    );
}

#[test]
fn concurrent_patches_are_all_kept() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    let fields = [
        "retries",
        "connect_timeout",
        "read_timeout",
        "write_timeout",
    ];
    std::thread::scope(|scope| {
        for field in fields {
            let gateway = &gateway;
            scope.spawn(move || {
                for value in 1..=20 {
                    let value = value.to_string();
                    gateway
                        .admin("PATCH", "/services/s", &[(field, &value)])
                        .expect(200);
                }
            });
        }
    });
    let row = gateway.admin("GET", "/services/s", &[]).expect(200).json();
    for field in fields {
        assert_eq!(row[field], 20, "{row}");
    }
}

#[test]
fn a_name_of_hexadecimal_digits_is_a_name() {
    let gateway = Gateway::start();
    let name = "0123456789abcdef0123456789abcdef";
    let made = gateway.admin("POST", "/services", &[("name", name), ("host", "h")]);
    let id = made.expect(201).json()["id"].clone();
    let path = format!("/services/{name}");
    let shown = gateway.admin("GET", &path, &[]).expect(200).json();
    assert_eq!(shown["id"], id);
    gateway.admin("PATCH", &path, &[("port", "81")]).expect(200);
    let path = format!("/services/{}", id.as_str().unwrap().to_uppercase());
    assert_eq!(gateway.admin("GET", &path, &[]).json()["port"], 81);
}
