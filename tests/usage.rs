//! The command line: settings, signals, the log, and messages of commands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Backend, Gateway, Setup, guest};

/// Runs the program without settings in its environment.
fn pointsman(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

/// Runs a command that has to fail, and returns its standard error.
#[track_caller]
pub(crate) fn error_of(arguments: &[&str]) -> String {
    let output = pointsman(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn all_mistakes_of_flags_environment_and_file_are_reported_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let text = "log = info\nwokers = 3\nbalancer_memory = \"64\"\n[proxy]\nlisten = 1\n";
    fs::write(&file, text).unwrap();
    let (status, said) = Setup::new()
        .arg("--config", file.display())
        .arg("--max-header-size", "large")
        .env("POINTSMAN_CLIENT_BODY_TIMEOUT", -1)
        .arg("--balancer-pik-cost", 7)
        .env("POINTSMAN_WORKERS", "many")
        .env("POINTSMAN_DNS_MIN_TTL", "")
        .env("POINTSMAN_LOGG", "info")
        .fail();
    assert!(!status.success());
    let file = file.display();
    let expected = [
        format!("log = info: text needs quotes, as in log = \"info\" (set in {file}, line 1)"),
        format!("{file}, line 2 is invalid: unknown field `wokers`; did you mean `workers`?"),
        format!("without quotes (set in {file}, line 3)"),
        format!("{file}, line 4 is invalid: unknown field `proxy`"),
        "max_header_size = \"large\": expected a number from 8192 to 1048576 (set by --max-header-size)".into(),
        "client_body_timeout = -1: expected a number from 1 to 3600".into(),
        "'--balancer-pik-cost' found; did you mean --balancer-pick-cost?".into(),
        "workers = \"many\": expected a number from 1 to 1024 (set by POINTSMAN_WORKERS)".into(),
        "dns_min_ttl = \"\": expected a number from 10 to 3600000 (set by POINTSMAN_DNS_MIN_TTL)".into(),
        "no setting has the variable POINTSMAN_LOGG; did you mean POINTSMAN_LOG?".into(),
    ];
    for mistake in &expected {
        assert!(said.contains(mistake.as_str()), "{mistake}\nin\n{said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    assert!(said.lines().all(|line| line.starts_with("pointsman: ")));
}

#[test]
fn an_unreadable_config_file_hides_no_other_mistake() {
    let (_, said) = Setup::new()
        .arg("--config", "/none/settings.toml")
        .arg("--workers", 0)
        .fail();
    assert!(
        said.contains("cannot read the config file /none/settings.toml"),
        "{said}"
    );
    assert!(said.contains("workers = 0: expected"), "{said}");
    // A variable that is set by Kubernetes for a service named `pointsman` is not a setting.
    let gateway = Setup::new()
        .env("POINTSMAN_PORT", "tcp://10.0.0.1:80")
        .start();
    gateway.admin("GET", "/status", &[]).expect(200);
}

#[test]
fn a_flag_without_a_value_is_reported_with_the_others() {
    let said = error_of(&["--workers", "0", "--log", "loud", "--data-dir"]);
    for mistake in ["workers = 0", "log = \"loud\"", "--data-dir <DIR>"] {
        assert!(said.contains(mistake), "{mistake} in {said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn a_mistyped_command_gets_a_suggestion() {
    for (mistyped, meant) in [
        (&["simulat"][..], "'simulate'"),
        (&["plugin", "chek"], "'check'"),
        (&["simulate", "uneven", "--sed", "3"], "'--seed'"),
        (&["--worker", "simulate"], "--workers"),
    ] {
        let said = error_of(mistyped);
        assert!(said.contains(meant), "{mistyped:?}: {said}");
    }
}

#[test]
fn signals_to_reload_leave_the_gateway_running() {
    let mut child = Setup::new()
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |words: &str| {
        let line = log.find_map(|line| line.ok().filter(|line| line.contains(words)));
        line.unwrap_or_else(|| panic!("the log ends without {words:?}"))
    };
    wait_for("Admin API listens");
    let id = child.id().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    };
    for name in ["HUP", "USR1", "USR2", "HUP"] {
        signal(name);
        wait_for(&format!("SIG{name}: nothing to reload"));
    }
    // The signal for a graceful end, as of Kong and nginx.
    signal("QUIT");
    wait_for("SIGQUIT: no new connections");
    assert!(child.wait().unwrap().success());
}

#[test]
fn logs_are_coloured_on_terminals_only() {
    let gateway = Gateway::start();
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("INFO") && !log.contains('\x1b'), "{log:?}");
    // A terminal made by `script`, of Debian's essential bsdutils.
    let folder = tempfile::tempdir().unwrap();
    let on_terminal = |no_color: &str| {
        let program = env!("CARGO_BIN_EXE_pointsman");
        let data = folder.path().join("data");
        let start = format!(
            "'{program}' --data-dir '{}' --proxy-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0",
            data.display()
        );
        let mut child = Command::new("script")
            .args(["-qefc", &start, "/dev/null"])
            .env("NO_COLOR", no_color)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("proxy listens")));
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()));
        for id in children.unwrap().split_whitespace() {
            Command::new("kill").arg(id).status().unwrap();
        }
        child.wait().unwrap();
        line.unwrap()
    };
    assert!(on_terminal("").contains("\x1b["));
    assert!(!on_terminal("1").contains("\x1b["));
}

/// Two targets of unequal size, for a few seconds.
const SCENARIO: &str = r#"
description = "two targets"
load = [{ seconds = 4, level = 0.4 }, { seconds = 4, level = 0.8 }]
requests = { cost = { distribution = "exponential", mean = 20 }, timeout = 5 }

[[targets]]
cores = 4
endpoints = [{ label = "big", host = "192.0.2.10", port = 9001 }]

[[targets]]
endpoints = [{ label = "small", id = "00000000000000ff" }]
"#;

struct Fleet {
    folder: TempDir,
    file: String,
}

impl Fleet {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my-fleet.toml");
        fs::write(&file, SCENARIO).unwrap();
        let file = file.to_str().unwrap().to_owned();
        Self { folder, file }
    }

    /// A guest as a file.
    fn guest(&self, name: &str) -> String {
        let path = self.folder.path().join(format!("{name}.wasm"));
        fs::write(&path, guest(name)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn simulate(&self, arguments: &[&str]) -> Value {
        let fixed = ["simulate", &self.file, "--format", "json"];
        let output = pointsman(&[&fixed, arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn balancers(document: &Value) -> Vec<&str> {
    let outcomes = document["outcomes"].as_array().unwrap();
    let names = outcomes.iter().map(|outcome| outcome["balancer"].as_str());
    names.map(Option::unwrap).collect()
}

#[test]
fn a_single_component_is_compared_with_all_shipped_balancers() {
    let fleet = Fleet::new();
    let mine = fleet.guest("first");
    let all = fleet.simulate(&[]);
    let compared = fleet.simulate(&["-b", &mine]);
    assert_eq!(balancers(&compared)[0], mine);
    assert_eq!(balancers(&compared)[1..], balancers(&all));
    assert_eq!(compared["outcomes"][1], all["outcomes"][0]);
    // With a shipped balancer beside it only these two are compared.
    let two = fleet.simulate(&["-b", &mine, "-b", "p2c"]);
    assert_eq!(balancers(&two), [&mine, "p2c"]);
    // In the table the component has a short name.
    let table = pointsman(&["simulate", &fleet.file, "-b", &mine, "-b", "p2c"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("\n  first  "), "{table}");
    assert!(!table.contains(&mine), "{table}");
}

#[test]
fn integers_beyond_2_to_the_53_are_strings() {
    let fleet = Fleet::new();
    for (seed, shown) in [
        ("7", json!(7)),
        ("9007199254740992", json!(9_007_199_254_740_992_u64)),
        ("9007199254740993", json!("9007199254740993")),
    ] {
        let document = fleet.simulate(&["-b", "random", "--seed", seed]);
        assert_eq!(document["seed"], shown);
    }
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    let explain = |question: Value| {
        let answer = gateway.admin_json("POST", "/upstreams/u/explain", &question);
        answer.expect(200).json()
    };
    let many = explain(json!({"count": 50}));
    for answer in many["answers"].as_array().unwrap() {
        let entropy = &answer["entropy"];
        assert!(
            entropy.is_string() || entropy.as_u64() <= Some(1 << 53),
            "{entropy}"
        );
        // An answered value can be sent back.
        let again = explain(json!({"entropy": entropy}));
        assert_eq!(again["answers"][0]["entropy"], *entropy);
    }
    let all = explain(json!({"entropy": u64::MAX}));
    assert_eq!(all["answers"][0]["entropy"], u64::MAX.to_string());
}

#[test]
fn targets_and_health_show_the_ids_that_balancers_see() {
    let gateway = Gateway::start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let explained = gateway
        .admin_json("POST", "/upstreams/u/explain", &json!({}))
        .json();
    let id_of = |address: &Value| -> Value {
        let seen = explained["endpoints"].as_array().unwrap().iter();
        let mut own = seen.filter(|endpoint| endpoint["address"] == *address);
        own.next().unwrap()["id"].clone()
    };
    let list = gateway.admin("GET", "/upstreams/u/targets", &[]).json();
    let endpoints = list["pointsman"]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        assert_eq!(endpoint["id"], id_of(&endpoint["address"]));
        assert_eq!(endpoint["target"], endpoint["address"]);
        assert_eq!(endpoint["id"].as_str().unwrap().len(), 16);
    }
    // Rows have no additional fields: a client can send them back.
    for row in list["data"].as_array().unwrap() {
        let path = format!("/upstreams/u/targets/{}", row["id"].as_str().unwrap());
        assert_eq!(gateway.admin("GET", &path, &[]).json(), *row);
        gateway.admin_json("PATCH", &path, row).expect(200);
    }
    let health = gateway.admin("GET", "/upstreams/u/health", &[]).json();
    for target in health["data"].as_array().unwrap() {
        let address = &target["data"]["addresses"][0];
        assert_eq!(address["pointsman"]["id"], id_of(&target["target"]));
    }
    let whole = "/upstreams/u/health?balancer_health=1";
    let whole = gateway.admin("GET", whole, &[]).json();
    let hosts = whole["data"]["details"]["hosts"].as_array().unwrap();
    for host in hosts {
        let address = &host["addresses"][0];
        assert_eq!(address["pointsman"]["id"].as_str().unwrap().len(), 16);
    }
    // Each page has the endpoints of its own targets.
    let page = "/upstreams/u/targets?size=1";
    let page = gateway.admin("GET", page, &[]).json();
    assert_eq!(page["pointsman"]["endpoints"].as_array().unwrap().len(), 1);
}

#[test]
fn simulation_and_check_give_endpoints_the_ids_of_a_gateway() {
    let fleet = Fleet::new();
    let component = fleet.guest("picks-configured-id");
    let by_label = format!(r#"{component}={{"prefer":"${{big}}"}}"#);
    let by_id = format!(r#"{component}={{"prefer":"00000000000000ff"}}"#);
    let document = fleet.simulate(&["-b", &by_label, "-b", &by_id, "-b", "random"]);
    for (outcome, target) in [(0, 0), (1, 1)] {
        let targets = document["outcomes"][outcome]["targets"].as_array().unwrap();
        assert!(targets[target]["requests"].as_u64() > Some(100));
        assert_eq!(targets[1 - target]["requests"], 0);
        assert_eq!(targets[0]["name"], "big");
        assert_eq!(targets[1]["id"], "00000000000000ff");
    }
    // In a gateway an endpoint of the same host and port has the same id.
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    gateway
        .admin(
            "POST",
            "/upstreams/u/targets",
            &[("target", "192.0.2.10:9001")],
        )
        .expect(201);
    let list = gateway.admin("GET", "/upstreams/u/targets", &[]).json();
    let big = &document["outcomes"][0]["targets"][0]["id"];
    assert_eq!(list["pointsman"]["endpoints"][0]["id"], *big);
    let unknown = format!(r#"{component}={{"prefer":"${{huge}}"}}"#);
    let said = error_of(&["simulate", &fleet.file, "-b", &unknown, "-b", "p2c"]);
    assert!(
        said.contains("huge") && said.contains("big, small"),
        "{said}"
    );

    let check = |arguments: &[&str]| {
        let fixed = ["plugin", "check", &component, "--format", "json"];
        let output = pointsman(&[&fixed, arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        let failed = checks.filter(|check| check["verdict"] == "fail");
        let failed: Vec<&str> = failed.filter_map(|check| check["id"].as_str()).collect();
        failed.join(" ")
    };
    let config = ["--config", r#"{"prefer":"${big}"}"#];
    let endpoint = ["--endpoint", "big=192.0.2.10:9001"];
    assert!(check(&["--config", r#"{"prefer":"00000000000000ff"}"#]).contains("one"));
    assert_eq!(check(&[&config[..], &endpoint].concat()), "");
    assert_eq!(
        check(&[&config[..], &["--scenario", &fleet.file]].concat()),
        ""
    );
    let id = ["--config", r#"{"prefer":"00000000000000ff"}"#];
    let endpoint = ["--endpoint", "00000000000000ff"];
    assert_eq!(check(&[id, endpoint].concat()), "");
}

#[test]
fn fallback_picks_are_counted_under_the_new_and_the_old_name() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    gateway.upload("traps", guest("traps")).expect(201);
    gateway
        .admin("PATCH", "/upstreams/u", &[("algorithm", "traps")])
        .expect(200);
    for _ in 0..3 {
        gateway.backend_of("/");
    }
    let shown = gateway.admin("GET", "/balancers/traps", &[]).json();
    let usage = &shown["usage"]["u"];
    assert_eq!(usage["fallback_picks"], 3, "{usage}");
    assert_eq!(usage["fallback_picks"], usage["host_choices"]);
    let (new, old) = ("fallback_picks_by_kind", "host_choices_by_kind");
    assert_eq!(usage[new], usage[old]);
    let metrics = gateway.admin("GET", "/metrics", &[]).text();
    for name in ["fallback_picks", "host_choices"] {
        let start = format!("pointsman_{name}_total{{upstream=\"u\",balancer=\"traps\",kind=\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        assert_eq!(values.sum::<u64>(), 3, "{metrics}");
    }
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
        "canary started: 20 % of the picks",
        "canary ended: promoted",
    ] {
        assert!(log.contains(words), "{words} in {log}");
    }
}

/// The texts of an SVG, with the position of each.
fn texts(svg: &str) -> Vec<(f64, f64, String)> {
    let element = |part: &str| {
        let number = |name: &str| -> f64 {
            let (_, rest) = part.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let text = part.split_once('>').unwrap().1.split('<').next().unwrap();
        (number("x"), number("y"), text.trim().to_owned())
    };
    svg.split("<text ")
        .skip(1)
        .map(|part| element(&format!(" {part}")))
        .collect()
}

#[test]
fn plots_are_labelled_and_legible() {
    let fleet = Fleet::new();
    let out = fleet.folder.path().join("out");
    let mine = fleet.guest("first");
    let out_text = out.to_str().unwrap();
    fleet.simulate(&["-b", &mine, "--out", out_text]);
    let latency = fs::read_to_string(out.join("latency.svg")).unwrap();
    let load = fs::read_to_string(out.join("load.svg")).unwrap();
    for svg in [&latency, &load] {
        let texts = texts(svg);
        let has = |wanted: &str| texts.iter().any(|(_, _, text)| text == wanted);
        let title = texts.iter().find(|(_, _, text)| text.contains("my-fleet"));
        assert!(title.unwrap().2.ends_with("my-fleet, load 40 to 80 %"));
        assert!(has("first") && has("least-connections"), "{texts:?}");
        assert!(
            !svg.contains(&mine),
            "a component is named without its folder"
        );
        assert!(!svg.contains("#F0E442"), "yellow cannot be seen on white");
    }
    // The legend is to the right of the last label of the time axis.
    let texts_of = texts(&latency);
    let of_axis = |end: &str| {
        let labels = texts_of.iter().filter(|(_, _, text)| text.ends_with(end));
        labels.count()
    };
    assert!(of_axis(" %") >= 3, "{texts_of:?}");
    let numbers: Vec<f64> = texts_of
        .iter()
        .filter(|(_, _, text)| text.parse::<f64>().is_ok())
        .map(|(x, _, _)| *x)
        .collect();
    assert!(numbers.len() >= 3, "{texts_of:?}");
    let right = numbers.iter().copied().fold(0.0, f64::max);
    let legend = texts_of
        .iter()
        .filter(|(_, _, text)| text == "first" || text == "p2c");
    assert!(legend.clone().count() == 2 && legend.clone().all(|(x, _, _)| *x > right));
    // The lines of the loads have the labels of the scenario's targets.
    let of_load = texts(&load);
    assert!(
        of_load.iter().any(|(_, _, text)| text == "big"),
        "{of_load:?}"
    );
}
