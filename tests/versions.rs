//! Versions of a balancer: upload, check, promotion, pins, rollback and deletion.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Backend, Gateway, Load, Reply as Answer, Setup, guest};

/// A gateway with a backend behind `/`, and a balancer `mine` that is `first`.
pub(crate) fn with_mine(setup: Setup) -> (Gateway, Backend) {
    let gateway = setup.start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    gateway.upload("mine", guest("first")).expect(201);
    use_balancer(&gateway, "u", "mine");
    (gateway, backend)
}

pub(crate) fn use_balancer(gateway: &Gateway, upstream: &str, name: &str) {
    let path = format!("/upstreams/{upstream}");
    gateway
        .admin("PATCH", &path, &[("algorithm", name)])
        .expect(200);
}

pub(crate) fn pin(gateway: &Gateway, upstream: &str, version: Value) -> Answer {
    let settings = json!({"pointsman": {"balancer_version": version}});
    gateway.admin_json("PATCH", &format!("/upstreams/{upstream}"), &settings)
}

pub(crate) fn upload_with(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    component: Vec<u8>,
) -> Answer {
    let body = Some(("application/wasm", component));
    gateway.send(
        gateway.admin,
        "POST",
        "/balancers/mine/versions",
        headers,
        body,
    )
}

pub(crate) fn upload(gateway: &Gateway, component: Vec<u8>) -> Answer {
    upload_with(gateway, &[], component)
}

/// The version that an upload has created, once its check has ended.
pub(crate) fn version(gateway: &Gateway, answer: Answer) -> Value {
    match answer.status {
        202 => checked(gateway, answer.header("location")),
        _ => answer.expect(201).json(),
    }
}

pub(crate) fn add(gateway: &Gateway, component: Vec<u8>) -> Value {
    version(gateway, upload(gateway, component))
}

pub(crate) fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

pub(crate) fn post(gateway: &Gateway, path: &str) -> Answer {
    gateway.admin("POST", path, &[])
}

pub(crate) fn promote(gateway: &Gateway, version: &Value) -> Answer {
    let version = version.as_str().unwrap();
    post(
        gateway,
        &format!("/balancers/mine/versions/{version}/promote"),
    )
}

/// The states of the versions of `mine` by digest, the newest version first.
pub(crate) fn states(gateway: &Gateway) -> Vec<(Value, Value)> {
    let list = get(gateway, "/balancers/mine/versions");
    let versions = list["data"].as_array().unwrap().iter();
    versions
        .map(|version| (version["digest"].clone(), version["state"].clone()))
        .collect()
}

/// A version, once its check has ended.
pub(crate) fn checked(gateway: &Gateway, path: &str) -> Value {
    loop {
        let version = get(gateway, path);
        if version["state"] != "checking" {
            return version;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_version_is_uploaded_promoted_and_rolled_back() {
    let (gateway, _backend) = with_mine(Setup::new());
    let first = get(&gateway, "/balancers/mine")["digest"].clone();
    let made = add(&gateway, guest("refuses"));
    let digest = made["digest"].as_str().unwrap().to_owned();
    assert_eq!(made["state"], "ready");
    assert_eq!(
        made["balancer"]["id"],
        get(&gateway, "/balancers/mine")["id"]
    );
    assert_eq!(made["size"], guest("refuses").len());
    assert!(made["description"]["config_schema"].is_object());
    assert_eq!(made["exports"][0], "pointsman:balancer/policy@1.4.0");
    assert!(made["reason"].is_null());
    assert!(made["created_at"].is_u64());

    // A new version is not in use yet.
    gateway.get("/").expect(200);
    let again = upload(&gateway, guest("refuses")).expect(200).json();
    assert_eq!(again["id"], made["id"]);

    let promoted = promote(&gateway, &made["id"]).expect(200).json();
    assert_eq!(promoted["digest"], made["digest"]);
    assert_eq!(promoted["previous_digest"], first);
    assert_eq!(promoted["description"], made["description"]);
    gateway.get("/").expect(503);
    assert_eq!(
        states(&gateway),
        [
            (made["digest"].clone(), json!("active")),
            (first.clone(), json!("retired"))
        ]
    );
    let shown = get(&gateway, "/balancers/mine");
    assert_eq!(shown["usage"]["u"]["version"], made["digest"]);

    let back = post(&gateway, "/balancers/mine/rollback")
        .expect(200)
        .json();
    assert_eq!(back["digest"], first);
    assert_eq!(back["previous_digest"], made["digest"]);
    gateway.get("/").expect(200);

    // A version is found by its id, its digest, and the start of its digest.
    for key in [made["id"].as_str().unwrap(), &digest, &digest[..8]] {
        let path = format!("/balancers/mine/versions/{key}");
        assert_eq!(get(&gateway, &path)["id"], made["id"]);
        let component = gateway.admin("GET", &format!("{path}/component"), &[]);
        assert_eq!(component.expect(200).body, guest("refuses"));
    }
    for key in [&digest[..7], &"0".repeat(64), &Uuid::nil().to_string()] {
        let path = format!("/balancers/mine/versions/{key}");
        gateway.admin("GET", &path, &[]).expect(404);
    }
    let component = gateway.admin("GET", "/balancers/mine/component", &[]);
    assert_eq!(component.expect(200).body, guest("first"));
    let schema = get(&gateway, "/schemas/balancers/mine");
    assert_eq!(schema, shown["description"]["config_schema"]);
}

#[test]
fn versions_are_paged_newest_first() {
    let (gateway, _backend) = with_mine(Setup::new());
    let second = add(&gateway, guest("refuses"));
    let third = add(&gateway, guest("clock"));
    let page = get(&gateway, "/balancers/mine/versions?size=2");
    assert_eq!(page["data"][0]["id"], third["id"]);
    assert_eq!(page["data"][1]["id"], second["id"]);
    let rest = get(&gateway, page["next"].as_str().unwrap());
    assert_eq!(rest["data"].as_array().unwrap().len(), 1);
    assert!(rest["next"].is_null());
    gateway
        .admin("GET", "/balancers/none/versions", &[])
        .expect(404);
}

#[test]
fn versions_are_switched_under_load() {
    let (gateway, _backend) = with_mine(Setup::new());
    let other = add(&gateway, guest("least-in-flight"));
    let load = Load::start(gateway.proxy, "/", 4);
    for _ in 0..50 {
        promote(&gateway, &other["digest"]).expect(200);
        load.wait_for(10);
        post(&gateway, "/balancers/mine/rollback").expect(200);
        load.wait_for(10);
    }
    assert_eq!(load.stop().failures, [""; 0]);
    let usage = get(&gateway, "/balancers/mine")["usage"]["u"].clone();
    assert!(usage["picks"].as_u64().unwrap() > 0, "{usage}");
    assert_eq!(usage["host_choices"], 0, "{usage}");
}

#[test]
fn a_pinned_upstream_keeps_its_version() {
    let (gateway, backend) = with_mine(Setup::new());
    gateway.balanced_as("pinned", "/pinned", &[(backend.address, 1)]);
    use_balancer(&gateway, "pinned", "mine");
    let first = get(&gateway, "/balancers/mine")["digest"].clone();
    let versions = get(&gateway, "/balancers/mine/versions");
    let by_id = versions["data"][0]["id"].clone();
    let pinned = pin(&gateway, "pinned", by_id).expect(200).json();
    assert_eq!(pinned["pointsman"]["balancer_version"], first);

    let other = add(&gateway, guest("refuses"));
    promote(&gateway, &other["digest"]).expect(200);
    gateway.get("/").expect(503);
    gateway.get("/pinned/").expect(200);
    let usage = get(&gateway, "/balancers/mine")["usage"].clone();
    assert_eq!(usage["u"]["version"], other["digest"]);
    assert_eq!(usage["pinned"]["version"], first);

    // The same after a restart.
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let gateway = Setup::with_data(&data_dir).start();
    gateway.get("/").expect(503);
    gateway.get("/pinned/").expect(200);

    pin(&gateway, "pinned", Value::Null).expect(200);
    gateway.get("/pinned/").expect(503);
    pin(&gateway, "pinned", first.clone()).expect(200);
    gateway.get("/pinned/").expect(200);

    // A pinned version must be of the upstream's balancer.
    let path = "/upstreams/pinned";
    let refused = gateway.admin("PATCH", path, &[("algorithm", "round-robin")]);
    let refused = refused.expect(400).json();
    let reason = refused["fields"]["pointsman"]["balancer_version"].as_str();
    assert!(reason.unwrap().contains("round-robin"), "{refused}");
    let unknown = json!("0".repeat(64));
    pin(&gateway, "pinned", unknown).expect(400);
    let shipped = get(&gateway, "/balancers/round-robin")["digest"].clone();
    let settings = json!({"algorithm": "round-robin", "pointsman": {"balancer_version": shipped}});
    gateway.admin_json("PATCH", path, &settings).expect(200);
    gateway.get("/pinned/").expect(200);
}

#[test]
fn a_version_in_use_cannot_be_deleted() {
    let (gateway, _backend) = with_mine(Setup::new());
    let first = get(&gateway, "/balancers/mine")["digest"].clone();
    let other = add(&gateway, guest("clock"));
    let delete = |digest: &Value| {
        let path = format!("/balancers/mine/versions/{}", digest.as_str().unwrap());
        gateway.admin("DELETE", &path, &[])
    };
    let refused = delete(&first).expect(400).json();
    assert_eq!(refused["code"], 4);
    assert_eq!(
        refused["message"],
        "an existing 'balancers' entity references this 'balancer_versions' entity"
    );
    promote(&gateway, &other["digest"]).expect(200);
    pin(&gateway, "u", first.clone()).expect(200);
    let refused = delete(&first).expect(400).json();
    assert_eq!(
        refused["message"],
        "an existing 'upstreams' entity references this 'balancer_versions' entity"
    );
    pin(&gateway, "u", Value::Null).expect(200);
    delete(&first).expect(204);
    delete(&first).expect(404);
    let shown = get(&gateway, "/balancers/mine");
    assert!(shown["previous_digest"].is_null());
    let refused = post(&gateway, "/balancers/mine/rollback").expect(400);
    assert!(
        refused.text().contains("no version to go back to"),
        "{}",
        refused.text()
    );
    // Deleting the balancer deletes its versions, and a restart finds none of them.
    use_balancer(&gateway, "u", "round-robin");
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let gateway = Setup::with_data(&data_dir).start();
    gateway.upload("mine", guest("clock")).expect(201);
    assert_eq!(states(&gateway).len(), 1);
}

/// In whatever order the changes take effect, no reference to a deleted version is left.
#[test]
fn concurrent_changes_of_versions_leave_no_dangling_reference() {
    let (gateway, _backend) = with_mine(Setup::new());
    let first = get(&gateway, "/balancers/mine")["digest"].clone();
    for _ in 0..20 {
        let other = add(&gateway, guest("clock"))["digest"].clone();
        let path = format!("/balancers/mine/versions/{}", other.as_str().unwrap());
        let (pinned, deleted, promoted) = std::thread::scope(|scope| {
            let pinned = scope.spawn(|| pin(&gateway, "u", other.clone()).status);
            let deleted = scope.spawn(|| gateway.admin("DELETE", &path, &[]).status);
            let promoted = scope.spawn(|| promote(&gateway, &other).status);
            let status = |thread: std::thread::ScopedJoinHandle<'_, u16>| thread.join().unwrap();
            (status(pinned), status(deleted), status(promoted))
        });
        let is_there = gateway.admin("GET", &path, &[]).status == 200;
        assert_eq!(is_there, deleted != 204, "{pinned} {deleted} {promoted}");
        if !is_there {
            assert_eq!((pinned, promoted), (400, 404));
        }
        gateway.get("/").expect(200);
        pin(&gateway, "u", Value::Null).expect(200);
        promote(&gateway, &first).expect(200);
        if is_there {
            gateway.admin("DELETE", &path, &[]).expect(204);
        }
    }
}

#[test]
fn settings_must_match_the_schema_of_the_version_to_be_active() {
    let (gateway, _backend) = with_mine(Setup::new());
    let prequal = gateway.admin("GET", "/balancers/prequal/component", &[]);
    let prequal = prequal.expect(200).body;
    // A component may be a version of several balancers.
    let with_settings = add(&gateway, prequal);
    let settings = json!({"pointsman": {"balancer_config": {"probes": 3}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(400);
    promote(&gateway, &with_settings["id"]).expect(200);
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);

    for (method, path) in [
        ("POST", "/balancers/mine/rollback"),
        ("PUT", "/balancers/mine"),
    ] {
        let body = (method == "PUT").then(|| ("application/wasm", guest("refuses")));
        let refused = gateway.send(gateway.admin, method, path, &[], body);
        let refused = refused.expect(400).json();
        assert_eq!(refused["code"], 2);
        let wrong = &refused["fields"]["upstreams"]["u"]["pointsman"]["balancer_config"];
        assert!(wrong.to_string().contains("probes"), "{refused}");
        assert_eq!(
            get(&gateway, "/balancers/mine")["digest"],
            with_settings["digest"]
        );
    }
    gateway.get("/").expect(200);
    // An upstream with a pinned version does not prevent a rollback.
    pin(&gateway, "u", with_settings["digest"].clone()).expect(200);
    post(&gateway, "/balancers/mine/rollback").expect(200);
    gateway.get("/").expect(200);
    pin(&gateway, "u", Value::Null).expect(400);
}

#[test]
fn the_version_of_a_shipped_balancer_cannot_be_switched() {
    let gateway = Gateway::start();
    let list = get(&gateway, "/balancers/round-robin/versions");
    assert_eq!(list["data"][0]["state"], "active");
    let version = list["data"][0]["digest"].as_str().unwrap();
    let path = "/balancers/round-robin/versions";
    let body = Some(("application/wasm", guest("first")));
    for refused in [
        gateway.send(gateway.admin, "POST", path, &[], body),
        post(&gateway, &format!("{path}/{version}/promote")),
        post(&gateway, "/balancers/round-robin/rollback"),
    ] {
        let refused = refused.expect(400);
        assert!(refused.text().contains("ships with the gateway"));
    }
}
