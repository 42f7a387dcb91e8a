//! What `simulate` reports: names, ids, numbers and plots.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command_line::{error_of, pointsman};
use crate::harness::{Backend, Gateway, guest};

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
