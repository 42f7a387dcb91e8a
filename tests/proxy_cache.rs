//! `proxy-cache`: what is stored, for which requests, and how long.

use serde_json::{Value, json};

use crate::harness::{Gateway, RawServer, Reply, Setup, exchange, sha256, until};

pub(crate) const PLAIN: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n";

/// A server that answers the one request of each connection with what `respond` makes of its head.
pub(crate) fn origin(respond: impl Fn(&str) -> String + Send + Sync + 'static) -> RawServer {
    RawServer::start(move |_, mut raw| {
        let head = raw.read_until("\r\n\r\n");
        if head.ends_with("\r\n\r\n") {
            let response = respond(&head);
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            raw.send(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes());
        }
    })
}

/// A gateway before this server, with a cache for all its requests.
pub(crate) fn cached(origin: &RawServer, config: Value) -> Gateway {
    cached_with(Setup::new(), origin, config)
}

pub(crate) fn cached_with(setup: Setup, origin: &RawServer, mut config: Value) -> Gateway {
    let gateway = setup.start();
    gateway.balanced(&[(origin.address, 100)]);
    config["strategy"] = "memory".into();
    let plugin = json!({ "name": "proxy-cache", "config": config });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    gateway
}

#[track_caller]
pub(crate) fn status(reply: &Reply) -> String {
    reply.header("x-cache-status").to_owned()
}

/// The values of `X-Cache-Status` of these requests, one after another.
fn statuses(gateway: &Gateway, requests: &[(&str, &[(&str, &str)])]) -> Vec<String> {
    let requests = requests.iter();
    requests
        .map(|(path, headers)| status(&gateway.get_with(path, headers)))
        .collect()
}

#[test]
fn a_change_of_protocol_passes_the_cache_by() {
    let origin = origin(|_| format!("{PLAIN}\r\nok"));
    let gateway = cached(&origin, json!({}));
    let found = statuses(
        &gateway,
        &[("/", &[]), ("/", &[("upgrade", "websocket")]), ("/", &[])],
    );
    assert_eq!(found, ["Miss", "Bypass", "Hit"]);
}

#[test]
fn a_response_is_given_once_more_without_asking_the_endpoint() {
    let origin = origin(|_| format!("{PLAIN}etag: \"a\"\r\nserver: origin\r\nx-a: b\r\n\r\nok"));
    let gateway = cached(&origin, json!({}));
    let miss = gateway.get("/a?b=1&a=2").expect(200);
    assert_eq!(status(&miss), "Miss");
    assert_eq!(miss.header("age"), "");
    let hit = gateway.get("/a?a=2&b=1").expect(200);
    assert_eq!((status(&hit).as_str(), hit.text().as_str()), ("Hit", "ok"));
    assert_eq!(origin.accepted(), 1);
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "2"),
        ("server", "origin"),
        ("x-a", "b"),
        ("x-kong-upstream-latency", "0"),
    ] {
        assert_eq!(hit.header(name), value, "{name}");
    }
    assert!(hit.header("via").contains("pointsman"));
    assert!(hit.headers.contains_key("x-kong-proxy-latency"));
    assert!(hit.header("age").parse::<u64>().unwrap() < 30);
    assert_ne!(
        hit.header("x-kong-request-id"),
        miss.header("x-kong-request-id")
    );
    let routes = gateway.admin("GET", "/routes", &[]).expect(200).json();
    let route = routes["data"][0]["id"].as_str().unwrap();
    let key = sha256(format!("{route}|GET|GET /a|a=2:b=1|").as_bytes());
    assert_eq!(hit.header("x-cache-key"), key);
    assert_eq!(miss.header("x-cache-key"), key);
}

#[test]
fn what_is_not_for_the_cache_passes_it_by() {
    let origin = origin(|head| {
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/error" => PLAIN.replace("200 OK", "500 Error") + "\r\nok",
            "/untyped" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(),
            "/charset" => PLAIN.replace("plain", "plain; charset=utf-8") + "\r\nok",
            "/html" => PLAIN.replace("plain", "html") + "\r\nok",
            "/any" => format!("{PLAIN}vary: *\r\n\r\nok"),
            "/part" => format!("{PLAIN}content-range: bytes 0-1/9\r\n\r\nok"),
            _ => format!("{PLAIN}\r\nok"),
        }
    });
    let gateway = cached(&origin, json!({ "response_code": [200, 206, 304] }));
    for path in ["/error", "/untyped", "/charset", "/html", "/any", "/part"] {
        for _ in 0..2 {
            let reply = gateway.get(path);
            assert_eq!(status(&reply), "Bypass", "{path}");
            assert_eq!(reply.header("x-cache-key").len(), 64, "{path}");
        }
    }
    let posted = gateway.send(gateway.proxy, "POST", "/", &[], None);
    assert_eq!(status(&posted), "Bypass");
    assert_eq!(posted.header("x-cache-key"), "");
    // An answer of the gateway itself.
    gateway.admin("PATCH", "/upstreams/u", &[("name", "v")]);
    assert_eq!(status(&gateway.get("/none").expect(503)), "Bypass");
}

#[test]
fn headers_about_the_cache_can_be_left_out() {
    let origin = origin(|_| format!("{PLAIN}\r\nok"));
    let shown = json!({ "age": false, "X-Cache-Status": false, "X-Cache-Key": false });
    let gateway = cached(&origin, json!({ "response_headers": shown }));
    for _ in 0..2 {
        let reply = gateway.get("/").expect(200);
        for name in ["age", "x-cache-status", "x-cache-key"] {
            assert!(!reply.headers.contains_key(name), "{name}");
        }
    }
    let debugged = gateway.get_with("/", &[("kong-debug", "1")]).expect(200);
    assert_eq!(status(&debugged), "Hit");
    for name in ["age", "x-cache-key"] {
        assert!(debugged.headers.contains_key(name), "{name}");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_response_that_is_too_old_is_fetched_anew() {
    let origin = origin(|_| format!("{PLAIN}\r\nok"));
    let gateway = cached(&origin, json!({ "cache_ttl": 1, "storage_ttl": 1000 }));
    assert_eq!(status(&gateway.get("/")), "Miss");
    let mut last = String::new();
    until("the response is too old", || {
        last = status(&gateway.get("/"));
        last != "Hit"
    });
    assert_eq!(last, "Refresh");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn cache_control_decides_where_it_counts() {
    let origin = origin(|head| {
        let directives = match head.split(' ').nth(1).unwrap() {
            "/private" => "private, max-age=60",
            "/no-store" => "no-store",
            "/silent" => "public",
            _ => "max-age=60",
        };
        format!("{PLAIN}cache-control: {directives}\r\n\r\nok")
    });
    let gateway = cached(&origin, json!({ "cache_control": true }));
    for path in ["/private", "/no-store", "/silent"] {
        assert_eq!(
            statuses(&gateway, &[(path, &[]), (path, &[])]),
            ["Bypass"; 2]
        );
    }
    let only_if_cached = [("cache-control", "only-if-cached")];
    let none = gateway.get_with("/", &only_if_cached).expect(504);
    assert_eq!(none.text(), "");
    assert_eq!(none.header("x-cache-key").len(), 64);
    assert_eq!(
        statuses(
            &gateway,
            &[
                ("/", &[]),
                ("/", &[]),
                ("/", &only_if_cached),
                ("/", &[("cache-control", "no-cache")]),
                ("/", &[("cache-control", "no-store")]),
                ("/", &[("authorization", "Basic eA==")]),
                ("/", &[("cache-control", "min-fresh=100")]),
                ("/", &[("cache-control", "max-stale=100")]),
            ]
        ),
        [
            "Miss", "Hit", "Hit", "Bypass", "Bypass", "Bypass", "Refresh", "Hit"
        ]
    );
}

#[test]
fn what_a_response_says_of_its_freshness_is_read_in_every_form() {
    const LATER: &str = "expires: Fri, 31 Dec 9999 23:59:59 GMT";
    let origin = origin(|head| {
        let said = match head.split(' ').nth(1).unwrap() {
            "/other-bytes" => format!("cache-control: private, x=\"ü\"\r\n{LATER}"),
            "/quoted" => "cache-control: x=\"a, max-age=60, b\"".into(),
            "/old" => "cache-control: max-age=60\r\nage: 99999999999999999999999".into(),
            "/long" => "cache-control: max-age=99999999999999999999999".into(),
            "/form" => "expires: Fri Dec 31 23:59:59 9999".into(),
            "/greatest" => "cache-control: max-age=18446744073709551615\r\n\
                            age: 18446744073709551614"
                .into(),
            _ => "cache-control: max-age=60\r\nage: 40, 10".into(),
        };
        let status = match head.starts_with("GET /error ") {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        format!("{}{said}\r\n\r\nok", PLAIN.replace("200 OK", status))
    });
    let config = json!({ "cache_control": true, "response_code": [200, 503] });
    let gateway = cached(&origin, config);
    for (path, expected) in [
        ("/other-bytes", "Bypass"),
        ("/quoted", "Bypass"),
        ("/old", "Bypass"),
        ("/greatest", "Bypass"),
        ("/long", "Hit"),
        ("/form", "Hit"),
        ("/error", "Hit"),
    ] {
        let found = statuses(&gateway, &[(path, &[]), (path, &[])]);
        assert_eq!(found[1], expected, "{path}");
    }
    gateway.get("/aged").expect(200);
    let age: u64 = gateway.get("/aged").header("age").parse().unwrap();
    assert!((40..60).contains(&age), "{age}");
}

#[test]
fn requests_to_different_hosts_have_their_responses_beside_each_other() {
    let origin = origin(|_| format!("{PLAIN}\r\nok"));
    let gateway = cached(&origin, json!({}));
    let hosts: Vec<_> = (0..30).map(|number| format!("h{number}.example")).collect();
    for expected in ["Miss", "Hit"] {
        for host in &hosts {
            let reply = gateway.get_with("/", &[("host", host)]).expect(200);
            assert_eq!(status(&reply), expected, "{host}");
        }
    }
    let key = gateway.get_with("/", &[("host", &hosts[0])]);
    let path = format!("/proxy-cache/{}", key.header("x-cache-key"));
    let shown = gateway.admin("GET", &path, &[]).expect(200).json();
    assert_eq!(shown["variants"].as_array().unwrap().len(), 29);
    gateway.admin("DELETE", &path, &[]).expect(204);
    gateway.admin("GET", &path, &[]).expect(404);
    for host in &hosts {
        assert_eq!(status(&gateway.get_with("/", &[("host", host)])), "Miss");
    }
}

#[test]
fn a_client_gets_only_the_variant_that_it_can_read() {
    let origin = origin(|head| match head.contains("gzip") {
        true => format!("{PLAIN}vary: accept-encoding\r\ncontent-encoding: gzip\r\n\r\nzz"),
        false => format!("{PLAIN}vary: accept-encoding\r\n\r\nok"),
    });
    let gateway = cached(&origin, json!({}));
    let get = |encoding: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: h\r\naccept-encoding: {encoding}\r\nconnection: close\r\n\r\n"
        );
        exchange(gateway.proxy, &request)
    };
    for _ in 0..2 {
        let (zipped, plain) = (get("gzip"), get("identity"));
        assert!(zipped.ends_with("\r\n\r\nzz"), "{zipped}");
        assert!(plain.ends_with("\r\n\r\nok"), "{plain}");
        assert!(!plain.contains("content-encoding"), "{plain}");
    }
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_cookie_is_only_for_the_client_that_has_caused_the_response() {
    let origin = origin(|_| format!("{PLAIN}set-cookie: session=1\r\n\r\nok"));
    let gateway = cached(&origin, json!({}));
    assert_eq!(gateway.get("/").header("set-cookie"), "session=1");
    let hit = gateway.get("/");
    assert_eq!(status(&hit), "Hit");
    assert!(!hit.headers.contains_key("set-cookie"));
}

#[test]
fn every_form_of_a_complete_body_is_stored_and_no_other() {
    let origin = origin(|head| {
        let head_only = head.starts_with("HEAD");
        let chunked = PLAIN.replace("content-length: 2", "transfer-encoding: chunked");
        match head.split(' ').nth(1).unwrap() {
            "/empty" => PLAIN.replace("length: 2", "length: 0") + "\r\n",
            "/chunked" => format!("{chunked}\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
            "/trailers" => {
                format!("{chunked}trailer: x-a\r\n\r\n2\r\nok\r\n0\r\nx-a: b\r\n\r\n")
            }
            "/until-close" => PLAIN.replace("content-length: 2\r\n", "") + "\r\nok",
            "/broken" => PLAIN.replace("length: 2", "length: 3") + "\r\nok",
            "/broken-chunked" => format!("{chunked}\r\n2\r\nok\r\n"),
            _ if head_only => format!("{PLAIN}\r\n"),
            _ => format!("{PLAIN}\r\nok"),
        }
    });
    let gateway = cached(&origin, json!({}));
    let ask = |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        exchange(gateway.proxy, &request)
    };
    for (method, path, body, length) in [
        ("GET", "/empty", "", "0"),
        ("GET", "/chunked", "ok", "2"),
        ("GET", "/trailers", "ok", "2"),
        ("GET", "/until-close", "ok", "2"),
        ("GET", "/", "ok", "2"),
        ("HEAD", "/", "", "2"),
    ] {
        let miss = ask(method, path);
        assert!(miss.contains("x-cache-status: Miss\r\n"), "{path}: {miss}");
        let hit = ask(method, path);
        assert!(hit.contains("x-cache-status: Hit\r\n"), "{path}: {hit}");
        assert!(hit.ends_with(&format!("\r\n\r\n{body}")), "{path}: {hit}");
        let length = format!("content-length: {length}\r\n");
        assert!(hit.contains(&length), "{path}: {hit}");
    }
    for path in ["/broken", "/broken-chunked"] {
        for _ in 0..2 {
            let broken = ask("GET", path);
            assert!(
                broken.contains("x-cache-status: Miss\r\n"),
                "{path}: {broken}"
            );
        }
    }
}

#[test]
fn a_response_larger_than_a_sixteenth_of_the_memory_is_not_stored() {
    let length = (1 << 16) + 1;
    let body = "x".repeat(length);
    let origin = origin(move |head| {
        let known = PLAIN.replace("length: 2", &format!("length: {length}"));
        let unknown = PLAIN.replace("content-length: 2\r\n", "");
        match head.contains("/known") {
            true => format!("{known}\r\n{body}"),
            false => format!("{unknown}\r\n{body}"),
        }
    });
    let setup = Setup::new().arg("--proxy-cache-memory", "1");
    let gateway = cached_with(setup, &origin, json!({}));
    for (path, expected) in [("/known", "Bypass"), ("/unknown", "Miss")] {
        for _ in 0..2 {
            let reply = gateway.get(path).expect(200);
            assert_eq!(reply.body.len(), length);
            assert_eq!(status(&reply), expected, "{path}");
        }
    }
}

#[test]
fn range_and_conditional_requests_are_answered_from_the_cache() {
    let origin = origin(|head| match head.contains("range") {
        true => format!("{PLAIN}content-range: bytes 0-1/4\r\n\r\n01").replace("200", "206"),
        false => PLAIN.replace("length: 2", "length: 4") + "etag: \"a\"\r\n\r\n0123",
    });
    let gateway = cached(&origin, json!({}));
    let part = [("range", "bytes=0-1")];
    assert_eq!(status(&gateway.get_with("/", &part).expect(206)), "Bypass");
    assert_eq!(status(&gateway.get("/").expect(200)), "Miss");
    let reply = gateway.get_with("/", &[("range", "bytes=1-2")]).expect(206);
    assert_eq!(
        (status(&reply).as_str(), reply.text().as_str()),
        ("Hit", "12")
    );
    assert_eq!(reply.header("content-range"), "bytes 1-2/4");
    let reply = gateway.get_with("/", &[("range", "bytes=9-")]).expect(416);
    assert_eq!(reply.header("content-range"), "bytes */4");
    let reply = gateway.get_with("/", &[("if-none-match", "\"a\"")]);
    let reply = reply.expect(304);
    assert_eq!((reply.text().as_str(), reply.header("etag")), ("", "\"a\""));
    assert_eq!(status(&reply), "Hit");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn invented_codings_push_out_no_variant() {
    let origin = origin(|head| match head.contains("gzip") {
        true => format!("{PLAIN}vary: accept-encoding\r\ncontent-encoding: gzip\r\n\r\nzz"),
        false => format!("{PLAIN}vary: accept-encoding\r\n\r\nok"),
    });
    let gateway = cached(&origin, json!({}));
    let get = |accepted: &str| {
        let reply = gateway.get_with("/", &[("accept-encoding", accepted)]);
        (status(&reply), reply.body)
    };
    assert_eq!(get("gzip").0, "Miss");
    assert_eq!(get("identity").0, "Miss");
    for number in 0..40 {
        let (coded, plain) = (get(&format!("gzip, x{number}")), get(&format!("x{number}")));
        assert_eq!(coded, ("Hit".to_owned(), b"zz".to_vec()));
        assert_eq!(plain, ("Hit".to_owned(), b"ok".to_vec()));
    }
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_policy_changes_a_response_of_the_cache_once() {
    let origin = origin(|_| format!("{PLAIN}\r\nok"));
    let gateway = cached(&origin, json!({}));
    let cors = json!({ "name": "cors", "config": { "origins": ["http://a.example"] } });
    gateway.admin_json("POST", "/plugins", &cors).expect(201);
    for expected in ["Miss", "Hit"] {
        let reply = gateway.get("/").expect(200);
        assert_eq!(status(&reply), expected);
        let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Origin"]);
    }
}

#[test]
fn responses_are_read_and_removed_by_their_keys() {
    let origin = origin(|_| format!("{PLAIN}x-a: b\r\n\r\nok"));
    let gateway = cached(&origin, json!({ "cache_ttl": 77 }));
    let key = gateway.get("/").header("x-cache-key").to_owned();
    let plugins = gateway.admin("GET", "/plugins", &[]).expect(200).json();
    let plugin = plugins["data"][0]["id"].as_str().unwrap().to_owned();
    for path in [
        format!("/proxy-cache/{key}"),
        format!("/proxy-cache/{plugin}/caches/{key}"),
    ] {
        let shown = gateway.admin("GET", &path, &[]).expect(200).json();
        assert_eq!(shown["status"], 200);
        assert_eq!(shown["headers"]["x-a"], "b");
        assert_eq!(shown["headers"]["X-Cache-Key"], key);
        assert_eq!(shown["body"], "ok");
        assert_eq!(shown["body_len"], 2);
        assert_eq!(shown["ttl"], 77);
        assert_eq!(status(&gateway.get("/")), "Hit");
        gateway.admin("DELETE", &path, &[]).expect(204);
        gateway.admin("DELETE", &path, &[]).expect(404);
        gateway.admin("GET", &path, &[]).expect(404);
        assert_eq!(status(&gateway.get("/")), "Miss");
    }
    gateway.admin("DELETE", "/proxy-cache", &[]).expect(204);
    assert_eq!(status(&gateway.get("/")), "Miss");
    gateway.admin("GET", "/proxy-cache/x", &[]).expect(404);
    let other = format!("/proxy-cache/{}/caches/{key}", uuid_of(&gateway));
    gateway.admin("GET", &other, &[]).expect(404);
}

/// The id of an entity that is no plugin.
fn uuid_of(gateway: &Gateway) -> String {
    let routes = gateway.admin("GET", "/routes", &[]).expect(200).json();
    routes["data"][0]["id"].as_str().unwrap().to_owned()
}
