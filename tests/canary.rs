//! Canaries: a version of a balancer gets a share of the picks, and returns to the active version
//! when it breaks a bound.

use serde_json::{Value, json};

use crate::harness::{Backend, Gateway, Load, Reply, Setup, guest, until};
use crate::store_faults::start_gateway;

/// A gateway whose upstream `u` uses the balancer `mine`. The active version sends requests to the
/// backend `stable`; the other one, which has this digest, sends them to the backend `canary`.
pub(crate) struct Case {
    pub(crate) gateway: Gateway,
    pub(crate) stable: Backend,
    pub(crate) canary: Backend,
    pub(crate) digest: String,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self::with("heaviest")
    }

    pub(crate) fn with(waiting: &str) -> Self {
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

    pub(crate) fn path(&self) -> String {
        format!("/balancers/mine/versions/{}/canary", self.digest)
    }

    pub(crate) fn begin(&self, bounds: Value) -> Value {
        let made = self.gateway.admin_json("POST", &self.path(), &bounds);
        made.expect(201).json()
    }

    pub(crate) fn shown(&self) -> Value {
        get(&self.gateway, &self.path())
    }

    /// Sends requests until the stored state of the canary is this one, and returns the canary.
    pub(crate) fn await_state(&self, state: &str) -> Value {
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
    pub(crate) fn answers(&self, requests: usize) -> (u64, u64) {
        let mut tally = Load::run(self.gateway.proxy, "/", 4, requests / 4);
        assert_eq!(tally.failures, [""; 0]);
        let mut of = |name| tally.by_backend.remove(name).unwrap_or(0);
        (of("stable"), of("canary"))
    }

    pub(crate) fn restart(self) -> Self {
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

pub(crate) fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

pub(crate) fn post(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("POST", path, &[])
}

pub(crate) fn state_of(case: &Case, digest: &str) -> Value {
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

#[test]
fn the_figures_of_an_ended_canary_can_be_read() {
    let (folder, gateway, backend) = start_gateway(Setup::with_data);
    gateway.upload("mine", guest("lightest")).expect(201);
    let algorithm = [("algorithm", "mine")];
    gateway
        .admin("PATCH", "/upstreams/u", &algorithm)
        .expect(200);
    let body = Some(("application/wasm", guest("heaviest")));
    let versions = "/balancers/mine/versions";
    let added = gateway
        .send(gateway.admin, "POST", versions, &[], body)
        .expect(201)
        .json();
    let path = format!("{versions}/{}", added["digest"].as_str().unwrap());
    let canary = format!("{path}/canary");
    let begin = |bounds: &Value| {
        gateway.admin_json("POST", &canary, bounds).expect(201);
        for _ in 0..10 {
            gateway.get("/");
        }
        until("the requests are counted", || {
            get(&gateway, &canary)["figures"]["canary"]["requests"] == 10
        });
    };
    let kept = |gateway: &Gateway, state: &str| {
        let shown = get(gateway, &canary);
        assert_eq!(shown["state"], state, "{shown}");
        assert_eq!(shown["figures"]["canary"]["picks"], 10, "{shown}");
        assert_eq!(shown["figures"]["canary"]["requests"], 10, "{shown}");
        assert_eq!(get(gateway, "/balancers/mine")["canary"], shown);
        assert!(shown["ended_at"].is_u64(), "{shown}");
    };
    let all = json!({"share_percent": 100});

    // A canary ended by an operator; a second DELETE deletes it.
    begin(&all);
    gateway.admin("DELETE", &canary, &[]).expect(204);
    kept(&gateway, "ended");
    gateway.admin("DELETE", &canary, &[]).expect(204);
    gateway.admin("GET", &canary, &[]).expect(404);

    // A canary ended by a bound.
    backend.respond_with(500, 0);
    begin(&json!({"share_percent": 100, "max_error_percent": 50, "min_requests": 10}));
    until("the canary has returned", || {
        let mine = gateway.admin("GET", "/balancers?size=1000", &[]).text();
        mine.contains("\"state\":\"returned\"")
    });
    kept(&gateway, "returned");
    backend.respond_normally();

    // A canary ended by its promotion, also after a restart.
    begin(&all);
    gateway
        .admin("POST", &format!("{path}/promote"), &[])
        .expect(200);
    kept(&gateway, "promoted");
    gateway.terminate();
    gateway.wait();
    kept(
        &Setup::with_data(&folder.path().join("data")).start(),
        "promoted",
    );
}
