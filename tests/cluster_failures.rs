//! Gateways that share one configuration, when etcd fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{Backend, Etcd, Gateway, Load, Relay, Setup, add_consumer, metric, until};

/// Adds a route to a backend, which is named after it.
fn add_route(gateway: &Gateway, path: &str, backend: SocketAddr) {
    let name = format!("u{}", path.trim_matches('/'));
    gateway.balanced_as(&name, path, &[(backend, 100)]);
}

fn is_there(gateway: &Gateway, path: &str) -> bool {
    gateway.get(path).status == 200
}

/// Waits until a gateway says that it is not ready, for a reason with these words.
#[track_caller]
fn until_not_ready(gateway: &Gateway, reason: &str) {
    until("it says so", || {
        let ready = gateway.admin("GET", "/status/ready", &[]);
        ready.status == 503 && ready.text().contains(reason)
    });
}

/// Gives the consent that a gateway asks for: its reason ends with the text and the key.
#[track_caller]
fn consent(etcd: &Etcd, gateway: &Gateway) {
    let mut asked = None;
    until("it asks for consent", || {
        let reason = gateway.admin("GET", "/status/ready", &[]).text();
        let words = reason.split_once(" write ");
        asked = words.and_then(|(_, rest)| {
            let (text, rest) = rest.split_once(" to the key ")?;
            let key =
                rest.split(|letter: char| !"/-".contains(letter) && !letter.is_alphanumeric());
            Some((text.to_owned(), key.into_iter().next()?.to_owned()))
        });
        asked.is_some()
    });
    let (text, key) = asked.unwrap();
    etcd.ctl(&["put", &key, &text]);
}

#[track_caller]
fn until_refused(gateway: &Gateway) {
    until("writes are refused", || {
        gateway
            .admin_json("POST", "/consumers", &json!({ "username": "refused" }))
            .status
            == 503
    });
}

/// Waits until writes are taken again.
#[track_caller]
fn until_written(gateway: &Gateway, username: &str) {
    let consumer = json!({ "username": username });
    until("writes are taken again", || {
        let status = gateway.admin_json("POST", "/consumers", &consumer).status;
        assert!([201, 409, 503].contains(&status), "{status}");
        status != 503
    });
}

#[test]
fn while_etcd_is_away_requests_are_served_and_writes_refused() {
    let mut etcd = Etcd::start();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    let backend = Backend::start("b");
    add_route(&a, "/old", backend.address);
    until("the route is at the other one", || is_there(&b, "/old"));
    let load = Load::start(b.proxy, "/old", 2);
    let document = a.admin("GET", "/pointsman/config", &[]).expect(200);
    etcd.kill(0);
    for gateway in [&a, &b] {
        until_refused(gateway);
        let refused = gateway.admin_json("POST", "/consumers", &json!({ "username": "lost" }));
        assert!(refused.expect(503).text().contains("etcd"));
        let ready = gateway.admin("GET", "/status/ready", &[]).expect(503);
        assert!(ready.text().contains("etcd"), "{}", ready.text());
        assert_eq!(metric(gateway, "pointsman_store_writable"), 0.0);
        // Whether nothing would change is not known.
        let body = ("application/yaml", document.body.clone());
        let imported = gateway.send(gateway.admin, "PUT", "/pointsman/config", &[], Some(body));
        assert!(imported.expect(503).text().contains("etcd"));
        let deleted = gateway.admin("DELETE", "/consumers/unseen", &[]);
        assert!(deleted.expect(503).text().contains("etcd"));
    }
    etcd.run(0);
    etcd.wait();
    until_written(&a, "back");
    add_route(&a, "/new", backend.address);
    until("the change is at the other one", || is_there(&b, "/new"));
    until("the other one is ready", || {
        b.admin("GET", "/status/ready", &[]).status == 200
    });
    // What was refused was not queued.
    b.admin("GET", "/consumers/lost", &[]).expect(404);
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn a_gateway_starts_from_its_copy_and_follows_when_etcd_is_back() {
    let mut etcd = Etcd::start();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    let backend = Backend::start("b");
    add_route(&a, "/old", backend.address);
    until("the route is at the other one", || is_there(&b, "/old"));
    let data_dir = b.data_dir.clone();
    let owned = b.kill();
    add_route(&a, "/meanwhile", backend.address);
    etcd.kill(0);
    let b = etcd.gateway().data_dir(&data_dir).start();
    assert!(is_there(&b, "/old"), "it serves what it had");
    assert!(!is_there(&b, "/meanwhile"));
    until("it is not ready", || {
        b.admin("GET", "/status/ready", &[]).status == 503
    });
    until_refused(&b);
    etcd.run(0);
    until("it has followed", || is_there(&b, "/meanwhile"));
    until_written(&b, "back");
    drop((b, owned));
}

#[test]
fn without_etcd_and_without_a_copy_a_gateway_does_not_start() {
    let (status, log) = Setup::new()
        .arg("--store", "etcd")
        .arg("--etcd-endpoints", "http://127.0.0.1:1")
        .fail();
    assert!(!status.success());
    assert!(
        log.contains("etcd cannot be read: http://127.0.0.1:1"),
        "{log}"
    );
}

#[test]
fn an_etcd_that_is_stopped_and_goes_on_loses_no_acknowledged_write() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    add_consumer(&a, "before");
    etcd.signal(0, "STOP");
    // The write is sent, and its outcome is not known.
    let doubtful = a.admin_json("POST", "/consumers", &json!({ "username": "doubtful" }));
    assert!(doubtful.expect(503).text().contains("not known yet"));
    until_refused(&b);
    etcd.signal(0, "CONT");
    until_written(&a, "after");
    until("the other one has the same", || {
        b.admin("GET", "/consumers/after", &[]).status == 200
    });
    // Either everywhere or nowhere.
    let statuses = [&a, &b].map(|gateway| gateway.admin("GET", "/consumers/doubtful", &[]).status);
    assert_eq!(statuses[0], statuses[1]);
    b.admin("GET", "/consumers/before", &[]).expect(200);
}

#[test]
fn a_killed_leader_costs_no_request_and_no_acknowledged_write() {
    let mut etcd = Etcd::start_with(3, &[]);
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    let backend = Backend::start("b");
    add_route(&a, "/", backend.address);
    until("the route is at the other one", || is_there(&b, "/"));
    let load = Load::start(b.proxy, "/", 2);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                let name = format!("c{number}");
                let consumer = json!({ "username": name });
                let status = a.admin_json("POST", "/consumers", &consumer).status;
                if status == 201 {
                    acknowledged.push(name);
                }
                number += 1;
            }
            acknowledged
        });
        for _ in 0..2 {
            let leader = etcd.leader();
            etcd.kill(leader);
            until_written(&b, &format!("b{leader}"));
            etcd.run(leader);
            etcd.wait();
        }
        until_written(&a, "last");
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    assert!(!acknowledged.is_empty());
    for name in acknowledged {
        let path = format!("/consumers/{name}");
        a.admin("GET", &path, &[]).expect(200);
        until("the other one has it", || {
            b.admin("GET", &path, &[]).status == 200
        });
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
}

#[test]
fn without_a_majority_writes_are_refused_until_it_is_back() {
    let mut etcd = Etcd::start_with(3, &[]);
    let a = etcd.gateway().start();
    add_consumer(&a, "before");
    etcd.kill(0);
    etcd.kill(1);
    until_refused(&a);
    etcd.run(0);
    etcd.run(1);
    etcd.wait();
    until_written(&a, "after");
    a.admin("GET", "/consumers/before", &[]).expect(200);
}

#[test]
fn compaction_while_a_gateway_is_cut_off_rebuilds_only_what_has_changed() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let relay = Relay::start(etcd.address(0));
    let b = etcd.gateway_through(&relay).start();
    let backend = Backend::start("b");
    add_route(&a, "/old", backend.address);
    until("the route is at the other one", || is_there(&b, "/old"));
    let picks = |gateway: &Gateway| {
        let balancer = gateway
            .admin("GET", "/balancers/round-robin", &[])
            .expect(200)
            .json();
        balancer["usage"]["uold"]["picks"].as_u64().unwrap()
    };
    let before = picks(&b);
    assert!(before > 0);
    relay.cut(true);
    add_route(&a, "/new", backend.address);
    let revision = etcd.ctl(&["get", "/pointsman/config/head", "--write-out", "fields"]);
    let revision = revision
        .lines()
        .find_map(|line| line.strip_prefix("\"Revision\" : "));
    etcd.ctl(&["compact", revision.unwrap()]);
    relay.cut(false);
    until("the change is there", || is_there(&b, "/new"));
    // The instance of the balancer, with its counters, is still the same.
    assert!(picks(&b) >= before);
    add_consumer(&b, "after");
}

#[test]
fn a_watch_whose_packets_vanish_is_noticed_and_goes_on_afterwards() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let relay = Relay::start(etcd.address(0));
    let b = etcd.gateway_through(&relay).start();
    let backend = Backend::start("b");
    // The connections stand, and nothing passes.
    relay.swallow(true);
    add_route(&a, "/new", backend.address);
    until("it is noticed", || {
        b.admin("GET", "/status/ready", &[]).status == 503
    });
    relay.swallow(false);
    until("the change is there", || is_there(&b, "/new"));
    until_written(&b, "after");
}

#[test]
fn an_emptied_etcd_is_not_applied_without_consent() {
    let mut etcd = Etcd::start();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    let backend = Backend::start("b");
    add_route(&a, "/old", backend.address);
    until("the route is at the other one", || is_there(&b, "/old"));
    let load = Load::start(b.proxy, "/old", 2);
    etcd.wipe();
    etcd.run(0);
    etcd.wait();
    for gateway in [&a, &b] {
        until_not_ready(gateway, "no configuration");
        gateway
            .admin_json("POST", "/consumers", &json!({ "username": "refused" }))
            .expect(503);
    }
    // A new gateway makes a new configuration, which is not that of the others.
    let c = etcd.gateway().start();
    add_route(&c, "/other", backend.address);
    for gateway in [&a, &b] {
        until_not_ready(gateway, "another configuration");
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
    // A consent to something else has no effect, and one is enough for all gateways.
    etcd.ctl(&["put", "/pointsman/config/consent", "by an operator"]);
    consent(&etcd, &b);
    for gateway in [&a, &b] {
        until("it is applied", || {
            is_there(gateway, "/other") && !is_there(gateway, "/old")
        });
        until_written(gateway, "after");
    }
    // It is used up.
    let left = etcd.ctl(&["get", "/pointsman/config/consent"]);
    assert_eq!(left, "");
}

#[test]
fn an_etcd_that_was_restored_from_an_older_snapshot_needs_a_consent_to_that_loss() {
    let mut etcd = Etcd::start();
    let a = etcd.gateway().start();
    let snapshot = etcd.snapshot();
    let backend = Backend::start("b");
    // The second time, what etcd has is from before the first consent.
    for (path, reason) in [("/first", "older"), ("/second", "another configuration")] {
        add_route(&a, path, backend.address);
        etcd.restore(&snapshot);
        // Not applied, though there was a consent to the loss before.
        until_not_ready(&a, reason);
        assert!(is_there(&a, path));
        consent(&etcd, &a);
        until("it is applied", || !is_there(&a, path));
        until_written(&a, path.trim_matches('/'));
    }
    // A gateway that is started from its copy goes on as usual.
    let data_dir = a.data_dir.clone();
    let owned = a.kill();
    let a = etcd.gateway().data_dir(&data_dir).start();
    until_written(&a, "last");
    drop((a, owned));
}

#[test]
fn an_etcd_that_was_restored_and_has_gone_on_is_not_applied_without_consent() {
    let mut etcd = Etcd::start();
    let a = etcd.gateway().start();
    let snapshot = etcd.snapshot();
    let backend = Backend::start("b");
    add_route(&a, "/newer", backend.address);
    a.signal("-STOP");
    etcd.restore(&snapshot);
    // By then it has had more changes than before, though none of a gateway.
    for _ in 0..50 {
        etcd.ctl(&["put", "/other", "change"]);
    }
    a.signal("-CONT");
    until_not_ready(&a, "older");
    assert!(is_there(&a, "/newer"));
}

#[test]
fn a_full_etcd_refuses_writes_with_its_reason_and_is_served_from() {
    let etcd = Etcd::start_with(1, &["--quota-backend-bytes", "4194304"]);
    let a = etcd.gateway().start();
    let big = "x".repeat(100_000);
    for number in 0..200 {
        let name = format!("filler/{number}");
        if !etcd.try_put(&name, &big) {
            break;
        }
    }
    let mut refused = String::new();
    until("writes are refused", || {
        let reply = a.admin_json("POST", "/consumers", &json!({ "username": "refused" }));
        refused = reply.text();
        reply.status == 503
    });
    assert!(refused.contains("space exceeded"), "{refused}");
    a.admin("GET", "/consumers", &[]).expect(200);
}

#[test]
fn clocks_that_are_hours_apart_change_nothing() {
    let etcd = Etcd::start();
    let library = Etcd::folder().join("libfaketime.so");
    let library = library.to_str().unwrap();
    assert!(
        std::path::Path::new(library).exists(),
        "scripts/etcd unpacks it"
    );
    let gateways = ["-1h", "+0", "+1h"].map(|clock| {
        etcd.gateway()
            .env("LD_PRELOAD", library)
            .env("FAKETIME", clock)
            // As on a machine whose clock is wrong: its monotonic clock is not.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()
    });
    let backend = Backend::start("b");
    let mut created = Vec::new();
    for (number, gateway) in gateways.iter().enumerate() {
        let path = format!("/r{number}");
        add_route(gateway, &path, backend.address);
        for other in &gateways {
            until("the route is there", || is_there(other, &path));
        }
        let consumer = json!({ "username": format!("c{number}") });
        let waited = gateway.admin_json("POST", "/consumers?wait=all", &consumer);
        let waited = waited.expect(201);
        assert_eq!(waited.header("x-pointsman-not-applied"), "");
        created.push(waited.json()["created_at"].as_i64().unwrap());
    }
    // They are hours apart indeed.
    assert!(created[2] - created[0] > 7000, "{created:?}");
    assert!(
        (3500..3700).contains(&(created[1] - created[0])),
        "{created:?}"
    );
}

#[test]
fn a_change_whose_answer_was_lost_is_reported_as_made_although_others_were_made_on_it() {
    let etcd = Etcd::start();
    let relay = Relay::start(etcd.address(0));
    let a = etcd.gateway_through(&relay).start();
    let b = etcd.gateway().start();
    relay.swallow_answers(true);
    let consumer = json!({ "username": "first" });
    let answered = std::thread::scope(|scope| {
        let writing = scope.spawn(|| a.admin_json("POST", "/consumers", &consumer));
        until("the other one has the change", || {
            b.admin("GET", "/consumers/first", &[]).status == 200
        });
        add_consumer(&b, "second");
        relay.swallow_answers(false);
        writing.join().unwrap()
    });
    // The watch is silent for longer than the commit waits for it.
    answered.expect(201);
    until("it has what the other one has written", || {
        a.admin("GET", "/consumers/second", &[]).status == 200
    });
    until_written(&a, "third");
}

#[test]
fn a_copy_whose_origin_cannot_be_written_takes_effect_and_refuses_writes_until_it_can() {
    let etcd = Etcd::start();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    add_consumer(&a, "before");
    let data_dir = b.data_dir.clone();
    let owned = b.kill();
    let folder = data_dir.join("etcd");
    std::fs::remove_file(folder.join("ORIGIN")).unwrap();
    std::fs::create_dir(folder.join("ORIGIN.tmp")).unwrap();
    add_consumer(&a, "meanwhile");
    let b = etcd.gateway().data_dir(&data_dir).start();
    b.admin("GET", "/consumers/meanwhile", &[]).expect(200);
    until_refused(&b);
    until_not_ready(&b, "etcd/ORIGIN");
    a.admin("DELETE", "/consumers/meanwhile", &[]).expect(204);
    until("it goes on to follow", || {
        b.admin("GET", "/consumers/meanwhile", &[]).status == 404
    });
    std::fs::remove_dir(folder.join("ORIGIN.tmp")).unwrap();
    until_written(&b, "after");
    drop((b, owned));
}
