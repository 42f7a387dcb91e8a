//! Upgrades of balancers, of the gateway and of its data folder.

use std::path::Path;

use bytes::Bytes;
use pointsman::entity::{Kind, Row};
use pointsman::store::{self, JournaledStore, Store, Stored, Write};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Backend, Gateway, Setup, guest};
use crate::versions::{add, get, post, promote, states, use_balancer, with_mine};

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

/// Changes rows in a data folder while no gateway runs.
fn edit(data_dir: &Path, edit: impl Fn(&JournaledStore) -> Vec<Write>) {
    let lock = store::lock(data_dir).unwrap();
    let store = store::open(data_dir, &lock).unwrap();
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

fn rows(store: &JournaledStore, kind: Kind) -> Vec<Stored> {
    store.list(kind, None, usize::MAX, &|_| true).unwrap()
}

fn id_of(row: &Row) -> Uuid {
    row["id"].as_str().unwrap().parse().unwrap()
}

fn named(store: &JournaledStore, name: &str) -> Stored {
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
