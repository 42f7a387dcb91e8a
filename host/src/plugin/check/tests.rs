#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;
use crate::balancer::SHIPPED;
use crate::balancer::tests::guests::guest;

fn checked(component: &[u8], config: &str) -> Report {
    let engine = engine().unwrap();
    let endpoints = Endpoints::default();
    output::capture(|| report(&engine, "x.wasm".into(), component, config, endpoints))
}

/// The checks with this outcome.
fn those(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    let checks = report.checks.iter();
    let those = checks.filter(|finding| finding.verdict == verdict);
    those.map(|finding| finding.id).collect()
}

fn sentence<'a>(report: &'a Report, id: &str) -> &'a str {
    let mut checks = report.checks.iter();
    let finding = checks.find(|finding| finding.id == id);
    &finding.unwrap_or_else(|| panic!("{report:?}")).sentence
}

#[test]
fn shipped_balancers_pass() {
    for shipped in SHIPPED {
        let report = checked(shipped.component, "{}");
        let failed = those(&report, Verdict::Fail);
        assert!(failed.is_empty(), "{}", report::table(&report));
    }
}

/// Each of these components has one fault, and the check for that fault reports it.
#[test]
fn each_fault_is_reported_by_its_check() {
    for (name, id, part) in [
        ("no-policy", "interface", "lacks the interface"),
        ("opens-socket", "imports", "wasi:sockets"),
        (
            "wants-unknown-import",
            "imports",
            "does not provide to balancers",
        ),
        ("unknown-column", "columns", "phase-of-the-moon"),
        ("bad-schema", "schema", "not a JSON Schema"),
        ("loops-in-configure", "settings", "did not answer in time"),
        (
            "loops",
            "one",
            "at pick 1, of 1 endpoints: it did not answer in time",
        ),
        ("traps", "one", "it trapped"),
        ("panics", "one", "this balancer always panics"),
        ("panics-sometimes", "one", "at pick 10"),
        ("sleeps", "one", "may not wait or sleep"),
        ("overflows-stack", "one", "it trapped"),
        ("out-of-range", "one", "it chose position 1 of a table of 1"),
        ("looks-outside", "one", "position 1 of a table of 1"),
        ("eats-memory", "one", "more memory than it may have"),
        ("refuses", "one", "it refused all of 100 requests"),
    ] {
        let report = checked(&guest(name), "{}");
        assert_eq!(report.verdict, Verdict::Fail, "{name}");
        assert!(
            those(&report, Verdict::Fail).contains(&id),
            "{name}: {report:?}"
        );
        assert!(sentence(&report, id).contains(part), "{name}: {report:?}");
    }
}

fn shipped(name: &str) -> Report {
    let mut shipped = SHIPPED.iter();
    checked(
        shipped.find(|one| one.name == name).unwrap().component,
        "{}",
    )
}

/// Costs are released in parts while requests are in flight, and prompts are asked about.
#[test]
fn a_balancer_that_weighs_requests_is_tried_with_requests_in_flight() {
    let report = shipped("token-load");
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    for (id, part) in [
        ("interface", "pointsman:balancer/work@1."),
        ("weights", "shares follow the weights"),
        ("requests", "cut off or not JSON"),
        ("work", "requests weigh "),
    ] {
        assert!(sentence(&report, id).contains(part), "{report:?}");
    }
    let report = shipped("random");
    for id in ["requests", "work"] {
        assert!(sentence(&report, id).contains("does not"), "{report:?}");
    }
}

#[test]
fn a_balancer_that_trusts_bodies_is_found_out() {
    let report = checked(&guest("trusts-bodies"), "{}");
    for id in ["many", "changes", "requests", "work", "repeat"] {
        assert!(those(&report, Verdict::Fail).contains(&id), "{report:?}");
        assert!(
            sentence(&report, id).contains("a request has a"),
            "{report:?}"
        );
    }
    for id in ["one", "weights", "ties", "starvation"] {
        assert!(!those(&report, Verdict::Fail).contains(&id), "{report:?}");
    }
    // It weighs what a header says, and there is none.
    let report = checked(&guest("weighs"), "{}");
    assert!(
        those(&report, Verdict::Warn).contains(&"work"),
        "{report:?}"
    );
}

/// A gateway would quarantine this balancer, whatever the pattern of its expensive picks.
#[test]
fn a_balancer_over_cost_fails_and_the_bound_is_named() {
    for config in [
        // A million steps take 90 to 300 µs.
        r#"{"every": 1, "steps": 4000000}"#,
        r#"{"every": 2, "steps": 8000000}"#,
        r#"{"every": 10, "steps": 12000000}"#,
        r#"{"every": 100, "steps": 12000000}"#,
    ] {
        let engine = engine().unwrap();
        let plugin = engine.load_trusted(&guest("dear")).unwrap();
        let subject = Subject {
            engine,
            plugin,
            config: config.into(),
            named: Vec::new(),
            labels: Vec::new(),
        };
        let mut checks = Vec::new();
        cost::measure(&subject, &mut checks);
        assert_eq!(checks[0].verdict, Verdict::Fail, "{checks:?}");
        let said = &checks[0].sentence;
        assert!(
            said.contains("more than the 100 µs of balancer_pick_cost"),
            "{said}"
        );
    }
}

/// A pick over its cost now and then, as after a change of the table, is no fault in a gateway.
#[test]
fn picks_that_are_seldom_over_their_cost_pass() {
    let engine = engine().unwrap();
    let plugin = engine.load_trusted(&guest("dear")).unwrap();
    let subject = Subject {
        engine,
        plugin,
        config: r#"{"every": 1000000, "steps": 3000000}"#.into(),
        named: Vec::new(),
        labels: Vec::new(),
    };
    let mut checks = Vec::new();
    cost::measure(&subject, &mut checks);
    assert_eq!(checks[0].verdict, Verdict::Pass, "{checks:?}");
}

#[test]
fn a_balancer_that_asks_for_labels_is_tried_with_them() {
    let component = guest("labels");
    assert!(those(&checked(&component, "{}"), Verdict::Fail).contains(&"one"));
    let engine = engine().unwrap();
    let zone = |name: &str| BTreeMap::from([("zone".to_owned(), name.to_owned())]);
    let endpoints = Endpoints {
        named: Vec::new(),
        labels: vec![zone("a"), zone("b")],
    };
    let report = output::capture(|| report(&engine, "x.wasm".into(), &component, "{}", endpoints));
    // It logs each endpoint of a table, so ten thousand take it too long.
    for id in ["one", "many", "weights", "ties", "starvation"] {
        assert!(!those(&report, Verdict::Fail).contains(&id), "{report:?}");
    }
}

#[test]
fn a_label_of_the_command_line_has_a_key() {
    assert_eq!(label("zone=a=b"), Ok(("zone".into(), "a=b".into())));
    for wrong in ["zone", "=a"] {
        assert!(label(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn only_output_at_picks_is_a_warning() {
    let report = checked(&guest("prints-table"), "{}");
    assert!(
        those(&report, Verdict::Pass).contains(&"output"),
        "{report:?}"
    );
    let report = checked(&guest("prints"), "{}");
    assert!(
        those(&report, Verdict::Warn).contains(&"output"),
        "{report:?}"
    );
}

/// The message of a panic is the last output, and is quoted without the advice that follows it.
#[test]
fn the_message_of_a_panic_is_quoted_once() {
    let report = checked(&guest("panics-after-much"), "{}");
    let said = sentence(&report, "one");
    assert!(said.contains("what went wrong in the end"), "{said}");
    assert!(!said.contains("RUST_BACKTRACE"), "{said}");
    assert_eq!(
        said.matches("what went wrong in the end").count(),
        1,
        "{said}"
    );
}

/// An author may intend each of these, so none is a failure.
#[test]
fn odd_behaviour_is_a_warning() {
    for (name, id, part) in [
        ("first", "starvation", "7 of 8"),
        ("first", "ties", "one gets 100 %"),
        ("first", "weights", "got 100 %, 0 %, 0 %, 0 %"),
        ("reads-file", "ties", "one gets 100 %"),
        ("least-in-flight", "ties", "one gets 100 %"),
        ("prints", "output", "a line on standard"),
    ] {
        let report = checked(&guest(name), "{}");
        assert!(
            those(&report, Verdict::Warn).contains(&id),
            "{name}: {report:?}"
        );
        assert!(sentence(&report, id).contains(part), "{name}: {report:?}");
    }
    // On a slow machine it is also late.
    let report = checked(&guest("floods"), "{}");
    assert!(sentence(&report, "output").contains("xxx"), "{report:?}");
    for name in ["clock", "hash-map", "extra-export"] {
        let report = checked(&guest(name), "{}");
        assert!(
            those(&report, Verdict::Fail).is_empty(),
            "{name}: {report:?}"
        );
    }
}

#[test]
fn the_given_settings_are_checked() {
    let prequal = SHIPPED
        .iter()
        .find(|shipped| shipped.name == "prequal")
        .unwrap();
    for (config, part) in [
        ("{", "not JSON"),
        ("[]", "a JSON object"),
        (r#"{"probes": "three"}"#, "/probes: "),
        (r#"{"probs": 3}"#, "probs"),
    ] {
        let report = checked(prequal.component, config);
        assert_eq!(those(&report, Verdict::Fail), ["settings"], "{report:?}");
        assert!(sentence(&report, "settings").contains(part), "{report:?}");
    }
    let report = checked(prequal.component, r#"{"probes": 3}"#);
    assert!(those(&report, Verdict::Fail).is_empty(), "{report:?}");
}

#[test]
fn a_file_that_is_not_a_component_is_identified() {
    for (bytes, part) in [
        (&b""[..], "is empty"),
        (b"#!/bin/sh", "not WebAssembly"),
        (b"\0asm\x01\0\0\0", "core module"),
        (b"\0asm\x0d\0\x01\0rubbish", "not valid"),
        (
            include_bytes!("../../../../tests/components/two-memories.wasm"),
            "multiple memories",
        ),
    ] {
        let report = checked(bytes, "{}");
        assert_eq!(those(&report, Verdict::Fail), ["component"]);
        assert!(sentence(&report, "component").contains(part), "{report:?}");
    }
}
