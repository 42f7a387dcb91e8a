//! Round trips as Kong's decK makes them: what it reads from a gateway is a file, which it makes
//! the configuration of another gateway, or of the same one again.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Deck, File, Gateway, Setup, of_every_kind, put_document};

/// The plugins with the least settings that they take.
fn plugins() -> Vec<(&'static str, Value)> {
    let server = json!({ "host": "127.0.0.1", "port": 9 });
    let mut plugins = vec![
        ("acl", json!({ "allow": ["group"] })),
        (
            "acme",
            json!({ "account_email": "a@a.example", "tos_accepted": true }),
        ),
        ("cors", json!({ "origins": ["https://a.example"] })),
        ("file-log", json!({ "path": "/dev/null" })),
        (
            "http-log",
            json!({ "http_endpoint": "http://127.0.0.1:9/log" }),
        ),
        ("ip-restriction", json!({ "deny": ["10.0.0.0/8"] })),
        (
            "opentelemetry",
            json!({ "traces_endpoint": "http://127.0.0.1:9/v1/traces" }),
        ),
        ("proxy-cache", json!({ "strategy": "memory" })),
        (
            "rate-limiting",
            json!({ "minute": 5, "policy": "redis", "redis": { "host": "a.example" } }),
        ),
        ("redirect", json!({ "location": "https://a.example" })),
        (
            "response-ratelimiting",
            json!({ "limits": { "video": { "minute": 5 } } }),
        ),
        (
            "request-transformer",
            json!({ "add": { "headers": ["x-a:b"] } }),
        ),
        (
            "statsd",
            json!({ "metrics": [{ "name": "latency", "stat_type": "timer" }] }),
        ),
        ("tcp-log", server.clone()),
        ("udp-log", server),
    ];
    plugins.extend(
        [
            "basic-auth",
            "bot-detection",
            "correlation-id",
            "grpc-web",
            "jwt",
            "key-auth",
            "prometheus",
            "request-size-limiting",
            "request-termination",
            "response-transformer",
            "syslog",
        ]
        .map(|name| (name, json!({}))),
    );
    plugins
}

/// An entity of every kind, a plugin of every kind, and what the shared document does not have.
fn configure(gateway: &Gateway) {
    put_document(gateway, &of_every_kind(), "").expect(200);
    let put = |path: &str, row: Value| {
        let reply = gateway.admin_json("POST", path, &row);
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
        reply.json()
    };
    put(
        "/services",
        json!({ "name": "plain", "host": "plain.example" }),
    );
    let nameless = put("/services/plain/routes", json!({ "paths": ["/nameless"] }));
    put(
        "/services/plain/routes",
        json!({
            "name": "streams", "protocols": ["tcp"], "paths": null,
            "destinations": [{ "ip": "10.0.0.0/8", "port": 9 }], "sources": [{ "ip": "127.0.0.1" }],
        }),
    );
    put(
        "/upstreams",
        json!({
            "name": "checked", "hash_on": "header", "hash_on_header": "x-a", "tags": ["z", "a"],
            "healthchecks": {
                "active": { "type": "https", "healthy": { "interval": 60, "successes": 2 } },
                "passive": { "unhealthy": { "http_failures": 3, "http_statuses": [500] } },
            },
        }),
    );
    put(
        "/upstreams/checked/targets",
        json!({ "target": "a.example", "weight": 0 }),
    );
    put("/consumers", json!({ "custom_id": "without a name" }));
    let made = gateway.admin("GET", "/", &[]).expect(200).json();
    let available = made["plugins"]["available_on_server"].as_object().unwrap();
    let available: BTreeSet<&str> = available.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = plugins().iter().map(|(name, _)| *name).collect();
    assert_eq!(known, available, "a plugin of every kind");
    for (name, config) in plugins() {
        let plugin = json!({ "name": name, "config": config, "tags": ["every"] });
        // That one is for all requests.
        let path = match name {
            "acme" => "/plugins",
            _ => "/services/plain/plugins",
        };
        put(path, plugin);
    }
    put(
        "/plugins",
        json!({
            "name": "request-termination", "instance_name": "scoped", "enabled": false,
            "route": { "id": nameless["id"] }, "consumer": { "username": "my-user" },
        }),
    );
}

/// A file without the passwords, of which a gateway only tells hashes: decK cannot carry them.
fn without_passwords(mut file: File) -> File {
    for (collection, row) in &mut file.0 {
        if *collection == "basicauth_credentials" {
            row.remove("password");
        }
    }
    file
}

#[test]
fn what_is_dumped_from_one_gateway_is_the_same_at_another_after_a_sync() {
    for with_ids in [false, true] {
        let (from, to) = (Gateway::start(), Gateway::start());
        configure(&from);
        let deck = |gateway| match with_ids {
            true => Deck::of(gateway).with_ids(),
            false => Deck::of(gateway),
        };
        let file = deck(&from).dump();
        deck(&to).validate(&file);
        assert_eq!(deck(&to).sync(&file).len(), file.0.len());
        assert_eq!(deck(&to).diff(&file), Vec::<String>::new());
        let again = deck(&to).dump();
        assert_eq!(without_passwords(again), without_passwords(file));
    }
}

#[test]
fn a_sync_of_what_is_there_writes_nothing() {
    let gateway = Gateway::start();
    configure(&gateway);
    let deck = Deck::of(&gateway);
    let file = deck.dump();
    assert_eq!(deck.sync(&file), Vec::<String>::new());
    // Written again as it is, everything stays what it was: nothing that decK leaves out has a
    // meaning of its own.
    let every = gateway
        .admin("GET", "/pointsman/config", &[])
        .expect(200)
        .text();
    let mut touched = file.clone();
    for (collection, row) in &mut touched.0 {
        if *collection != "basicauth_credentials" {
            let tags = row.entry("tags").or_insert_with(|| json!([]));
            tags.as_array_mut().unwrap().push(json!("touched"));
        }
    }
    let changed = deck.sync(&touched).len();
    assert_eq!(changed, file.0.len() - 1);
    assert_eq!(deck.diff(&touched), Vec::<String>::new());
    assert_eq!(deck.sync(&file).len(), changed);
    let now = gateway
        .admin("GET", "/pointsman/config", &[])
        .expect(200)
        .text();
    let untimed = |text: &str| {
        // A PUT sets them anew, as Kong's does.
        let lines = text.lines().filter(|line| !line.contains("ed_at:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(untimed(&now), untimed(&every));
}

#[test]
fn selected_entities_are_changed_and_others_left_alone() {
    let gateway = Gateway::start();
    let team = |name: &str| {
        File(vec![
            ("consumers", json!({ "username": format!("{name}-user") })),
            ("key_sets", json!({ "name": format!("{name}-set") })),
            ("vaults", json!({ "prefix": format!("{name}-env"), "name": "env", "config": { "prefix": "X_" } })),
            ("services", json!({ "name": format!("{name}-s"), "host": "a.example", "tags": ["own"] })),
            ("upstreams", json!({ "name": format!("{name}-u") })),
            ("keyauth_credentials", json!({ "key": format!("{name}-key"), "consumer": format!("{name}-user") })),
            ("basicauth_credentials", json!({ "username": format!("{name}-b"), "password": "p", "consumer": format!("{name}-user") })),
            ("jwt_secrets", json!({ "key": format!("{name}-jwt"), "secret": "s", "algorithm": "HS256", "consumer": format!("{name}-user") })),
            ("acls", json!({ "group": "g", "consumer": format!("{name}-user") })),
            ("routes", json!({ "name": format!("{name}-r"), "paths": [format!("/{name}")], "service": format!("{name}-s") })),
            ("targets", json!({ "target": "127.0.0.1:9", "upstream": format!("{name}-u") })),
            ("plugins", json!({ "name": "cors", "service": format!("{name}-s") })),
        ].into_iter().map(|(name, row): (&'static str, Value)| (name, row.as_object().unwrap().clone())).collect())
    };
    let selecting = |name: &str| Deck::of(&gateway).selecting(&["deck", name]);
    let (red, blue) = (team("red"), team("blue"));
    selecting("red").sync(&red);
    selecting("blue").sync(&blue);
    for (name, file) in [("red", &red), ("blue", &blue)] {
        assert_eq!(selecting(name).diff(file), Vec::<String>::new());
        assert_eq!(selecting(name).dump().0.len(), file.0.len());
    }
    // Tags are sets: their order and the selected ones are not told.
    let mut dumped = selecting("red").dump();
    let service = dumped.find("services", "name", "red-s");
    assert_eq!(service["tags"], json!(["own"]));
    assert_eq!(selecting("red").sync(&File(Vec::new())).len(), red.0.len());
    assert_eq!(selecting("red").dump(), File(Vec::new()));
    assert_eq!(selecting("blue").diff(&blue), Vec::<String>::new());
    assert_eq!(Deck::of(&gateway).dump().0.len(), blue.0.len());
}

#[test]
fn renamed_entities_keep_their_ids_or_get_others_as_the_file_says() {
    for with_ids in [true, false] {
        let gateway = Gateway::start();
        configure(&gateway);
        let deck = match with_ids {
            true => Deck::of(&gateway).with_ids(),
            false => Deck::of(&gateway),
        };
        let mut file = deck.dump();
        for (collection, field, from) in [
            ("services", "name", "my-service"),
            ("services", "name", "plain"),
            ("routes", "name", "my-route"),
            ("upstreams", "name", "my-upstream"),
            ("key_sets", "name", "set"),
            ("vaults", "prefix", "my-env"),
        ] {
            file.rename(collection, field, from, &format!("{from}-renamed"));
        }
        if with_ids {
            file.rename("consumers", "username", "my-user", "other-user");
            file.rename("keys", "name", "k", "k2");
            file.rename("snis", "name", "a.example", "b.example");
        }
        deck.sync(&file);
        assert_eq!(
            deck.diff(&file),
            Vec::<String>::new(),
            "with ids: {with_ids}"
        );
        assert_eq!(without_passwords(deck.dump()), without_passwords(file));
        let service = gateway.admin("GET", "/services/my-service-renamed", &[]);
        let id = service.expect(200).json()["id"].clone();
        assert_eq!(id == crate::harness::MY_SERVICE, with_ids);
        gateway
            .admin("GET", "/services/my-service", &[])
            .expect(404);
    }
}

#[test]
fn credentials_move_to_a_consumer_of_another_name() {
    let gateway = Gateway::start();
    configure(&gateway);
    let deck = Deck::of(&gateway);
    let mut file = deck.dump();
    file.find("consumers", "username", "my-user")
        .remove("custom_id");
    // Unique, as in Kong: its plugin is written before the one of the old name is deleted.
    file.find("plugins", "instance_name", "scoped")
        .remove("instance_name");
    deck.sync(&file);
    file.rename("consumers", "username", "my-user", "other-user");
    deck.sync(&file);
    assert_eq!(deck.diff(&file), Vec::<String>::new());
    let keys = gateway.admin("GET", "/consumers/other-user/key-auth", &[]);
    assert_eq!(keys.expect(200).json()["data"][0]["key"], "top-secret");
    gateway.admin("GET", "/consumers/my-user", &[]).expect(404);
}

#[test]
fn hundreds_of_entities_are_written_ten_at_a_time() {
    const COUNT: usize = 150;
    let gateway = Setup::new().start();
    let deck = Deck::of(&gateway);
    let mut rows: Vec<(&'static str, Value)> = Vec::new();
    for number in 0..COUNT {
        let (service, user) = (format!("s{number}"), format!("c{number}"));
        rows.extend([
            ("services", json!({ "name": service, "host": "u" })),
            ("routes", json!({ "name": format!("r{number}"), "service": service, "paths": [format!("/{number}")] })),
            ("plugins", json!({ "name": "cors", "service": service })),
            ("consumers", json!({ "username": user })),
            ("keyauth_credentials", json!({ "key": format!("k{number}"), "consumer": user })),
            ("targets", json!({ "target": format!("10.0.0.{number}:80"), "upstream": "u" })),
        ]);
    }
    rows.push(("upstreams", json!({ "name": "u" })));
    let rows = rows.into_iter();
    let file = File(
        rows.map(|(name, row)| (name, row.as_object().unwrap().clone()))
            .collect(),
    );
    assert_eq!(deck.sync(&file).len(), 6 * COUNT + 1);
    assert_eq!(deck.diff(&file), Vec::<String>::new());
    assert_eq!(deck.sync(&File(Vec::new())).len(), 6 * COUNT + 1);
    assert_eq!(deck.dump(), File(Vec::new()));
}
