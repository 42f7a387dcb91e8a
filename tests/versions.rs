//! Versions of a balancer: upload, check, promotion, pins, rollback and deletion.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use minisign::KeyPair;
use pointsman::entity::{Kind, Row};
use pointsman::store::{SledStore, Store, Stored, Write};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Backend, Gateway, Load, Reply as Answer, Setup, guest};

/// A gateway with a backend behind `/`, and a balancer `mine` that is `first`.
fn with_mine(setup: Setup) -> (Gateway, Backend) {
    let gateway = setup.start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    gateway.upload("mine", guest("first")).expect(201);
    use_balancer(&gateway, "u", "mine");
    (gateway, backend)
}

fn use_balancer(gateway: &Gateway, upstream: &str, name: &str) {
    let path = format!("/upstreams/{upstream}");
    gateway
        .admin("PATCH", &path, &[("algorithm", name)])
        .expect(200);
}

fn pin(gateway: &Gateway, upstream: &str, version: Value) -> Answer {
    let settings = json!({"pointsman": {"balancer_version": version}});
    gateway.admin_json("PATCH", &format!("/upstreams/{upstream}"), &settings)
}

fn upload_with(gateway: &Gateway, headers: &[(&str, &str)], component: Vec<u8>) -> Answer {
    let body = Some(("application/wasm", component));
    gateway.send(
        gateway.admin,
        "POST",
        "/balancers/mine/versions",
        headers,
        body,
    )
}

fn upload(gateway: &Gateway, component: Vec<u8>) -> Answer {
    upload_with(gateway, &[], component)
}

/// The version that an upload has created, once its check has ended.
fn version(gateway: &Gateway, answer: Answer) -> Value {
    match answer.status {
        202 => checked(gateway, answer.header("location")),
        _ => answer.expect(201).json(),
    }
}

fn add(gateway: &Gateway, component: Vec<u8>) -> Value {
    version(gateway, upload(gateway, component))
}

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

fn post(gateway: &Gateway, path: &str) -> Answer {
    gateway.admin("POST", path, &[])
}

fn promote(gateway: &Gateway, version: &Value) -> Answer {
    let version = version.as_str().unwrap();
    post(
        gateway,
        &format!("/balancers/mine/versions/{version}/promote"),
    )
}

/// The states of the versions of `mine` by digest, the newest version first.
fn states(gateway: &Gateway) -> Vec<(Value, Value)> {
    let list = get(gateway, "/balancers/mine/versions");
    let versions = list["data"].as_array().unwrap().iter();
    versions
        .map(|version| (version["digest"].clone(), version["state"].clone()))
        .collect()
}

/// A version, once its check has ended.
fn checked(gateway: &Gateway, path: &str) -> Value {
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
    assert_eq!(made["exports"][0], "pointsman:balancer/policy@1.3.0");
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

/// The component of a balancer that ships, and one that does the same under another digest.
fn shipped_and_next(gateway: &Gateway, name: &str) -> (Vec<u8>, Vec<u8>) {
    let path = format!("/balancers/{name}/component");
    let component = gateway.admin("GET", &path, &[]).expect(200).body;
    // An empty custom section: its id, its length, and its name after the name's length.
    let next = [&component[..], &[0, 5, 4], b"next"].concat();
    (component, next)
}

#[test]
fn known_latencies_survive_an_upgrade_of_the_balancer() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "slow"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let (first, next) = shipped_and_next(&gateway, "latency");
    gateway.upload("mine", first).expect(201);
    use_balancer(&gateway, "u", "mine");
    let slow = &backends[3];
    slow.respond_with(0, 500);
    while slow.served() == 0 {
        gateway.get("/").expect(200);
    }
    // From here on only the remembered latency makes the balancer avoid it: an unknown target would
    // be tried first.
    slow.respond_normally();
    let made = add(&gateway, next);
    promote(&gateway, &made["id"]).expect(200);
    for _ in 0..40 {
        assert_ne!(gateway.backend_of("/"), "slow");
    }
    let usage = get(&gateway, "/balancers/mine")["usage"]["u"].clone();
    assert_eq!(usage["version"], made["digest"]);
    assert_eq!(usage["host_choices"], 0, "{usage}");
}

#[test]
fn sessions_survive_an_upgrade_of_the_balancer() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    let (first, next) = shipped_and_next(&gateway, "sticky-sessions");
    gateway.upload("mine", first).expect(201);
    let settings = json!({"algorithm": "mine", "sticky_sessions_cookie": "session"});
    gateway
        .admin_json("PATCH", "/upstreams/u", &settings)
        .expect(200);
    let clients: Vec<(String, String)> = (0..8)
        .map(|_| {
            let answer = gateway.get("/").expect(200);
            let cookie = answer.header("set-cookie").split(';').next().unwrap();
            (cookie.to_owned(), answer.header("x-backend").to_owned())
        })
        .collect();
    let made = add(&gateway, next);
    promote(&gateway, &made["id"]).expect(200);
    for (cookie, backend) in &clients {
        for _ in 0..3 {
            let answer = gateway.get_with("/", &[("cookie", cookie)]).expect(200);
            assert_eq!(answer.header("x-backend"), backend);
        }
    }
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
fn a_check_can_run_after_the_answer() {
    let (gateway, _backend) = with_mine(Setup::new());
    let prefer = &[("prefer", "respond-async")];
    let accepted = upload_with(&gateway, prefer, guest("clock")).expect(202);
    assert_eq!(accepted.header("preference-applied"), "respond-async");
    assert_eq!(accepted.json()["state"], "checking");
    let location = accepted.header("location").to_owned();
    let version = checked(&gateway, &location);
    assert_eq!(version["state"], "ready");
    assert!(version["description"].is_object());
    upload_with(&gateway, prefer, guest("clock")).expect(200);

    let accepted = upload_with(&gateway, prefer, guest("no-policy")).expect(202);
    let failed = checked(&gateway, accepted.header("location"));
    assert_eq!(failed["state"], "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("lacks the interface"), "{reason}");
    let refused = promote(&gateway, &failed["id"]).expect(400);
    assert!(refused.text().contains("lacks the interface"));
    pin(&gateway, "u", failed["digest"].clone()).expect(400);
    // A failed version can be uploaded again.
    upload_with(&gateway, prefer, guest("no-policy")).expect(202);
    upload_with(&gateway, prefer, Vec::new()).expect(400);

    // A failure that is answered to the client leaves no version.
    let before = states(&gateway);
    let refused = upload(&gateway, b"\0asm\x01\0\0\0".to_vec());
    let refused = refused.expect(400).json();
    assert!(refused["fields"]["component"].is_string());
    assert_eq!(states(&gateway).len(), before.len());
}

#[test]
fn a_long_check_continues_after_the_answer_and_after_a_restart() {
    // The time limit of `describe` follows from this setting.
    let setup = Setup::new().arg("--balancer-pick-timeout", 10_000);
    let (gateway, _backend) = with_mine(setup);
    let accepted = upload(&gateway, guest("loops-in-describe")).expect(202);
    let location = accepted.header("location").to_owned();
    assert_eq!(get(&gateway, &location)["state"], "checking");
    assert_eq!(accepted.header("preference-applied"), "");
    // Uploading the same component again does not start a second check.
    let again = upload(&gateway, guest("loops-in-describe")).expect(202);
    assert_eq!(again.header("location"), location);
    let refused = promote(&gateway, &accepted.json()["id"]).expect(400);
    assert!(refused.text().contains("still being checked"));

    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let setup = Setup::with_data(&data_dir).arg("--balancer-pick-timeout", 1);
    let gateway = setup.start();
    let version = checked(&gateway, &location);
    assert_eq!(version["state"], "failed");
    let reason = version["reason"].as_str().unwrap();
    assert!(reason.contains("describe"), "{reason}");
}

#[test]
fn only_components_signed_by_a_known_key_are_accepted() {
    let [ours, theirs] = [(); 2].map(|()| KeyPair::generate_unencrypted_keypair().unwrap());
    let setup = Setup::new().arg("--balancer-public-keys", ours.pk.to_base64());
    let gateway = setup.start();
    let signature = |pair: &KeyPair, component: &[u8]| {
        let signed = minisign::sign(None, &pair.sk, component, None, None);
        signed.unwrap().into_string()
    };
    let send = |method: &str, path: &str, file: Option<&str>, component: &str| {
        let file = file.map(|file| STANDARD.encode(file));
        let headers: Vec<_> = file
            .iter()
            .map(|f| ("x-pointsman-signature", &**f))
            .collect();
        let body = Some(("application/wasm", guest(component)));
        gateway.send(gateway.admin, method, path, &headers, body)
    };
    let good = signature(&ours, &guest("first"));
    let made = "/balancers?name=mine";
    for (file, part) in [
        (None, "is not signed"),
        (Some(signature(&theirs, &guest("first"))), "not that of"),
        (Some(signature(&ours, &guest("clock"))), "not that of"),
        (Some("nonsense".into()), "not the content of a .minisig"),
    ] {
        let refused = send("POST", made, file.as_deref(), "first").expect(403);
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    send("POST", made, Some(&good), "first").expect(201);
    send("PUT", "/balancers/mine", None, "clock").expect(403);
    send("POST", "/balancers/mine/versions", Some(&good), "clock").expect(403);

    // In a multipart body the signature is a part.
    let clock = signature(&ours, &guest("clock"));
    let mut body = Vec::new();
    for (name, content) in [
        ("signature", clock.into_bytes()),
        ("component", guest("clock")),
    ] {
        body.extend(
            format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").bytes(),
        );
        body.extend(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--X--\r\n");
    let body = Some(("multipart/form-data; boundary=X", body));
    let path = "/balancers/mine/versions";
    let added = gateway.send(gateway.admin, "POST", path, &[], body);
    assert_eq!(version(&gateway, added)["state"], "ready");
    // Shipped balancers need no signature.
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);

    let (status, log) = Setup::new()
        .arg("--balancer-public-keys", "RWnonsense")
        .fail();
    assert!(!status.success());
    assert!(
        log.contains("balancer_public_keys = \"RWnonsense\""),
        "{log}"
    );
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

/// Changes rows in a data folder while no gateway runs.
fn edit(data_dir: &Path, edit: impl Fn(&SledStore) -> Vec<Write>) {
    let store = SledStore::open(data_dir).unwrap();
    let writes = edit(&store);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(store.write(writes)).unwrap();
    drop(store);
    // The store's thread ends a little later, and holds the folder's lock until then.
    let log = std::fs::File::open(data_dir.join("entities/db")).unwrap();
    while log.try_lock().is_err() {
        std::thread::yield_now();
    }
}

fn rows(store: &SledStore, kind: Kind) -> Vec<Stored> {
    store.list(kind, None, usize::MAX, &|_| true).unwrap()
}

fn id_of(row: &Row) -> Uuid {
    row["id"].as_str().unwrap().parse().unwrap()
}

fn named(store: &SledStore, name: &str) -> Stored {
    let found = store.find(Kind::Balancer, &["name"], &[&name.into()]);
    found.unwrap().unwrap()
}

#[test]
fn an_upgrade_of_the_gateway_adds_a_version_and_keeps_uploaded_balancers() {
    let gateway = Gateway::start();
    let current = get(&gateway, "/balancers/round-robin")["digest"].clone();
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    // As an earlier gateway would have left it: another round-robin, and an uploaded p2c.
    let old = include_bytes!("components/round-robin-1.0.0.wasm");
    edit(&data_dir, |store| {
        let mut writes = Vec::new();
        let Stored { mut row, revision } = named(store, "round-robin");
        let link = json!({ "id": row["id"] });
        let mut versions = rows(store, Kind::BalancerVersion).into_iter();
        let version = versions.find(|version| version.row["balancer"] == link);
        let Stored {
            row: mut version,
            revision: expected,
        } = version.unwrap();
        let digest = json!("an earlier one");
        row["digest"] = digest.clone();
        version["digest"] = digest;
        for (kind, row, expected, blob) in [
            (Kind::Balancer, row, revision, None),
            (
                Kind::BalancerVersion,
                version,
                expected,
                Some(Bytes::from_static(old)),
            ),
        ] {
            writes.push(Write::Replace {
                kind,
                id: id_of(&row),
                row,
                expected,
                blob,
            });
        }
        let Stored { mut row, revision } = named(store, "p2c");
        row["source"] = json!("uploaded");
        row["tags"] = json!(["mine"]);
        writes.push(Write::Replace {
            kind: Kind::Balancer,
            id: id_of(&row),
            row,
            expected: revision,
            blob: None,
        });
        writes
    });
    let gateway = Setup::with_data(&data_dir).start();
    let shown = get(&gateway, "/balancers/round-robin");
    assert_eq!(shown["digest"], current);
    assert_eq!(shown["previous_digest"], "an earlier one");
    let list = get(&gateway, "/balancers/round-robin/versions");
    let states: Vec<&Value> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["state"])
        .collect();
    assert_eq!(states, ["active", "retired"]);
    let mine = get(&gateway, "/balancers/p2c");
    assert_eq!(
        (&mine["source"], &mine["tags"][0]),
        (&json!("uploaded"), &json!("mine"))
    );
    // Once the uploaded p2c is deleted, the shipped one takes its name.
    gateway.admin("DELETE", "/balancers/p2c", &[]).expect(204);
    let data_dir = gateway.data_dir.clone();
    drop(gateway);
    let gateway = Setup::with_data(&data_dir).start();
    assert_eq!(get(&gateway, "/balancers/p2c")["source"], "shipped");
}

/// Changes a data folder to format 1, in which a component belongs to its balancer and there are no
/// versions.
fn to_format_1(data_dir: &Path) {
    edit(data_dir, |store| {
        let versions = rows(store, Kind::BalancerVersion);
        let mut writes = Vec::new();
        for Stored { mut row, revision } in rows(store, Kind::Balancer) {
            let link = json!({ "id": row["id"] });
            let active = versions.iter().find(|version| {
                version.row["balancer"] == link && version.row["digest"] == row["digest"]
            });
            let id = id_of(&active.unwrap().row);
            let blob = store.blob(Kind::BalancerVersion, id).unwrap();
            assert!(blob.is_some());
            row.shift_remove("previous_digest");
            writes.push(Write::Replace {
                kind: Kind::Balancer,
                id: id_of(&row),
                row,
                expected: revision,
                blob,
            });
        }
        writes.extend(versions.iter().map(|version| Write::Delete {
            kind: Kind::BalancerVersion,
            id: id_of(&version.row),
        }));
        writes
    });
    std::fs::write(data_dir.join("FORMAT"), "pointsman data, format 1\n").unwrap();
}

#[test]
fn a_data_folder_of_format_1_is_upgraded() {
    let (gateway, _backend) = with_mine(Setup::new());
    let before = get(&gateway, "/balancers/mine");
    let data_dir = gateway.data_dir.clone();
    let folder = gateway.kill();
    to_format_1(&data_dir);

    let gateway = Setup::with_data(&data_dir).start();
    gateway.get("/").expect(200);
    let shown = get(&gateway, "/balancers/mine");
    assert_eq!(shown["digest"], before["digest"]);
    assert_eq!(shown["usage"]["u"]["host_choices"], 0);
    assert!(shown["previous_digest"].is_null());
    assert_eq!(
        states(&gateway),
        [(before["digest"].clone(), json!("active"))]
    );
    let component = gateway.admin("GET", "/balancers/mine/component", &[]);
    assert_eq!(component.expect(200).body, guest("first"));
    let list = get(&gateway, "/balancers/round-robin/versions");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);

    // The upgrade happens once: later changes survive a restart.
    let other = add(&gateway, guest("refuses"));
    promote(&gateway, &other["id"]).expect(200);
    drop(gateway);
    let gateway = Setup::with_data(&data_dir).start();
    gateway.get("/").expect(503);
    post(&gateway, "/balancers/mine/rollback").expect(200);
    gateway.get("/").expect(200);
    drop(folder);
}
