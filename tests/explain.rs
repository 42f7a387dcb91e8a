//! `POST /upstreams/{u}/explain`: what would be picked, and that explaining changes nothing.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, guest, until};

fn with_backends() -> (Gateway, [Backend; 3]) {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    (gateway, backends)
}

fn explain(gateway: &Gateway, request: Value) -> Value {
    gateway
        .admin_json("POST", "/upstreams/u/explain", &request)
        .expect(200)
        .json()
}

/// The name of the backend that would answer.
fn name_of<'b>(backends: &'b [Backend; 3], answer: &Value) -> &'b str {
    let address = answer["address"].as_str().unwrap();
    let mut named = ["a", "b", "c"].iter().zip(backends);
    let found = named.find(|(_, backend)| backend.address.to_string() == address);
    found.unwrap_or_else(|| panic!("{answer}")).0
}

fn change(gateway: &Gateway, change: Value) {
    gateway
        .admin_json("PATCH", "/upstreams/u", &change)
        .expect(200);
}

#[test]
fn explain_leaves_the_serving_instance_alone() {
    let (gateway, backends) = with_backends();
    let before: Vec<String> = (0..2).map(|_| gateway.backend_of("/")).collect();
    let said = explain(&gateway, json!({"count": 6}));
    assert_eq!(said["instance"], "restored", "{said}");
    assert!(said["handover"]["bytes"].as_u64() > Some(0), "{said}");
    assert_eq!(said["balancer"]["name"], "round-robin");
    assert_eq!(said["balancer"]["version"].as_str().unwrap().len(), 64);
    assert_eq!(said["request"]["affinity"], Value::Null);
    assert_eq!(said["cut_short"], false);
    let endpoints = said["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 3);
    for endpoint in endpoints {
        assert_eq!(
            (&endpoint["weight"], &endpoint["in_flight"]),
            (&json!(100), &json!(0))
        );
    }
    let answers = said["answers"].as_array().unwrap();
    let names: Vec<&str> = answers
        .iter()
        .map(|answer| name_of(&backends, answer))
        .collect();
    assert_eq!(names[..3], names[3..], "{said}");
    assert!(
        !names[..2].contains(&names[2]) && names[0] != names[1],
        "{said}"
    );
    // The serving instance goes on with the next target: it was not called.
    let third = gateway.backend_of("/");
    assert!(!before.contains(&third), "{before:?} {third}");
    assert_eq!(names[0], third, "{said}");
    let shown = gateway.admin("GET", "/balancers/round-robin", &[]).json();
    assert_eq!(shown["usage"]["u"]["picks"], 3);
    assert_eq!(shown["usage"]["u"]["instances"], 1);
}

#[test]
fn explain_uses_the_current_load() {
    let (gateway, backends) = with_backends();
    change(&gateway, json!({"algorithm": "least-connections"}));
    let proxy = gateway.proxy;
    let hanging = std::thread::spawn(move || {
        let agent = ureq::Agent::new_with_defaults();
        agent.get(format!("http://{proxy}/hang")).call().map(drop)
    });
    until("the request is at an endpoint", || {
        backends.iter().map(Backend::served).sum::<u64>() == 1
    });
    let busy = backends
        .iter()
        .find(|backend| backend.served() == 1)
        .unwrap();
    let said = explain(&gateway, json!({"count": 50}));
    let address = busy.address.to_string();
    for endpoint in said["endpoints"].as_array().unwrap() {
        let in_flight = u64::from(endpoint["address"] == address);
        assert_eq!(endpoint["in_flight"], in_flight, "{said}");
    }
    let mut answers = said["answers"].as_array().unwrap().iter();
    assert!(answers.all(|answer| answer["address"] != address), "{said}");
    drop(gateway);
    assert!(hanging.join().unwrap().is_err());
}

#[test]
fn a_described_request_has_the_affinity_of_a_real_one() {
    let (gateway, backends) = with_backends();
    let route = [
        ("paths[]", "~/users/(?<id>[0-9]+)"),
        ("strip_path", "false"),
    ];
    gateway
        .admin("POST", "/services/u-service/routes", &route)
        .expect(201);
    let compare = |path: &str, query: &str, headers: &[(&str, &str)]| {
        let given = (!query.is_empty()).then_some(query);
        let described: serde_json::Map<String, Value> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let said = explain(
            &gateway,
            json!({"path": path, "query": given, "headers": described}),
        );
        assert!(said["request"]["route"].is_string(), "{said}");
        let mark = if query.is_empty() { "" } else { "?" };
        let real = gateway
            .get_with(&format!("{path}{mark}{query}"), headers)
            .expect(200);
        let named = name_of(&backends, &said["answers"][0]);
        assert_eq!(named, real.header("x-backend"), "{said}");
        said["request"]["affinity"].clone()
    };
    change(
        &gateway,
        json!({"hash_on": "header", "hash_on_header": "x-tenant", "hash_fallback": "path"}),
    );
    for number in 0..12 {
        let tenant = format!("tenant-{number}");
        let affinity = compare("/", "", &[("x-tenant", &tenant)]);
        assert_eq!(affinity.as_str().unwrap().len(), 16, "{affinity}");
        compare(&format!("/a//b/../{number}"), "", &[]);
    }
    change(
        &gateway,
        json!({"hash_on": "uri_capture", "hash_on_uri_capture": "id", "hash_fallback": "none"}),
    );
    let affinities: Vec<Value> = (0..12)
        .map(|number| compare(&format!("/users/{number}"), "", &[]))
        .collect();
    assert!(affinities.iter().all(Value::is_string), "{affinities:?}");
    change(
        &gateway,
        json!({"hash_on": "query_arg", "hash_on_query_arg": "key"}),
    );
    for number in 0..6 {
        compare("/", &format!("key={number}&other=1"), &[]);
    }
    change(
        &gateway,
        json!({"hash_on": "cookie", "hash_on_cookie": "c"}),
    );
    compare("/", "", &[("cookie", "d=1; c=2")]);
    change(&gateway, json!({"hash_on": "ip"}));
    compare("/", "", &[]);
    let one = explain(&gateway, json!({"client_ip": "192.0.2.1"}));
    let two = explain(&gateway, json!({"client_ip": "192.0.2.2"}));
    assert_ne!(one["request"]["affinity"], two["request"]["affinity"]);
}

#[test]
fn explain_runs_another_balancer_with_other_settings() {
    let (gateway, backends) = with_backends();
    gateway.upload("mine", guest("first")).expect(201);
    let said = explain(&gateway, json!({"balancer": "mine", "count": 3}));
    let answers = said["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 3);
    assert!(
        answers
            .iter()
            .all(|answer| answer["endpoint"] == said["endpoints"][0]["id"])
    );
    name_of(&backends, &answers[0]);

    let settings = json!({"balancer": "prequal", "config": {"probes": 4}});
    let said = explain(&gateway, settings);
    assert_eq!(said["balancer"]["config"], json!({"probes": 4}));
    let digest = &said["balancer"]["version"];
    explain(&gateway, json!({"balancer": "prequal", "version": digest}));

    // The same entropy gives the same answers.
    let draw = || {
        explain(
            &gateway,
            json!({"balancer": "random", "entropy": 7, "count": 30}),
        )
    };
    let (first, second) = (draw(), draw());
    assert_eq!(first["answers"], second["answers"]);
    assert_eq!(first["answers"][0]["entropy"], 7);
    let addresses = first["answers"].as_array().unwrap().iter();
    let addresses: std::collections::BTreeSet<_> = addresses
        .map(|answer| answer["address"].as_str().unwrap())
        .collect();
    assert_eq!(addresses.len(), 3);

    // The request may be a form.
    let form = [("balancer", "mine"), ("count", "2"), ("path", "/x")];
    let said = gateway
        .admin("POST", "/upstreams/u/explain", &form)
        .expect(200);
    assert_eq!(said.json()["answers"].as_array().unwrap().len(), 2);
    // None of these calls made an instance of the upstream.
    let shown = gateway.admin("GET", "/balancers/round-robin", &[]).json();
    assert_eq!(shown["usage"]["u"]["instances"], 0);
}

#[test]
fn explain_shows_faults_and_refusals() {
    let (gateway, _backends) = with_backends();
    for (name, part) in [("traps", "it trapped"), ("out-of-range", "of a table of 3")] {
        gateway.upload(name, guest(name)).expect(201);
        let said = explain(&gateway, json!({"balancer": name, "count": 5}));
        for answer in said["answers"].as_array().unwrap() {
            let fault = answer["fault"].as_str().unwrap();
            assert!(fault.contains(part), "{said}");
        }
    }
    gateway.upload("refuses", guest("refuses")).expect(201);
    let said = explain(&gateway, json!({"balancer": "refuses"}));
    assert_eq!(said["answers"][0]["refused"], true);
    gateway
        .admin("POST", "/upstreams", &[("name", "empty")])
        .expect(201);
    let said = gateway.admin_json("POST", "/upstreams/empty/explain", &json!({}));
    assert_eq!(
        said.expect(200).json()["answers"][0]["reason"],
        "no_targets"
    );
    gateway.backend_of("/");
}

#[test]
fn an_invalid_request_to_explain_is_refused_by_field() {
    let (gateway, _backends) = with_backends();
    for (request, field, part) in [
        (
            json!({"balancer": "unknown"}),
            "balancer",
            "expected one of: ",
        ),
        (
            json!({"balancer": "random", "version": "1"}),
            "version",
            "digest",
        ),
        (json!({"count": 0}), "count", "between 1 and 1000"),
        (json!({"count": 1001}), "count", "between 1 and 1000"),
        (json!({"entropy": -1}), "entropy", "between 0"),
        (json!({"entropy": "x"}), "entropy", "integer"),
        (json!({"client_ip": "here"}), "client_ip", "IP address"),
        (json!({"path": "no"}), "path", ""),
        (json!({"method": "A B"}), "method", "HTTP method"),
        (json!({"headers": {"x": 5}}), "headers", "array of strings"),
        (
            json!({"headers": {"x": "a\nb"}}),
            "headers",
            "array of strings",
        ),
        (json!({"header": {}}), "header", "unknown field"),
        (
            json!({"balancer": "prequal", "config": {"probes": "x"}}),
            "config",
            "probes",
        ),
        (json!({"config": {"no": 1}}), "config", ""),
    ] {
        let refused = gateway.admin_json("POST", "/upstreams/u/explain", &request);
        let refused = refused.expect(400).json();
        assert_eq!(refused["code"], 2, "{request}: {refused}");
        let message = refused["fields"][field].to_string();
        assert!(
            message != "null" && message.contains(part),
            "{request}: {refused}"
        );
    }
    gateway
        .admin("POST", "/upstreams/unknown/explain", &[])
        .expect(404);
    gateway
        .admin("GET", "/upstreams/u/explain", &[])
        .expect(405);
}

#[test]
fn explain_starts_afresh_where_no_state_can_be_restored() {
    let (gateway, _backends) = with_backends();
    gateway.backend_of("/");
    // Another balancer cannot restore the state, and some balancers have none.
    let other = explain(&gateway, json!({"balancer": "least-connections"}));
    assert_eq!(other["instance"], "fresh");
    assert_eq!(other["handover"], Value::Null);
    change(&gateway, json!({"algorithm": "random"}));
    gateway.backend_of("/");
    let random = explain(&gateway, json!({}));
    assert_eq!(random["instance"], "fresh");
    assert_eq!(random["handover"], Value::Null);
}

#[test]
fn explain_starts_afresh_after_a_failed_handover() {
    let (gateway, _backends) = with_backends();
    gateway.upload("bad", guest("hands-over-badly")).expect(201);
    for does in [
        "panics-in-save",
        "saves-8-mib",
        "panics-in-restore",
        "refuses",
    ] {
        let settings = json!({"balancer_config": {"does": does}});
        change(&gateway, json!({"algorithm": "bad", "pointsman": settings}));
        let first = gateway.backend_of("/");
        let said = explain(&gateway, json!({"count": 2}));
        assert_eq!(said["instance"], "fresh", "{does}: {said}");
        assert!(said["handover"]["failure"].is_string(), "{does}: {said}");
        let answers = said["answers"].as_array().unwrap();
        assert!(
            answers.iter().all(|answer| answer["address"].is_string()),
            "{said}"
        );
        // The upstream still serves.
        assert_eq!(gateway.backend_of("/"), first, "{does}");
    }
}

#[test]
fn a_balancer_reads_facts_of_the_described_request() {
    let (gateway, backends) = with_backends();
    gateway.upload("asks", guest("asks")).expect(201);
    change(&gateway, json!({"algorithm": "asks"}));
    for position in ["0", "1", "2"] {
        let headers = json!({"x-position": position});
        let said = explain(&gateway, json!({"headers": headers}));
        let sent = [("x-position", position)];
        let real = gateway.send(gateway.proxy, "GET", "/", &sent, None);
        let real = real.expect(200).header("x-backend").to_owned();
        assert_eq!(name_of(&backends, &said["answers"][0]), real, "{said}");
    }
}
