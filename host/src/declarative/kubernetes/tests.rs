#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;
use crate::config::RouterFlavor;
use crate::declarative::{Components, Configuration, NoGateway, Syntax, Text, read};
use crate::entity::Kind;

/// What a gateway with the default settings takes.
const CONTEXT: NoGateway = NoGateway {
    flavor: RouterFlavor::TraditionalCompatible,
    pattern_memory: 64 << 20,
    components: Components::NONE,
};

/// Converts manifests, and reads the document.
fn converted(text: &str) -> (Configuration, Vec<String>) {
    let (document, left) = convert_kubernetes(text, &CONTEXT).unwrap();
    let text = Text::read(&document, Syntax::Yaml).unwrap();
    let read = read(&text, &CONTEXT);
    let read = read.map_err(|mistakes| (mistakes.told(&text.lines()), document));
    (read.unwrap(), left)
}

fn rows(configuration: &Configuration, kind: Kind) -> Vec<&Row> {
    let entities = configuration.entities.iter();
    let of_kind = entities.filter(|entity| entity.kind == kind);
    of_kind.map(|entity| &entity.row).collect()
}

/// A route with this rule, of a gateway with a listener for HTTP.
fn with_rule(rule: &str) -> String {
    let rule: String = rule.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: g}}
spec:
  listeners:
  - {{name: http, protocol: HTTP}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r}}
spec:
  parentRefs: [{{name: g}}]
  hostnames: [a.example]
  rules:
  -
{rule}"
    )
}

#[test]
fn matches_become_fields_of_routes() {
    let (read, left) = converted(&with_rule(
        "matches:
- path: {type: PathPrefix, value: /a.b/}
  method: GET
  headers: [{name: X-A, value: one}, {name: x-a, value: two}]
- path: {type: Exact, value: /c}
- path: {type: RegularExpression, value: '/d/[0-9]+'}
backendRefs: [{name: s, port: 80}]",
    ));
    assert!(left.is_empty(), "{left:?}");
    let routes = rows(&read, Kind::Route);
    let paths: Vec<&Value> = routes.iter().map(|route| &route["paths"]).collect();
    assert_eq!(
        paths,
        [
            &serde_json::json!(["~/a\\.b$", "/a.b/"]),
            &serde_json::json!(["~/c$"]),
            &serde_json::json!(["~/d/[0-9]+"])
        ]
    );
    assert_eq!(routes[0]["methods"], serde_json::json!(["GET"]));
    assert_eq!(routes[0]["headers"], serde_json::json!({ "X-A": ["one"] }));
    assert_eq!(routes[0]["hosts"], serde_json::json!(["a.example"]));
    assert_eq!(routes[0]["protocols"], serde_json::json!(["http"]));
    let service = rows(&read, Kind::Service)[0];
    assert_eq!(service["host"], "s.default.svc");
}

#[test]
fn requests_for_a_backend_with_filters_are_answered_by_the_gateway() {
    let (read, left) = converted(&with_rule(
        "backendRefs:
- name: s
  port: 80
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}]",
    ));
    let routes = rows(&read, Kind::Route);
    assert!(
        routes.iter().all(|route| route["service"].is_null()),
        "{routes:?}"
    );
    assert!(left.iter().any(|told| told.contains("filters")), "{left:?}");
}

#[test]
fn what_cannot_be_expressed_is_listed_and_answered_by_the_gateway() {
    let (read, left) = converted(&with_rule(
        "matches:
- path: {value: /a}
- path: {value: /b}
  queryParams: [{name: q, value: v}]
filters:
- type: RequestMirror
  requestMirror: {backendRef: {name: m, port: 80}}
backendRefs: [{name: s, port: 80, filters: []}]
timeouts: {request: 10s, backendRequest: 1s500ms}",
    ));
    assert_eq!(rows(&read, Kind::Service)[0]["read_timeout"], 1500);
    let routes = rows(&read, Kind::Route);
    let is_closed = |route: &&&Row| route["service"].is_null();
    let closed: Vec<_> = routes.iter().filter(is_closed).collect();
    let [closed] = closed.as_slice() else {
        panic!("{routes:?}")
    };
    assert_eq!(closed["paths"], serde_json::json!(["~/b$", "/b/"]));
    assert_eq!(closed["tags"], serde_json::json!(["not-converted"]));
    assert_eq!(rows(&read, Kind::Plugin)[0]["name"], "request-termination");
    // Where another route is for the same requests, this one answers.
    assert!(
        routes
            .iter()
            .all(|route| route["id"].as_str() <= closed["id"].as_str())
    );
    assert_eq!(left.len(), 5, "{left:?}");
    let begins = |place: usize, text: &str| left[place].starts_with(text);
    assert!(begins(
        0,
        "line 16: HTTPRoute default/r: spec.rules[0]: its requests are answered with 503"
    ));
    assert!(begins(
        1,
        "line 19: HTTPRoute default/r: spec.rules[0].matches[1].queryParams: "
    ));
    assert!(begins(
        2,
        "line 21: HTTPRoute default/r: spec.rules[0].filters[0]: "
    ));
    let (_, left) = converted(&format!(
        "{}\n---\napiVersion: v1\nkind: Widget\nmetadata: {{name: w}}\n",
        with_rule("backendRefs: [{name: s, port: 80}]")
    ));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].ends_with("Widget default/w: not converted"),
        "{left:?}"
    );
}

#[test]
fn a_rule_that_cannot_be_expressed_answers_no_request() {
    for rule in [
        "filters: [{type: ExtensionRef}]\nbackendRefs: [{name: s, port: 80}]",
        "matches: [{path: {type: Exact, value: /a}}]",
        "matches: [{headers: [{name: a, type: Present}]}]\nbackendRefs: [{name: s, port: 80}]",
        "matches: [{fragment: a}]\nbackendRefs: [{name: s, port: 80}]",
        "authorization: {}\nbackendRefs: [{name: s, port: 80}]",
        "filters:
- type: URLRewrite
  urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}
matches: [{path: {type: Exact, value: /a}}]
backendRefs: [{name: s, port: 80}]",
    ] {
        let (read, left) = converted(&with_rule(rule));
        assert_eq!(rows(&read, Kind::Service).len(), 0, "{rule}");
        let plugin = rows(&read, Kind::Plugin)[0];
        assert_eq!(plugin["name"], "request-termination", "{rule}");
        assert_eq!(plugin["config"]["status_code"], 503, "{rule}");
        assert!(!left.is_empty(), "{rule}");
    }
}

#[test]
fn a_redirect_needs_no_service() {
    let (read, left) = converted(&with_rule(
        "filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]",
    ));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(rows(&read, Kind::Service).len(), 0);
    let plugin = rows(&read, Kind::Plugin)[0];
    assert_eq!(plugin["config"]["location"], "https://a.example/");
}

#[test]
fn a_gateway_whose_listeners_are_not_converted_takes_no_route() {
    let text = with_rule("backendRefs: [{name: s, port: 80}]");
    for listener in [
        "{name: http, protocol: TLS}",
        "{name: http, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}}",
    ] {
        let (read, left) = converted(&text.replace("{name: http, protocol: HTTP}", listener));
        assert_eq!(rows(&read, Kind::Route).len(), 0, "{listener}");
        assert_eq!(left.len(), 2, "{left:?}");
    }
}

#[test]
fn a_listener_that_verifies_clients_takes_no_route() {
    let text = with_rule("backendRefs: [{name: s, port: 80}]");
    let listener = "  listeners:\n  - {name: http, protocol: HTTP}";
    for (spec, count) in [
        (
            "  listeners:\n  - {name: s, protocol: HTTPS, tls: {frontendValidation: {}}}",
            0,
        ),
        (
            "  tls: {frontend: {default: {validation: {}}}}\n  listeners:\n  - {name: s, protocol: HTTPS}",
            0,
        ),
        (
            "  tls: {frontend: {default: {validation: {}}, perPort: [{port: 9, tls: {}}]}}\n  \
             listeners:\n  - {name: s, port: 9, protocol: HTTPS}\n  - {name: t, port: 8, protocol: HTTPS}",
            1,
        ),
        (
            "  tls: {frontend: {perPort: [{port: 9, tls: {validation: {}}}]}}\n  \
             listeners:\n  - {name: s, port: 9, protocol: HTTPS}",
            0,
        ),
        (
            "  tls: {frontend: {default: {validation: {}}}}\n  listeners:\n  - {name: s, protocol: HTTP}",
            1,
        ),
    ] {
        let (read, left) = converted(&text.replace(listener, spec));
        assert_eq!(rows(&read, Kind::Route).len(), count, "{spec}");
        let told = left
            .iter()
            .any(|told| told.contains("alidation: no certificate of a client"));
        assert!(told, "{left:?}");
    }
}

#[test]
fn a_listener_within_another_one_is_listed() {
    let text = with_rule("backendRefs: [{name: s, port: 80}]");
    let with = |more: &str| {
        let one = "- {name: http, protocol: HTTP}";
        let (_, left) = converted(&text.replace(one, &format!("{one}\n  {more}")));
        left
    };
    let left = with("- {name: a, protocol: HTTP, hostname: a.example}");
    assert_eq!(left.len(), 1, "{left:?}");
    let told = "line 7: Gateway default/g: spec.listeners[1]: listeners are not isolated: a request for \
                a.example that no route of this listener takes can take a route of http; ";
    assert!(left[0].starts_with(told), "{left:?}");
    let left = with("- {name: a, protocol: HTTPS, hostname: a.example}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_a_policy_of_access_guards_is_answered_by_the_gateway() {
    let rule = "backendRefs: [{name: s, port: 80}]";
    for (kind, spec, is_guarded) in [
        (
            "SecurityPolicy",
            "{targetRefs: [{kind: HTTPRoute, name: r}]}",
            true,
        ),
        (
            "SecurityPolicy",
            "{targetRef: {kind: Gateway, name: g}}",
            true,
        ),
        ("AuthorizationPolicy", "{selector: {}}", true),
        (
            "SecurityPolicy",
            "{targetRefs: [{kind: HTTPRoute, name: other}]}",
            false,
        ),
        (
            "ClientTrafficPolicy",
            "{targetRef: {kind: Gateway, name: g}}",
            false,
        ),
    ] {
        let policy =
            format!("\n---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n");
        let (read, left) = converted(&(with_rule(rule) + &policy));
        let is_open = rows(&read, Kind::Service).len() == 1;
        assert_eq!(is_open, !is_guarded, "{kind} {spec}");
        let told = left
            .iter()
            .any(|told| told.contains(&format!("{kind} default/p: not converted")));
        assert!(told, "{left:?}");
    }
}

#[test]
fn a_regular_expression_that_routes_cannot_have_is_listed() {
    let (read, left) = converted(&with_rule(
        "matches:
- path: {type: RegularExpression, value: '/api/(?!internal).*'}
- path: {value: /b}
  headers: [{name: x-a, type: RegularExpression, value: 'a(?=b)'}]
- path: {value: /c}
backendRefs: [{name: s, port: 80}]",
    ));
    let routes = rows(&read, Kind::Route);
    let closed = routes.iter().filter(|route| route["service"].is_null());
    let closed: Vec<&Value> = closed.map(|route| &route["paths"]).collect();
    assert_eq!(closed.len(), 2, "{routes:?}");
    assert!(
        closed.contains(&&serde_json::json!(["/api/"])),
        "{closed:?}"
    );
    let told = |place: &str| {
        let listed = left
            .iter()
            .any(|told| told.contains(place) && told.contains("look-around"));
        assert!(listed, "{place}: {left:?}");
    };
    told("matches[0].path.value: invalid regex: ");
    told("matches[1].headers[0].value: invalid regex: ");
}

#[test]
fn what_no_entity_can_be_is_refused_with_its_line() {
    let text = with_rule("backendRefs: [{name: a..b, port: 80}]");
    let wrong = convert_kubernetes(&text, &CONTEXT).unwrap_err();
    let told = "spec.rules[0]: cannot be expressed: services[0]";
    assert!(
        wrong.starts_with("line ") && wrong.contains(told),
        "{wrong}"
    );
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
}

#[test]
fn routes_of_the_two_kinds_may_have_one_name() {
    let http = with_rule("backendRefs: [{name: s, port: 80}, {name: s, port: 80}]");
    let (_, route) = http.split_once("---\n").unwrap();
    let both = format!("{http}---\n{}", route.replace("HTTPRoute", "GRPCRoute"));
    let (read, _) = converted(&both);
    assert_eq!(rows(&read, Kind::Service).len(), 2);
    // A backend that is named twice is one target.
    assert_eq!(rows(&read, Kind::Target).len(), 2);
}

#[test]
fn durations_have_units() {
    for (text, millis) in [
        ("10s", Some(10_000)),
        ("1m30s", Some(90_000)),
        ("500ms", Some(500)),
        ("1h", Some(3_600_000)),
        ("0s", Some(0)),
        ("", None),
        ("10", None),
        ("1d", None),
        ("99999999999999999999s", None),
    ] {
        assert_eq!(super::millis(text), millis, "{text}");
    }
}

fn manifest() -> impl Strategy<Value = String> {
    let field = "(kind|spec|rules|matches|filters|type|path|name|listeners|backendRefs|parentRefs)";
    let value = "(Gateway|HTTPRoute|Exact|\\[\\]|\\{\\}|1|-1|null|a|URLRewrite)";
    prop::collection::vec((0_usize..5, any::<bool>(), field, value), 0..20).prop_map(|lines| {
        let line = |(indent, is_item, field, value): (usize, bool, String, String)| {
            let dash = if is_item { "- " } else { "" };
            format!("{:width$}{dash}{field}: {value}\n", "", width = indent * 2)
        };
        lines.into_iter().map(line).collect()
    })
}

proptest! {
    /// Whatever the manifests hold, the outcome is a document that a gateway takes, or an error.
    #[test]
    fn any_manifest_is_converted_or_refused(text in manifest()) {
        if let Ok((document, _)) = convert_kubernetes(&text, &CONTEXT) {
            let text = Text::read(&document, Syntax::Yaml).unwrap();
            prop_assert!(read(&text, &CONTEXT).is_ok());
        }
    }
}
