//! Canaries: a version of a balancer gets a share of the picks, and returns to the active version
//! when it breaks a bound.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Reply, Setup, guest, until};

/// A gateway whose upstream `u` uses the balancer `mine`. The active version sends requests to the
/// backend `stable`; the other one, which has this digest, sends them to the backend `canary`.
struct Case {
    gateway: Gateway,
    stable: Backend,
    canary: Backend,
    digest: String,
}

impl Case {
    fn new() -> Self {
        Self::with("heaviest")
    }

    fn with(waiting: &str) -> Self {
        let gateway = Gateway::start();
        let [stable, canary] = ["stable", "canary"].map(Backend::start);
        gateway.balanced(&[(stable.address, 1), (canary.address, 100)]);
        gateway.upload("mine", guest("lightest")).expect(201);
        let algorithm = [("algorithm", "mine")];
        gateway
            .admin("PATCH", "/upstreams/u", &algorithm)
            .expect(200);
        let digest = add(&gateway, waiting);
        Self {
            gateway,
            stable,
            canary,
            digest,
        }
    }

    fn path(&self) -> String {
        format!("/balancers/mine/versions/{}/canary", self.digest)
    }

    fn begin(&self, bounds: Value) -> Value {
        let made = self.gateway.admin_json("POST", &self.path(), &bounds);
        made.expect(201).json()
    }

    fn shown(&self) -> Value {
        get(&self.gateway, &self.path())
    }

    /// Sends requests until the stored state of the canary is this one, and returns the canary.
    fn await_state(&self, state: &str) -> Value {
        loop {
            self.gateway.get("/");
            let stored = get(&self.gateway, "/balancers?size=1000");
            let mut stored = stored["data"].as_array().unwrap().iter();
            let mine = stored.find(|balancer| balancer["name"] == "mine").unwrap();
            if mine["canary"]["state"] == state {
                return mine["canary"].clone();
            }
        }
    }

    /// How many of these requests each backend answers; none may fail.
    fn answers(&self, requests: usize) -> (u64, u64) {
        let mut tally = Load::run(self.gateway.proxy, "/", 4, requests / 4);
        assert_eq!(tally.failures, [""; 0]);
        let mut of = |name| tally.by_backend.remove(name).unwrap_or(0);
        (of("stable"), of("canary"))
    }

    fn restart(self) -> Self {
        let data_dir = self.gateway.data_dir.clone();
        let folder = self.gateway.kill();
        let gateway = Setup::with_data(&data_dir).start();
        // The folder has to outlive this function; the system removes it later.
        std::mem::forget(folder);
        Self { gateway, ..self }
    }
}

/// Adds a version, and returns its digest.
pub(crate) fn add(gateway: &Gateway, name: &str) -> String {
    let body = Some(("application/wasm", guest(name)));
    let path = "/balancers/mine/versions";
    let mut version = gateway.send(gateway.admin, "POST", path, &[], body).json();
    while version["state"] == "checking" {
        let path = format!("{path}/{}", version["id"].as_str().unwrap());
        version = get(gateway, &path);
    }
    version["digest"].as_str().unwrap().to_owned()
}

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

fn post(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("POST", path, &[])
}

fn state_of(case: &Case, digest: &str) -> Value {
    get(&case.gateway, &format!("/balancers/mine/versions/{digest}"))["state"].clone()
}

#[test]
fn a_canary_takes_its_share_and_both_sides_are_shown() {
    let case = Case::new();
    let begun = case.begin(json!({"share_percent": 20, "max_error_ratio": 3, "min_requests": 50}));
    assert_eq!(begun["state"], "running");
    assert_eq!(begun["version"], case.digest);
    assert_eq!(begun["max_faults"], 0);
    assert!(begun["max_p99_ms"].is_null());
    let (stable, canary) = case.answers(1000);
    // Five standard deviations of 12.6.
    assert!((137..263).contains(&canary), "{canary}");
    let figures = case.shown()["figures"].clone();
    for (side, requests) in [("stable", stable), ("canary", canary)] {
        let side = &figures[side];
        assert_eq!(side["picks"], requests, "{figures}");
        assert_eq!(side["requests"], requests, "{figures}");
        assert_eq!(side["errors"], 0, "{figures}");
        assert_eq!(side["faults"], 0, "{figures}");
        assert_eq!(side["recent"]["requests"], requests, "{figures}");
        assert!(
            side["recent"]["p99_ms"].as_f64().unwrap() > 0.0,
            "{figures}"
        );
    }
    let shown = get(&case.gateway, "/balancers/mine");
    assert_eq!(shown["canary"]["figures"], figures);
    assert_eq!(shown["usage"]["u"]["version"], shown["digest"]);
    assert_eq!(state_of(&case, &case.digest), "canary");
    let metrics = case
        .gateway
        .admin("GET", "/metrics", &[])
        .expect(200)
        .text();
    let version = &case.digest;
    let series = format!("{{balancer=\"mine\",version=\"{version}\",side=\"canary\"}} ");
    assert!(metrics.contains(&format!("pointsman_canary_picks_total{series}{canary}\n")));
    assert!(metrics.contains(&format!(
        "pointsman_canary_requests_total{series}{canary}\n"
    )));
    assert!(metrics.contains(&format!("pointsman_canary_faults_total{series}0\n")));
    assert!(metrics.contains(&format!("pointsman_canary_errors_total{series}0\n")));
    assert!(metrics.contains(&format!("pointsman_canary_p99_seconds{series}0.")));

    // A canary with other bounds replaces it.
    let again = case.begin(json!({"share_percent": 100}));
    assert_ne!(again["id"], begun["id"]);
    assert_eq!(again["figures"]["canary"]["picks"], 0);
    assert_eq!(case.answers(20), (0, 20));
    case.gateway.admin("DELETE", &case.path(), &[]).expect(204);
    assert_eq!(case.answers(20), (20, 0));
    // An ended canary can be read until it is deleted once more.
    assert_eq!(case.shown()["state"], "ended");
    case.gateway.admin("DELETE", &case.path(), &[]).expect(204);
    case.gateway.admin("GET", &case.path(), &[]).expect(404);
    case.gateway.admin("DELETE", &case.path(), &[]).expect(404);
    assert!(
        get(&case.gateway, "/balancers/mine")
            .get("canary")
            .is_none()
    );
    assert_eq!(state_of(&case, &case.digest), "ready");
}

#[test]
fn a_canary_that_traps_returns_and_costs_no_request() {
    let case = Case::with("traps");
    case.begin(json!({"share_percent": 50}));
    let (stable, canary) = case.answers(400);
    assert_eq!(stable + canary, 400);
    let returned = case.await_state("returned");
    let reason = returned["reason"].as_str().unwrap();
    assert!(
        reason.contains("it failed at u (canary): it trapped"),
        "{reason}"
    );
    assert!(returned["ended_at"].is_u64());
    assert_eq!(case.answers(40), (40, 0));
    assert_eq!(state_of(&case, &case.digest), "ready");
    let usage = get(&case.gateway, "/balancers/mine")["usage"]["u"].clone();
    assert_eq!(usage["host_choices"], 0, "{usage}");

    // A restart does not begin it again.
    let case = case.restart();
    assert_eq!(case.shown()["reason"], reason);
    assert_eq!(case.answers(40), (40, 0));
    let (status, log) = {
        case.gateway.terminate();
        case.gateway.wait()
    };
    assert!(status.success());
    assert!(!log.contains("a canary takes"), "{log}");
}

#[test]
fn a_canary_whose_requests_fail_returns() {
    let case = Case::new();
    case.canary.respond_with(500, 0);
    case.begin(json!({"share_percent": 50, "max_error_percent": 10, "min_requests": 20}));
    let returned = case.await_state("returned");
    assert_eq!(
        returned["reason"],
        "100.00 % of its last 20 requests failed, more than 10 %"
    );
    assert_eq!(case.answers(40), (40, 0));

    // The ratio bound holds while requests of the active version fail as often.
    case.stable.respond_with(503, 0);
    case.begin(json!({"share_percent": 50, "max_error_ratio": 2, "min_requests": 20}));
    for _ in 0..200 {
        case.gateway.get("/");
    }
    let shown = case.shown();
    assert_eq!(shown["state"], "running", "{shown}");
    assert_eq!(shown["figures"]["stable"]["recent"]["error_percent"], 100.0);
    case.stable.respond_normally();
    case.begin(json!({"share_percent": 50, "max_error_ratio": 2, "min_requests": 20}));
    let returned = case.await_state("returned");
    let reason = returned["reason"].as_str().unwrap();
    assert!(reason.contains("more than 2 times the 0.00 %"), "{reason}");
}

#[test]
fn a_canary_whose_requests_are_slow_returns() {
    let case = Case::new();
    case.canary.respond_with(0, 100);
    case.begin(json!({"share_percent": 50, "max_p99_ms": 50, "min_requests": 10}));
    let returned = case.await_state("returned");
    let reason = returned["reason"].as_str().unwrap();
    assert!(reason.contains("more than 50 ms"), "{reason}");
    case.begin(json!({"share_percent": 50, "max_p99_ratio": 2, "min_requests": 10}));
    let returned = case.await_state("returned");
    let reason = returned["reason"].as_str().unwrap();
    assert!(reason.contains("more than 2 times the"), "{reason}");
    assert_eq!(case.answers(40), (40, 0));
}

#[test]
fn a_canary_continues_after_a_restart() {
    let case = Case::new();
    let begun =
        case.begin(json!({"share_percent": 100, "max_error_percent": 10, "min_requests": 10}));
    let case = case.restart();
    assert_eq!(case.answers(20), (0, 20));
    let shown = case.shown();
    assert_eq!(shown["id"], begun["id"]);
    assert_eq!(shown["figures"]["canary"]["picks"], 20);
    // A change of the balancer's row does not affect its canary.
    let tags = json!({"tags": ["x"]});
    let path = "/balancers/mine";
    case.gateway.admin_json("PATCH", path, &tags).expect(200);
    assert_eq!(case.shown()["figures"]["canary"]["picks"], 20);
    case.canary.respond_with(500, 0);
    case.await_state("returned");
    assert_eq!(case.answers(20), (20, 0));
}

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

#[test]
fn an_upstream_with_a_pinned_version_is_not_in_a_canary() {
    let case = Case::new();
    let first = get(&case.gateway, "/balancers/mine")["digest"].clone();
    let pin = |version: Value| {
        let settings = json!({"pointsman": {"balancer_version": version}});
        let answer = case.gateway.admin_json("PATCH", "/upstreams/u", &settings);
        answer.expect(200);
    };
    pin(first);
    case.begin(json!({"share_percent": 100}));
    assert_eq!(case.answers(20), (20, 0));
    pin(Value::Null);
    assert_eq!(case.answers(20), (0, 20));
}

#[test]
fn a_passed_canary_is_promoted_if_configured() {
    let case = Case::new();
    let bounds = json!({"share_percent": 50, "duration": 0, "min_requests": 20,
        "max_error_percent": 10});
    case.begin(bounds.clone());
    case.await_state("passed");
    // A passed canary continues until it is promoted, and may still return.
    assert_eq!(state_of(&case, &case.digest), "canary");
    let (stable, canary) = case.answers(100);
    assert!(stable > 0 && canary > 0, "{stable} {canary}");
    case.canary.respond_with(500, 0);
    case.await_state("returned");
    case.canary.respond_normally();

    let mut bounds = bounds;
    bounds["promote"] = json!(true);
    case.begin(bounds);
    let promoted = case.await_state("promoted");
    assert!(promoted["reason"].is_null());
    let serves = || {
        let shown = get(&case.gateway, "/balancers/mine");
        assert_eq!(shown["digest"], case.digest);
        shown["usage"]["u"]["version"] == case.digest
    };
    // No request waited for this promotion, so it may take effect a little later.
    until("the promoted version is in use", serves);
    assert_eq!(case.answers(20), (0, 20));
}

#[test]
fn a_client_with_an_affinity_stays_on_one_side() {
    let case = Case::new();
    let hashing = [("hash_on", "header"), ("hash_on_header", "x-tenant")];
    case.gateway
        .admin("PATCH", "/upstreams/u", &hashing)
        .expect(200);
    case.begin(json!({"share_percent": 50}));
    let mut seen = std::collections::BTreeSet::new();
    for tenant in 0..40 {
        let tenant = tenant.to_string();
        let ask = || {
            let answer = case.gateway.get_with("/", &[("x-tenant", &tenant)]);
            answer.expect(200).header("x-backend").to_owned()
        };
        let first = ask();
        assert!((0..5).all(|_| ask() == first));
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn canaries_begin_and_end_under_load() {
    let case = Case::new();
    let load = Load::start(case.gateway.proxy, "/", 4);
    for _ in 0..20 {
        case.begin(json!({"share_percent": 50}));
        load.wait_for(10);
        case.gateway.admin("DELETE", &case.path(), &[]).expect(204);
        load.wait_for(10);
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.by_backend["canary"] > 0, "{tally:?}");
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
