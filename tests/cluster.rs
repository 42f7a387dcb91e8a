//! Several gateways that share one configuration in etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Backend, Etcd, Gateway, add_consumer, guest, until};

/// Several gateways on one etcd.
fn gateways<const N: usize>(etcd: &Etcd) -> [Gateway; N] {
    std::array::from_fn(|_| etcd.gateway().start())
}

/// All rows of a collection, by their ids.
fn rows(gateway: &Gateway, collection: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut next = format!("/{collection}?size=1000");
    loop {
        let page = gateway.admin("GET", &next, &[]).expect(200).json();
        for row in page["data"].as_array().unwrap() {
            all.insert(row["id"].as_str().unwrap().to_owned(), row.clone());
        }
        match page["next"].as_str() {
            Some(path) => next = format!("{path}&size=1000"),
            None => return all,
        }
    }
}

#[test]
fn a_change_is_in_effect_where_it_is_answered_and_soon_everywhere() {
    let etcd = Etcd::start();
    let [a, b, c] = gateways(&etcd);
    let backend = Backend::start("b");
    a.balanced_as("u", "/first", &[(backend.address, 100)]);
    assert_eq!(a.backend_of("/first"), "b");
    for other in [&b, &c] {
        until("the route is at the others", || {
            other.get("/first").status == 200
        });
    }
    // Another gateway changes what the first one has written.
    let routes = rows(&b, "routes");
    let route = format!("/routes/{}", routes.keys().next().unwrap());
    b.admin_json("PATCH", &route, &json!({ "paths": ["/second"] }))
        .expect(200);
    assert_eq!(b.backend_of("/second"), "b");
    assert_eq!(b.get("/first").status, 404);
    until("the change is at the others", || {
        [&a, &c]
            .iter()
            .all(|other| other.get("/second").status == 200)
    });
    // A third one deletes it.
    c.admin("DELETE", &route, &[]).expect(204);
    assert_eq!(c.get("/second").status, 404);
    until("the deletion is at the others", || {
        [&a, &b]
            .iter()
            .all(|other| other.get("/second").status == 404)
    });
}

#[test]
fn a_gateway_that_is_started_later_has_all_that_was_written_before() {
    let etcd = Etcd::start();
    let [a] = gateways(&etcd);
    let backend = Backend::start("b");
    a.balanced(&[(backend.address, 100)]);
    let [later] = gateways(&etcd);
    assert_eq!(later.backend_of("/"), "b");
    assert_eq!(rows(&a, "balancers"), rows(&later, "balancers"));
    assert_eq!(rows(&a, "services"), rows(&later, "services"));
}

/// As behind a load balancer, which gives each request of a client to another gateway.
#[test]
fn a_write_at_one_gateway_builds_on_what_another_one_has_just_answered() {
    let etcd = Etcd::start();
    let gateways: [Gateway; 2] = gateways(&etcd);
    for turn in 0..60 {
        let (a, b) = (&gateways[turn % 2], &gateways[(turn + 1) % 2]);
        let (service, route) = (format!("/services/s{turn}"), format!("/routes/r{turn}"));
        a.admin("PUT", &service, &[("host", "h")]).expect(200);
        let fields = [
            ("paths[]", "/a"),
            ("service.name", &service["/services/".len()..]),
        ];
        b.admin("PUT", &route, &fields).expect(200);
        a.admin("PATCH", &route, &[("paths[]", "/b")]).expect(200);
        b.admin("POST", &format!("{route}/plugins"), &[("name", "cors")])
            .expect(201);
        a.admin("DELETE", &route, &[]).expect(204);
        b.admin("DELETE", &service, &[]).expect(204);
    }
    // A deletion that found nothing would have been answered in the same way.
    for gateway in &gateways {
        for collection in ["services", "routes", "plugins"] {
            until("all is deleted", || rows(gateway, collection).is_empty());
        }
    }
}

#[test]
fn names_are_unique_under_writers_at_several_gateways() {
    const WRITERS: usize = 24;
    const NAMES: usize = 40;
    let etcd = Etcd::start();
    let [a, b, c] = gateways(&etcd);
    let all = [&a, &b, &c];
    // Which writes were acknowledged: the id by the name.
    let acknowledged: Vec<(usize, u16, Value)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let gateway = all[writer % all.len()];
                scope.spawn(move || {
                    let mut answers = Vec::new();
                    for step in 0..NAMES {
                        let name = (step + writer) % NAMES;
                        let consumer = json!({
                            "username": format!("n{name}"),
                            "custom_id": format!("{writer}-{step}"),
                        });
                        let reply = gateway.admin_json("POST", "/consumers", &consumer);
                        answers.push((name, reply.status, reply.json()));
                    }
                    answers
                })
            })
            .collect();
        let answers = writers.into_iter().map(|writer| writer.join().unwrap());
        answers.flatten().collect()
    });
    let mut winners = BTreeMap::new();
    for (name, status, body) in &acknowledged {
        match status {
            201 => {
                let id = body["id"].as_str().unwrap().to_owned();
                let other = winners.insert(id, body.clone());
                assert_eq!(other, None);
            }
            409 => assert_eq!(
                body["name"], "unique constraint violation",
                "{name}: {body}"
            ),
            _ => panic!("{name}: {status} {body}"),
        }
    }
    assert_eq!(winners.len(), NAMES, "each name is given once");
    // Each acknowledged write is there once, as it was answered, and nothing else is.
    for gateway in all {
        until("all gateways have the same", || {
            rows(gateway, "consumers") == winners
        });
    }
}

#[test]
fn references_hold_under_writers_at_several_gateways() {
    const ROUNDS: usize = 30;
    let etcd = Etcd::start();
    let [a, b, c] = gateways(&etcd);
    let added = AtomicUsize::new(0);
    let answers: Vec<(String, u16)> = std::thread::scope(|scope| {
        // One gateway adds services and deletes them; the others add routes to them meanwhile.
        let owner = scope.spawn(|| {
            let mut deleted = Vec::new();
            for round in 0..ROUNDS {
                let service = json!({ "name": format!("s{round}"), "host": "a.example" });
                a.admin_json("POST", "/services", &service).expect(201);
                added.store(round + 1, Ordering::SeqCst);
                let path = format!("/services/s{round}");
                // Refused while a route refers to it.
                let status = a.admin("DELETE", &path, &[]).status;
                assert!([204, 400].contains(&status), "{status}");
                deleted.push((path, status));
            }
            deleted
        });
        for gateway in [&b, &c] {
            let added = &added;
            scope.spawn(move || {
                while added.load(Ordering::SeqCst) < ROUNDS {
                    let newest = added.load(Ordering::SeqCst).saturating_sub(1);
                    let path = format!("/services/s{newest}/routes");
                    let route = json!({ "paths": [format!("/{newest}")] });
                    let status = gateway.admin_json("POST", &path, &route).status;
                    assert!([201, 400, 404].contains(&status), "{status}");
                }
            });
        }
        owner.join().unwrap()
    });
    let services = rows(&a, "services");
    let kept = answers.iter().filter(|(_, status)| *status == 400).count();
    assert_eq!(services.len(), kept, "no deletion is lost and none is half");
    let ids: BTreeSet<&String> = services.keys().collect();
    for gateway in [&a, &b, &c] {
        until("all gateways have the same", || {
            rows(gateway, "services") == services && rows(gateway, "routes") == rows(&a, "routes")
        });
        for route in rows(gateway, "routes").values() {
            let service = route["service"]["id"].as_str().unwrap().to_owned();
            assert!(ids.contains(&service), "{route}");
        }
    }
}

#[test]
fn a_component_that_is_uploaded_at_one_gateway_picks_at_another() {
    let etcd = Etcd::start();
    let [a, b] = gateways(&etcd);
    let backend = Backend::start("b");
    let mut component = guest("first");
    // A custom section of four megabytes: etcd takes no request of more than 1.5.
    let padding = vec![7; (4 << 20) - component.len() - 64];
    component.push(0);
    let mut length = padding.len() + 2;
    while length >= 0x80 {
        component.push(length as u8 | 0x80);
        length >>= 7;
    }
    component.push(length as u8);
    component.extend([1, b'p']);
    component.extend(padding);
    a.upload("padded", component.clone()).expect(201);
    let upstream = json!({ "name": "u", "algorithm": "padded" });
    b.admin_json("POST", "/upstreams", &upstream).expect(201);
    b.add_target("u", backend.address, 100);
    let service = json!({ "name": "s", "host": "u" });
    b.admin_json("POST", "/services", &service).expect(201);
    b.admin_json("POST", "/services/s/routes", &json!({ "paths": ["/"] }))
        .expect(201);
    assert_eq!(b.backend_of("/"), "b");
    until("the route is at the first one", || a.get("/").status == 200);
    let fetched = b
        .admin("GET", "/balancers/padded/component", &[])
        .expect(200);
    assert!(
        fetched.body == component,
        "the component is as it was uploaded"
    );
    // Only its own gateway has an instance that picks: each compiles for itself.
    let [later] = gateways(&etcd);
    assert_eq!(later.backend_of("/"), "b");
}

#[test]
fn of_imports_at_several_gateways_at_once_one_holds_as_a_whole() {
    // More than fit in a transaction of etcd.
    const SERVICES: usize = 130;
    let etcd = Etcd::start();
    let gateways: [Gateway; 3] = gateways(&etcd);
    let documents = ["a", "b", "c"].map(|letter| {
        let service = |number| json!({ "name": format!("{letter}{number}"), "host": "h" });
        let services: Vec<Value> = (0..SERVICES).map(service).collect();
        json!({ "_format_version": "3.0", "services": services })
    });
    for _ in 0..6 {
        std::thread::scope(|scope| {
            for (gateway, document) in gateways.iter().zip(&documents) {
                let import = || gateway.admin_json("PUT", "/pointsman/config", document);
                scope.spawn(move || import().expect(200));
            }
        });
        until("all have the same", || {
            let first = rows(&gateways[0], "services");
            let mut others = gateways[1..].iter();
            others.all(|other| rows(other, "services") == first)
        });
        let names = rows(&gateways[0], "services");
        let letters = names
            .values()
            .map(|row| row["name"].as_str().unwrap().as_bytes()[0]);
        assert_eq!(names.len(), SERVICES);
        assert_eq!(letters.collect::<BTreeSet<u8>>().len(), 1);
    }
}

#[test]
fn an_import_of_any_size_is_one_change_at_all_gateways() {
    const SERVICES: usize = 700;
    let etcd = Etcd::start();
    let [a, b] = gateways(&etcd);
    let document = |count: usize, host: &str| {
        let services = (0..count).map(|number| {
            json!({
                "name": format!("s{number:05}"),
                "url": format!("http://{host}"),
                // Together more than etcd takes in one request.
                "tags": ["x".repeat(2000)],
                "routes": [{ "name": format!("r{number:05}"), "paths": [format!("/{number}")] }],
            })
        });
        json!({ "_format_version": "3.0", "services": services.collect::<Vec<_>>() })
    };
    let import = |gateway: &Gateway, document: &Value| {
        gateway
            .admin_json("PUT", "/pointsman/config", document)
            .expect(200);
    };
    import(&a, &document(SERVICES, "one.example"));
    assert_eq!(rows(&a, "services").len(), SERVICES);
    // The other one never has a part of it.
    until("the import is at the other one", || {
        let services = rows(&b, "services").len();
        assert!([0, SERVICES].contains(&services), "{services}");
        services == SERVICES
    });
    import(&b, &document(SERVICES - 1, "two.example"));
    until("the second import is at the first one", || {
        let services = rows(&a, "services");
        let hosts: BTreeSet<&str> = services
            .values()
            .map(|service| service["host"].as_str().unwrap())
            .collect();
        assert_eq!(hosts.len(), 1, "all or nothing");
        services.len() == SERVICES - 1
    });
    // The rows are at their keys, one by one, and the parts are gone.
    let consumer = add_consumer(&a, "after");
    until("the parts are removed", || {
        etcd.ctl(&["get", "/pointsman/parts/", "--prefix", "--keys-only"])
            .trim()
            .is_empty()
    });
    let keys = etcd.ctl(&[
        "get",
        "/pointsman/config/rows/services/",
        "--prefix",
        "--keys-only",
    ]);
    assert_eq!(keys.split_whitespace().count(), SERVICES - 1);
    let [later] = gateways(&etcd);
    assert_eq!(rows(&later, "services"), rows(&b, "services"));
    assert!(rows(&later, "consumers").contains_key(&consumer));
}

/// The gateways of `/clustering/data-planes`, by their ids.
fn nodes(gateway: &Gateway) -> BTreeMap<String, Value> {
    let listed = gateway.admin("GET", "/clustering/data-planes", &[]);
    let listed = listed.expect(200).json();
    let nodes = listed["data"].as_array().unwrap().iter();
    nodes
        .map(|node| (node["id"].as_str().unwrap().to_owned(), node.clone()))
        .collect()
}

fn node_id(gateway: &Gateway) -> String {
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    root["node_id"].as_str().unwrap().to_owned()
}

#[test]
fn the_gateways_are_listed_with_what_they_have_and_keep_their_ids() {
    let etcd = Etcd::start();
    let [a, b] = gateways(&etcd);
    add_consumer(&a, "one");
    let ids = BTreeSet::from([node_id(&a), node_id(&b)]);
    // Each tells what it has once a second.
    until("both are shown with the same", || {
        let shown = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["nodes", "--admin", &b.admin.to_string()])
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let heads = ["ID", "HOST", "VERSION", "REVISION", "HASH", "AGE"];
        assert_eq!(lines[0], heads);
        let shown: BTreeSet<String> = lines[1..].iter().map(|line| line[0].to_owned()).collect();
        shown == ids && lines[1][3..5] == lines[2][3..5]
    });
    // One that is killed and started again is the same one.
    let data_dir = b.data_dir.clone();
    let owned = b.kill();
    let b = etcd.gateway().data_dir(&data_dir).start();
    assert!(ids.contains(&node_id(&b)));
    add_consumer(&b, "two");
    let waited = a.admin_json(
        "POST",
        "/consumers?wait=all",
        &json!({ "username": "three" }),
    );
    assert_eq!(waited.expect(201).header("x-pointsman-not-applied"), "");
    let document = json!({ "_format_version": "3.0", "consumers": [{ "username": "four" }] });
    let waited = a.admin_json("PUT", "/pointsman/config?wait=all", &document);
    assert_eq!(waited.expect(200).header("x-pointsman-not-applied"), "");
    assert_eq!(nodes(&a).keys().cloned().collect::<BTreeSet<_>>(), ids);
    // One that ends leaves the list.
    b.terminate();
    until("it has left", || nodes(&a).len() == 1);
    drop((b, owned));
}

#[test]
fn a_change_that_waits_for_all_names_the_gateways_without_it() {
    let etcd = Etcd::start();
    let [a, b] = gateways(&etcd);
    let id = node_id(&b);
    until("both are listed", || nodes(&a).len() == 2);
    b.signal("-STOP");
    let consumer = json!({ "username": "one" });
    let waited = a.admin_json("POST", "/consumers?wait=all", &consumer);
    assert_eq!(waited.expect(201).header("x-pointsman-not-applied"), id);
    b.signal("-CONT");
    // Another value would have no effect.
    let consumer = json!({ "username": "two" });
    let refused = a.admin_json("POST", "/consumers?wait=some", &consumer);
    let message = refused.expect(400).text();
    assert!(
        message.contains("'some'") && message.contains("'all'"),
        "{message}"
    );
    a.admin("GET", "/consumers/two", &[]).expect(404);
}

#[test]
fn parts_of_a_large_change_that_was_not_made_are_removed() {
    let etcd = Etcd::start();
    let [a] = gateways(&etcd);
    let parts = || etcd.ctl(&["get", "/pointsman/parts/", "--prefix", "--keys-only"]);
    // A gateway has written them, and has ended before the change was made.
    let key = "/pointsman/parts/8c1f4f0e-27cf-4b7e-9a55-9f1f6f4f3a10/000000";
    etcd.ctl(&["put", key, "[]"]);
    add_consumer(&a, "later");
    assert!(parts().contains(key));
    let [_later] = gateways(&etcd);
    until("they are removed", || !parts().contains(key));
}

#[test]
fn twenty_gateways_that_are_restarted_at_once_have_the_same_soon() {
    const GATEWAYS: usize = 20;
    let etcd = Etcd::start();
    let backend = Backend::start("b");
    let [a] = gateways(&etcd);
    a.balanced(&[(backend.address, 100)]);
    // Each begins with a copy, as after a restart, which lacks what was written last.
    let copied = a.data_dir.clone();
    let owned = a.kill();
    let folder = tempfile::tempdir().unwrap();
    let copies: Vec<_> = (0..GATEWAYS)
        .map(|number| {
            let copy = folder.path().join(number.to_string());
            let copying = std::process::Command::new("cp")
                .arg("-r")
                .args([&copied, &copy])
                .status();
            assert!(copying.unwrap().success());
            std::fs::remove_file(copy.join("node.id")).unwrap();
            copy
        })
        .collect();
    let [writer] = gateways(&etcd);
    add_consumer(&writer, "written-meanwhile");
    let started: Vec<Gateway> = std::thread::scope(|scope| {
        let starting: Vec<_> = copies
            .iter()
            .map(|copy| {
                let setup = etcd.gateway().data_dir(copy).arg("--workers", "1");
                scope.spawn(|| setup.start())
            })
            .collect();
        let started = starting.into_iter();
        started.map(|started| started.join().unwrap()).collect()
    });
    for gateway in &started {
        assert_eq!(gateway.backend_of("/"), "b");
    }
    add_consumer(&started[7], "written-afterwards");
    for gateway in started.iter().chain([&writer]) {
        until("it has all changes", || {
            ["written-meanwhile", "written-afterwards"]
                .iter()
                .all(|name| {
                    let path = format!("/consumers/{name}");
                    gateway.admin("GET", &path, &[]).status == 200
                })
        });
    }
    until("all are listed", || nodes(&writer).len() == GATEWAYS + 1);
    drop(owned);
}
