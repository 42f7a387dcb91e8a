//! Stored rows that cannot be read are set aside; a row that could not be read again is refused.

use std::path::Path;

use serde_json::json;
use sled::Tree;

use crate::harness::{Etcd, Gateway, Setup, guest, until};
use crate::store_faults::{create, get, holds_after_a_restart, services, start_gateway};

/// Changes stored rows while no gateway runs.
fn tamper(folder: &Path, change: impl Fn(&Tree)) {
    let config = sled::Config::new().path(folder.join("entities"));
    let db = config.flush_every_ms(None).open().unwrap();
    change(&db.open_tree("rows").unwrap());
    db.flush().unwrap();
}

/// Stops a gateway, changes its rows, and starts another one.
fn tampered(gateway: Gateway, change: impl Fn(&Tree)) -> Gateway {
    let folder = gateway.data_dir.clone();
    gateway.kill_9();
    gateway.wait();
    tamper(&folder, change);
    Setup::with_data(&folder).start()
}

/// The key of a row in the store.
fn key(collection: &str, id: &str) -> Vec<u8> {
    let id: uuid::Uuid = id.parse().unwrap();
    [b"r", collection.as_bytes(), b"\0", id.as_bytes()].concat()
}

#[test]
fn an_unreadable_row_is_set_aside_alone() {
    let (_folder, mut gateway, _backend) = start_gateway(Setup::with_data);
    create(&gateway, "good").expect(201);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    for bad in [&*deep, "{"] {
        let id = create(&gateway, "bad").expect(201).json()["id"].clone();
        let id = id.as_str().unwrap();
        let value = [&1_u64.to_be_bytes(), bad.as_bytes()].concat();
        gateway = tampered(gateway, |rows| {
            rows.insert(key("services", id), &*value).unwrap();
        });
        assert_eq!(services(&gateway), ["good", "u-service"]);
        gateway.get("/").expect(200);
        let set_aside = &get(&gateway, "/status")["pointsman"]["store"]["set_aside"];
        assert_eq!(set_aside[0]["entity"], "services", "{set_aside}");
        assert_eq!(set_aside[0]["id"], id);
        let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
        assert!(
            metrics.contains("\npointsman_store_set_aside_rows 1\n"),
            "{metrics}"
        );
        for path in [format!("/services/{id}"), "/services/bad".into()] {
            let message = gateway.admin("GET", &path, &[]).expect(500).text();
            assert!(
                message.contains(id) && message.contains("DELETE removes it"),
                "{message}"
            );
        }
        // Its unique name is free again once it is deleted.
        create(&gateway, "bad").expect(409);
        create(&gateway, "other").expect(201);
        gateway.admin("DELETE", "/services/other", &[]).expect(204);
        let path = format!("/services/{id}");
        gateway.admin("DELETE", &path, &[]).expect(204);
        gateway.admin("GET", &path, &[]).expect(404);
        create(&gateway, "bad").expect(201);
        gateway.admin("DELETE", "/services/bad", &[]).expect(204);
    }
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("a stored row is set aside"), "{log}");
}

#[test]
fn a_row_of_any_kind_can_be_set_aside() {
    let (_folder, gateway, backend) = start_gateway(Setup::with_data);
    gateway.upload("mine", guest("first")).expect(201);
    let rows = |gateway: &Gateway, path: &str| {
        let listed = get(gateway, path);
        let rows = listed["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let route = rows(&gateway, "/routes").remove(0);
    let target = rows(&gateway, "/upstreams/u/targets").remove(0);
    let version = rows(&gateway, "/balancers/mine/versions").remove(0);
    let spoilt = [
        ("routes", &*route),
        ("targets", &target),
        ("balancer_versions", &version),
    ];
    let gateway = tampered(gateway, |tree| {
        for (collection, id) in spoilt {
            tree.insert(key(collection, id), "spoilt").unwrap();
        }
    });
    for path in [
        "/routes",
        "/upstreams/u/targets",
        "/balancers/mine/versions",
    ] {
        assert_eq!(rows(&gateway, path), [""; 0], "{path}");
    }
    gateway.get("/").expect(404);
    get(&gateway, "/balancers/mine");
    // The active version is deleted only with its balancer.
    let active = format!("/balancers/mine/versions/{version}");
    gateway.admin("DELETE", &active, &[]).expect(400);
    for path in [
        format!("/routes/{route}"),
        format!("/upstreams/u/targets/{target}"),
    ] {
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    gateway.add_target("u", backend.address, 100);
    let routes = "/services/u-service/routes";
    gateway
        .admin("POST", routes, &[("paths[]", "/")])
        .expect(201);
    gateway.get("/").expect(200);
    gateway.upload("mine", guest("first")).expect(201);

    // An unreadable balancer is deleted with all that belongs to it.
    let mine = get(&gateway, "/balancers/mine")["id"].clone();
    let gateway = tampered(gateway, |tree| {
        tree.insert(key("balancers", mine.as_str().unwrap()), "spoilt")
            .unwrap();
    });
    gateway.get("/").expect(200);
    gateway.admin("GET", "/balancers/mine", &[]).expect(500);
    gateway.admin("DELETE", "/balancers/mine", &[]).expect(204);
    assert_eq!(
        get(&gateway, "/status")["pointsman"]["store"]["set_aside"],
        json!([])
    );
    gateway.upload("mine", guest("first")).expect(201);
}

#[test]
fn a_schema_nested_too_deeply_to_be_stored_is_refused() {
    let (_folder, gateway, _backend) = start_gateway(Setup::with_data);
    gateway.upload("deep", guest("deep-schema")).expect(400);
    gateway.upload("mine", guest("first")).expect(201);
    let versions = "/balancers/mine/versions";
    for wait in ["wait=60", "respond-async"] {
        let body = Some(("application/wasm", guest("deep-schema")));
        let headers = [("prefer", wait)];
        let answer = gateway.send(gateway.admin, "POST", versions, &headers, body);
        if answer.status == 202 {
            // The check runs after the answer.
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let path = format!("{versions}/{id}");
            until("the check has failed", || {
                get(&gateway, &path)["state"] == "failed"
            });
        } else {
            answer.expect(400);
        }
    }
    get(&gateway, "/balancers");
    get(&gateway, versions);
    holds_after_a_restart(gateway, Setup::with_data);
}

#[test]
fn a_deletion_by_a_name_that_may_be_in_an_unreadable_row_is_not_claimed() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway().start();
    let id = |name: &str| {
        let made = create(&gateway, name).expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let bad = id("bad");
    id("good");
    drop(gateway);
    let row = format!("/pointsman/config/rows/services/{bad}");
    etcd.ctl(&["put", &row, "not json"]);
    let gateway = etcd.gateway().start();
    let delete = |path: &str| gateway.admin("DELETE", path, &[]);
    let refused = delete("/services/bad").expect(409).text();
    assert!(refused.contains("nothing is deleted"), "{refused}");
    assert!(refused.contains(&bad), "{refused}");
    // What is known is not concerned, and no other entity.
    delete("/services/good").expect(204);
    delete("/routes/bad").expect(204);
    delete(&format!("/services/{bad}")).expect(204);
    delete("/services/bad").expect(204);
    assert_eq!(etcd.ctl(&["get", &row]), "");
}
