//! Traces of requests that take unusual ways, and of picks that are not the active balancer's.

use serde_json::json;

use crate::canary::Case;
use crate::harness::{
    Backend, Collector, Export, Gateway, Raw, Setup, add_consumer, add_credential,
    add_global_plugin, add_plugin, attribute, exchange, guest, hex, with_backend, with_route,
};
use crate::traces::every;

fn traced(gateway: &Gateway) -> Collector {
    let collector = Collector::start();
    add_global_plugin(gateway, "opentelemetry", every(&collector));
    collector
}

fn of(export: &Export, span: &str, key: &str) -> String {
    attribute(&export.span(span).attributes, key).unwrap_or_default()
}

#[test]
fn a_pick_of_a_canary_names_it_and_its_version() {
    let case = Case::new();
    let collector = traced(&case.gateway);
    case.begin(json!({ "share_percent": 50 }));
    let mut sides = [0, 0];
    while sides.contains(&0) {
        let is_canary = case.gateway.backend_of("/") == "canary";
        sides[usize::from(is_canary)] += 1;
        let export = collector.next();
        let expected = if is_canary { "canary" } else { "plugin" };
        for span in ["kong.balancer", "pointsman.pick"] {
            assert_eq!(of(&export, span, "pointsman.chosen_by"), expected);
            let digest = of(&export, span, "pointsman.balancer.digest");
            assert_eq!(digest == case.digest, is_canary, "{span}");
        }
    }
}

#[test]
fn a_request_that_is_refused_before_its_consumers_plugin_runs_is_traced_by_it() {
    let (gateway, _backend) = with_route();
    let id = add_consumer(&gateway, "jane");
    add_credential(&gateway, &id, "key-auth", json!({ "key": "jane" }));
    add_global_plugin(&gateway, "key-auth", json!({}));
    add_global_plugin(&gateway, "ip-restriction", json!({ "deny": ["127.0.0.1"] }));
    // This one begins the trace, before it is known who the request is from.
    let of_all = traced(&gateway);
    let of_jane = Collector::start();
    let scope = json!({ "consumer": { "username": "jane" } });
    add_plugin(&gateway, "opentelemetry", every(&of_jane), scope);
    gateway.get_with("/", &[("apikey", "jane")]).expect(403);
    let export = of_jane.next();
    assert_eq!(of(&export, "kong", "pointsman.policy"), "ip-restriction");
    assert!(of_all.is_idle());
}

#[test]
fn a_credential_in_the_query_of_a_request_without_a_route_is_not_sent() {
    let gateway = Gateway::start();
    let collector = traced(&gateway);
    gateway.get("/none?apikey=topkey1&x=1").expect(404);
    let export = collector.next();
    assert_eq!(of(&export, "kong", "url.query"), "apikey=REDACTED&x=1");
}

#[test]
fn a_fallback_pick_says_why() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    gateway.upload("mine", guest("panics")).expect(201);
    let algorithm = [("algorithm", "mine")];
    gateway
        .admin("PATCH", "/upstreams/u", &algorithm)
        .expect(200);
    let collector = traced(&gateway);
    gateway.get("/").expect(200);
    let export = collector.next();
    assert_eq!(of(&export, "pointsman.pick", "pointsman.chosen_by"), "host");
    assert_eq!(
        of(&export, "pointsman.pick", "pointsman.chosen_because"),
        "trap"
    );
}

#[test]
fn a_head_that_cannot_be_read_is_a_trace_of_its_own() {
    let gateway = Gateway::start();
    let collector = traced(&gateway);
    exchange(gateway.proxy, "nonsense\r\n\r\n");
    let export = collector.next();
    assert_eq!(export.spans().len(), 1);
    assert_eq!(of(&export, "kong", "http.response.status_code"), "400");
    assert_eq!(of(&export, "kong", "pointsman.reason"), "bad_request");
    assert_eq!(of(&export, "kong", "url.path"), "");
}

#[test]
fn an_upgraded_connection_is_one_trace_until_it_ends() {
    let (gateway, _backend) = with_backend(Setup::new());
    let collector = traced(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    raw.read_until("\r\n\r\n");
    // A later request whose trace comes first.
    gateway.get("/status/204").expect(204);
    assert_eq!(
        of(&collector.next(), "kong", "http.response.status_code"),
        "204"
    );
    drop(raw);
    let export = collector.next();
    assert_eq!(of(&export, "kong", "http.response.status_code"), "101");
    let (all, one_try) = (export.span("kong"), export.span("kong.balancer"));
    assert!(one_try.end_time_unix_nano < all.end_time_unix_nano);
}

#[test]
fn a_client_that_disconnects_is_traced() {
    let (gateway, backend) = with_backend(Setup::new().arg("--client-half-close-timeout", 1));
    let collector = traced(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    crate::harness::until("the request", || backend.served() == 1);
    drop(raw);
    let export = collector.next();
    assert_eq!(of(&export, "kong", "http.response.status_code"), "499");
    assert_eq!(of(&export, "kong", "pointsman.reason"), "client_closed");
    // It is no fault of the endpoint, nor of the gateway.
    assert_eq!(export.span("kong.balancer").status, None);
    assert_eq!(export.span("kong").status, None);
}

#[test]
fn a_response_of_the_cache_has_no_try() {
    let (gateway, _backend) = with_backend(Setup::new());
    let cache = json!({ "strategy": "memory", "content_type": ["application/json"] });
    add_global_plugin(&gateway, "proxy-cache", cache);
    let collector = traced(&gateway);
    gateway.get("/").expect(200);
    let first = collector.next();
    assert_eq!(first.named("kong.balancer").len(), 1);
    gateway.get("/").expect(200);
    let second = collector.next();
    assert!(second.named("kong.balancer").is_empty());
    let answered = of(
        &second,
        "kong.access.plugin.proxy-cache",
        "pointsman.answered",
    );
    assert_eq!(answered, "true");
    assert_ne!(
        hex(&first.span("kong").trace_id),
        hex(&second.span("kong").trace_id)
    );
}
