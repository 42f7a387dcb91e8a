#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::authority::Authority;
use crate::pattern::PATTERN_MEMORY;

fn route(name: &str, id: u128, fields: Value) -> Arc<Route> {
    let mut row = json!({
        "id": Uuid::from_u128(id), "name": name, "protocols": ["http", "https"],
        "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
        "preserve_host": false, "request_buffering": true, "service": null,
    });
    for (key, value) in fields.as_object().unwrap() {
        row[key] = value.clone();
    }
    let row = serde_json::from_value(row).unwrap();
    Arc::new(Route::compile(row, PATTERN_MEMORY).unwrap())
}

/// Which of the routes (by id) answers `GET http://host/path`.
fn answers(routes: &[Arc<Route>], host: &str, path: &str) -> Option<u128> {
    answers_with(routes, host, path, &HeaderMap::new())
}

fn answers_with(
    routes: &[Arc<Route>],
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> Option<u128> {
    let router = Router::new(routes.iter().cloned());
    let authority = Authority::parse(host).unwrap();
    let query = Query {
        method: &Method::GET,
        host: authority.host.as_str(),
        port: authority.port.unwrap_or(8000),
        path: path.as_bytes(),
        headers,
    };
    router.route(&query).map(|found| found.route.id.as_u128())
}

#[test]
fn a_prefix_is_a_plain_string_prefix() {
    let routes = [route("r", 1, json!({"paths": ["/x"]}))];
    assert_eq!(answers(&routes, "h", "/xyz"), Some(1));
    assert_eq!(answers(&routes, "h", "/y"), None);
}

#[test]
fn a_longer_prefix_wins() {
    let routes = [
        route("long", 1, json!({"paths": ["/a/b"]})),
        route("short", 2, json!({"paths": ["/a"]})),
    ];
    assert_eq!(answers(&routes, "h", "/a/b/c"), Some(1));
    assert_eq!(answers(&routes, "h", "/a/c"), Some(2));
}

#[test]
fn more_criteria_win_over_a_longer_path() {
    let routes = [
        route("both", 1, json!({"paths": ["/"], "methods": ["GET"]})),
        route("path", 2, json!({"paths": ["/a/b/c"]})),
    ];
    assert_eq!(answers(&routes, "h", "/a/b/c"), Some(1));
}

#[test]
fn a_regex_wins_over_any_prefix_and_by_its_priority() {
    let routes = [
        route("prefix", 1, json!({"paths": ["/a/b/c/d"]})),
        route("regex", 2, json!({"paths": [r"~/a/\w+"]})),
        route(
            "urgent",
            3,
            json!({"paths": [r"~/a/b/\w+$"], "regex_priority": 5}),
        ),
    ];
    assert_eq!(answers(&routes, "h", "/a/b/c/d"), Some(2));
    assert_eq!(answers(&routes, "h", "/a/b/c"), Some(3));
}

#[test]
fn a_regex_is_anchored_at_the_start_only() {
    let routes = [route("r", 1, json!({"paths": [r"~/v\d"]}))];
    assert_eq!(answers(&routes, "h", "/v1/x"), Some(1));
    assert_eq!(answers(&routes, "h", "/api/v1"), None);
}

#[test]
fn hosts_match_exactly_by_wildcard_and_by_port() {
    let routes = [
        route("exact", 1, json!({"hosts": ["a.example.com"]})),
        route("left", 2, json!({"hosts": ["*.example.com"]})),
        route("right", 3, json!({"hosts": ["example.*"]})),
        route("port", 4, json!({"hosts": ["p.test:8443"]})),
    ];
    assert_eq!(answers(&routes, "A.example.com:99", "/"), Some(1));
    assert_eq!(answers(&routes, "x.y.example.com", "/"), Some(2));
    assert_eq!(answers(&routes, "example.org", "/"), Some(3));
    assert_eq!(answers(&routes, "p.test:8443", "/"), Some(4));
    assert_eq!(answers(&routes, "p.test", "/"), None);
    assert_eq!(answers(&routes, "example", "/"), None);
}

#[test]
fn all_names_of_headers_and_any_value_of_each_must_match() {
    let routes = [route(
        "r",
        1,
        json!({"headers": {"x-a": ["One", "two"], "x-b": ["~*^v[0-9]$"]}}),
    )];
    let mut headers = HeaderMap::new();
    headers.insert("x-a", "ONE".parse().unwrap());
    assert_eq!(answers_with(&routes, "h", "/", &headers), None);
    headers.insert("x-b", "V7".parse().unwrap());
    assert_eq!(answers_with(&routes, "h", "/", &headers), Some(1));
}

#[test]
fn of_equal_routes_the_one_whose_host_matches_more_closely_wins() {
    for (close, far) in [
        ("example.com:8000", "example.com"),
        ("*.example.com:8000", "*.example.com"),
        ("a.*:8000", "a.*"),
        ("*.example.com", "*.com"),
        ("a.example.*", "a.*"),
        ("*.example.com", "a.*"),
    ] {
        for ids in [[1, 2], [2, 1]] {
            // A wildcard that does not match, so that both have the same priority.
            let hosts = |host| json!({"hosts": [host, "*.other.test", "other.test:1"]});
            let routes = [
                route("close", ids[0], hosts(close)),
                route("far", ids[1], hosts(far)),
            ];
            let host = if close.starts_with("example") {
                "example.com"
            } else {
                "a.example.com"
            };
            let taken = answers(&routes, host, "/");
            assert_eq!(taken, Some(ids[0]), "{close} before {far}");
        }
    }
}

#[test]
fn of_equal_routes_the_greater_id_wins() {
    let routes = [
        route("a", 1, json!({"paths": ["/"]})),
        route("b", 2, json!({"paths": ["/"]})),
    ];
    assert_eq!(answers(&routes, "h", "/"), Some(2));
}

#[test]
fn a_route_for_streams_answers_no_request() {
    let routes = [route("r", 1, json!({"protocols": ["tcp"], "paths": ["/"]}))];
    assert_eq!(answers(&routes, "h", "/"), None);
}

/// A route as the law below makes it.
fn any_route() -> impl Strategy<Value = Value> {
    let paths = prop::option::of(prop::collection::vec("/[ab]{0,3}|~/[ab]{1,2}", 1..3));
    let hosts = prop::option::of(prop::collection::vec(
        "[ab]\\.c|\\*\\.c|a\\.\\*|[ab]\\.c:8000",
        1..3,
    ));
    let methods = prop::option::of(prop::sample::subsequence(vec!["GET", "PUT"], 1..=2));
    (paths, hosts, methods, 0_u32..3).prop_map(|(paths, hosts, methods, regex_priority)| {
        json!({"paths": paths, "hosts": hosts, "methods": methods, "regex_priority": regex_priority})
    })
}

proptest! {
    /// The index finds what a scan over all entries in their order finds.
    #[test]
    fn the_index_agrees_with_a_scan(
        fields in prop::collection::vec(any_route(), 1..8),
        host in "[ab]\\.c|a\\.d|x\\.y\\.c",
        path in "/[ab]{0,4}",
    ) {
        let routes: Vec<_> = fields
            .into_iter()
            .enumerate()
            .map(|(index, fields)| route("r", index as u128 + 1, fields))
            .collect();
        prop_assert_eq!(answers(&routes, &host, &path), scan(&routes, &host, &path));
    }
}

fn scan(routes: &[Arc<Route>], host: &str, path: &str) -> Option<u128> {
    let mut best: Option<(u64, Closeness, u128)> = None;
    for route in routes {
        let matching = route.hosts.iter().filter(|pattern| match pattern {
            Hosts::Exact(name, port) => **name == *host && port.is_none_or(|p| p == 8000),
            Hosts::Suffix(suffix, _) => host.ends_with(&**suffix),
            Hosts::Prefix(prefix, _) => host.starts_with(&**prefix),
        });
        let closest = matching.map(Hosts::closeness).max();
        let any = route.hosts.is_empty().then(Closeness::default);
        let Some(closeness) = closest.or(any) else {
            continue;
        };
        if !(route.methods.is_empty() || route.methods.contains(&Method::GET)) {
            continue;
        }
        let mut offer = |priority: u64| {
            best = best.max(Some((priority, closeness, route.id.as_u128())));
        };
        if route.paths.is_empty() {
            offer(route.priority);
        }
        for pattern in &route.paths {
            let matches = match pattern {
                PathPattern::Prefix(prefix) => path.as_bytes().starts_with(prefix),
                PathPattern::Regex(regex) => regex.find(path.as_bytes()).is_some(),
            };
            if matches {
                offer(route.priority | priority::of_path(pattern, route.regex_priority));
            }
        }
    }
    best.map(|(_, _, id)| id)
}
