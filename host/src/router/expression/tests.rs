#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};
use http::{HeaderName, Method};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::RouterFlavor;
use crate::pattern::PATTERN_MEMORY;
use crate::router::{Arguments, Query, Route, Router};

fn route(id: u128, fields: Value) -> Arc<Route> {
    let mut row = json!({
        "id": Uuid::from_u128(id), "name": null, "protocols": ["http", "https"],
        "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
        "preserve_host": false, "request_buffering": true, "service": null,
    });
    for (key, value) in fields.as_object().unwrap() {
        row[key] = value.clone();
    }
    let row = serde_json::from_value(row).unwrap();
    Arc::new(Route::compile(row, RouterFlavor::Expressions, PATTERN_MEMORY).unwrap())
}

fn with_expression(id: u128, expression: &str, priority: u64) -> Arc<Route> {
    route(id, json!({"expression": expression, "priority": priority}))
}

/// A request as the tests describe it.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    host: &'static str,
    path: String,
    arguments: &'static str,
    headers: HeaderMap,
    server_name: Option<&'static str>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            method: Method::GET,
            host: "a.test",
            path: "/v1/users/7".into(),
            arguments: "id=1&id=2&flag&q=a%20b+c",
            headers: HeaderMap::from_iter(
                [("x-tenant-id", "Blue"), ("x-many", "a1"), ("x-many", "b1")].map(
                    |(name, value)| {
                        (
                            HeaderName::from_static(name),
                            HeaderValue::from_static(value),
                        )
                    },
                ),
            ),
            server_name: None,
        }
    }
}

impl Asked {
    fn query(&self) -> Query<'_> {
        Query {
            method: &self.method,
            host: self.host,
            port: 8000,
            path: self.path.as_bytes(),
            headers: &self.headers,
            server_name: self.server_name,
            arguments: Arguments::new(Some(self.arguments)),
            client: Some("192.0.2.7:5000".parse().unwrap()),
            local: Some("10.0.0.1".parse().unwrap()),
        }
    }

    fn holds(&self, expression: &str) -> bool {
        let route = with_expression(1, expression, 0);
        Router::from_iter([&route]).route(&self.query()).is_some()
    }
}

#[test]
fn predicates_hold_for_what_they_say() {
    let asked = Asked::default();
    for holds in [
        "net.protocol == \"http\"",
        "http.method == \"GET\"",
        "http.host == \"A.test\"",
        "http.host =^ \".test\"",
        "http.path ^= \"/v1/\"",
        "http.path =^ \"/7\"",
        "http.path contains \"/users\"",
        r#"http.path ~ "\\d$""#,
        "http.path != \"/\"",
        "lower(http.path) == \"/v1/users/7\"",
        "http.path.segments.0 == \"v1\"",
        "http.path.segments.1_2 == \"users/7\"",
        "http.path.segments.0_1 ^= \"v1/u\"",
        "http.path.segments.len == 3",
        "http.headers.x_tenant_id == \"Blue\"",
        "lower(http.headers.x_tenant_id) == \"blue\"",
        "http.headers.x_many =^ \"1\"",
        "any(http.headers.x_many) == \"b1\"",
        "lower(any(http.headers.x_many)) ~ \"^b\"",
        "any(http.queries.id) == \"2\"",
        "http.queries.flag == \"\"",
        "http.queries.q == \"a b c\"",
        "net.src.ip == 192.0.2.7",
        "net.src.ip in 192.0.2.0/24",
        "net.src.ip not in fd00::/8",
        "net.src.port > 1024",
        "net.dst.ip != 10.0.0.2",
        "net.dst.port == 8000",
        "net.port >= 0x1f40",
        "!(http.method == \"POST\" || http.host == \"b.test\")",
    ] {
        assert!(asked.holds(holds), "{holds}");
    }
    for fails in [
        "net.protocol == \"https\"",
        "http.path == \"/V1/users/7\"",
        "lower(http.path) == \"/V1/users/7\"",
        "http.path ^= \"/v1/users/77\"",
        "http.path.segments.3 != \"x\"",
        "http.path.segments.2_3 ^= \"7\"",
        "http.headers.x_tenant_id == \"blue\"",
        "http.headers.x_many == \"a1\"",
        "any(http.headers.x_many) == \"c1\"",
        "http.queries.ID == \"1\"",
        "http.queries.id == \"1\"",
        "net.src.ip in 10.0.0.0/8",
        "net.src.port < 5000",
        "!(http.path ^= \"/v1\")",
    ] {
        assert!(!asked.holds(fails), "{fails}");
    }
}

#[test]
fn a_field_without_a_value_satisfies_no_predicate() {
    let asked = Asked::default();
    for field in ["tls.sni", "http.headers.x_none", "any(http.queries.none)"] {
        for test in ["== \"a\"", "!= \"a\"", "~ \"\"", "contains \"\""] {
            assert!(!asked.holds(&format!("{field} {test}")), "{field} {test}");
            assert!(asked.holds(&format!("!({field} {test})")), "{field} {test}");
        }
    }
    let over_tls = Asked {
        server_name: Some("a.test"),
        ..asked
    };
    assert!(over_tls.holds("tls.sni == \"A.test\" && net.protocol == \"https\""));
}

#[test]
fn the_segments_of_a_path_are_between_its_slashes() {
    let of = |path: &str| Asked {
        path: path.into(),
        ..Asked::default()
    };
    assert!(of("/").holds("http.path.segments.len == 0"));
    assert!(!of("/").holds("http.path.segments.0 == \"\""));
    assert!(of("/a").holds("http.path.segments.len == 1 && http.path.segments.0 == \"a\""));
    assert!(of("/a/").holds("http.path.segments.len == 2 && http.path.segments.1 == \"\""));
    assert!(of("/a/b/c/d").holds("http.path.segments.2_3 == \"c/d\""));
    assert!(of("/a/b/c/d").holds("http.path.segments.1_2 == \"b/c\""));
    assert!(of("/a/b/c/d").holds("http.path.segments.3 == \"d\""));
}

/// How much of the path is matched, and whether a regular expression did.
fn matched(expression: &str) -> (usize, bool) {
    let route = with_expression(1, expression, 0);
    let router = Router::from_iter([&route]);
    let asked = Asked::default();
    let found = router.route(&asked.query()).unwrap();
    (found.matched, found.regex.is_some())
}

#[test]
fn the_last_predicate_about_the_path_gives_the_prefix() {
    assert_eq!(matched("http.path ^= \"/v1\""), (3, false));
    assert_eq!(matched("http.path == \"/v1/users/7\""), (11, false));
    assert_eq!(matched("lower(http.path) ^= \"/v1\""), (3, false));
    assert_eq!(matched("http.path contains \"users\""), (0, false));
    assert_eq!(matched("http.method == \"GET\""), (0, false));
    assert_eq!(matched("http.path ~ \"^/v[0-9]\""), (3, true));
    assert_eq!(matched("http.path ~ \"users\""), (0, true));
    assert_eq!(
        matched("http.path ^= \"/\" && http.path ^= \"/v1\""),
        (3, false)
    );
    assert_eq!(
        matched("http.path ^= \"/v1\" && http.method == \"GET\""),
        (3, false)
    );
    assert_eq!(
        matched("http.path == \"/x\" || http.path ^= \"/v\""),
        (2, false)
    );
    assert_eq!(
        matched("http.path ^= \"/v1\" && !(http.path ^= \"/v2\")"),
        (3, false)
    );
}

#[test]
fn the_greater_priority_and_then_the_greater_id_wins() {
    let taken = |routes: &[Arc<Route>]| {
        let router = Router::from_iter(routes);
        let asked = Asked::default();
        router
            .route(&asked.query())
            .map(|found| found.route.id.as_u128())
    };
    let (exact, wide) = (
        "http.host == \"a.test\" && http.path == \"/v1/users/7\"",
        "http.path ^= \"/\"",
    );
    let routes = [with_expression(1, exact, 0), with_expression(2, wide, 1)];
    assert_eq!(taken(&routes), Some(2));
    let routes = [with_expression(1, exact, 1), with_expression(2, wide, 1)];
    assert_eq!(taken(&routes), Some(2));
    // Routes with expressions are before all others.
    let fields = json!({"hosts": ["a.test"], "paths": ["/v1/users/7"], "methods": ["GET"]});
    let routes = [with_expression(1, wide, 0), route(3, fields)];
    assert_eq!(taken(&routes), Some(1));
}

#[test]
fn the_scheme_must_be_one_of_the_protocols() {
    let takes = |protocols: Value, fields: Value, server_name: Option<&'static str>| {
        let mut fields = fields;
        fields["protocols"] = protocols;
        let asked = Asked {
            server_name,
            ..Asked::default()
        };
        Router::from_iter([&route(1, fields)])
            .route(&asked.query())
            .is_some()
    };
    for fields in [
        json!({"expression": "http.path ^= \"/\""}),
        json!({"paths": ["/"]}),
    ] {
        for (protocols, plain, tls) in [
            (json!(["http", "https"]), true, true),
            (json!(["http"]), true, false),
            // A request in clear text is redirected.
            (json!(["https"]), true, true),
            (json!(["grpcs"]), false, true),
            (json!(["grpc"]), true, false),
        ] {
            assert_eq!(
                takes(protocols.clone(), fields.clone(), None),
                plain,
                "{protocols}"
            );
            assert_eq!(
                takes(protocols.clone(), fields.clone(), Some("")),
                tls,
                "{protocols}"
            );
        }
    }
}

#[test]
fn addresses_are_criteria_of_routes_without_expressions() {
    let takes = |fields: Value| {
        let asked = Asked::default();
        Router::from_iter([&route(1, fields)])
            .route(&asked.query())
            .is_some()
    };
    let source = |source: Value| json!({"sources": [{"ip": "198.51.100.1"}, source]});
    assert!(takes(source(json!({"ip": "192.0.2.0/24"}))));
    assert!(takes(source(json!({"port": 5000}))));
    assert!(!takes(source(json!({"ip": "192.0.2.7", "port": 1}))));
    assert!(takes(
        json!({"destinations": [{"ip": "10.0.0.1", "port": 8000}]})
    ));
    assert!(!takes(json!({"destinations": [{"port": 8001}]})));
}

#[test]
fn an_expression_with_many_alternatives_has_no_more_keys_than_the_limit() {
    let hosts: Vec<String> = (0..900).map(|n| format!("http.host == \"h{n}\"")).collect();
    let paths: Vec<String> = (0..900).map(|n| format!("http.path ^= \"/{n}\"")).collect();
    let (hosts, paths) = (hosts.join(" || "), paths.join(" || "));
    let keys = |expression: &str| {
        let route = with_expression(1, expression, 0);
        route.alternatives().count()
    };
    assert_eq!(keys(&hosts), 900);
    assert_eq!(keys(&format!("({hosts}) && ({paths})")), 900);
    assert_eq!(keys(&format!("{hosts} || {paths}")), 1);
    assert_eq!(
        keys("http.host == \"h\" && (http.path ^= \"/a\" || http.path ^= \"/b\")"),
        2
    );
}

fn any_predicate() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "http\\.host (==|!=|=\\^|\\^=) \"(a|b|a\\.test|\\.test|b\\.a\\.test|test|a\\.)\"",
        4 => "http\\.path (==|!=|=\\^|\\^=|contains|~) \"/[ab]{0,2}\"",
        1 => "lower\\(http\\.path\\) \\^= \"/[ab]{0,2}\"",
        2 => "http\\.path\\.segments\\.(0|1|0_1) (==|\\^=) \"[ab]{1,2}(/a)?\"",
        1 => "http\\.path\\.segments\\.len (>|==|<=) [0-3]",
        1 => "http\\.method (==|!=) \"(GET|PUT)\"",
        1 => "(any\\(http\\.headers\\.x_a\\)|http\\.queries\\.a) == \"[ab]\"",
        1 => "net\\.src\\.ip (in|not in) (10\\.0\\.0\\.0/8|192\\.0\\.2\\.0/24)",
    ]
}

fn any_expression() -> impl Strategy<Value = String> {
    any_predicate().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" && "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" || "))),
            inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Asked> {
    let hosts = prop::sample::select(vec!["a", "a.test", "b.a.test", "b.test", "a.b"]);
    let arguments = prop::sample::select(vec!["", "a=a", "a=a&a=b", "b"]);
    let header = prop::option::of("[ab]");
    (
        hosts,
        "/([abAB]{1,2}(/[ab]{0,2}){0,2})?",
        arguments,
        header,
        any::<bool>(),
    )
        .prop_map(|(host, path, arguments, header, put)| {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert("x-a", HeaderValue::from_str(&value).unwrap());
            }
            Asked {
                method: if put { Method::PUT } else { Method::GET },
                host,
                path,
                arguments,
                headers,
                server_name: None,
            }
        })
}

proptest! {
    /// The index finds what evaluating all expressions in the order of their routes finds, and the
    /// same after routes were removed.
    #[test]
    fn the_index_agrees_with_a_scan(
        expressions in prop::collection::vec((any_expression(), 0_u64..3), 1..8),
        requests in prop::collection::vec(any_request(), 1..8),
        removed in 0_usize..8,
    ) {
        let mut routes: Vec<_> = (1..)
            .zip(&expressions)
            .map(|(id, (expression, priority))| with_expression(id, expression, *priority))
            .collect();
        let mut router = Router::from_iter(&routes);
        for _ in 0..2 {
            for asked in &requests {
                let query = asked.query();
                let holding = routes.iter().filter_map(|route| {
                    let found = route.expression()?.find(&query)?;
                    Some((route.priority, route.id, found.length))
                });
                let scanned = holding.max().map(|(_, id, length)| (id, length));
                let found = router.route(&query).map(|found| (found.route.id, found.matched));
                prop_assert_eq!(found, scanned, "{:?} {:?}", asked, expressions);
            }
            if removed < routes.len() {
                router.remove(&routes.remove(removed));
            }
        }
    }
}
