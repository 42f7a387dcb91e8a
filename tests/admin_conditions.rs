//! Conditional requests to the Admin API: `ETag`, `If-Match`, `If-None-Match`.

use serde_json::{Value, json};

use crate::harness::{Gateway, Reply};

fn send(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    document: Option<Value>,
) -> Reply {
    let body = document.map(|document| ("application/json", document.to_string().into_bytes()));
    gateway.send(gateway.admin, method, path, headers, body)
}

/// A gateway with the service `s` and its route `r`.
fn with_service() -> Gateway {
    let gateway = Gateway::start();
    let service = json!({"name": "s", "host": "h"});
    send(&gateway, "POST", "/services", &[], Some(service)).expect(201);
    let route = json!({"name": "r", "paths": ["/"]});
    send(&gateway, "POST", "/services/s/routes", &[], Some(route)).expect(201);
    gateway
}

#[test]
fn every_answer_with_one_row_has_its_etag() {
    let gateway = with_service();
    let tag = |method, path, document| {
        let reply = send(&gateway, method, path, &[], document);
        assert!(reply.status < 300, "{method} {path}: {}", reply.text());
        reply.header("etag").to_owned()
    };
    let written = tag("PATCH", "/services/s", Some(json!({"port": 81})));
    assert!(
        written.starts_with('"') && written.ends_with('"'),
        "{written}"
    );
    for path in ["/services/s", "/routes/r/service"] {
        assert_eq!(tag("GET", path, None), written, "{path}");
        assert_eq!(tag("HEAD", path, None), written, "{path}");
    }
    let replaced = tag("PUT", "/services/s", Some(json!({"host": "i"})));
    assert_ne!(replaced, written);
    assert_eq!(tag("GET", "/services/s", None), replaced);
    let route = tag("GET", "/services/s/routes/r", None);
    assert_eq!(tag("GET", "/routes/r", None), route);
    let made = tag("POST", "/services", Some(json!({"name": "t", "host": "h"})));
    assert_eq!(tag("GET", "/services/t", None), made);
    // A change of another row changes nothing.
    assert_eq!(tag("GET", "/services/s", None), replaced);
    assert_eq!(tag("GET", "/services", None), "");
}

#[test]
fn a_row_that_has_not_changed_is_not_sent_again() {
    let gateway = with_service();
    for path in ["/services/s", "/services/s/routes/r", "/routes/r/service"] {
        let tag = send(&gateway, "GET", path, &[], None)
            .header("etag")
            .to_owned();
        let same = send(&gateway, "GET", path, &[("if-none-match", &tag)], None).expect(304);
        assert!(same.body.is_empty());
        assert_eq!(same.header("etag"), tag);
        let other = [("if-none-match", "\"0\"")];
        send(&gateway, "GET", path, &other, None).expect(200);
        send(&gateway, "GET", path, &[("if-match", "\"0\"")], None).expect(412);
    }
}

#[test]
fn a_write_with_another_etag_changes_nothing() {
    let gateway = with_service();
    let shown = |path: &str| send(&gateway, "GET", path, &[], None).expect(200);
    let stale = shown("/services/s").header("etag").to_owned();
    send(
        &gateway,
        "PATCH",
        "/services/s",
        &[],
        Some(json!({"port": 81})),
    )
    .expect(200);
    for (path, document) in [
        ("/services/s", json!({"host": "stale"})),
        ("/routes/r/service", json!({"host": "stale"})),
        ("/services/s/routes/r", json!({"paths": ["/stale"]})),
    ] {
        let before = shown(path);
        for method in ["PUT", "PATCH", "DELETE"] {
            if (method, path) == ("DELETE", "/routes/r/service") {
                continue;
            }
            let body = (method != "DELETE").then(|| document.clone());
            for wrong in [&*stale, "\"0\"", "W/\"1\"", "no tag"] {
                let headers = [("if-match", wrong)];
                let refused = send(&gateway, method, path, &headers, body.clone()).expect(412);
                let message = refused.json()["message"].as_str().unwrap().to_owned();
                assert!(message.contains(before.header("etag")), "{message}");
            }
        }
        assert_eq!(shown(path).text(), before.text(), "{path}");
    }
    let tag = shown("/services/s").header("etag").to_owned();
    let current = [("if-match", &*tag)];
    let changed = send(
        &gateway,
        "PATCH",
        "/services/s",
        &current,
        Some(json!({"port": 82})),
    );
    let changed = changed.expect(200);
    let current = [("if-match", changed.header("etag"))];
    let replaced = send(
        &gateway,
        "PUT",
        "/services/s",
        &current,
        Some(json!({"host": "i"})),
    );
    replaced.expect(200);
    let tag = shown("/services/s/routes/r").header("etag").to_owned();
    let current = [("if-match", &*tag)];
    send(&gateway, "DELETE", "/services/s/routes/r", &current, None).expect(204);
    send(
        &gateway,
        "DELETE",
        "/services/s",
        &[("if-match", "*")],
        None,
    )
    .expect(204);
}

#[test]
fn what_is_absent_matches_nothing() {
    let gateway = Gateway::start();
    let body = || Some(json!({"host": "h"}));
    let exists = [("if-match", "*")];
    send(&gateway, "PUT", "/services/new", &exists, body()).expect(412);
    send(&gateway, "DELETE", "/services/new", &exists, None).expect(412);
    send(&gateway, "PATCH", "/services/new", &exists, body()).expect(404);
    send(&gateway, "GET", "/services/new", &exists, None).expect(404);
    let absent = [("if-none-match", "*")];
    send(&gateway, "PUT", "/services/new", &absent, body()).expect(200);
    send(&gateway, "PUT", "/services/new", &absent, body()).expect(412);
}

#[test]
fn of_parallel_changes_with_etags_none_is_lost() {
    let gateway = with_service();
    let port = || {
        let service = send(&gateway, "GET", "/services/s", &[], None).expect(200);
        let port = service.json()["port"].as_u64().unwrap();
        (port, service.header("etag").to_owned())
    };
    let (first, _) = port();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut done = 0;
                while done < 10 {
                    let (port, tag) = port();
                    let headers = [("if-match", &*tag)];
                    let next = Some(json!({"port": port + 1}));
                    let reply = send(&gateway, "PATCH", "/services/s", &headers, next);
                    match reply.status {
                        200 => done += 1,
                        status => assert_eq!(status, 412, "{}", reply.text()),
                    }
                }
            });
        }
    });
    assert_eq!(port().0, first + 80);
}
