//! Recording picks, and replaying them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, guest, until};

fn with_backends(algorithm: &str) -> (Gateway, Vec<Backend>) {
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

/// A trace of picks under load, while `meanwhile` changes something.
fn record(gateway: &Gateway, meanwhile: impl FnOnce(&Load)) -> Vec<u8> {
    let url = format!(
        "http://{}/upstreams/u/record?seconds=600&max_bytes=240000",
        gateway.admin
    );
    let load = Load::start(gateway.proxy, "/", 4);
    let mut trace = Vec::new();
    std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            let mut answer = ureq::post(&url).send_empty().unwrap();
            let mut trace = Vec::new();
            // The recording ends at its maximum size.
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
        trace.len() > 100_000 && trace.len() <= 240_000,
        "{}",
        trace.len()
    );
    trace
}

fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("replay").args(arguments).output().unwrap()
}

/// What `pointsman replay` makes of a recording, as JSON.
pub(crate) fn replayed(trace: &Path, more: &[&str]) -> Value {
    let arguments = [&[trace.to_str().unwrap(), "--format", "json"], more].concat();
    let output = replay(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same of a recording that is in memory.
pub(crate) fn replayed_bytes(trace: &[u8], more: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    replayed(&write_file(&folder, "trace", trace), more)
}

fn write_file(folder: &tempfile::TempDir, name: &str, trace: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, trace).unwrap();
    path
}

#[test]
fn replay_repeats_the_picks_of_the_recorded_balancer() {
    let folder = tempfile::tempdir().unwrap();
    // One reads no load, one is told of changes, two look at single endpoints, one gets columns.
    let (gateway, _backends) = with_backends("round-robin");
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
            // The table of endpoints changes during the recording.
            load.wait_for(200);
            gateway.add_target("u", extra.address, 300);
            load.wait_for(200);
            let gone = format!("/upstreams/u/targets/{}", extra.address);
            gateway.admin("DELETE", &gone, &[]).expect(204);
        });
        let path = write_file(&folder, algorithm, &trace);
        let document = replayed(&path, &[]);
        let (asked, same) = (
            &document["replayed"]["asked"],
            &document["replayed"]["same"],
        );
        assert!(asked.as_u64() > Some(500), "{algorithm}: {document}");
        assert_eq!(asked, same, "{algorithm}: {}", document["replayed"]);
        assert_eq!(document["trace"]["balancer"], algorithm);
        // The first outcome is the recorded one, in which all requests were answered.
        let recorded = &document["outcomes"][0];
        assert_eq!(recorded["balancer"], "recorded");
        assert_eq!(recorded["total"]["errors"]["broken"], 0, "{recorded}");
        assert!(
            recorded["total"]["requests"].as_u64() > Some(400),
            "{recorded}"
        );
    }
}

/// Traces of components of each earlier version of the contract. Those of 1.0 and 1.1 have the form
/// in which the first gateway that recorded wrote them: without state, and without the fields of
/// the header that came later.
#[test]
fn traces_of_earlier_versions_are_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/components");
    for (name, picks) in [
        ("round-robin-1.0.0", 300),
        ("p2c-1.1.0", 300),
        ("asks-1.2.0", 319),
        ("least-connections-1.3.0", 381),
    ] {
        let document = replayed(&folder.join(format!("{name}.trace")), &[]);
        let rerun = &document["replayed"];
        assert_eq!(
            (&rerun["asked"], &rerun["same"]),
            (&json!(picks), &json!(picks)),
            "{name}: {rerun}"
        );
    }
}

/// A trace of picks for requests that differ in their bodies and headers.
fn record_requests(gateway: &Gateway, more: &str) -> Vec<u8> {
    let url = format!(
        "http://{}/upstreams/u/record?seconds=60&max_bytes=200000{more}",
        gateway.admin
    );
    let mut answer = ureq::post(&url).send_empty().unwrap();
    std::thread::scope(|scope| {
        let recording = scope.spawn(move || {
            let mut trace = Vec::new();
            let mut reader = answer.body_mut().as_reader();
            reader.read_to_end(&mut trace).unwrap();
            trace
        });
        let mut number = 0;
        while !recording.is_finished() {
            number += 1;
            let body = format!("s3cr3t {}", number * number % 7);
            let position = (number % 5).to_string();
            let headers = [("x-position", &*position), ("x-several", "t0k3n")];
            let body = (number % 4 != 0).then(|| ("text/plain", body.into_bytes()));
            let sent = gateway.send(gateway.proxy, "POST", "/a/b?c", &headers, body);
            sent.expect(200);
        }
        recording.join().unwrap()
    })
}

fn contains(trace: &[u8], text: &str) -> bool {
    trace
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn replay_repeats_the_picks_of_a_balancer_that_reads_recorded_facts() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _backends) = with_backends("round-robin");
    for (name, fact, other) in [
        ("reads-body", "s3cr3t", "t0k3n"),
        ("asks", "t0k3n", "s3cr3t"),
    ] {
        gateway.upload(name, guest(name)).expect(201);
        gateway
            .admin_json("PATCH", "/upstreams/u", &json!({"algorithm": name}))
            .expect(200);
        let trace = record_requests(&gateway, "&facts=true");
        // The trace has the facts that the balancer read, and no others.
        assert!(trace.starts_with(b"PMTRACE2"));
        assert!(contains(&trace, fact) && !contains(&trace, other), "{name}");
        let path = write_file(&folder, name, &trace);
        let component = write_file(&folder, &format!("{name}.wasm"), &guest(name));
        let document = replayed(&path, &["-b", component.to_str().unwrap()]);
        let rerun = &document["replayed"];
        assert!(rerun["asked"].as_u64() > Some(100), "{document}");
        assert_eq!(rerun["asked"], rerun["same"], "{name}: {document}");
        assert_eq!(document["trace"]["facts"], true);
        // The same component given by `-b` reads the same facts.
        assert_eq!(document["agreement"][0], 1.0, "{name}");
        assert_eq!(
            document,
            replayed(&path, &["-b", component.to_str().unwrap()])
        );
        // A balancer that reads other facts gets none, and so picks the first position.
        let theirs = if name == "asks" { "reads-body" } else { "asks" };
        let component = write_file(&folder, "other.wasm", &guest(theirs));
        let document = replayed(&path, &["-b", component.to_str().unwrap()]);
        let agreement = document["agreement"][0].as_f64().unwrap();
        assert!((0.1..0.7).contains(&agreement), "{name}: {agreement}");
    }
}

#[test]
fn facts_are_recorded_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _backends) = with_backends("round-robin");
    let refused = gateway.admin("POST", "/upstreams/u/record?facts=some", &[]);
    assert!(refused.expect(400).text().contains("facts"));
    gateway.upload("asks", guest("asks")).expect(201);
    gateway
        .admin_json("PATCH", "/upstreams/u", &json!({"algorithm": "asks"}))
        .expect(200);
    let trace = record_requests(&gateway, "");
    assert!(trace.starts_with(b"PMTRACE1"));
    assert!(!contains(&trace, "t0k3n") && !contains(&trace, "/a/b"));
    let path = write_file(&folder, "trace", &trace);
    let document = replayed(&path, &[]);
    assert!(document["replayed"]["same"].as_u64() < document["replayed"]["asked"].as_u64());
    let table = replay(&[path.to_str().unwrap()]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("record --facts"), "{table}");
}

#[test]
fn too_large_facts_end_the_recording_and_cost_no_request() {
    let (gateway, _backends) = with_backends("round-robin");
    gateway
        .upload("reads-long-headers", guest("reads-long-headers"))
        .expect(201);
    gateway
        .admin_json(
            "PATCH",
            "/upstreams/u",
            &json!({"algorithm": "reads-long-headers"}),
        )
        .expect(200);
    let url = format!(
        "http://{}/upstreams/u/record?seconds=60&facts=true",
        gateway.admin
    );
    let mut answer = ureq::post(&url).send_empty().unwrap();
    gateway.get("/").expect(200);
    // The recording ends, and what was recorded before is complete.
    let trace = answer.body_mut().read_to_vec().unwrap();
    assert!(trace.starts_with(b"PMTRACE2"));
    gateway.get("/").expect(200);
    let shown = gateway.admin("GET", "/balancers/reads-long-headers", &[]);
    let usage = &shown.expect(200).json()["usage"]["u"];
    assert_eq!(usage["host_choices"], 0, "{usage}");
}

#[test]
fn replay_compares_balancers_on_the_same_requests() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, backends) = with_backends("random");
    // One of the three backends is slow.
    backends[2].respond_with(0, 30);
    let trace = record(&gateway, |_| {});
    let path = write_file(&folder, "trace", &trace);
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
    // The random balancer gets the recorded entropy, and so makes the same picks.
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
fn recordings_of_an_upstream_exclude_each_other() {
    let (gateway, _backends) = with_backends("round-robin");
    gateway
        .admin("POST", "/upstreams/unknown/record", &[])
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
fn a_recording_ends_with_its_client_although_no_request_comes() {
    let (gateway, _backends) = with_backends("round-robin");
    let begin = || {
        let mut client = TcpStream::connect(gateway.admin).unwrap();
        let host = gateway.admin;
        write!(
            client,
            "POST /upstreams/u/record?seconds=86400 HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        (client, String::from_utf8(status.into()).unwrap())
    };
    let (client, status) = begin();
    assert_eq!(status, "HTTP/1.1 200");
    let (_, status) = begin();
    assert_eq!(status, "HTTP/1.1 409");
    drop(client);
    until("the recording has ended", || begin().1 == "HTTP/1.1 200");
}

#[test]
fn a_file_that_cannot_be_written_begins_no_recording() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _backends) = with_backends("round-robin");
    let record = |upstream: &str, out: &Path| {
        Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["record", upstream, "--max-bytes", "1", "-o"])
            .arg(out)
            .args(["--admin", &gateway.admin.to_string()])
            .output()
            .unwrap()
    };
    gateway.backend_of("/");
    let instances = || {
        let shown = gateway.admin("GET", "/balancers/round-robin", &[]);
        shown.expect(200).json()["usage"]["u"]["instances"].clone()
    };
    let before = instances();
    let missing = record("u", &folder.path().join("missing/u.trace"));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("cannot write"), "{said}");
    assert_eq!(instances(), before);
    // What is in a file stays there if there is no trace.
    let kept = write_file(&folder, "kept", b"an earlier trace");
    assert!(!record("unknown", &kept).status.success());
    assert_eq!(std::fs::read(&kept).unwrap(), b"an earlier trace");
}

#[test]
fn the_command_writes_a_trace_that_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _backends) = with_backends("round-robin");
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
    let refused = record("unknown");
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
fn targets_without_an_answer_in_the_trace_are_no_successes() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, backends) = with_backends("round-robin");
    for backend in &backends {
        backend.respond_with(500, 0);
    }
    let settings =
        json!({"algorithm": "consistent-hashing", "hash_on": "header", "hash_on_header": "k"});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let url = format!("http://{}/upstreams/u/record?seconds=600", gateway.admin);
    let mut recording = ureq::post(&url).send_empty().unwrap();
    for _ in 0..24 {
        gateway.get_with("/", &[("k", "one")]).expect(500);
    }
    // A change of the balancer ends the recording.
    let settings = json!({"algorithm": "random"});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let trace = recording.body_mut().read_to_vec().unwrap();
    let path = write_file(&folder, "trace", &trace);
    let document = replayed(&path, &["-b", "round-robin"]);
    let total = &document["outcomes"][1]["total"];
    assert_eq!(total["requests"], 24, "{total}");
    assert_eq!(total["errors"]["error"], 8, "{total}");
    assert_eq!(total["unknown"], 16, "{total}");
    assert_eq!(document["outcomes"][0]["total"].get("unknown"), None);
    let table = replay(&[path.to_str().unwrap(), "-b", "round-robin"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("round-robin sends 66.7 % of the requests to targets of which"),
        "{table}"
    );
    let row = table
        .lines()
        .rfind(|line| line.trim().starts_with("round-robin"));
    let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(
        cells[1..7],
        ["24", "-", "-", "-", "-", "100.000"],
        "{table}"
    );
}

#[test]
fn a_file_that_is_not_a_trace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(&folder, "none", b"PMTRACE0");
    let output = replay(&[path.to_str().unwrap()]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not a trace of pointsman"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
