//! Rollouts that the gateways judge: they are promoted or fall back by themselves.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Backend, Etcd, Gateway, put_document, until};

/// A document whose service has this backend.
fn to(backend: &Backend) -> String {
    let address = backend.address;
    format!(
        "_format_version: '3.0'
services:
- name: s
  url: http://{address}
  routes:
  - {{name: r, paths: [/s]}}
"
    )
}

fn roll_out(gateway: &Gateway, backend: &Backend, bounds: &str) {
    let query = format!("?channel=canary&{bounds}");
    put_document(gateway, &to(backend), &query).expect(200);
}

/// The rollout as a gateway shows it.
fn rollout(gateway: &Gateway) -> Value {
    let shown = gateway.admin("GET", "/pointsman/rollout", &[]);
    shown.expect(200).json()
}

/// Sends a request to each gateway, and returns the names of the backends that have answered.
fn requests(gateways: &[&Gateway]) -> Vec<String> {
    let answers = gateways.iter().map(|gateway| gateway.get("/s"));
    answers
        .map(|answer| answer.header("x-backend").to_owned())
        .collect()
}

/// Sends requests to all gateways until the rollout has this state at the first one.
fn until_state(state: &str, gateways: &[&Gateway]) {
    until(&format!("the rollout is {state}"), || {
        requests(gateways);
        // A gateway may not have followed the one that has begun it.
        let shown = gateways[0].admin("GET", "/pointsman/rollout", &[]);
        shown.status == 200 && shown.json()["state"] == state
    });
}

fn node_id(gateway: &Gateway) -> String {
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    root["node_id"].as_str().unwrap().to_owned()
}

fn command(gateway: &Gateway, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("rollout")
        .args(args)
        .args(["--admin", &gateway.admin.to_string()])
        .output()
        .unwrap()
}

#[test]
fn a_rollout_that_breaks_a_bound_falls_back_by_itself_and_says_why() {
    let etcd = Etcd::start();
    let (a, b) = (etcd.gateway().start(), etcd.gateway().start());
    let canary = etcd.gateway().arg("--channel", "canary").start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    new.respond_with(500, 0);
    put_document(&a, &to(&old), "").expect(200);
    until("all have it", || {
        requests(&[&a, &b, &canary]) == ["old", "old", "old"]
    });
    roll_out(
        &b,
        &new,
        "max_error_ratio=2&min_requests=20&duration=600&promote=true",
    );
    until("the canary has it", || requests(&[&canary]) == ["new"]);
    until_state("returned", &[&a, &b, &canary]);
    until("the canary has returned", || {
        requests(&[&canary]) == ["old"]
    });
    assert_eq!(command(&canary, &["status"]).status.code(), Some(2));
    until("all show the outcome", || {
        let states = [&a, &b, &canary].map(|gateway| rollout(gateway)["state"].clone());
        states.iter().all(|state| state == "returned")
    });
    let shown = rollout(&canary);
    let reason = shown["reason"].as_str().unwrap();
    assert!(
        reason.contains("of its last") && reason.contains("more than 2 times"),
        "{reason}"
    );
    assert!(shown["ended_at"].as_u64().unwrap() > 0);
    assert_eq!(shown["max_error_ratio"], 2);
    let figures = &shown["figures"];
    assert_eq!(figures["canary"]["gateways"], 1, "{figures}");
    assert_eq!(figures["main"]["gateways"], 2, "{figures}");
    assert_eq!(figures["main"]["errors"], 0, "{figures}");
    assert!(figures["canary"]["errors"].as_u64().unwrap() >= 20);
    assert!(
        figures["canary"]["recent"]["error_percent"]
            .as_f64()
            .unwrap()
            > 50.0
    );
    // One gateway gives one verdict: the row was written when it began, and when it ended.
    let row = etcd.ctl(&[
        "get",
        "--prefix",
        "/pointsman/config/rows/rollouts/",
        "--write-out",
        "fields",
    ]);
    assert!(row.contains("\"Version\" : 2"), "{row}");
    // The gateways report no longer.
    until("no gateway has figures", || {
        !etcd
            .ctl(&["get", "--prefix", "/pointsman/nodes/"])
            .contains("figures")
    });
}

#[test]
fn a_rollout_within_its_bounds_is_promoted_although_gateways_die() {
    let etcd = Etcd::start();
    let start = |channel| Some(etcd.gateway().arg("--channel", channel).start());
    let mut all = [
        start("main"),
        start("main"),
        start("canary"),
        start("canary"),
    ];
    let first = all[0].as_ref().unwrap();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    put_document(first, &to(&old), "").expect(200);
    roll_out(
        first,
        &new,
        "max_error_ratio=2&max_p99_ms=5000&min_requests=20&duration=6&promote=true",
    );
    until("a gateway judges", || {
        !etcd.ctl(&["get", "/pointsman/tasks/judge"]).is_empty()
    });
    let judge = etcd.ctl(&["get", "/pointsman/tasks/judge", "--print-value-only"]);
    // The judge dies, and one of the canaries.
    let place = all
        .iter()
        .flatten()
        .position(|gateway| node_id(gateway) == judge.trim());
    let judging = place.unwrap();
    all[judging].take().unwrap().kill_9();
    if judging < 2 {
        all[3].take().unwrap().kill_9();
    }
    let left: Vec<&Gateway> = all.iter().flatten().collect();
    until_state("promoted", &left);
    let shown = rollout(left[0]);
    assert_eq!(shown["reason"], "it was within its bounds for 6 s");
    assert!(shown["figures"]["canary"]["requests"].as_u64().unwrap() >= 20);
    until("all have it", || {
        requests(&left).iter().all(|backend| backend == "new")
    });
}

#[test]
fn a_rollout_that_has_passed_waits_for_its_operator_unless_it_promotes_itself() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let canary = etcd.gateway().arg("--channel", "canary").start();
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    put_document(&a, &to(&old), "").expect(200);
    let status = command(&a, &["status"]);
    assert_eq!(status.status.code(), Some(1));
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(said.contains("there has been no rollout"), "{said}");
    let file = a.data_dir.join("kong.yml");
    std::fs::write(&file, to(&new)).unwrap();
    let started = command(
        &canary,
        &[
            "start",
            file.to_str().unwrap(),
            "--max-error-percent",
            "50",
            "--min-requests",
            "10",
            "--duration",
            "1",
        ],
    );
    let said = String::from_utf8_lossy(&started.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "rollout started: 1 change", "{started:?}");
    assert!(lines[1].starts_with("update services \"s\" ("), "{said}");
    until("the canary has it", || requests(&[&canary]) == ["new"]);
    until("the other gateway shows it", || {
        a.admin("GET", "/pointsman/rollout", &[]).status == 200
    });
    until_state("passed", &[&a, &canary]);
    assert_eq!(requests(&[&a, &canary]), ["old", "new"]);
    // It is still judged.
    let shown = String::from_utf8(command(&a, &["status"]).stdout).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "passed");
    assert!(lines[1].starts_with("update services \"s\" ("), "{shown}");
    assert!(lines[2].starts_with("CHANNEL  GATEWAYS"), "{shown}");
    new.respond_with(500, 0);
    until_state("returned", &[&a, &canary]);
    // An operator promotes the next one, and has the one after it fall back.
    new.respond_with(0, 0);
    roll_out(&a, &new, "max_error_percent=50");
    let promoted = command(&a, &["promote"]);
    assert_eq!(
        String::from_utf8_lossy(&promoted.stdout),
        "rollout promoted: 1 change\n"
    );
    assert_eq!(rollout(&a)["state"], "promoted");
    roll_out(&a, &old, "max_error_percent=50");
    assert!(command(&a, &["fall-back"]).status.success());
    let shown = rollout(&a);
    assert_eq!(shown["state"], "dropped");
    assert_eq!(
        shown["reason"],
        "it was ended by a request to the Admin API"
    );
    let refused = command(&a, &["fall-back"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("there is no rollout"), "{said}");
}

#[test]
fn wrong_bounds_are_refused() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let backend = Backend::start("b");
    for (query, wrong) in [
        ("?max_error_ratio=2", "only a rollout has it"),
        ("?channel=canary&max_error_ratio=x", "expected a number"),
        ("?channel=canary&max_error_percent=101", "between 0 and 100"),
        ("?channel=canary&promote=true", "duration"),
        ("?channel=canary&share_percent=5", "unknown field"),
    ] {
        let refused = put_document(&a, &to(&backend), query).expect(400);
        assert!(
            refused.text().contains(wrong),
            "{query}: {}",
            refused.text()
        );
    }
    a.admin("GET", "/pointsman/rollout", &[]).expect(404);
}
