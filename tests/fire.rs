//! Proof under fire: real processes that die, stand still, fail and grow slow under constant load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, Process, Tally};

/// What the settings below promise, and room for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

fn states(gateway: &Gateway) -> HashMap<String, String> {
    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let all = all.json();
    let rows = all["data"].as_array().unwrap().iter();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (word(&row["target"]), word(&row["health"])))
        .collect()
}

/// Waits until a target is in a state; fails if that takes longer than was promised.
fn within(promise: Duration, gateway: &Gateway, target: SocketAddr, state: &str) {
    let start = Instant::now();
    while states(gateway)[&target.to_string()] != state {
        let waited = start.elapsed();
        assert!(
            waited < promise + SLACK,
            "{target} is not {state} after {waited:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn targets_die_stand_still_fail_and_grow_slow_and_all_heal() {
    let gateway = Gateway::start();
    let names = ["killed", "stopped", "failing", "slow", "well"];
    let [mut killed, stopped, mut failing, mut slow, well] = names.map(Process::start);
    let all = [&killed, &stopped, &failing, &slow, &well].map(|process| (process.address, 100));
    gateway.balanced(&all);
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "1000")])
        .expect(200);
    let interval = Duration::from_millis(200);
    let timeout = Duration::from_millis(500);
    let checks = json!({"healthchecks": {
        "active": {
            "http_path": "/probe", "timeout": 0.5,
            "healthy": {"interval": 0.2, "successes": 2},
            "unhealthy": {"interval": 0.2, "http_failures": 2, "tcp_failures": 2, "timeouts": 2},
        },
        "passive": {"unhealthy": {"http_failures": 3, "tcp_failures": 2, "timeouts": 2}},
    }});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);

    // A connection that cannot be made, or breaks, costs no idempotent request, detected or not.
    let load = Load::start(gateway.proxy, "/", 8);
    load.wait_for(500);
    killed.signal("KILL");
    within(2 * interval, &gateway, killed.address, "UNHEALTHY");
    stopped.signal("STOP");
    within(
        2 * (interval + timeout),
        &gateway,
        stopped.address,
        "UNHEALTHY",
    );
    load.wait_for(500);
    assert_eq!(load.stop().failures, [""; 0]);

    // A status is an answer like any other, until it is detected.
    failing.turn(500, 0);
    let load = Load::start(gateway.proxy, "/", 8);
    within(2 * interval, &gateway, failing.address, "UNHEALTHY");
    let noticed = load.stop();
    assert!(
        noticed
            .failures
            .iter()
            .all(|failure| failure.starts_with("500"))
    );
    // Slow is not down: it keeps its share, and nothing fails.
    slow.turn(0, 40);
    let tally = Tally::of(gateway.proxy, "/", 4, 50);
    assert_eq!(tally.failures, [""; 0]);
    assert_eq!(tally.by_backend["slow"], 100);
    assert_eq!(tally.by_backend["well"], 100);

    let load = Load::start(gateway.proxy, "/", 8);
    killed = Process::start_on("killed", killed.address);
    stopped.signal("CONT");
    failing.turn(0, 0);
    slow.turn(0, 0);
    for (address, _) in all {
        within(2 * interval + timeout, &gateway, address, "HEALTHY");
    }
    assert_eq!(load.stop().failures, [""; 0]);
    let healed = Tally::of(gateway.proxy, "/", 4, 250);
    assert_eq!(healed.failures, [""; 0]);
    for name in names {
        let share = healed.by_backend[name];
        assert!((196..=204).contains(&share), "{:?}", healed.by_backend);
    }
    drop(killed);
}

#[test]
fn a_thousand_changes_of_targets_cost_no_request() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    gateway.balanced(&[(backends[0].address, 100)]);
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);
    let load = Load::start(gateway.proxy, "/", 4);
    let path = |number: usize| format!("/upstreams/u/targets/{}", backends[number].address);
    for round in 0..1000 / 5 {
        let number = 1 + round % 3;
        // Five of them.
        gateway.add_target("u", backends[number].address, 50);
        let weight = [("weight", "100")];
        gateway.admin("PATCH", &path(number), &weight).expect(200);
        let unhealthy = format!("{}/unhealthy", path(number));
        gateway.admin("PUT", &unhealthy, &[]).expect(204);
        gateway
            .admin("PUT", &format!("{}/healthy", path(number)), &[])
            .expect(204);
        gateway.admin("DELETE", &path(number), &[]).expect(204);
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.by_backend.len() > 1);
}
