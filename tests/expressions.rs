//! Routes with expressions (`router_flavor = expressions`), and path handling of the flavor
//! `traditional`. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Reply, Setup};

fn expressions() -> Gateway {
    Setup::new().arg("--router-flavor", "expressions").start()
}

/// A service with this backend.
fn service(gateway: &Gateway, name: &str, backend: &Backend, path: &str) {
    let url = format!("http://{}{path}", backend.address);
    let fields = [("name", name), ("url", &*url)];
    gateway.admin("POST", "/services", &fields).expect(201);
}

fn post(gateway: &Gateway, service: &str, route: &Value) -> Reply {
    gateway.admin_json("POST", &format!("/services/{service}/routes"), route)
}

/// The target of a request, as its backend received it.
fn received(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Value {
    let reply = gateway.get_with(target, headers).expect(200);
    reply.json()["uri"].clone()
}

#[test]
fn a_request_takes_the_route_whose_expression_holds() {
    let gateway = expressions();
    let (blue, green) = (Backend::start("blue"), Backend::start("green"));
    service(&gateway, "blue", &blue, "/");
    service(&gateway, "green", &green, "/");
    let tenant = r#"http.path ^= "/v1" && lower(http.headers.x_tenant) == "green""#;
    let route = json!({"name": "tenant", "expression": tenant, "priority": 10});
    let made = post(&gateway, "green", &route).expect(201).json();
    assert_eq!(
        (&made["expression"], &made["priority"]),
        (&json!(tenant), &json!(10))
    );
    let route = json!({"expression": r#"http.path ^= "/v1" || any(http.queries.beta) == "1""#});
    assert_eq!(
        post(&gateway, "blue", &route).expect(201).json()["priority"],
        0
    );

    let asked = |target: &str, headers: &[(&str, &str)]| {
        let reply = gateway.get_with(target, headers).expect(200);
        reply.header("x-backend").to_owned()
    };
    assert_eq!(asked("/v1/a", &[]), "blue");
    assert_eq!(asked("/v1/a", &[("x-tenant", "GREEN")]), "green");
    assert_eq!(asked("/?beta=0&beta=1", &[("x-tenant", "green")]), "blue");
    gateway.get("/?beta=0").expect(404);
    // The prefix that the expression has matched is removed, and sent in a header.
    assert_eq!(received(&gateway, "/v1/a?b", &[]), "/a?b");
    assert_eq!(received(&gateway, "/x?beta=1", &[]), "/x?beta=1");

    let route = json!({"priority": 0, "expression": r#"http.path == "/none""#});
    gateway
        .admin_json("PATCH", "/routes/tenant", &route)
        .expect(200);
    assert_eq!(asked("/v1/a", &[("x-tenant", "green")]), "blue");
    // Fields and expressions beside each other: those with expressions are first.
    post(&gateway, "green", &json!({"paths": ["/v1/long", "/w"]})).expect(201);
    assert_eq!(asked("/v1/long", &[]), "blue");
    assert_eq!(asked("/w", &[]), "green");
}

#[test]
fn the_groups_of_a_regular_expression_are_captures_of_the_uri() {
    let gateway = expressions();
    let backend = Backend::start("b");
    service(&gateway, "s", &backend, "/");
    let route = json!({"expression": r##"http.path ~ r#"^/users/(?<id>\d+)"#"##});
    post(&gateway, "s", &route).expect(201);
    let plugin = json!({
        "name": "request-transformer",
        "config": {"add": {"headers": ["x-user:$(uri_captures.id)"]}},
    });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    let echo = gateway.get("/users/17/x").expect(200).json();
    assert_eq!(echo["headers"]["x-user"], "17");
    assert_eq!(echo["uri"], "/x");
    gateway.get("/users/a").expect(404);
}

#[test]
fn a_wrong_expression_is_refused_with_its_place() {
    let gateway = expressions();
    for (route, message) in [
        (
            json!({"expression": "http.path == "}),
            " --> 1:14\n  |\n1 | http.path == \n  |              ^---\n  |\n  = expected a value: a text \
             in quotes, a number, an IP address or a CIDR",
        ),
        (
            json!({"expression": "http.paht == \"/\""}),
            "Unknown LHS field\n --> 1:1\n  |\n1 | http.paht == \"/\"\n  | ^-------^\n  |\n  = there is \
             no field http.paht",
        ),
        (
            json!({"expression": "http.path == \"/\"", "paths": ["/"]}),
            "cannot set 'expression' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or \
             'destinations' simultaneously",
        ),
        (
            json!({"expression": "http.path == \"/\"", "regex_priority": 1}),
            "cannot set 'regex_priority' with 'expression' simultaneously",
        ),
        (
            json!({"paths": ["/"], "priority": 1}),
            "cannot set 'priority' with 'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or \
             'destinations' simultaneously",
        ),
    ] {
        let entity = format!("Router Expression failed validation: {message}");
        for path in ["/routes", "/schemas/routes/validate"] {
            let refused = gateway.admin_json("POST", path, &route).expect(400).json();
            assert_eq!(refused["name"], "schema violation");
            assert_eq!(refused["message"], format!("schema violation ({entity})"));
            assert_eq!(refused["fields"], json!({"@entity": [entity]}));
        }
    }
    let refused = |route: Value| {
        gateway
            .admin_json("POST", "/routes", &route)
            .expect(400)
            .json()
    };
    assert_eq!(
        refused(json!({}))["fields"]["@entity"],
        json!([
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis', 'expression' when \
                'protocols' is 'https'"
        ])
    );
    let priority = json!({"expression": "http.path == \"/\"", "priority": 1_u64 << 46});
    assert_eq!(
        refused(priority)["fields"]["priority"],
        "value should be between 0 and 70368744177663"
    );
    let large = json!({"expression": r##"http.path ~ r#"\w{1000}{1000}"#"##});
    let wrong = refused(large)["fields"]["expression"].to_string();
    assert!(wrong.contains("the regex is too large"), "{wrong}");
    // Addresses match requests with this flavor.
    let route = json!({"sources": [{"ip": "127.0.0.0/8"}]});
    let route = json!({"paths": ["/a"], "sources": route["sources"]});
    gateway.admin_json("POST", "/routes", &route).expect(201);
    gateway.get("/a").expect(503);
}

#[test]
fn with_another_flavor_the_message_names_the_setting() {
    let gateway = Gateway::start();
    for field in [
        json!({"expression": "http.path == \"/\""}),
        json!({"priority": 1}),
    ] {
        let mut route = json!({"paths": ["/"]});
        for (name, value) in field.as_object().unwrap() {
            route[name] = value.clone();
            let refused = gateway.admin_json("POST", "/routes", &route).expect(400);
            let refused = refused.json();
            // The field's own message is Kong's, since clients compare it.
            assert_eq!(refused["fields"], json!({name: "unknown field"}));
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("router_flavor=expressions"), "{message}");
        }
    }
}

#[test]
fn the_flavor_decides_which_fields_routes_have() {
    let names = |gateway: &Gateway| -> Vec<String> {
        let schema = gateway
            .admin("GET", "/schemas/routes", &[])
            .expect(200)
            .json();
        let fields = schema["fields"].as_array().unwrap().iter();
        fields
            .flat_map(|field| field.as_object().unwrap().keys().cloned())
            .collect()
    };
    let flavor = |gateway: &Gateway| {
        let root = gateway.admin("GET", "/", &[]).expect(200).json();
        root["configuration"]["router_flavor"].clone()
    };
    let gateway = Gateway::start();
    assert_eq!(flavor(&gateway), "traditional_compatible");
    assert!(!names(&gateway).contains(&"expression".to_owned()));
    let expression = json!({"expression": "http.path == \"/\""});
    let refused = gateway
        .admin_json("POST", "/routes", &expression)
        .expect(400)
        .json();
    assert_eq!(refused["fields"]["expression"], "unknown field");
    let before = json!({"name": "before", "paths": ["/before"]});
    gateway.admin_json("POST", "/routes", &before).expect(201);

    // The same data with another flavor, and back again.
    let data = gateway.kill().unwrap();
    let with_flavor = |flavor: &str| {
        Setup::with_data(&data.path().join("data"))
            .arg("--router-flavor", flavor)
            .start()
    };
    let gateway = with_flavor("expressions");
    assert_eq!(flavor(&gateway), "expressions");
    let known = names(&gateway);
    assert_eq!(known[known.len() - 2..], ["expression", "priority"]);
    let shown = gateway
        .admin("GET", "/routes/before", &[])
        .expect(200)
        .json();
    assert_eq!(
        (&shown["expression"], &shown["priority"]),
        (&Value::Null, &json!(0))
    );
    let tags = json!({"tags": ["t"]});
    gateway
        .admin_json("PATCH", "/routes/before", &tags)
        .expect(200);
    let route = json!({"name": "e", "expression": "http.path == \"/e\""});
    gateway.admin_json("POST", "/routes", &route).expect(201);
    for path in ["/before", "/e"] {
        gateway.get(path).expect(503);
    }
    drop(gateway);
    let gateway = with_flavor("traditional");
    assert_eq!(flavor(&gateway), "traditional");
    gateway
        .admin_json("PATCH", "/routes/before", &tags)
        .expect(200);
    gateway.get("/before").expect(503);
    gateway.get("/e").expect(404);
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("router_flavor = expressions"), "{log}");
}

#[test]
fn traditional_honours_path_handling() {
    let backend = Backend::start("b");
    for (flavor, sent) in [
        ("traditional", "/apix"),
        ("traditional_compatible", "/api/x"),
    ] {
        let gateway = Setup::new().arg("--router-flavor", flavor).start();
        service(&gateway, "s", &backend, "/api");
        let route = json!({"paths": ["/fee/"], "path_handling": "v1"});
        post(&gateway, "s", &route).expect(201);
        assert_eq!(received(&gateway, "/fee/x", &[]), sent);
    }
}

#[test]
fn explain_names_the_route_whose_expression_holds() {
    let gateway = expressions();
    let backend = Backend::start("b");
    let upstream = [("name", "u")];
    gateway.admin("POST", "/upstreams", &upstream).expect(201);
    let target = backend.address.to_string();
    gateway
        .admin("POST", "/upstreams/u/targets", &[("target", &*target)])
        .expect(201);
    let fields = [("name", "s"), ("url", "http://u")];
    gateway.admin("POST", "/services", &fields).expect(201);
    let expression =
        r#"http.queries.a == "1" && net.src.ip in 192.0.2.0/24 && tls.sni == "a.test""#;
    let route = post(&gateway, "s", &json!({"expression": expression}))
        .expect(201)
        .json();
    let explain = |query: &str, sni: Value| {
        let body = json!({"query": query, "client_ip": "192.0.2.9", "sni": sni});
        let reply = gateway.admin_json("POST", "/upstreams/u/explain", &body);
        reply.expect(200).json()["request"]["route"].clone()
    };
    assert_eq!(explain("a=1", json!("A.test")), route["id"]);
    assert_eq!(explain("a=2", json!("a.test")), Value::Null);
    assert_eq!(explain("a=1", Value::Null), Value::Null);
}

#[test]
fn an_expression_that_never_holds_is_refused_with_its_reason() {
    let gateway = expressions();
    let wrong = |route: Value| {
        let refused = gateway.admin_json("POST", "/routes", &route).expect(400);
        refused.json()["fields"]["@entity"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let never = "Router Expression failed validation: the expression never holds, so nothing would take the \
                 route: ";
    let udp = json!({ "protocols": ["tcp"], "expression": r#"net.protocol == "udp""# });
    let told = format!("{never}by the route's protocols, net.protocol is \"tcp\"");
    assert_eq!(wrong(udp.clone()), told);
    let named = json!({ "protocols": ["tcp", "udp"], "expression": r#"tls.sni == "a.example""# });
    assert_eq!(
        wrong(named),
        format!("{never}tls.sni has no value where net.protocol is \"tcp\"")
    );
    let port = json!({ "protocols": ["tls"], "expression": "net.dst.port == 65536" });
    assert_eq!(
        wrong(port),
        format!("{never}no number from 0 to 65535 is what it asks of net.dst.port")
    );
    let path = json!({ "expression": r#"http.path ^= "api""# });
    assert_eq!(wrong(path), format!("{never}every http.path begins with /"));
    // It holds as soon as a protocol is added.
    let mut both = udp;
    both["protocols"] = json!(["tcp", "udp"]);
    gateway.admin_json("POST", "/routes", &both).expect(201);
}
