//! The plugin `rate-limiting` with the policy `redis`, with a real Redis server.

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Issued, Load, Redis, Reply, Setup, refusing_address, until, with_backend,
};

/// The settings of the plugin with a server: `more` is added to them.
fn config(address: std::net::SocketAddr, more: Value) -> Value {
    let redis = json!({
        "host": "127.0.0.1",
        "port": address.port(),
        // Long enough for a machine that is busy with other tests.
        "timeout": 20_000,
    });
    let mut config = json!({ "policy": "redis", "redis": redis });
    merge(&mut config, more);
    config
}

fn merge(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (name, value) in from {
                merge(to.entry(name).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from,
    }
}

/// Adds the plugin for all requests, and returns its path.
fn limit(gateway: &Gateway, config: &Value) -> String {
    let plugin = json!({ "name": "rate-limiting", "config": config });
    let made = gateway.admin_json("POST", "/plugins", &plugin);
    let id = made.expect(201).json()["id"].clone();
    format!("/plugins/{}", id.as_str().unwrap())
}

fn is_counted(reply: &Reply) -> bool {
    reply.headers.contains_key("ratelimit-remaining")
}

#[test]
fn a_limit_is_exact_for_two_gateways_together() {
    let redis = Redis::start();
    let (one, _backend) = with_backend(Setup::new());
    let (two, _backend) = with_backend(Setup::new());
    for gateway in [&one, &two] {
        limit(gateway, &config(redis.address, json!({ "day": 300 })));
    }
    let loads = [&one, &two].map(|gateway| {
        let proxy = gateway.proxy;
        std::thread::spawn(move || Load::run(proxy, "/", 32, 10))
    });
    let tallies = loads.map(|load| load.join().unwrap());
    let passed: u64 = tallies
        .iter()
        .flat_map(|tally| tally.by_backend.values())
        .sum();
    assert_eq!(passed, 300);
    let mut failures = tallies.iter().flat_map(|tally| &tally.failures);
    assert_eq!(failures.find(|failure| !failure.starts_with("429")), None);
}

#[test]
fn counters_have_kongs_names_and_expire() {
    let redis = Redis::start();
    let (gateway, _backend) = with_backend(Setup::new());
    limit(
        &gateway,
        &config(redis.address, json!({ "day": 2, "year": 9 })),
    );
    let reply = gateway.get("/").expect(200);
    assert_eq!(reply.header("x-ratelimit-remaining-day"), "1");
    assert_eq!(reply.header("x-ratelimit-remaining-year"), "8");
    // The server may forget its scripts at any time.
    assert_eq!(redis.ask("SCRIPT FLUSH"), "+OK\r\n");
    gateway.get("/").expect(200);
    let refused = gateway.get("/").expect(429);
    assert_eq!(refused.header("x-ratelimit-remaining-year"), "7");
    assert_eq!(
        refused.header("retry-after"),
        refused.header("ratelimit-reset")
    );
    let nil = "00000000-0000-0000-0000-000000000000";
    let keys = redis.ask("KEYS *");
    let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with('r')).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let start = format!("ratelimit:{nil}:{nil}:127.0.0.1:");
        let rest = key.strip_prefix(&start).unwrap();
        assert!(
            rest.ends_with("000:day") || rest.ends_with("000:year"),
            "{key}"
        );
        assert_eq!(redis.ask(&format!("GET {key}")), "$1\r\n2\r\n");
        let left = redis.ask(&format!("TTL {key}"));
        let left: u64 = left.trim_start_matches(':').trim().parse().unwrap();
        let most = if rest.ends_with("day") {
            86_400
        } else {
            366 * 86_400
        };
        assert!((1..=most + 10).contains(&left), "{key} {left}");
    }
}

#[test]
fn an_absent_server_lets_requests_pass_or_not_as_the_settings_say() {
    let address = refusing_address();
    let (gateway, backend) = with_backend(Setup::new());
    let plugin = limit(&gateway, &config(address, json!({ "day": 5 })));
    for _ in 0..8 {
        assert!(!is_counted(&gateway.get("/").expect(200)));
    }
    let strict = json!({ "config": { "fault_tolerant": false } });
    gateway.admin_json("PATCH", &plugin, &strict).expect(200);
    let failed = gateway.get("/").expect(500).json();
    assert_eq!(failed["message"], "An unexpected error occurred");
    assert_eq!(backend.served(), 8);
    // The gateway finds the server once it is there, and when it comes back.
    for _ in 0..2 {
        let _redis = Redis::start_on(address);
        until("requests are counted", || {
            let reply = gateway.get("/");
            assert!([200, 500].contains(&reply.status), "{}", reply.status);
            is_counted(&reply)
        });
    }
}

#[test]
fn a_server_that_does_not_answer_delays_no_other_request() {
    let redis = Redis::start();
    let gateway = Setup::new().arg("--workers", 1).start();
    let [counted, other] = ["counted", "other"].map(Backend::start);
    gateway.balanced_as("counted", "/counted", &[(counted.address, 100)]);
    gateway.balanced_as("other", "/other", &[(other.address, 100)]);
    let config = config(
        redis.address,
        json!({ "day": 1000, "redis": { "timeout": 1000 } }),
    );
    let plugin = json!({ "name": "rate-limiting", "config": config });
    gateway
        .admin_json("POST", "/services/counted-service/plugins", &plugin)
        .expect(201);
    until("requests are counted", || {
        is_counted(&gateway.get("/counted").expect(200))
    });
    redis.signal("STOP");
    let proxy = gateway.proxy;
    let waiting: Vec<_> = (0..16)
        .map(|_| std::thread::spawn(move || Load::run(proxy, "/counted", 1, 1)))
        .collect();
    // They are answered while the requests above may still wait, and certainly if those never end.
    for _ in 0..50 {
        gateway.get("/other").expect(200);
    }
    for load in waiting {
        assert_eq!(load.join().unwrap().by_backend["counted"], 1);
    }
    // Nothing waits for a server that is known not to answer.
    for _ in 0..50 {
        assert!(!is_counted(&gateway.get("/counted").expect(200)));
    }
    redis.signal("CONT");
    until("requests are counted again", || {
        is_counted(&gateway.get("/counted").expect(200))
    });
}

#[test]
fn a_server_may_need_a_password_and_have_several_databases() {
    let redis = Redis::start_with(&["--requirepass", "secret"]);
    let (gateway, _backend) = with_backend(Setup::new());
    let with = |password: &str| {
        let redis_settings = json!({ "password": password, "database": 3 });
        let more = json!({ "day": 9, "fault_tolerant": false, "redis": redis_settings });
        config(redis.address, more)
    };
    let plugin = limit(&gateway, &with("wrong"));
    gateway.get("/").expect(500);
    let right = json!({ "config": with("secret") });
    gateway.admin_json("PATCH", &plugin, &right).expect(200);
    assert!(is_counted(&gateway.get("/").expect(200)));
    let info = redis.ask("AUTH secret\r\nINFO keyspace");
    assert!(info.contains("db3:keys=1"), "{info}");
}

#[test]
fn a_server_may_speak_tls() {
    let folder = tempfile::tempdir().unwrap();
    let issued = Issued::to("redis.example");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("certificate.pem", issued.certificate.pem());
    let key = file("key.pem", issued.key.serialize_pem());
    let authority = file("authority.pem", issued.authority);
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let redis = Redis::start_with(&[&files[..], &["--tls-auth-clients", "no"]].concat());
    let setup = Setup::new().env("SSL_CERT_FILE", &authority);
    let (gateway, _backend) = with_backend(setup);
    let with = |tls: Value| {
        let more = json!({ "day": 99, "fault_tolerant": false, "redis": tls });
        config(redis.address, more)
    };
    let plugin = limit(&gateway, &with(json!({ "ssl": true })));
    assert!(is_counted(&gateway.get("/").expect(200)));
    for (name, status) in [("redis.example", 200), ("other.example", 500)] {
        let tls = json!({ "ssl": true, "ssl_verify": true, "server_name": name });
        let change = json!({ "config": with(tls) });
        gateway.admin_json("PATCH", &plugin, &change).expect(200);
        assert_eq!(gateway.get("/").status, status, "{name}");
    }
}

#[test]
fn counts_are_reconciled_at_intervals_where_the_settings_say_so() {
    let redis = Redis::start();
    let (one, _backend) = with_backend(Setup::new());
    let (two, _backend) = with_backend(Setup::new());
    let config = config(redis.address, json!({ "day": 1000, "sync_rate": 0.02 }));
    for gateway in [&one, &two] {
        limit(gateway, &config);
    }
    for left in (990..1000).rev() {
        let reply = one.get("/").expect(200);
        assert_eq!(reply.header("ratelimit-remaining"), left.to_string());
    }
    let mut own = 0;
    until("the other gateway knows the counts of the first", || {
        own += 1;
        let reply = two.get("/").expect(200);
        let left: u64 = reply.header("ratelimit-remaining").parse().unwrap();
        left == 990 - own
    });
    until("the server has all counts", || {
        let keys = redis.ask("KEYS *");
        let key = keys.lines().find(|line| line.starts_with('r'));
        let count = redis.ask(&format!("GET {}", key.unwrap()));
        count.contains(&format!("\r\n{}\r\n", 10 + own))
    });
}

#[test]
fn requests_are_limited_here_while_counts_cannot_be_reconciled() {
    let (gateway, _backend) = with_backend(Setup::new());
    let more = json!({ "day": 2, "sync_rate": 0.02 });
    let plugin = limit(&gateway, &config(refusing_address(), more));
    for status in [200, 200, 429] {
        assert!(is_counted(&gateway.get("/").expect(status)));
    }
    let strict = json!({ "config": { "day": 2000, "fault_tolerant": false } });
    gateway.admin_json("PATCH", &plugin, &strict).expect(200);
    until("the gateway knows that it cannot reconcile", || {
        gateway.get("/").status == 500
    });
}
