//! Limits that the gateways on one etcd divide among them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::{Backend, Etcd, Gateway, until};

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// The numbers in a header that the gateways send, in ascending order.
fn told(gateways: &[&Gateway], path: &str, header: &str) -> Vec<u32> {
    let replies = gateways.iter().map(|gateway| gateway.get(path));
    let mut told: Vec<u32> = replies
        .map(|reply| reply.header(header).parse().unwrap_or_default())
        .collect();
    told.sort_unstable();
    told
}

#[test]
fn gateways_divide_a_limit_and_those_that_die_leave_their_share_to_the_others() {
    let etcd = Etcd::start();
    let [a, b, c] = [(); 3].map(|()| etcd.gateway().start());
    let backend = Backend::start("b");
    for (name, path) in [("shown", "/shown"), ("counted", "/counted")] {
        a.balanced_as(name, path, &[(backend.address, 100)]);
    }
    for (service, plugin, config) in [
        ("shown", "rate-limiting", json!({ "hour": 10_000 })),
        (
            "shown",
            "response-ratelimiting",
            json!({ "limits": { "videos": { "hour": 10_000 } } }),
        ),
        ("counted", "rate-limiting", json!({ "hour": 31 })),
    ] {
        let mut config = config;
        config["policy"] = json!("local");
        config["pointsman"] = json!({ "share": "nodes" });
        let path = format!("/services/{service}-service/plugins");
        let plugin = json!({ "name": plugin, "config": config });
        let made = a.admin_json("POST", &path, &plugin).expect(201).json();
        assert_eq!(made["config"]["pointsman"]["share"], "nodes");
    }
    const OF_REQUESTS: &str = "x-ratelimit-limit-hour";
    const OF_RESPONSES: &str = "x-ratelimit-limit-videos-hour";
    for header in [OF_REQUESTS, OF_RESPONSES] {
        until("each of three has a share", || {
            told(&[&a, &b, &c], "/shown", header) == [3333, 3333, 3334]
        });
    }
    // In one window, all of them together allow as much as the limit.
    until("an hour that does not end soon", || seconds() % 3600 < 3590);
    let passed = [&a, &b, &c].map(|gateway| {
        let statuses = (0..20).map(|_| gateway.get("/counted").status);
        statuses.filter(|status| *status == 200).count()
    });
    assert_eq!(passed.iter().sum::<usize>(), 31, "{passed:?}");
    assert!(passed.iter().all(|passed| [10, 11].contains(passed)));
    // One is killed, and one ends.
    c.kill_9();
    until("two have a half each", || {
        told(&[&a, &b], "/shown", OF_REQUESTS) == [5000, 5000]
    });
    let later = etcd.gateway().start();
    until("it has a share as well", || {
        told(&[&a, &b, &later], "/shown", OF_REQUESTS) == [3333, 3333, 3334]
    });
    later.terminate();
    b.terminate();
    until("the last one has all", || {
        told(&[&a], "/shown", OF_RESPONSES) == [10_000]
    });
}

#[test]
fn a_share_is_for_the_policy_local_and_a_gateway_alone_has_all() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    for plugin in ["rate-limiting", "response-ratelimiting"] {
        let limits = match plugin {
            "rate-limiting" => json!({ "minute": 5 }),
            _ => json!({ "limits": { "videos": { "minute": 5 } } }),
        };
        let mut config = limits;
        config["pointsman"] = json!({ "share": "nodes" });
        config["policy"] = json!("redis");
        config["redis"] = json!({ "host": "127.0.0.1" });
        let document = json!({ "name": plugin, "config": config });
        let refused = gateway
            .admin_json("POST", "/plugins", &document)
            .expect(400);
        let said = refused.text();
        assert!(
            said.contains("can only be used with the local policy"),
            "{said}"
        );
        config["policy"] = json!("local");
        config["pointsman"]["share"] = json!("half");
        let document = json!({ "name": plugin, "config": config });
        gateway
            .admin_json("POST", "/plugins", &document)
            .expect(400);
    }
    let config = json!({ "minute": 5, "policy": "local", "pointsman": { "share": "nodes" } });
    let document = json!({ "name": "rate-limiting", "config": config });
    gateway
        .admin_json("POST", "/plugins", &document)
        .expect(201);
    assert_eq!(told(&[&gateway], "/", "x-ratelimit-limit-minute"), [5]);
}
