#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::criteria::{Closeness, PathPattern};
use super::*;
use crate::authority::Authority;
use crate::config::RouterFlavor;
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
    Arc::new(Route::compile(row, RouterFlavor::Expressions, PATTERN_MEMORY).unwrap())
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
    let found = ask(&Router::from_iter(routes), host, path, headers)?;
    Some(found.0)
}

/// Which route (by id) answers `GET http://host/path`, how many bytes of the path it matches, and
/// by which regular expression (its position).
fn ask(
    router: &Router,
    host: &str,
    path: &str,
    headers: &HeaderMap,
) -> Option<(u128, usize, Option<usize>)> {
    let authority = Authority::parse(host).unwrap();
    let query = Query {
        method: &Method::GET,
        host: authority.host.as_str(),
        port: authority.port.unwrap_or(8000),
        path: path.as_bytes(),
        headers,
        server_name: None,
        arguments: Arguments::new(None),
        client: None,
        local: None,
    };
    let found = router.route(&query)?;
    let mut paths = found.route.paths.iter();
    let regex = found.regex.and_then(|regex| {
        paths.position(|path| matches!(path, PathPattern::Regex(own) if std::ptr::eq(own, regex)))
    });
    Some((found.route.id.as_u128(), found.matched, regex))
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
    let value = headers.remove("x-b").unwrap();
    headers.insert("x_b", value);
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

/// A route as the property below makes it.
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

/// One change to the routes: a route of this id is added, in place of an earlier one, or removed.
fn any_step() -> impl Strategy<Value = (u128, Option<Value>)> {
    (1_u128..8, prop::option::weighted(0.7, any_route()))
}

proptest! {
    /// A router that was changed one route at a time answers as one that is built anew from the
    /// remaining routes, and keeps nothing of removed ones.
    #[test]
    fn a_changed_router_is_as_one_built_anew(
        steps in prop::collection::vec(any_step(), 1..24),
        queries in prop::collection::vec(("[ab]\\.c(:8000)?|a\\.d|x\\.y\\.c", "/[ab]{0,4}"), 1..8),
    ) {
        let mut changed = Router::default();
        let mut routes: BTreeMap<u128, Arc<Route>> = BTreeMap::new();
        let headers = HeaderMap::new();
        for (id, fields) in steps {
            let before = (changed.clone(), Router::from_iter(routes.values()));
            if let Some(old) = routes.remove(&id) {
                changed.remove(&old);
            }
            if let Some(fields) = fields {
                let new = route("r", id, fields);
                changed.insert(&new);
                routes.insert(id, new);
            }
            let anew = Router::from_iter(routes.values());
            // A copy from before the change stays as it was.
            for (changed, anew) in [(&changed, &anew), (&before.0, &before.1)] {
                for (host, path) in &queries {
                    let answers = ask(changed, host, path, &headers);
                    prop_assert_eq!(answers, ask(anew, host, path, &headers));
                }
                prop_assert_eq!(alternatives(changed), alternatives(anew));
            }
        }
        for old in routes.values() {
            changed.remove(old);
        }
        prop_assert_eq!(alternatives(&changed), 0);
        prop_assert!(changed.exact.is_empty() && changed.any.is_empty());
    }
}

/// How many alternatives a router has, including hosts and prefixes that have none left.
fn alternatives(router: &Router) -> usize {
    let groups = [&router.exact, &router.suffixes, &router.prefixes];
    let groups = groups.into_iter().flat_map(SharedMap::iter);
    let groups = groups.map(|(_, group)| 1 + group.alternatives());
    groups.sum::<usize>() + router.any.alternatives()
}

/// Routes as they come in practice: of many services, each with hosts or a prefix of its own.
fn many_routes(count: u128) -> impl Iterator<Item = Arc<Route>> {
    (1..=count).map(|id| {
        let fields = match id % 4 {
            0 => json!({"paths": [format!("/service/{id}")]}),
            1 => json!({"paths": [format!("/api/{id}"), format!("/old/{id}")], "methods": ["GET"]}),
            2 => json!({"hosts": [format!("h{id}.test")], "paths": ["/"]}),
            _ => json!({"hosts": [format!("h{}.test", id % 100)], "paths": [format!("/{id}")]}),
        };
        route("r", id, fields)
    })
}

/// A route that is added to many costs about as much as one that is added to few.
#[test]
fn a_change_copies_no_more_among_many_routes_than_among_few() {
    for (count, most) in [(10, 25), (10_000, 400)] {
        let routes: Vec<_> = many_routes(count + 200).collect();
        let (there, new) = routes.split_at(usize::try_from(count).unwrap());
        let mut router = Router::from_iter(there);
        for route in new {
            let old = router.clone();
            router.insert(route);
            let copied = router.copied_since(&old);
            assert!((1..=most).contains(&copied), "{copied} of {count}");
            router.remove(route);
        }
    }
}

fn scan(routes: &[Arc<Route>], host: &str, path: &str) -> Option<u128> {
    let mut best: Option<(u64, Closeness, u128)> = None;
    for route in routes {
        let matching = route.hosts.iter().filter(|pattern| match pattern {
            HostPattern::Exact(name, port) => **name == *host && port.is_none_or(|p| p == 8000),
            HostPattern::Suffix(suffix, _) => host.ends_with(&**suffix),
            HostPattern::Prefix(prefix, _) => host.starts_with(&**prefix),
        });
        let closest = matching.map(HostPattern::closeness).max();
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
