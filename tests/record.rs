//! Recorded picks, and what replaying them tells.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, guest};

fn balanced(algorithm: &str) -> (Gateway, Vec<Backend>) {
    let gateway = Gateway::start();
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::start).into();
    let targets: Vec<_> = backends.iter().map(|b| (b.address, 100)).collect();
    gateway.balanced(&targets);
    let settings = json!({"algorithm": algorithm});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    (gateway, backends)
}

/// A trace of what a balancer does under load, while `meanwhile` changes something.
fn record(gateway: &Gateway, meanwhile: impl FnOnce(&Load)) -> Vec<u8> {
    let url = format!(
        "http://{}/upstreams/u/record?seconds=600&max_bytes=200000",
        gateway.admin
    );
    let load = Load::start(gateway.proxy, "/", 4);
    let mut trace = Vec::new();
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            let mut answer = ureq::post(&url).send_empty().unwrap();
            let mut trace = Vec::new();
            // It ends when it is as large as it may be.
            answer
                .body_mut()
                .as_reader()
                .read_to_end(&mut trace)
                .unwrap();
            trace
        });
        meanwhile(&load);
        trace = recording.join().unwrap();
    });
    assert_eq!(load.stop().failures, [""; 0]);
    assert!(
        trace.len() > 100_000 && trace.len() <= 200_000,
        "{}",
        trace.len()
    );
    trace
}

fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("replay").args(arguments).output().unwrap()
}

fn replayed(trace: &Path, more: &[&str]) -> Value {
    let arguments = [&[trace.to_str().unwrap(), "--format", "json"], more].concat();
    let output = replay(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn kept(folder: &tempfile::TempDir, name: &str, trace: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, trace).unwrap();
    path
}

#[test]
fn the_balancer_that_made_a_trace_picks_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    // One that takes turns, one that is told of changes, two that look, one that has columns.
    let (gateway, _backends) = balanced("round-robin");
    gateway
        .upload("columns", guest("least-in-flight"))
        .expect(201);
    for algorithm in [
        "round-robin",
        "least-connections",
        "p2c",
        "prequal",
        "columns",
    ] {
        let settings = json!({"algorithm": algorithm});
        gateway
            .admin_json("PATCH", "/upstreams/u", &settings)
            .expect(200);
        let extra = Backend::start("d");
        let trace = record(&gateway, |load| {
            // The table changes in the middle.
            load.wait_for(200);
            gateway.add_target("u", extra.address, 300);
            load.wait_for(200);
            let gone = format!("/upstreams/u/targets/{}", extra.address);
            gateway.admin("DELETE", &gone, &[]).expect(204);
        });
        let path = kept(&folder, algorithm, &trace);
        let document = replayed(&path, &[]);
        let (asked, same) = (
            &document["replayed"]["asked"],
            &document["replayed"]["same"],
        );
        assert!(asked.as_u64() > Some(500), "{algorithm}: {document}");
        assert_eq!(asked, same, "{algorithm}: {}", document["replayed"]);
        assert_eq!(document["trace"]["balancer"], algorithm);
        // What it was is shown first: all requests were answered.
        let was = &document["outcomes"][0];
        assert_eq!(was["balancer"], "recorded");
        assert_eq!(was["total"]["errors"]["broken"], 0, "{was}");
        assert!(was["total"]["requests"].as_u64() > Some(400), "{was}");
    }
}

#[test]
fn other_balancers_choose_for_the_same_requests() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, backends) = balanced("random");
    // One of three takes its time.
    backends[2].turn(0, 30);
    let trace = record(&gateway, |_| {});
    let path = kept(&folder, "trace", &trace);
    let out = folder.path().join("out");
    let balancers = ["-b", "round-robin", "-b", "random", "-b", "latency"];
    let arguments = [&balancers[..], &["--out", out.to_str().unwrap()]].concat();
    let document = replayed(&path, &arguments);
    let outcomes = document["outcomes"].as_array().unwrap();
    let names: Vec<&str> = outcomes
        .iter()
        .map(|o| o["balancer"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["recorded", "round-robin", "random", "latency"]);
    let requests = &outcomes[1]["total"]["requests"];
    assert!(
        outcomes[1..]
            .iter()
            .all(|o| o["total"]["requests"] == *requests)
    );
    // Chance draws from the same numbers, and so chooses the same.
    assert_eq!(document["agreement"][1], 1.0);
    assert!(document["agreement"][0].as_f64() < Some(0.6));
    let mean = |index: usize| outcomes[index]["total"]["mean"].as_f64().unwrap();
    assert!(mean(3) < mean(1) * 0.7, "{} {}", mean(3), mean(1));
    for name in ["outcome.json", "latency.svg", "load.svg"] {
        assert!(out.join(name).metadata().unwrap().len() > 500, "{name}");
    }
    let again = replayed(&path, &balancers);
    assert_eq!(again, document);
}

#[test]
fn a_recording_is_one_at_a_time_and_says_what_it_takes() {
    let (gateway, _backends) = balanced("round-robin");
    gateway
        .admin("POST", "/upstreams/nobody/record", &[])
        .expect(404);
    let refused = gateway
        .admin("POST", "/upstreams/u/record?seconds=0", &[])
        .expect(400);
    assert!(refused.text().contains("seconds"), "{}", refused.text());
    gateway
        .admin("POST", "/upstreams/u/record?second=1", &[])
        .expect(400);
    let url = format!("http://{}/upstreams/u/record?seconds=600", gateway.admin);
    let first = ureq::post(&url).send_empty().unwrap();
    let second = gateway
        .admin("POST", "/upstreams/u/record", &[])
        .expect(409);
    assert!(second.text().contains("recorded already"));
    drop(first);
}

#[test]
fn the_command_writes_a_trace_that_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _backends) = balanced("round-robin");
    let path = folder.path().join("u.trace");
    let record = |upstream: &str| {
        Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args([
                "record",
                upstream,
                "--max-bytes",
                "120000",
                "--seconds",
                "600",
            ])
            .args([
                "--admin",
                &gateway.admin.to_string(),
                "-o",
                path.to_str().unwrap(),
            ])
            .output()
            .unwrap()
    };
    let refused = record("nobody");
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("404"));
    assert!(!path.exists());
    let load = Load::start(gateway.proxy, "/", 2);
    let recorded = record("u");
    assert!(recorded.status.success(), "{recorded:?}");
    assert_eq!(load.stop().failures, [""; 0]);
    let document = replayed(&path, &["-b", "p2c"]);
    assert_eq!(document["replayed"]["asked"], document["replayed"]["same"]);
    assert!(document["replayed"]["same"].as_u64() > Some(100));
    let table = replay(&[path.to_str().unwrap()]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("recorded ") && table.contains("picks the same again"),
        "{table}"
    );
}

#[test]
fn what_is_no_trace_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = kept(&folder, "none", b"PMTRACE0");
    let output = replay(&[path.to_str().unwrap()]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no trace of pointsman"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
