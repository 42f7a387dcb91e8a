//! Shadow balancers: their picks are compared with those of the first balancer, and change nothing.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Setup, guest, until};

fn with_backends(setup: Setup) -> (Gateway, [Backend; 3]) {
    let gateway = setup.start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    (gateway, backends)
}

fn shadow(gateway: &Gateway, shadow: Value) {
    let change = json!({"pointsman": {"shadow": shadow}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &change)
        .expect(200);
}

fn report(gateway: &Gateway) -> Value {
    gateway
        .admin("GET", "/upstreams/u/shadow", &[])
        .expect(200)
        .json()
}

/// The report, once a condition holds for it.
fn report_when(gateway: &Gateway, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = report(gateway);
    until("the report of the shadow is as it should be", || {
        last = report(gateway);
        holds(&last)
    });
    last
}

/// The report, once no pick waits to be compared.
fn complete_report(gateway: &Gateway) -> Value {
    let number = |report: &Value, name: &str| report[name].as_u64().unwrap();
    report_when(gateway, |report| {
        let done = ["compared", "unanswered", "dropped"].map(|name| number(report, name));
        done.iter().sum::<u64>() == number(report, "sampled")
    })
}

#[test]
fn round_robin_agrees_with_itself() {
    let (gateway, backends) = with_backends(Setup::new());
    shadow(&gateway, json!({"balancer": "round-robin"}));
    assert_eq!(report(&gateway)["agreement"], Value::Null);
    // Fewer picks than the queue holds, so that none is dropped.
    assert_eq!(Load::run(gateway.proxy, "/", 4, 150).failures, [""; 0]);
    let report = complete_report(&gateway);
    assert_eq!(report["compared"], 600, "{report}");
    assert_eq!(report["agreement"], 1.0, "{report}");
    assert_eq!(report["faults"]["trap"], 0);
    assert_eq!(report["instances"], 1);
    assert_eq!(report["difference"]["in_flight"], 0.0);
    assert!(report["shadow"]["pick_ns"].as_f64().unwrap() > 0.0);
    assert!(report["first"]["pick_ns"].as_f64().unwrap() > 0.0);
    let endpoints = report["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 3);
    for endpoint in endpoints {
        assert_eq!(
            (&endpoint["first"], &endpoint["shadow"]),
            (&json!(200), &json!(200))
        );
        let address = endpoint["address"].as_str().unwrap();
        assert!(
            backends
                .iter()
                .any(|backend| backend.address.to_string() == address)
        );
    }
    let text = gateway.admin("GET", "/metrics", &[]).text();
    let series = "pointsman_shadow_agreed_total{upstream=\"u\",balancer=\"round-robin\"} 600";
    assert!(text.contains(series), "{text}");
}

#[test]
fn a_random_shadow_differs_from_round_robin_and_does_not_affect_it() {
    let (gateway, _backends) = with_backends(Setup::new());
    shadow(&gateway, json!({"balancer": "random"}));
    let tally = Load::run(gateway.proxy, "/", 4, 150);
    assert_eq!(tally.by_backend.values().collect::<Vec<_>>(), [&200; 3]);
    let report = complete_report(&gateway);
    // A third, within seven standard deviations.
    let agreement = report["agreement"].as_f64().unwrap();
    assert!((0.2..0.47).contains(&agreement), "{report}");
}

#[test]
fn a_shadow_sees_the_load_that_the_first_balancer_saw() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway
        .admin(
            "PATCH",
            "/upstreams/u",
            &[("algorithm", "least-connections")],
        )
        .expect(200);
    shadow(&gateway, json!({"balancer": "least-connections"}));
    for round in 1..=20 {
        // The request is still in flight when it is compared.
        gateway.backend_of("/delay/20");
        report_when(&gateway, |report| report["compared"] == round);
    }
    let report = report(&gateway);
    assert_eq!(report["agreement"], 1.0, "{report}");
    assert_eq!(report["shadow"]["in_flight"], 0.0, "{report}");
}

#[test]
fn a_shadow_that_reads_latencies_prefers_quick_targets() {
    let (gateway, backends) = with_backends(Setup::new());
    // Slower than a busy machine makes the others.
    backends[2].respond_with(0, 300);
    // The first balancer reads no latencies, so they are measured for the shadow alone.
    shadow(&gateway, json!({"balancer": "latency"}));
    for _ in 0..30 {
        gateway.backend_of("/");
    }
    let report = complete_report(&gateway);
    let difference = report["difference"]["latency_us"].as_f64().unwrap();
    assert!(difference < -5_000.0, "{report}");
    let slow = backends[2].address.to_string();
    let mut endpoints = report["endpoints"].as_array().unwrap().iter();
    let slow = endpoints
        .find(|endpoint| endpoint["address"] == slow)
        .unwrap();
    assert_eq!(slow["first"], 10);
    assert!(slow["shadow"].as_u64().unwrap() < 10, "{report}");
}

#[test]
fn no_faulty_shadow_costs_a_request_or_a_pick() {
    let (gateway, _backends) = with_backends(Setup::new().arg("--balancer-pick-timeout", 200));
    gateway.upload("first", guest("first")).expect(201);
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "first")])
        .expect(200);
    let first = gateway.backend_of("/");
    let mut picks = 1;
    for (name, kind) in [
        ("traps", "trap"),
        ("panics", "trap"),
        ("panics-sometimes", "trap"),
        ("sleeps", "trap"),
        ("overflows-stack", "trap"),
        ("loops", "deadline"),
        ("loops-in-configure", "deadline"),
        ("eats-memory", "memory"),
        ("out-of-range", "out_of_range"),
    ] {
        gateway.upload(name, guest(name)).expect(201);
        let load = Load::start(gateway.proxy, "/", 3);
        shadow(&gateway, json!({"balancer": name}));
        load.wait_for(100);
        let report = report_when(&gateway, |report| {
            let more = |number: &Value| number.as_u64() > Some(0);
            more(&report["faults"][kind]) && more(&report["unanswered"])
        });
        assert!(report["last_fault"].is_string(), "{name}: {report}");
        let tally = load.stop();
        assert_eq!(tally.failures, [""; 0], "{name}");
        assert_eq!(tally.by_backend.len(), 1, "{name}: {:?}", tally.by_backend);
        picks += tally.by_backend[&first];
        let shown = gateway.admin("GET", "/balancers/first", &[]).json();
        let usage = &shown["usage"]["u"];
        assert_eq!(usage["picks"], picks, "{name}: {usage}");
        assert_eq!(usage["host_choices"], 0, "{name}: {usage}");
    }
}

#[test]
fn a_shadow_is_added_changed_and_removed_without_a_restart() {
    let (gateway, _backends) = with_backends(Setup::new());
    let none = gateway.admin("GET", "/upstreams/u/shadow", &[]).expect(404);
    assert!(
        none.text().contains("pointsman.shadow.balancer"),
        "{}",
        none.text()
    );
    gateway.admin("GET", "/upstreams/x/shadow", &[]).expect(404);

    let load = Load::start(gateway.proxy, "/", 2);
    shadow(&gateway, json!({"balancer": "random"}));
    report_when(&gateway, |report| report["compared"].as_u64() > Some(50));
    load.stop();
    // A change of an unrelated field keeps the report.
    let before = complete_report(&gateway);
    gateway
        .admin("PATCH", "/upstreams/u", &[("tags[]", "t")])
        .expect(200);
    assert_eq!(report(&gateway)["compared"], before["compared"]);
    // Another sample, other settings, another shadow and another first balancer each start a new
    // report.
    shadow(&gateway, json!({"sample_percent": 50}));
    assert_eq!(report(&gateway)["sampled"], 0);
    Load::run(gateway.proxy, "/", 4, 100);
    let half = complete_report(&gateway);
    // Ten standard deviations to each side.
    assert!(
        (100..300).contains(&half["sampled"].as_u64().unwrap()),
        "{half}"
    );
    assert_eq!(half["compared"], half["sampled"]);
    shadow(
        &gateway,
        json!({"balancer": "prequal", "config": {"probes": 4}}),
    );
    assert_eq!(report(&gateway)["sampled"], 0);
    gateway.backend_of("/");
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "p2c")])
        .expect(200);
    assert_eq!(report(&gateway)["sampled"], 0);
    shadow(&gateway, json!({"sample_percent": 0}));
    gateway.backend_of("/");
    assert_eq!(report(&gateway)["sampled"], 0);

    shadow(&gateway, json!({"balancer": null}));
    gateway.admin("GET", "/upstreams/u/shadow", &[]).expect(404);
    // A shadow is removed by null as well.
    shadow(&gateway, json!({"balancer": "random", "config": null}));
    report(&gateway);
    shadow(&gateway, Value::Null);
    gateway.admin("GET", "/upstreams/u/shadow", &[]).expect(404);
    gateway.backend_of("/");
}

#[test]
fn an_invalid_shadow_is_refused_by_field() {
    let (gateway, _backends) = with_backends(Setup::new());
    let refused = |shadow: Value| {
        let change = json!({"pointsman": {"shadow": shadow}});
        let refused = gateway.admin_json("PATCH", "/upstreams/u", &change);
        let refused = refused.expect(400).json();
        assert_eq!(refused["code"], 2, "{refused}");
        refused["fields"]["pointsman"]["shadow"].clone()
    };
    let unknown = refused(json!({"balancer": "unknown"}));
    let names = unknown["balancer"].as_str().unwrap();
    assert!(
        names.contains("expected one of: consistent-hashing, "),
        "{unknown}"
    );
    let unfit = refused(json!({"balancer": "prequal", "config": {"probes": "many"}}));
    assert!(unfit["config"]["probes"].is_string(), "{unfit}");
    let version = refused(json!({"balancer": "random", "version": "0"}));
    assert!(version["version"].is_string(), "{version}");
    let percent = refused(json!({"balancer": "random", "sample_percent": 101}));
    assert_eq!(
        percent["sample_percent"],
        "value should be between 0 and 100"
    );
    let field = refused(json!({"algorithm": "random"}));
    assert_eq!(field["algorithm"], "unknown field");

    let digest = gateway.admin("GET", "/balancers/random", &[]).json()["digest"].clone();
    shadow(&gateway, json!({"balancer": "random", "version": digest}));
    assert_eq!(report(&gateway)["version"], digest);
}

#[test]
fn a_version_used_by_a_shadow_cannot_be_deleted() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway.upload("mine", guest("first")).expect(201);
    let active = gateway.admin("GET", "/balancers/mine", &[]).json()["digest"].clone();
    let body = Some(("application/wasm", guest("says")));
    let versions = "/balancers/mine/versions";
    let headers: [(&str, &str); 0] = [];
    let added = gateway.send(gateway.admin, "POST", versions, &headers, body);
    let added = added.expect(201).json();
    // The shadow is given by the version's id, and is of the same balancer as the first.
    shadow(
        &gateway,
        json!({"balancer": "mine", "version": added["id"]}),
    );
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "mine")])
        .expect(200);
    assert_eq!(report(&gateway)["version"], added["digest"]);
    let stored = gateway.admin("GET", "/upstreams/u", &[]).json();
    let pinned = &stored["pointsman"]["shadow"]["version"];
    assert_eq!(*pinned, added["digest"], "{stored}");
    gateway.backend_of("/");
    assert_eq!(complete_report(&gateway)["compared"], 1);

    let path = format!("{versions}/{}", added["id"].as_str().unwrap());
    gateway.admin("DELETE", &path, &[]).expect(400);
    shadow(&gateway, json!({"version": null}));
    assert_eq!(report(&gateway)["version"], active);
    gateway.admin("DELETE", &path, &[]).expect(204);
}

/// The answer to a request with a body, whose backend is named.
fn post(gateway: &Gateway, body: Vec<u8>) -> String {
    let sent = Some(("application/json", body));
    let answer = gateway.send(gateway.proxy, "POST", "/", &[], sent);
    answer.expect(200).header("x-backend").to_owned()
}

#[test]
fn a_shadow_that_weighs_prompts_agrees_with_the_same_balancer() {
    let (gateway, _backends) = with_backends(Setup::new());
    // Both begin without a memory of prompts.
    let both =
        json!({"algorithm": "token-load", "pointsman": {"shadow": {"balancer": "token-load"}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &both)
        .expect(200);
    for round in 1..=40 {
        // Four assistants, whose system prompts fill several blocks.
        let assistant = format!("You are assistant {}. ", round % 4).repeat(40);
        let prompt = format!("{assistant}Question {round}");
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 5});
        post(&gateway, body.to_string().into_bytes());
        report_when(&gateway, |report| report["compared"] == round);
    }
    let report = report(&gateway);
    assert_eq!(report["agreement"], 1.0, "{report}");
    assert_eq!(report["bodies"], json!({"whole": 40, "cut": 0}), "{report}");
    assert_eq!(report["lacks"], json!([]), "{report}");
}

#[test]
fn a_shadow_can_ask_about_the_request() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway.upload("asks", guest("asks")).expect(201);
    let both = json!({"algorithm": "asks", "pointsman": {"shadow": {"balancer": "asks"}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &both)
        .expect(200);
    // No more than the log keeps of a moment.
    for number in 0..9 {
        let position = (number % 3).to_string();
        let headers = [
            ("X-Position", &*position),
            ("x-several", "a"),
            ("X-Several", "b"),
        ];
        let sent = gateway.send(gateway.proxy, "GET", "/p%61th?query", &headers, None);
        sent.expect(200);
    }
    let report = complete_report(&gateway);
    assert_eq!(
        (&report["compared"], &report["agreement"]),
        (&json!(9), &json!(1.0)),
        "{report}"
    );
    // What it has logged is what the serving balancer has.
    let logs = gateway
        .admin("GET", "/balancers/asks/logs", &[])
        .expect(200);
    let logs = logs.json();
    let lines = logs["data"].as_array().unwrap();
    let seen = |line: &&Value| line["message"] == "GET /path query 127.0.0.1 a, b -";
    let of = |upstream: &str| {
        let own = lines.iter().filter(|line| line["upstream"] == upstream);
        own.filter(seen).count()
    };
    assert_eq!((of("u"), of("u (shadow)")), (9, 9), "{logs}");
}

#[test]
fn a_shadow_sees_of_bodies_what_was_read_without_it() {
    let (gateway, backends) = with_backends(Setup::new().arg("--client-body-buffer-size", 8000));
    gateway
        .upload("scans-body", guest("scans-body"))
        .expect(201);
    shadow(&gateway, json!({"balancer": "scans-body"}));
    let body = |target: usize, length: usize| {
        json!({"target": target, "prompt": "x".repeat(length)}).to_string()
    };
    // The whole body, as requests are buffered up to 8000 bytes.
    for target in [0, 1, 1, 2, 2, 2] {
        post(&gateway, body(target, 5000).into_bytes());
    }
    let report = complete_report(&gateway);
    assert_eq!(report["bodies"], json!({"whole": 6, "cut": 0}), "{report}");
    assert_eq!(report["lacks"], json!(["bodies"]), "{report}");
    let picks = |report: &Value| {
        let mut picks: Vec<u64> = backends
            .iter()
            .map(|backend| {
                let address = backend.address.to_string();
                let mut endpoints = report["endpoints"].as_array().unwrap().iter();
                let own = endpoints.find(|endpoint| endpoint["address"] == address);
                own.map_or(0, |own| own["shadow"].as_u64().unwrap())
            })
            .collect();
        picks.sort_unstable();
        picks
    };
    assert_eq!(picks(&report), [1, 2, 3], "{report}");
    // No request waits for a longer body because of it, and it knows that there is more.
    post(&gateway, body(2, 100_000).into_bytes());
    let cut = complete_report(&gateway);
    assert_eq!(cut["bodies"], json!({"whole": 6, "cut": 1}), "{cut}");
    // Beside a balancer that asks about bodies, it has as much as that one.
    let serving = json!({"algorithm": "token-load"});
    gateway
        .admin_json("PATCH", "/upstreams/u", &serving)
        .expect(200);
    for target in [0, 1, 1, 2, 2, 2] {
        post(&gateway, body(target, 100_000).into_bytes());
    }
    let whole = complete_report(&gateway);
    assert_eq!(whole["bodies"], json!({"whole": 6, "cut": 0}), "{whole}");
    assert_eq!(whole["lacks"], json!([]), "{whole}");
    // Of a body that is cut off before the member, it picks the first target.
    assert_eq!(picks(&whole), [1, 2, 3], "{whole}");
}

#[test]
fn a_shadow_says_what_it_does_not_get() {
    let (gateway, _backends) = with_backends(Setup::new());
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    for (name, lacks) in [
        ("takes-outcomes", json!(["outcomes"])),
        ("token-load", json!(["costs", "bodies"])),
        ("prefix-affinity", json!(["bodies"])),
        ("p2c", json!([])),
    ] {
        shadow(&gateway, json!({"balancer": name}));
        assert_eq!(report(&gateway)["lacks"], lacks, "{name}");
    }
    assert_eq!(report(&gateway)["bodies"], Value::Null);
}
