//! The plugin `response-ratelimiting`.

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Redis, Reply, Setup, refusing_address, until, with_backend,
};

/// Adds the plugin for all requests, and returns its path.
fn limit(gateway: &Gateway, config: &Value) -> String {
    let plugin = json!({ "name": "response-ratelimiting", "config": config });
    let made = gateway.admin_json("POST", "/plugins", &plugin);
    let id = made.expect(201).json()["id"].clone();
    format!("/plugins/{}", id.as_str().unwrap())
}

/// A gateway whose backend says that each request counts this much.
fn costing(header: &'static str, value: &str) -> (Gateway, Backend) {
    let (gateway, backend) = with_backend(Setup::new());
    backend.respond_with_header(header, value);
    (gateway, backend)
}

fn left(reply: &Reply) -> &str {
    reply.header("x-ratelimit-remaining-videos-day")
}

#[test]
fn the_endpoint_says_what_a_request_counts() {
    let (gateway, backend) = costing("x-kong-limit", "videos=2, images = 1 ,other=9,bad");
    let limits = json!({ "videos": { "day": 5, "year": 100 }, "images": { "day": 10 } });
    limit(&gateway, &json!({ "limits": limits }));
    for (videos, images, year) in [("3", "9", "98"), ("1", "8", "96")] {
        let reply = gateway.get("/").expect(200);
        for (name, value) in [
            ("x-ratelimit-limit-videos-day", "5"),
            ("x-ratelimit-remaining-videos-day", videos),
            ("x-ratelimit-limit-videos-year", "100"),
            ("x-ratelimit-remaining-videos-year", year),
            ("x-ratelimit-limit-images-day", "10"),
            ("x-ratelimit-remaining-images-day", images),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
        assert!(!reply.headers.contains_key("x-kong-limit"));
    }
    // One is left: the request passes, and counts.
    let reply = gateway.get("/").expect(200);
    assert_eq!(left(&reply), "0");
    // The endpoint has answered this one, but the client does not get the answer.
    let refused = gateway.get("/").expect(429);
    assert_eq!((refused.text().as_str(), left(&refused)), ("", "0"));
    assert_eq!(refused.header("content-length"), "0");
    assert_eq!(refused.header("x-ratelimit-remaining-images-day"), "6");
    assert_eq!(backend.served(), 4);
    // It was not counted, against no limit.
    backend.respond_with_header("x-kong-limit", "images=1");
    let reply = gateway.get("/").expect(200);
    assert_eq!(reply.header("x-ratelimit-remaining-images-day"), "6");
    // A response that counts nothing always passes.
    backend.respond_with_header("x-kong-limit", "videos=0");
    assert_eq!(left(&gateway.get("/").expect(200)), "0");
}

#[test]
fn the_endpoint_is_sent_what_is_left() {
    let (gateway, _backend) = costing("x-kong-limit", "videos=2");
    let limits = json!({ "videos": { "day": 5, "year": 100 } });
    limit(&gateway, &json!({ "limits": limits }));
    for left in ["5", "3", "1", "0"] {
        let seen = gateway.get("/");
        if seen.status == 200 {
            let headers = &seen.json()["headers"];
            assert_eq!(headers["x-ratelimit-remaining-videos"], left);
        }
    }
}

#[test]
fn a_used_up_limit_can_block_requests_of_any_kind() {
    let (gateway, backend) = costing("x-kong-limit", "videos=2");
    let limits = json!({ "videos": { "day": 3 }, "images": { "day": 3 } });
    let config = json!({ "limits": limits, "block_on_first_violation": true });
    limit(&gateway, &config);
    gateway.get("/").expect(200);
    gateway.get("/").expect(200);
    let blocked = gateway.get("/").expect(429);
    let message = "API rate limit exceeded for 'videos'";
    assert_eq!(blocked.json()["message"], message);
    assert_eq!(backend.served(), 2);
}

#[test]
fn the_headers_are_as_the_settings_say() {
    let (gateway, _backend) = costing("x-cost", "videos=1");
    let config = json!({
        "limits": { "videos": { "day": 2 } },
        "header_name": "X-Cost",
        "hide_client_headers": true,
    });
    limit(&gateway, &config);
    for status in [200, 200, 429] {
        let reply = gateway.get("/").expect(status);
        let mut names = reply.headers.keys().map(|name| name.as_str());
        assert!(!names.any(|name| name.contains("ratelimit") || name == "x-cost"));
    }
}

/// The settings with a server.
fn config(address: std::net::SocketAddr) -> Value {
    json!({
        "limits": { "videos": { "day": 3 } },
        "policy": "redis",
        "redis": { "host": "127.0.0.1", "port": address.port(), "timeout": 20_000 },
    })
}

#[test]
fn gateways_share_their_counts_in_redis() {
    let redis = Redis::start();
    let (one, _one) = costing("x-kong-limit", "videos=1");
    let (two, _two) = costing("x-kong-limit", "videos=1");
    for gateway in [&one, &two] {
        limit(gateway, &config(redis.address));
    }
    // A response is counted after it was sent.
    let has_counted = |count: u32| {
        until("the response is counted", || {
            let keys = redis.ask("KEYS *");
            let key = keys.lines().find(|line| line.starts_with('r'));
            key.is_some_and(|key| redis.ask(&format!("GET {key}")) == format!("$1\r\n{count}\r\n"))
        });
    };
    for (gateway, expected, count) in [(&one, "2", 1), (&two, "1", 2), (&one, "0", 3)] {
        assert_eq!(left(&gateway.get("/").expect(200)), expected);
        has_counted(count);
    }
    two.get("/").expect(429);
    let keys = redis.ask("KEYS *");
    let nil = "00000000-0000-0000-0000-000000000000";
    let name = format!("response-ratelimit:{nil}:{nil}:127.0.0.1:videos:");
    assert!(keys.contains(&name), "{keys}");
}

#[test]
fn an_absent_server_lets_requests_pass_or_not_as_the_settings_say() {
    let (gateway, backend) = costing("x-kong-limit", "videos=9");
    let plugin = limit(&gateway, &config(refusing_address()));
    for _ in 0..3 {
        let reply = gateway.get("/").expect(200);
        assert_eq!(left(&reply), "");
        assert!(!reply.headers.contains_key("x-kong-limit"));
    }
    let strict = json!({ "config": { "fault_tolerant": false } });
    gateway.admin_json("PATCH", &plugin, &strict).expect(200);
    let failed = gateway.get("/").expect(500).json();
    assert_eq!(failed["message"], "An unexpected error occurred");
    assert_eq!(backend.served(), 3);
}
