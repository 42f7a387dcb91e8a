//! The log: requests, changes, health, canaries, and colours.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{
    Backend, Gateway, Setup, exchange, guest, patch_upstream, refusing_address, set_passive_checks,
};
use crate::store_faults::{create, get, start_gateway};

#[test]
fn every_log_line_about_a_request_has_its_id() {
    let gateway = Setup::new().arg("--log", "debug").start();
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 100)]);
    // With a retry the request would end with another error, because no target is healthy then.
    gateway
        .admin("PATCH", "/services/u-service", &[("retries", "0")])
        .expect(200);
    set_passive_checks(&gateway, &json!({"tcp_failures": 1}));
    let id = |reply: &crate::harness::Reply| reply.header("x-kong-request-id").to_owned();
    let failed = id(&gateway.get("/").expect(502));
    let without = id(&gateway.get("/").expect(503));
    gateway
        .upload("reads-body", guest("reads-body"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "reads-body"}));
    let path = format!("/upstreams/u/targets/{refusing}/healthy");
    gateway.admin("PUT", &path, &[]).expect(204);
    let spoken = id(&gateway.get("/").expect(502));
    let malformed = exchange(gateway.proxy, "nonsense\r\n\r\n");
    let malformed = malformed.to_ascii_lowercase();
    let malformed = malformed.split_once("x-kong-request-id: ").unwrap().1[..32].to_owned();
    gateway.terminate();
    let (_, log) = gateway.wait();
    let with = |words: &str, id: &str| {
        let mut lines = log.lines().filter(|line| line.contains(words));
        assert!(lines.any(|line| line.contains(id)), "{words} {id}: {log}");
    };
    with("no answer", &failed);
    with("a try failed", &failed);
    with("unhealthy", &failed);
    with("no endpoint may be chosen", &without);
    with("the balancer says", &spoken);
    with("nothing more", &malformed);
}

#[test]
fn every_change_is_logged_in_one_line() {
    let plain = |folder: &Path| Setup::with_data(folder).env("NO_COLOR", 1);
    let (_folder, gateway, backend) = start_gateway(plain);
    let id = create(&gateway, "s").expect(201).json()["id"].clone();
    let id = id.as_str().unwrap();
    gateway
        .admin("PATCH", "/services/s", &[("host", "i")])
        .expect(200);
    gateway
        .admin("PUT", "/services/s", &[("host", "j")])
        .expect(200);
    gateway
        .admin("PUT", "/services/t", &[("host", "j")])
        .expect(200);
    gateway.admin("DELETE", "/services/s", &[]).expect(204);
    let cache = [("name", "proxy-cache"), ("config.strategy", "memory")];
    let cache = gateway.admin("POST", "/plugins", &cache).expect(201).json();
    let path = format!("/plugins/{}", cache["id"].as_str().unwrap());
    let longer = [("config.cache_ttl", "60")];
    gateway.admin("PATCH", &path, &longer).expect(200);
    gateway.admin("DELETE", "/proxy-cache", &[]).expect(204);
    let target = backend.address.to_string();
    let path = format!("/upstreams/u/targets/{target}");
    gateway
        .admin("PATCH", &path, &[("weight", "5")])
        .expect(200);
    gateway.upload("mine", guest("first")).expect(201);
    let algorithm = [("algorithm", "mine")];
    gateway
        .admin("PATCH", "/upstreams/u", &algorithm)
        .expect(200);
    let add = |component: &str| {
        let body = Some(("application/wasm", guest(component)));
        let added = gateway.send(gateway.admin, "POST", "/balancers/mine/versions", &[], body);
        added.expect(201).json()["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = get(&gateway, "/balancers/mine")["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = add("lightest");
    let versions = "/balancers/mine/versions";
    let canary = format!("{versions}/{second}/canary");
    let all = json!({"share_percent": 50});
    gateway.admin_json("POST", &canary, &all).expect(201);
    gateway.admin("DELETE", &canary, &[]).expect(204);
    gateway.admin_json("POST", &canary, &all).expect(201);
    let promote = format!("{versions}/{second}/promote");
    gateway.admin("POST", &promote, &[]).expect(200);
    gateway
        .admin("POST", "/balancers/mine/rollback", &[])
        .expect(200);
    let version = format!("{versions}/{second}");
    gateway.admin("DELETE", &version, &[]).expect(204);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let lines = |wanted: &[&str]| {
        let has = |line: &&str| line.contains(" INFO ") && wanted.iter().all(|w| line.contains(w));
        log.lines().filter(has).count()
    };
    let s = format!("service \"s\" ({id})");
    let t = format!("target {target:?} (");
    let expected: [&[&str]; 17] = [
        &[&s, "created"],
        &[&s, "updated: host"],
        &[&s, "replaced: host"],
        &[": plugin \"proxy-cache\" (", "created"],
        &[": plugin \"proxy-cache\" (", "updated: config.cache_ttl"],
        &[": all responses of proxy-cache removed"],
        &["service \"t\" (", "created"],
        &[&s, "deleted"],
        &[": upstream \"u\" (", "created"],
        &[&t, "of upstream \"u\" (", "created"],
        &[&t, "updated"],
        &[": balancer \"mine\" (", "created", &first],
        &[": upstream \"u\" (", "updated"],
        &["version", &second, "of balancer \"mine\"", "uploaded"],
        &[
            ": balancer \"mine\" (",
            "canary ended: the version",
            &second,
        ],
        &[
            "balancer \"mine\" (",
            "promoted: the version",
            &second,
            "canary ended: promoted",
        ],
        &[": balancer \"mine\" (", "rolled back: the version", &first],
    ];
    for wanted in expected {
        assert_eq!(lines(wanted), 1, "{wanted:?}: {log}");
    }
    // Two of them, by two requests.
    assert_eq!(lines(&["canary started", &second, "50"]), 2, "{log}");
    assert_eq!(lines(&["version", &second, "deleted"]), 1, "{log}");
}

#[test]
fn logs_are_coloured_on_terminals_only() {
    let gateway = Gateway::start();
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("INFO") && !log.contains('\x1b'), "{log:?}");
    // A terminal made by `script`, of Debian's essential bsdutils.
    let on_terminal = |no_color: &str| {
        let program = env!("CARGO_BIN_EXE_pointsman");
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // The shell is replaced by the gateway, so that the signal below reaches the gateway.
        let start = format!(
            "exec '{program}' --data-dir '{}' --proxy-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
             --admin-gui-listen off --status-listen off",
            data.display()
        );
        // The input stays open until the end: `script` passes the end of its input on.
        let mut child = Command::new("script")
            .args(["-qefc", &start, "/dev/null"])
            .env("NO_COLOR", no_color)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            seen.push(String::from_utf8_lossy(&line.unwrap()).into_owned());
            if seen.last().unwrap().contains("proxy listens") {
                break;
            }
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()));
        for id in children.unwrap().split_whitespace() {
            Command::new("kill").arg(id).status().unwrap();
        }
        let status = child.wait().unwrap();
        let line = seen.pop().unwrap_or_default();
        assert!(
            line.contains("proxy listens"),
            "{status}: {seen:?} {line:?}"
        );
        line
    };
    assert!(on_terminal("").contains("\x1b["));
    assert!(!on_terminal("1").contains("\x1b["));
}

#[test]
fn the_log_has_the_reason_of_a_change_of_health() {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let passive = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 3}}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &passive)
        .expect(200);
    let [left, gone] = backends;
    let address = gone.address;
    gone.kill();
    let is_unhealthy = || {
        let health = gateway.admin("GET", "/upstreams/u/health", &[]).json();
        health.to_string().contains("\"UNHEALTHY\"")
    };
    while !is_unhealthy() {
        gateway.backend_of("/");
    }
    gateway.terminate();
    let (_, log) = gateway.wait();
    let line = log.lines().find(|line| line.contains("passive check: "));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let verdict = "passive check: target marked unhealthy (connection refused × 3)";
    assert!(line.contains(verdict), "{line}");
    assert!(line.contains(&address.to_string()), "{line}");
    drop(left);
}

#[test]
fn the_log_has_the_start_and_the_end_of_a_canary() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.upload("mine", guest("first")).expect(201);
    let body = Some(("application/wasm", guest("counts")));
    let path = "/balancers/mine/versions";
    let added = gateway.send(gateway.admin, "POST", path, &[], body);
    let digest = added.expect(201).json()["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    gateway.balanced(&[(backend.address, 100)]);
    let version = format!("{path}/{digest}");
    let begin = format!("{version}/canary");
    gateway
        .admin("POST", &begin, &[("share_percent", "20")])
        .expect(201);
    gateway
        .admin("POST", &format!("{version}/promote"), &[])
        .expect(200);
    gateway.terminate();
    let (_, log) = gateway.wait();
    for words in [
        "canary started: the version",
        "takes 20 % of the picks",
        "canary ended: promoted",
    ] {
        // Each change is one line.
        assert_eq!(log.matches(words).count(), 1, "{words} in {log}");
    }
}
