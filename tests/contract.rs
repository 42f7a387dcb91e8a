//! The parts of the contract beside picks: state, log, facts and limits.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Setup, guest, patch_upstream};

/// A gateway with three backends behind `/`.
fn with_backends() -> (Gateway, [Backend; 3]) {
    let gateway = Setup::new().start();
    let backends = ["a", "b", "c"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    (gateway, backends)
}

fn usage(gateway: &Gateway, name: &str) -> Value {
    let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
    shown.expect(200).json()["usage"]["u"].clone()
}

fn replace(gateway: &Gateway, name: &str, component: &str) {
    let body = Some(("application/wasm", guest(component)));
    let path = format!("/balancers/{name}");
    gateway
        .send(gateway.admin, "PUT", &path, &[], body)
        .expect(200);
}

/// The guest takes turns by the number of its picks. If an upgrade lost or reset that number, the
/// backends would have different numbers of requests.
#[test]
fn the_state_of_a_plugin_survives_upgrades_and_new_settings_under_load() {
    let (gateway, _backends) = with_backends();
    gateway.upload("counts", guest("counts")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "counts"}));
    let load = Load::start(gateway.proxy, "/", 4);
    load.wait_for(50);
    replace(&gateway, "counts", "counts-next");
    let handed_over = || {
        let usage = usage(&gateway, "counts");
        assert_eq!(usage["handover"]["failure"], Value::Null, "{usage}");
        assert!(usage["handover"]["bytes"].as_u64() > Some(1), "{usage}");
    };
    handed_over();
    for round in 0..10 {
        load.wait_for(20);
        patch_upstream(
            &gateway,
            &json!({"pointsman": {"balancer_config": {"round": round}}}),
        );
        handed_over();
    }
    load.wait_for(50);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    let counts: Vec<u64> = tally.by_backend.into_values().collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(counts.len() == 3 && most - least <= 1, "{counts:?}");
}

#[test]
fn a_plugin_reads_facts_of_the_request_and_its_log_is_kept() {
    let (gateway, backends) = with_backends();
    gateway.upload("asks", guest("asks")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "asks"}));
    let ask = |position: &str| {
        let headers = [("x-position", position), ("x-several", "one")];
        let answer = gateway.get_with("/%61/./b?c=%64", &headers).expect(200);
        answer.header("x-backend").to_owned()
    };
    let first = ask("0");
    let places: std::collections::BTreeSet<String> = ["0", "1", "2"].map(ask).into();
    assert_eq!(places.len(), backends.len());
    assert_eq!(ask("3"), first);
    let logs = gateway
        .admin("GET", "/balancers/asks/logs", &[])
        .expect(200)
        .json();
    let lines = logs["data"].as_array().unwrap();
    assert_eq!(lines.len(), 5, "{logs}");
    for line in lines {
        assert_eq!(line["message"], "GET /a/b c=%64 127.0.0.1 one -");
        assert_eq!(
            (&line["level"], &line["upstream"]),
            (&"info".into(), &"u".into())
        );
        assert!(line["time"].as_f64() > Some(1.7e9), "{line}");
    }
    assert_eq!(logs["dropped"], 0);
    let quiet = gateway.admin("GET", "/balancers/random/logs", &[]);
    assert_eq!(quiet.expect(200).json()["data"], json!([]));
    gateway
        .admin("GET", "/balancers/none/logs", &[])
        .expect(404);
}

#[test]
fn an_upstream_may_only_lower_the_limits_of_the_gateway() {
    let (gateway, _backends) = with_backends();
    gateway.upload("heavy", guest("heavy")).expect(201);
    let limited = |limits: Value| {
        let fields = json!({"pointsman": {"balancer_limits": limits}});
        gateway.admin_json("PATCH", "/upstreams/u", &fields)
    };
    for (limits, field, part) in [
        (json!({"memory": 16_385}), "memory", "16384 at most"),
        (
            json!({"pick_timeout": 1001}),
            "pick_timeout",
            "balancer_pick_timeout",
        ),
        (
            json!({"pick_cost": 1_000_001}),
            "pick_cost",
            "1000000 at most",
        ),
        (json!({"state": 1025}), "state", "1024 at most"),
        (json!({"memory": 1}), "memory", "64"),
    ] {
        let refused = limited(limits).expect(400).json();
        let said = &refused["fields"]["pointsman"]["balancer_limits"][field];
        assert!(
            said.as_str().is_some_and(|said| said.contains(part)),
            "{refused}"
        );
    }
    let config = json!({"bytes": 4_000_000});
    patch_upstream(
        &gateway,
        &json!({"algorithm": "heavy", "pointsman": {"balancer_config": config}}),
    );
    gateway.backend_of("/");
    assert_eq!(usage(&gateway, "heavy")["faults"]["memory"], 0);
    limited(json!({"memory": 2048})).expect(200);
    gateway.backend_of("/");
    gateway.backend_of("/");
    let seen = usage(&gateway, "heavy");
    assert!(seen["faults"]["memory"].as_u64() > Some(0), "{seen}");
    assert!(seen["consecutive_faults"].as_u64() > Some(0), "{seen}");
    assert!(seen.get("quarantine").is_some(), "{seen}");
    limited(json!({"memory": null})).expect(200);
    gateway.backend_of("/");
    let seen = usage(&gateway, "heavy");
    assert_eq!(
        (&seen["consecutive_faults"], &seen["quarantine"]),
        (&json!(0), &Value::Null)
    );
}

/// A plugin that fails to save or restore its state under load costs no request, of its own
/// upstream or of another.
#[test]
fn a_failed_handover_costs_no_request() {
    let gateway = Setup::new().arg("--balancer-pick-timeout", 20).start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&[(backends[0].address, 1), (backends[1].address, 1)]);
    gateway.balanced_as("beside", "/beside", &[(backends[0].address, 1)]);
    gateway.upload("bad", guest("hands-over-badly")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "bad"}));
    let load = Load::start(gateway.proxy, "/", 3);
    let beside = Load::start(gateway.proxy, "/beside/", 1);
    let lost = |does: &str, successor: &str| {
        for does in [does, successor] {
            load.wait_for(20);
            patch_upstream(
                &gateway,
                &json!({"pointsman": {"balancer_config": {"does": does}}}),
            );
        }
        let usage = usage(&gateway, "bad");
        assert_eq!(usage["faults"]["state"], 1, "{does} {successor}: {usage}");
        assert!(usage["handover"]["failure"].is_string(), "{usage}");
        beside.wait_for(20);
    };
    lost("saves-8-mib", "saves-nothing");
    lost("panics-in-save", "saves-nothing");
    lost("saves-2-mib", "refuses");
    lost("", "refuses");
    lost("", "loops-in-restore");
    load.wait_for(50);
    beside.wait_for(20);
    assert_eq!(load.stop().failures, [""; 0]);
    assert_eq!(beside.stop().failures, [""; 0]);
}
