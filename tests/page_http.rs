//! The page for operators: its listener, its live figures, and its simulations, over HTTP.

use serde_json::{Value, json};

use crate::harness::{Gateway, Load, Raw, Setup, until};
use crate::page::{TOKENS, ask, balanced, setup, url};

#[test]
fn files_are_sent_with_a_policy_and_asked_for_again_by_their_tag() {
    let gateway = setup().start();
    let page = ask(&gateway, "GET", "/", &[]).expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let tag = page.header("etag").to_owned();
    let known = [("if-none-match", &*tag)];
    assert_eq!(ask(&gateway, "GET", "/", &known).expect(304).body, b"");
    let script = ask(&gateway, "GET", "/app.js", &[]).expect(200);
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    assert_eq!(ask(&gateway, "HEAD", "/app.js", &[]).expect(200).body, b"");
    for path in ["/absent.js", "/../Cargo.toml", "/lib", "/%2e%2e/x"] {
        let absent = ask(&gateway, "GET", path, &[]).expect(404);
        assert!(absent.header("content-security-policy").contains("'none'"));
    }
    let refused = ask(&gateway, "POST", "/app.js", &[]).expect(405);
    assert_eq!(refused.header("allow"), "GET, HEAD, OPTIONS");
}

#[test]
fn the_admin_api_below_the_page_has_the_same_guards() {
    let gateway = setup().arg("--admin-tokens", TOKENS).start();
    ask(&gateway, "GET", "/", &[]).expect(200);
    ask(&gateway, "GET", "/api/services", &[]).expect(401);
    let token = ("authorization", "Bearer one");
    ask(&gateway, "GET", "/api/services", &[token]).expect(200);
    ask(&gateway, "GET", "/api", &[token]).expect(200);

    let gateway = setup().start();
    let foreign = [("origin", "https://attacker.example")];
    let refused = ask(&gateway, "DELETE", "/api/services/x", &foreign).expect(403);
    assert!(refused.text().contains("admin_gui_url"));
    let read = ask(&gateway, "GET", "/api/services", &foreign).expect(200);
    assert_eq!(read.header("access-control-allow-origin"), "");
    let rebound = [("host", "attacker.example")];
    ask(&gateway, "GET", "/api/services", &rebound).expect(421);
    let own = url(&gateway);
    let own = [("origin", own.trim_end_matches('/'))];
    ask(&gateway, "DELETE", "/api/services/x", &own).expect(204);
}

#[test]
fn a_prefix_is_read_whether_a_proxy_passes_it_on_or_not() {
    let gateway = setup().arg("--admin-gui-path", "/ops/gate/").start();
    for path in ["/", "/ops/gate", "/ops/gate/"] {
        let page = ask(&gateway, "GET", path, &[]).expect(200).text();
        assert!(page.contains("<base href=\"/ops/gate/\">"), "{path}");
    }
    for path in [
        "/app.js",
        "/ops/gate/app.js",
        "/api/status",
        "/ops/gate/api/status",
    ] {
        ask(&gateway, "GET", path, &[]).expect(200);
    }
    ask(&gateway, "GET", "/ops/gatekeeper", &[]).expect(404);
    let (_, log) = Setup::new().arg("--admin-gui-path", "ops").fail();
    assert!(log.contains("admin_gui_path"), "{log}");
}

#[test]
fn live_figures_come_each_second_and_end_with_the_gateway() {
    use std::io::{BufRead, BufReader, Write};
    let (gateway, _backends) = balanced(setup());
    let mut stream = std::net::TcpStream::connect(gateway.admin).unwrap();
    let request = "GET /upstreams/u/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let load = Load::start(gateway.proxy, "/", 2);
    let figures =
        |line: String| -> Option<Value> { serde_json::from_str(line.strip_prefix("data: ")?).ok() };
    let seen = lines.by_ref().filter_map(figures).find(|figures| {
        let lanes = figures["lanes"].as_array().unwrap();
        lanes.len() == 3 && lanes.iter().all(|lane| lane["picks"].as_f64() > Some(0.0))
    });
    let seen = seen.unwrap();
    assert!(seen["rate"].as_f64() > Some(0.0) && seen["p99"].is_number());
    assert_eq!(seen["balancer"]["name"], "round-robin");
    assert!(!seen["samples"].as_array().unwrap().is_empty());
    load.stop();
    gateway.terminate();
    // The response ends, and with it the connection: the gateway does not wait for the client.
    assert!(lines.count() < 1000);
    let (_, log) = gateway.wait();
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn a_client_that_takes_no_figures_is_disconnected_and_delays_no_end() {
    // Events of several hundred kilobytes fill the buffers of both systems within seconds.
    let targets = (0..4000).map(
        |number| json!({ "target": format!("127.1.{}.{}:9", number / 250, number % 250 + 1) }),
    );
    let targets: Vec<_> = targets.collect();
    let upstream = json!({ "name": "u", "targets": targets });
    let configuration = json!({ "_format_version": "3.0", "upstreams": [upstream] });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kong.json");
    std::fs::write(&file, configuration.to_string()).unwrap();
    let gateway = Setup::new()
        .arg("--shutdown-timeout", "60")
        .arg("--database", "off")
        .arg("--declarative-config", file.display())
        .start();
    let follow = || {
        let mut raw = Raw::connect(gateway.admin);
        raw.send(b"GET /upstreams/u/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        raw.read_until("\r\n\r\n");
        raw
    };
    let _first = follow();
    gateway.wait_for_log("a client of live figures is disconnected");
    // The places of clients are free again, and a client that reads gets events.
    let mut reading = follow();
    reading.read_until("event: figures");
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn a_gateway_goes_on_without_the_page_if_its_usual_address_is_in_use() {
    // If this fails, another program of the machine has the address, which is as well.
    let _held = std::net::TcpListener::bind("127.0.0.1:8002");
    let gateway = Setup::new().default_page().start();
    assert_eq!(gateway.listeners["gui"], json!([]));
    gateway.wait_for_log("this gateway has no page; set admin_gui_listen");
    let (_, log) = Setup::new()
        .arg("--admin-gui-listen", "127.0.0.1:8002")
        .fail();
    assert!(log.contains("setting admin_gui_listen"), "{log}");
}

#[test]
fn samples_of_requests_are_short() {
    let gateway = setup().start();
    let mut raw = Raw::connect(gateway.admin);
    raw.send(b"GET /pointsman/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let load = Load::start(gateway.proxy, &format!("/{}", "x".repeat(4000)), 1);
    raw.read_until("\"samples\":[{");
    let sample = raw.read_until("}");
    assert!(sample.contains("/xxx") && sample.contains('…'), "{sample}");
    assert!(sample.len() < 1000, "{sample}");
    load.stop();
}

/// A simulation of several minutes.
fn long_simulation() -> String {
    let scenario = "description = \"x\"\nload = [{ seconds = 3000, level = 0.8 }]\n[requests]\n\
                    cost = { distribution = \"constant\", mean = 5 }\n[[targets]]\ncount = 200\n";
    json!({ "scenario": "x", "text": scenario, "balancers": ["p2c"] }).to_string()
}

#[test]
fn a_simulation_ends_with_its_client_and_has_bounds() {
    let gateway = Gateway::start();
    let body = long_simulation();
    let mut raw = Raw::connect(gateway.admin);
    let head = "POST /pointsman/simulate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
    raw.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let folder = gateway.data_dir.join("simulations");
    let files = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    until("the simulation to begin", || files() == 1);
    let short = json!({ "scenario": "x", "text": "x" });
    let ask = || {
        gateway
            .admin_json("POST", "/pointsman/simulate", &short)
            .status
    };
    assert_eq!(ask(), 409);
    drop(raw);
    // Long before it would have ended.
    until("the turn to be free", || ask() == 400);
    assert_eq!(files(), 0);

    let large = "description = \"x\"\ngateways = 1000\nload = [{ seconds = 5, level = 0.5 }]\n[requests]\n\
                 cost = { distribution = \"constant\", mean = 20 }\n[[targets]]\ncount = 20000\n";
    let large = json!({ "scenario": "x", "text": large, "balancers": ["least-connections"] });
    let refused = gateway.admin_json("POST", "/pointsman/simulate", &large);
    let refused = refused.expect(400).text();
    assert!(
        refused.contains("MiB") || refused.contains("longer than"),
        "{refused}"
    );
}

#[test]
fn a_start_removes_what_a_killed_simulation_has_left() {
    let folder = tempfile::tempdir().unwrap();
    Setup::new().data_dir(folder.path()).start().kill();
    let left = folder.path().join("simulations/x");
    std::fs::create_dir_all(&left).unwrap();
    let gateway = Setup::new().data_dir(folder.path()).start();
    until("the folder to be removed", || !left.exists());
    drop(gateway);
}
