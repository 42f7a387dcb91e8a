//! Headers, paths and queries are bytes (RFC 9110, 5.5): a request that has some that are not text
//! is served like any other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Raw, patch_upstream};

/// What a field may contain beside ASCII: UTF-8, Latin-1, a lone continuation byte.
const ODD: [&[u8]; 3] = ["é".as_bytes(), b"\xe9", b"\x80"];

fn with_backends() -> (Gateway, [Backend; 4]) {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    (gateway, backends)
}

/// The answer to a `GET` with these header lines, sent unchanged.
fn get(to: SocketAddr, path: &[u8], lines: &[&[u8]]) -> String {
    let mut request = [
        b"GET ",
        path,
        b" HTTP/1.1\r\nhost: h\r\nconnection: close\r\n",
    ]
    .concat();
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    Raw::connect(to).send(&request).read_to_end()
}

/// The value of a header of an answer; empty if there is no such header.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let lines = answer.lines().take_while(|line| !line.is_empty());
    let mut fields = lines.filter_map(|line| line.split_once(": "));
    let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value)
}

#[track_caller]
fn backend_of(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    header(answer, "x-backend")
}

/// Cookie lines with `pair`, beside cookies that are not text.
fn cookie_lines(pair: &[u8], odd: &[u8]) -> [Vec<u8>; 3] {
    [
        [b"cookie: ", pair, b"; theme=", odd].concat(),
        [b"cookie: theme=", odd, b"; ", pair].concat(),
        [b"cookie: ", odd, b"=1; ", odd, b";", pair].concat(),
    ]
}

#[test]
fn a_session_keeps_its_target_beside_cookies_that_are_not_text() {
    let (gateway, _backends) = with_backends();
    patch_upstream(
        &gateway,
        &json!({"algorithm": "sticky-sessions", "sticky_sessions_cookie": "session"}),
    );
    let first = get(gateway.proxy, b"/", &[]);
    let backend = backend_of(&first).to_owned();
    let cookie = header(&first, "set-cookie").split(';').next().unwrap();
    for odd in ODD {
        for line in cookie_lines(cookie.as_bytes(), odd) {
            for _ in 0..3 {
                let again = get(gateway.proxy, b"/", &[&line]);
                assert_eq!(backend_of(&again), backend, "{line:?}");
                assert_eq!(header(&again, "set-cookie"), "", "{line:?}");
            }
        }
    }
}

#[test]
fn a_hash_is_over_the_bytes_of_a_cookie() {
    let (gateway, _backends) = with_backends();
    patch_upstream(
        &gateway,
        &json!({
            "algorithm": "consistent-hashing", "hash_on": "cookie", "hash_on_cookie": "user",
            "hash_on_cookie_path": "/",
        }),
    );
    let place = |line: &[u8]| {
        let answer = get(gateway.proxy, b"/", &[line]);
        // The client has the cookie already, so none is set.
        assert_eq!(header(&answer, "set-cookie"), "", "{line:?}");
        backend_of(&answer).to_owned()
    };
    let usual = place(b"cookie: user=7");
    for odd in ODD {
        for line in cookie_lines(b"user=7", odd) {
            assert_eq!(place(&line), usual, "{line:?}");
        }
    }
    let places: BTreeSet<String> = (0x80..=0xff)
        .map(|byte| place(&[b"cookie: user=", &[byte][..]].concat()))
        .collect();
    assert_eq!(places.len(), 4, "{places:?}");
}

#[test]
fn a_hash_is_over_the_bytes_of_a_header_and_of_an_argument() {
    let (gateway, _backends) = with_backends();
    let hash_on = |kind: &str, name: &str| {
        patch_upstream(
            &gateway,
            &json!({
                "algorithm": "consistent-hashing", "hash_on": kind, format!("hash_on_{kind}"): name,
            }),
        );
    };
    hash_on("header", "x-user");
    let places: BTreeSet<String> = (0x80..=0xff)
        .map(|byte| {
            let line = [b"x-user: ", &[byte][..]].concat();
            backend_of(&get(gateway.proxy, b"/", &[&line])).to_owned()
        })
        .collect();
    assert_eq!(places.len(), 4, "{places:?}");
    hash_on("query_arg", "user");
    let places: BTreeSet<String> = (0x80..=0xff)
        .map(|byte: u8| {
            let path = format!("/?user=%{byte:02x}");
            backend_of(&get(gateway.proxy, path.as_bytes(), &[])).to_owned()
        })
        .collect();
    assert_eq!(places.len(), 4, "{places:?}");
    // An escaped and a plain argument have the same value.
    let place = |path: &str| backend_of(&get(gateway.proxy, path.as_bytes(), &[])).to_owned();
    for number in 0..8 {
        let (one, other) = (
            format!("/?user={number}+é"),
            format!("/?us%65r={number}%20%C3%A9"),
        );
        assert_eq!(place(&one), place(&other));
    }
}

#[test]
fn regular_expressions_match_bytes_that_are_not_text() {
    let (gateway, _backends) = with_backends();
    let routes = "/services/u-service/routes";
    for (path, header) in [
        ("~/files/[^/]+/(?<rest>.*)$", None),
        ("/mark", Some("~*^v.+\\d$")),
    ] {
        let mut route = json!({"paths": [path], "strip_path": false, "hosts": ["h"]});
        if let Some(pattern) = header {
            route["headers"] = json!({"x-mark": [pattern]});
        }
        gateway.admin_json("POST", routes, &route).expect(201);
    }
    // With this one deleted, the host `h` has only the two routes above.
    let catch_all = gateway.admin("GET", routes, &[]).json();
    let catch_all = catch_all["data"].as_array().unwrap();
    let catch_all = catch_all
        .iter()
        .find(|route| route["paths"] == json!(["/"]));
    let catch_all = format!("/routes/{}", catch_all.unwrap()["id"].as_str().unwrap());
    gateway.admin("DELETE", &catch_all, &[]).expect(204);
    patch_upstream(
        &gateway,
        &json!({
            "algorithm": "consistent-hashing", "hash_on": "uri_capture",
            "hash_on_uri_capture": "rest",
        }),
    );
    let places: BTreeSet<String> = (0x80..=0xff)
        .map(|byte: u8| {
            let path = format!("/files/%{byte:02x}x/%{byte:02x}");
            backend_of(&get(gateway.proxy, path.as_bytes(), &[])).to_owned()
        })
        .collect();
    assert_eq!(places.len(), 4, "{places:?}");
    for odd in ODD {
        let line = [b"x-mark: v", odd, b"7"].concat();
        backend_of(&get(gateway.proxy, b"/mark", &[&line]));
        let other = [b"x-mark: w", odd, b"7"].concat();
        let answer = get(gateway.proxy, b"/mark", &[&other]);
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
}

#[test]
fn a_load_report_is_read_beside_other_metrics() {
    for report in [
        "TEXT cpu_utilization=0.5, named_metrics.größe=1, named_metrics.queue_size=7",
        r#"JSON {"named_metrics": {"größe": 1, "queue_size": 7}, "cpu_utilization": 0.5}"#,
    ] {
        let (gateway, backends) = with_backends();
        let asks = json!({"balancer_config": {"hot_load": 0.9}});
        patch_upstream(
            &gateway,
            &json!({"algorithm": "prequal", "pointsman": asks}),
        );
        for backend in &backends {
            backend.respond_with_header("endpoint-load-metrics", report);
        }
        // Reports are read only once a balancer that needs them is in use.
        for _ in 0..20 {
            backend_of(&get(gateway.proxy, b"/", &[]));
        }
        let said = gateway.admin_json("POST", "/upstreams/u/explain", &json!({}));
        let said = said.expect(200).json();
        let endpoints = said["endpoints"].as_array().unwrap();
        let is_reported = |endpoint: &&Value| {
            (&endpoint["reported_load"], &endpoint["reported_queue"]) == (&json!(500), &json!(7))
        };
        assert!(
            endpoints.iter().any(|endpoint| is_reported(&endpoint)),
            "{said}"
        );
    }
}

#[test]
fn explain_takes_the_headers_that_a_real_request_may_have() {
    let (gateway, backends) = with_backends();
    patch_upstream(
        &gateway,
        &json!({
            "algorithm": "consistent-hashing", "hash_on": "cookie", "hash_on_cookie": "user",
            "hash_on_cookie_path": "/",
        }),
    );
    let address_of = |name: &str| {
        let named = ["a", "b", "c", "d"].iter().zip(&backends);
        let (_, backend) = named
            .into_iter()
            .find(|(found, _)| **found == name)
            .unwrap();
        backend.address.to_string()
    };
    for number in 0..8 {
        let cookie = format!("theme=é; user={number}ü");
        let line = format!("cookie: {cookie}");
        let real = get(gateway.proxy, b"/", &[line.as_bytes()]);
        let described = json!({"headers": {"cookie": cookie}});
        let said = gateway.admin_json("POST", "/upstreams/u/explain", &described);
        let said = said.expect(200).json();
        let address = address_of(backend_of(&real));
        assert_eq!(said["answers"][0]["address"], address, "{said}");
    }
    // The proxy answers a real request with this host with 400.
    let described = json!({"headers": {"host": "exämple.com"}});
    let said = gateway.admin_json("POST", "/upstreams/u/explain", &described);
    assert!(said.expect(400).text().contains("host"));
    let answer = Raw::connect(gateway.proxy)
        .send("GET / HTTP/1.1\r\nhost: exämple.com\r\nconnection: close\r\n\r\n".as_bytes())
        .read_to_end();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn lists_in_headers_are_read_past_bytes_that_are_not_text() {
    let (gateway, _backends) = with_backends();
    for odd in ODD {
        let te = [b"te: x", odd, b", trailers"].concat();
        let answer = get(gateway.proxy, b"/", &[&te]);
        assert!(answer.contains(r#""te":"trailers""#), "{answer}");
        let mut websocket = Raw::connect(gateway.proxy);
        websocket
            .send(b"GET /upgrade HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: x")
            .send(odd)
            .send(b", upgrade\r\n\r\n");
        let answer = websocket.read_until("\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        // An error of the gateway has the content type that the client accepts.
        gateway
            .admin("PATCH", "/services/u-service", &[("enabled", "false")])
            .expect(200);
        let accept = [b"accept: text/html, x/y;note=", odd].concat();
        let answer = get(gateway.proxy, b"/", &[&accept]);
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(
            header(&answer, "content-type").starts_with("text/html"),
            "{answer}"
        );
        gateway
            .admin("PATCH", "/services/u-service", &[("enabled", "true")])
            .expect(200);
    }
}

#[test]
fn the_admin_api_takes_headers_as_bytes_and_refuses_values_that_are_not_utf8() {
    let gateway = Gateway::start();
    let post = |content_type: &[u8], body: &[u8]| {
        let length = format!("\r\ncontent-length: {}\r\n\r\n", body.len());
        let head =
            b"POST /upstreams HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: ";
        let mut raw = Raw::connect(gateway.admin);
        raw.send(&[head, content_type, length.as_bytes(), body].concat())
            .read_to_end()
    };
    let form: &[u8] = b"application/x-www-form-urlencoded";
    let multipart: &[u8] = b"multipart/form-data; boundary=b";
    let part = |value: &[u8]| {
        let head = b"--b\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\n";
        [head, value, b"\r\n--b--\r\n"].concat()
    };
    for (number, odd) in ODD.iter().enumerate() {
        let name = format!("name=u{number}");
        let answer = post(&[form, b"; note=", odd].concat(), name.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let json = format!(r#"{{"name": "j{number}"}}"#);
        let json_type: &[u8] = b"application/json; note=";
        let answer = post(&[json_type, odd].concat(), json.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    // A value is stored as it was sent, or refused.
    for (content_type, body) in [
        (form, b"name=u&tags[]=a%ff".to_vec()),
        (form, b"name=u&tags[]=\xe9".to_vec()),
        (form, b"name=u&t%ff=1".to_vec()),
        (form, b"name=%ff".to_vec()),
        (multipart, part(b"a\xff")),
        (b"application/json", b"{\"name\": \"a\xff\"}".to_vec()),
    ] {
        let answer = post(content_type, &body);
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
    }
    let answer = post(form, b"name=u%ff");
    assert!(
        answer.contains("invalid utf-8 character sequence detected at position 2"),
        "{answer}"
    );
    let answer = post(multipart, &part(b"a"));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/prebuilt");
    let read = |name: &str| std::fs::read(folder.join(format!("{name}.wasm"))).unwrap();
    gateway.upload("b", read("random")).expect(201);
    for (name, odd) in ["p2c", "latency", "least-connections"].into_iter().zip(ODD) {
        let component = read(name);
        let head = format!(
            "POST /balancers/b/versions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/wasm\r\ncontent-length: {}\r\nprefer: x;y=",
            component.len()
        );
        let request = [head.as_bytes(), odd, b", respond-async\r\n\r\n", &component].concat();
        let answer = Raw::connect(gateway.admin).send(&request).read_to_end();
        let applied = header(&answer, "preference-applied");
        assert_eq!(applied, "respond-async", "{answer}");
    }
}
