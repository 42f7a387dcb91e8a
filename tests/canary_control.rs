//! How canaries are begun, ended and refused, by the Admin API and by the command.

use std::process::Command;

use serde_json::json;

use crate::canary::{Case, add, get, post, state_of};
use crate::harness::until;

#[test]
fn a_promotion_and_a_rollback_end_a_canary() {
    let case = Case::new();
    let (gateway, digest) = (&case.gateway, &case.digest);
    let versions = "/balancers/mine/versions";
    let first = get(gateway, "/balancers/mine")["digest"].clone();
    case.begin(json!({"share_percent": 50}));

    let version = format!("{versions}/{digest}");
    let refused = gateway.admin("DELETE", &version, &[]).expect(400).json();
    assert_eq!(
        refused["message"],
        "an existing 'balancers' entity references this 'balancer_versions' entity"
    );
    let other = add(gateway, "first");
    let path = format!("{versions}/{other}/canary");
    let refused = gateway.admin_json("POST", &path, &json!({})).expect(409);
    assert!(refused.text().contains(digest), "{}", refused.text());
    gateway.admin("GET", &path, &[]).expect(404);
    let refused = post(gateway, "/upstreams/u/record").expect(409);
    assert!(refused.text().contains("a canary"), "{}", refused.text());

    let promoted = post(gateway, &format!("{version}/promote"))
        .expect(200)
        .json();
    assert_eq!(promoted["canary"]["state"], "promoted");
    assert_eq!(promoted["previous_digest"], first);
    assert_eq!(case.answers(20), (0, 20));
    assert_eq!(state_of(&case, digest), "active");
    let refused = gateway.admin_json("POST", &case.path(), &json!({}));
    assert!(refused.expect(400).text().contains("active already"));

    // A canary ends as well when a third version is promoted.
    let path = format!("{versions}/{}/canary", first.as_str().unwrap());
    let all = json!({"share_percent": 100});
    gateway.admin_json("POST", &path, &all).expect(201);
    assert_eq!(case.answers(20), (20, 0));
    post(gateway, &format!("{versions}/{other}/promote")).expect(200);
    let ended = get(gateway, &path);
    assert_eq!(ended["state"], "ended");
    assert_eq!(ended["reason"], "another version was made active");
    assert_eq!(ended["figures"]["canary"]["picks"], 20);

    gateway.admin_json("POST", &path, &all).expect(201);
    post(gateway, "/balancers/mine/rollback").expect(200);
    assert_eq!(get(gateway, &path)["state"], "ended");
    assert_eq!(case.answers(20), (0, 20));

    // Deleting a version deletes its ended canary.
    gateway
        .admin("DELETE", path.trim_end_matches("/canary"), &[])
        .expect(204);
    assert!(get(gateway, "/balancers/mine").get("canary").is_none());
}

/// In whatever order the changes take effect, no reference to a deleted version is left.
#[test]
fn concurrent_changes_of_a_canary_leave_no_dangling_reference() {
    let case = Case::with("first");
    let gateway = &case.gateway;
    let stable = get(gateway, "/balancers/mine")["digest"].clone();
    let stable = format!("/balancers/mine/versions/{}", stable.as_str().unwrap());
    for _ in 0..20 {
        let digest = add(gateway, "heaviest");
        let version = format!("/balancers/mine/versions/{digest}");
        let (begun, deleted, promoted) = std::thread::scope(|scope| {
            let begun = scope.spawn(|| {
                let path = format!("{version}/canary");
                gateway.admin_json("POST", &path, &json!({})).status
            });
            let deleted = scope.spawn(|| gateway.admin("DELETE", &version, &[]).status);
            let promoted = scope.spawn(|| post(gateway, &format!("{version}/promote")).status);
            let status = |thread: std::thread::ScopedJoinHandle<'_, u16>| thread.join().unwrap();
            (status(begun), status(deleted), status(promoted))
        });
        let said = format!("{begun} {deleted} {promoted}");
        let shown = get(gateway, "/balancers/mine");
        let is_there = gateway.admin("GET", &version, &[]).status == 200;
        assert_eq!(is_there, deleted != 204, "{said}");
        assert_eq!(is_there, shown["digest"] == digest, "{said}: {shown}");
        match shown.get("canary") {
            // The canary began before the promotion, which ended it.
            Some(canary) => assert_eq!(
                (&canary["state"], begun),
                (&json!("promoted"), 201),
                "{said}"
            ),
            None => assert_ne!(begun, 201, "{said}"),
        }
        gateway.get("/").expect(200);
        post(gateway, &format!("{stable}/promote")).expect(200);
        if is_there {
            gateway.admin("DELETE", &version, &[]).expect(204);
        }
    }
}

#[test]
fn invalid_bounds_are_refused_by_field() {
    let case = Case::new();
    let between = |least: i64, most: i64| format!("value should be between {least} and {most}");
    for (bounds, field, message) in [
        (
            json!({"share_percent": 0}),
            "share_percent",
            "value must be greater than 0".to_owned(),
        ),
        (
            json!({"share_percent": 101}),
            "share_percent",
            between(0, 100),
        ),
        (
            json!({"share_percent": "all"}),
            "share_percent",
            "expected a number".into(),
        ),
        (
            json!({"share_percent": null}),
            "share_percent",
            "required field missing".into(),
        ),
        (
            json!({"max_faults": -1}),
            "max_faults",
            between(0, 2_147_483_647),
        ),
        (
            json!({"max_error_percent": 101}),
            "max_error_percent",
            between(0, 100),
        ),
        (
            json!({"min_requests": 0}),
            "min_requests",
            between(1, 2_147_483_647),
        ),
        (json!({"duration": -1}), "duration", between(0, 31_536_000)),
        (
            json!({"promote": true}),
            "duration",
            "required field missing".into(),
        ),
        (json!({"share": 5}), "share", "unknown field".into()),
    ] {
        let refused = case.gateway.admin_json("POST", &case.path(), &bounds);
        let refused = refused.expect(400).json();
        assert_eq!(refused["name"], "schema violation", "{bounds}");
        assert_eq!(refused["fields"][field], message, "{bounds}: {refused}");
    }
    let gateway = &case.gateway;
    let unknown = format!("/balancers/mine/versions/{}/canary", "0".repeat(64));
    gateway.admin_json("POST", &unknown, &json!({})).expect(404);
    let shipped = get(gateway, "/balancers/random")["digest"].clone();
    let shipped = shipped.as_str().unwrap();
    let path = format!("/balancers/random/versions/{shipped}/canary");
    let refused = gateway.admin_json("POST", &path, &json!({})).expect(400);
    assert!(refused.text().contains("ships with the gateway"));
    // A canary cannot be written into the balancer's row.
    let tags = json!({"canary": {"state": "running"}});
    let refused = gateway.admin_json("PATCH", "/balancers/mine", &tags);
    refused.expect(400);
    assert!(get(gateway, "/balancers/mine").get("canary").is_none());
}

/// A canary is refused for the same reasons as a promotion.
#[test]
fn settings_must_match_the_schema_of_a_canary() {
    let case = Case::new();
    let path = "/balancers/prequal/component";
    let prequal = case.gateway.admin("GET", path, &[]).expect(200).body;
    let body = Some(("application/wasm", prequal));
    let versions = "/balancers/mine/versions";
    let gateway = &case.gateway;
    let made = gateway
        .send(gateway.admin, "POST", versions, &[], body)
        .json();
    let id = made["id"].as_str().unwrap();
    until("the version is checked", || {
        get(gateway, &format!("{versions}/{id}"))["state"] != "checking"
    });
    post(gateway, &format!("{versions}/{id}/promote")).expect(200);
    let settings = json!({"pointsman": {"balancer_config": {"probes": 3}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let refused = gateway.admin_json("POST", &case.path(), &json!({}));
    let refused = refused.expect(400).json();
    let wrong = &refused["fields"]["upstreams"]["u"]["pointsman"]["balancer_config"];
    assert!(wrong.to_string().contains("probes"), "{refused}");
}

#[test]
fn the_command_begins_and_ends_a_canary() {
    let case = Case::new();
    let command = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["plugin", "canary", "mine", &case.digest[..8]])
            .args(arguments)
            .env("POINTSMAN_ADMIN", format!("http://{}", case.gateway.admin))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (done, said) = command(&["--share-percent", "100", "--max-p99-ms", "60000"]);
    assert!(done, "{said}");
    assert_eq!(
        said,
        format!("mine: 100 % of the picks go to sha256 {}\n", case.digest)
    );
    assert_eq!(case.shown()["max_p99_ms"].as_f64(), Some(60_000.0));
    assert_eq!(case.answers(8), (0, 8));
    let (done, said) = command(&["--end"]);
    assert!(done, "{said}");
    assert_eq!(case.answers(8), (8, 0));
    // With all picks at the canary there would be nothing to compare it with.
    let (done, said) = command(&["--share-percent", "100", "--max-p99-ratio", "1.5"]);
    assert!(!done && said.contains("max_p99_ratio"), "{said}");
    let (done, said) = command(&["--min-requests", "0"]);
    assert!(!done && said.contains("min_requests"), "{said}");
}
