//! Work that an uploaded component causes is bounded, and delays no other request.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::balancers::long_component;
use crate::harness::{Backend, Gateway, Load, Setup, guest, until};

/// The files of compiled components.
fn compiled(data_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data_dir.join("cache")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".cwasm")).collect();
    names.sort_unstable();
    names
}

fn digest_of(row: &Value) -> String {
    row["digest"].as_str().unwrap().to_owned()
}

/// The process ids of running workers of a gateway that run this command.
fn workers_of(gateway: u32, command: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        let is_worker = line.split(|byte| *byte == 0).nth(1) == Some(command.as_bytes());
        let parent = parent.and_then(|parent| parent.parse().ok());
        if is_worker && state != Some("Z") && parent == Some(gateway) {
            found.push(id);
        }
    }
    found
}

fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim_start()
        .chars()
        .next();
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn a_schema_that_expands_exponentially_is_refused() {
    let gateway = Gateway::start();
    let refused = gateway.upload("x", guest("doubling-schema")).expect(400);
    let said = refused.text();
    assert!(said.contains("comes to more than 10000 schemas"), "{said}");
    gateway.admin("GET", "/status", &[]).expect(200);
}

/// An engine that backtracks would need exponential time for the text below.
#[test]
fn a_backtracking_pattern_is_matched_in_bounded_time() {
    let gateway = Gateway::start();
    gateway.upload("x", guest("pattern-schema")).expect(201);
    let upstream = |key: &str| {
        let settings = json!({"name": "u", "algorithm": "x",
            "pointsman": {"balancer_config": {"key": key}}});
        gateway.admin_json("PUT", "/upstreams/u", &settings)
    };
    let refused = upstream(&"a".repeat(5000)).expect(400);
    assert!(
        refused.text().contains("balancer_config"),
        "{}",
        refused.text()
    );
    upstream("abcAb").expect(200);
    // Known settings are not checked again.
    upstream("abcAb").expect(200);
    let large = upstream(&"a".repeat(2 << 20)).expect(400);
    assert!(
        large.text().contains("may have 1048576"),
        "{}",
        large.text()
    );
}

/// Each of 20 requests waits for a plugin that does not return from `configure`.
#[test]
fn the_admin_api_answers_while_plugins_are_slow() {
    let gateway = Setup::new().arg("--balancer-pick-timeout", 50).start();
    let made = gateway
        .upload("slow", guest("loops-in-configure"))
        .expect(201);
    let digest = digest_of(&made.json());
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..20)
            .map(|number| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let name = format!("u{number}");
                    let settings = json!({"name": name, "algorithm": "slow",
                        "pointsman": {"balancer_config": {"a": number}}});
                    gateway
                        .admin_json("POST", "/upstreams", &settings)
                        .expect(400)
                })
            })
            .collect();
        let mut answers = 0;
        while !slow.iter().all(|request| request.is_finished()) {
            gateway.admin("GET", "/status", &[]).expect(200);
            gateway.admin("GET", "/upstreams", &[]).expect(200);
            answers += 1;
        }
        assert!(
            answers > 0,
            "no answer while {digest} was configured 20 times"
        );
        for request in slow {
            request.join().unwrap();
        }
    });
}

#[test]
fn the_compiled_component_of_a_deleted_version_is_deleted() {
    let gateway = Gateway::start();
    let data_dir = gateway.data_dir.clone();
    let shipped = compiled(&data_dir);
    let first = digest_of(&gateway.upload("mine", guest("first")).expect(201).json());
    let body = Some(("application/wasm", guest("least-in-flight")));
    let path = "/balancers/mine/versions";
    let next = gateway
        .send(gateway.admin, "POST", path, &[], body)
        .expect(201);
    let next = digest_of(&next.json());
    // This component is refused after it was compiled.
    gateway.upload("odd", guest("unknown-column")).expect(400);
    gateway.upload("mine", guest("heavy")).expect(409);
    let has = |digest: &str| {
        compiled(&data_dir)
            .iter()
            .any(|name| name.starts_with(digest))
    };
    until("only stored components are left", || {
        compiled(&data_dir).len() == shipped.len() + 2 && has(&first) && has(&next)
    });
    let version = format!("{path}/{next}");
    gateway.admin("DELETE", &version, &[]).expect(204);
    until("the version's file is gone", || has(&first) && !has(&next));
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    until("the balancer's file is gone", || {
        compiled(&data_dir) == shipped
    });
    // A file of another build of the gateway.
    let other = data_dir
        .join("cache")
        .join(format!("{first}-0123456789abcdef.cwasm"));
    std::fs::write(&other, "code").unwrap();
    let _folder = gateway.kill();
    let _gateway = Setup::with_data(&data_dir).start();
    until("the file of another build is deleted", || !other.exists());
    assert_eq!(compiled(&data_dir), shipped);
}

#[test]
fn compile_workers_are_limited_and_end_with_their_gateway() {
    let gateway = Setup::new()
        .arg("--balancer-compile-timeout", 600)
        .arg("--balancer-upload", 65_536)
        .start();
    let id = gateway.pid();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (cores / 2).clamp(1, 4);
    std::thread::scope(|scope| {
        for number in 0..most + 3 {
            let gateway = &gateway;
            // A custom section, which nothing reads, makes each component another one.
            let mut component = long_component();
            component.extend([0, 3, 1, b'x', b'0' + number as u8]);
            scope.spawn(move || {
                let path = format!("/balancers?name=long-{number}");
                // There may be no answer, because the gateway is killed.
                let _ = gateway.try_send(
                    gateway.admin,
                    "POST",
                    &path,
                    ("application/wasm", component),
                );
            });
        }
        until("the limit of compile workers is reached", || {
            workers_of(id, "compile-worker").len() == most
        });
        gateway.admin("GET", "/status", &[]).expect(200);
        let workers = workers_of(id, "compile-worker");
        assert_eq!(workers.len(), most);
        gateway.kill_9();
        until("the compile workers have ended", || {
            !workers.iter().any(|worker| is_running(*worker))
        });
    });
}

/// Also where only one pick in 100 takes too long.
#[test]
fn a_balancer_seldom_over_its_pick_cost_is_quarantined() {
    let gateway = Setup::new()
        .arg("--balancer-pick-timeout", 100)
        .arg("--balancer-pick-cost", 100)
        .start();
    let backend = Backend::start("a");
    gateway.balanced(&[(backend.address, 1)]);
    gateway.upload("costly", guest("dear")).expect(201);
    for (every, steps) in [(2, 3_000_000), (10, 3_000_000), (100, 30_000_000)] {
        let settings = json!({"algorithm": "costly",
            "pointsman": {"balancer_config": {"every": every, "steps": steps}}});
        let load = Load::start(gateway.proxy, "/", 3);
        gateway
            .admin_json("PATCH", "/upstreams/u", &settings)
            .expect(200);
        let usage = || gateway.admin("GET", "/balancers/costly", &[]).json()["usage"]["u"].clone();
        until("the balancer is in quarantine", || {
            usage()["faults"]["cost"].as_u64() > Some(0)
        });
        assert_eq!(load.stop().failures, [""; 0]);
        let usage = usage();
        assert!(usage["quarantine"].as_f64() > Some(0.0), "{usage}");
        let said = usage["last_fault"].as_str().unwrap();
        assert!(said.contains("balancer_pick_cost"), "{said}");
        gateway
            .admin_json(
                "PATCH",
                "/upstreams/u",
                &json!({"algorithm": "round-robin", "pointsman": {"balancer_config": null}}),
            )
            .expect(200);
    }
}

#[test]
fn the_message_of_a_panic_is_shown_everywhere() {
    let gateway = Gateway::start();
    let backend = Backend::start("a");
    gateway.balanced(&[(backend.address, 1)]);
    gateway.upload("mine", guest("first")).expect(201);
    let body = Some(("application/wasm", guest("panics-after-much")));
    let path = "/balancers/mine/versions";
    let next = gateway
        .send(gateway.admin, "POST", path, &[], body)
        .expect(201);
    let next = digest_of(&next.json());
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "mine")])
        .expect(200);
    let canary = format!("{path}/{next}/canary");
    gateway
        .admin_json("POST", &canary, &json!({"share_percent": 100}))
        .expect(201);
    gateway.get("/").expect(200);
    let words = "panicked at examples/panics-after-much.rs";
    let end = "what went wrong in the end: 0";
    let shows_message = |said: &Value| {
        let said = said.as_str().unwrap_or_default();
        said.contains(words) && said.ends_with(end)
    };
    until("the canary has returned", || {
        let shown = gateway.admin("GET", "/balancers/mine", &[]).json();
        shown["canary"]["state"] == "returned" && shows_message(&shown["canary"]["reason"])
    });
    gateway
        .admin("POST", &format!("{path}/{next}/promote"), &[])
        .expect(200);
    gateway.get("/").expect(200);
    let usage = gateway.admin("GET", "/balancers/mine", &[]).json()["usage"]["u"].clone();
    assert!(shows_message(&usage["last_fault"]), "{usage}");
}

/// The id of an endpoint is a hash of values that a client can guess, so it must not work as a
/// cookie.
#[test]
fn a_session_cookie_is_valid_at_one_gateway_only() {
    let setting = [
        ("name", "u"),
        ("algorithm", "sticky-sessions"),
        ("sticky_sessions_cookie", "session"),
    ];
    let gateways = [Gateway::start(), Gateway::start()];
    let backends = ["a", "b"].map(Backend::start);
    let cookie = |gateway: &Gateway| {
        let answer = gateway.get("/").expect(200);
        let cookie = answer
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        (cookie, answer.header("x-backend").to_owned())
    };
    for gateway in &gateways {
        gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 1)));
        gateway.admin("PUT", "/upstreams/u", &setting).expect(200);
    }
    let of = |gateway: &Gateway, name: &str| loop {
        let (cookie, backend) = cookie(gateway);
        if backend == name {
            return cookie;
        }
    };
    let own = of(&gateways[0], "a");
    assert_ne!(own, of(&gateways[1], "a"));
    // The endpoint's id as the Admin API shows it is not a valid session.
    let explained = gateways[0]
        .admin_json("POST", "/upstreams/u/explain", &json!({}))
        .expect(200)
        .json();
    for endpoint in explained["endpoints"].as_array().unwrap() {
        let guess = format!("session={}", endpoint["id"].as_str().unwrap());
        let answer = gateways[0].get_with("/", &[("cookie", &guess)]).expect(200);
        assert!(
            answer.header("set-cookie").starts_with("session="),
            "{guess}"
        );
        assert_ne!(own, guess);
    }
    // The session survives a restart with the same data folder.
    let data_dir = gateways[0].data_dir.clone();
    let [first, _second] = gateways;
    let _folder = first.kill();
    let gateway = Setup::with_data(&data_dir).start();
    for _ in 0..4 {
        let answer = gateway.get_with("/", &[("cookie", &own)]).expect(200);
        assert_eq!(answer.header("x-backend"), "a");
        assert_eq!(answer.header("set-cookie"), "");
    }
    let key = std::fs::metadata(data_dir.join("session.key")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_long_check_reports_its_progress() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("costly.wasm");
    std::fs::write(&file, guest("dear")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args([
            "plugin",
            "check",
            "--config",
            r#"{"every": 2, "steps": 2500000}"#,
        ])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("FAIL  cost"), "{said}");
    assert!(said.contains("balancer_pick_cost"), "{said}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("picks so far"), "{said}");
}
