//! Targets that are killed, stopped, failing and slow, and many changes of targets, under constant
//! load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, Process, until};

/// The time between two probes of a target.
const INTERVAL: Duration = Duration::from_millis(200);

/// How many more probes than promised a target that fails may need: the change comes between two of
/// them, and the target and another one are probed at different moments.
const SLACK: usize = 3;

fn states(gateway: &Gateway) -> HashMap<String, String> {
    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let all = all.json();
    let rows = all["data"].as_array().unwrap().iter();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (word(&row["target"]), word(&row["health"])))
        .collect()
}

/// Does something to a target, and waits until the target has the state that follows from it. Fails
/// if that takes longer than the settings promise. The time is measured in probes of a target that
/// is well, because a busy machine delays them as well.
fn within(
    promise: Duration,
    gateway: &Gateway,
    well: &Backend,
    target: SocketAddr,
    state: &str,
    happen: impl FnOnce(),
) {
    let most = promise.as_millis().div_ceil(INTERVAL.as_millis()) as usize + SLACK;
    let before = well.probes().len();
    happen();
    until(state, || {
        // Counted before the state is asked for, which may take any time.
        let probes = well.probes().len() - before;
        let seen = states(gateway)[&target.to_string()] == state;
        assert!(
            seen || probes <= most,
            "{target} is not {state} after {probes} probes of another target, promised {promise:?}"
        );
        seen
    });
}

#[test]
fn target_failures_are_detected_in_time_and_recovered_from() {
    let gateway = Gateway::start();
    let names = ["killed", "stopped", "failing", "slow", "well"];
    let [killed, stopped, mut failing, mut slow] =
        ["killed", "stopped", "failing", "slow"].map(Process::start);
    let well = Backend::start("well");
    let processes = [&killed, &stopped, &failing, &slow].map(|process| process.address);
    let all = processes.into_iter().chain([well.address]);
    gateway.balanced(&all.map(|address| (address, 100)).collect::<Vec<_>>());
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "1000")])
        .expect(200);
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

    // One load during the whole test.
    let clients = 8;
    let load = Load::start(gateway.proxy, "/", clients);
    let no_request_fails = |during: &str| {
        load.wait_for(500);
        assert_eq!(load.take().failures, [""; 0], "{during}");
    };
    no_request_fails("nothing has happened");
    // A refused or broken connection costs no idempotent request, before or after it is detected.
    within(
        2 * INTERVAL,
        &gateway,
        &well,
        killed.address,
        "UNHEALTHY",
        || {
            killed.signal("KILL");
        },
    );
    no_request_fails("one is killed");
    let twice = 2 * (INTERVAL + timeout);
    within(twice, &gateway, &well, stopped.address, "UNHEALTHY", || {
        stopped.signal("STOP");
    });
    no_request_fails("one is stopped");

    // Responses with a failure status reach clients until they are detected.
    within(
        2 * INTERVAL,
        &gateway,
        &well,
        failing.address,
        "UNHEALTHY",
        || {
            failing.respond_with(500, 0);
        },
    );
    // So do those to requests that are in flight then.
    load.wait_for(2 * clients as u64);
    let noticed = load.take().failures;
    assert!(noticed.iter().all(|failure| failure.starts_with("500")));
    no_request_fails("one fails");

    // A slow target is not unhealthy: it keeps its share, and no request fails.
    slow.respond_with(0, 40);
    load.wait_for(2 * clients as u64);
    load.take();
    load.wait_for(400);
    let tally = load.take();
    assert_eq!(tally.failures, [""; 0], "one is slow");
    let share = tally.by_backend["slow"];
    let most = tally.by_backend["well"] + clients as u64;
    assert!(
        share + clients as u64 >= tally.by_backend["well"] && share <= most,
        "{tally:?}"
    );

    slow.respond_normally();
    let again = Process::start_on("killed", killed.address);
    within(
        2 * INTERVAL,
        &gateway,
        &well,
        again.address,
        "HEALTHY",
        || {},
    );
    within(
        2 * INTERVAL + timeout,
        &gateway,
        &well,
        stopped.address,
        "HEALTHY",
        || {
            stopped.signal("CONT");
        },
    );
    within(
        2 * INTERVAL,
        &gateway,
        &well,
        failing.address,
        "HEALTHY",
        || {
            failing.respond_normally();
        },
    );
    no_request_fails("all are healthy again");
    load.wait_for(5000);
    let outcomes = load.stop();
    assert_eq!(outcomes.failures, [""; 0]);
    let total: u64 = outcomes.by_backend.values().sum();
    for name in names {
        let share = outcomes.by_backend[name] * 100 * names.len() as u64;
        let even = 98 * total..=102 * total;
        assert!(even.contains(&share), "{:?}", outcomes.by_backend);
    }
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
        // Each round makes five changes.
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
