//! Kong's get-started series, as Kong's documentation has it and as docs/get-started.md has it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::harness::{Backend, Gateway, refusing_address, until};

/// Waits for a time from which six requests fall into one minute of the clock.
fn early_in_a_minute() {
    until("the next minute begins", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap().as_secs() % 60 < 35
    });
}

/// Sends the forms of Kong's pages, in their order. Their service is the backend of the test.
#[test]
fn kongs_get_started_series_works_as_written() {
    let gateway = Gateway::start();
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let admin = |method: &str, path: &str, fields: &[(&str, &str)], status: u16| {
        gateway.admin(method, path, fields).expect(status).json()
    };

    // Services and routes.
    let url = format!("http://{}", one.address);
    let service = [("name", "example_service"), ("url", &*url)];
    let made = admin("POST", "/services", &service, 201);
    assert_eq!(made["path"], serde_json::Value::Null);
    let route = [("paths[]", "/mock"), ("name", "example_route")];
    admin("POST", "/services/example_service/routes", &route, 201);
    let service = "/services/example_service";
    let read = admin("GET", service, &[], 200);
    assert_eq!(read["name"], "example_service");
    let changed = admin("PATCH", service, &[("retries", "6")], 200);
    assert_eq!(changed["retries"], 6);
    admin("PUT", service, &[("url", &url)], 200);
    let tagged = "/services/example_service/routes/example_route";
    let changed = admin("PATCH", tagged, &[("tags", "tutorial")], 200);
    assert_eq!(changed["tags"], serde_json::json!(["tutorial"]));
    gateway.get("/mock/anything").expect(200);

    // Rate limiting.
    early_in_a_minute();
    let limit = [
        ("name", "rate-limiting"),
        ("config.minute", "5"),
        ("config.policy", "local"),
    ];
    let limit = admin("POST", "/plugins", &limit, 201);
    for left in ["4", "3", "2", "1", "0"] {
        let passed = gateway.get("/mock/anything").expect(200);
        assert_eq!(passed.header("x-ratelimit-limit-minute"), "5");
        assert_eq!(passed.header("x-ratelimit-remaining-minute"), left);
        assert_eq!(passed.header("ratelimit-remaining"), left);
    }
    let refused = gateway.get("/mock/anything").expect(429);
    assert_eq!(refused.json()["message"], "API rate limit exceeded");
    assert_eq!(
        refused.header("retry-after"),
        refused.header("ratelimit-reset")
    );
    let path = format!("/plugins/{}", limit["id"].as_str().unwrap());
    gateway.admin("DELETE", &path, &[]).expect(204);

    // Proxy caching.
    let cache = [
        ("name", "proxy-cache"),
        ("config.request_method", "GET"),
        ("config.response_code", "200"),
        ("config.content_type", "application/json"),
        ("config.cache_ttl", "30"),
        ("config.strategy", "memory"),
    ];
    let cache = admin("POST", "/plugins", &cache, 201);
    assert_eq!(cache["config"]["response_code"], serde_json::json!([200]));
    one.respond_with_header("content-type", "application/json");
    let served = one.served();
    let miss = gateway.get("/mock/anything").expect(200);
    assert_eq!(miss.header("x-cache-status"), "Miss");
    let hit = gateway.get("/mock/anything").expect(200);
    assert_eq!(hit.header("x-cache-status"), "Hit");
    assert_eq!(hit.header("x-cache-key"), miss.header("x-cache-key"));
    assert_eq!(one.served(), served + 1);
    let path = format!("/plugins/{}", cache["id"].as_str().unwrap());
    gateway.admin("DELETE", &path, &[]).expect(204);

    // Key authentication.
    admin("POST", "/consumers", &[("username", "luka")], 201);
    let key = [("key", "top-secret-key")];
    admin("POST", "/consumers/luka/key-auth", &key, 201);
    let auth = [("name", "key-auth"), ("config.key_names", "apikey")];
    admin("POST", "/plugins", &auth, 201);
    let refused = gateway.get("/mock/anything").expect(401);
    assert_eq!(refused.json()["message"], "No API key found in request");
    let wrong = gateway.get_with("/mock/anything", &[("apikey", "bad-key")]);
    assert_eq!(wrong.expect(401).json()["message"], "Unauthorized");
    let authenticated = [("apikey", "top-secret-key")];
    let passed = gateway.get_with("/mock/anything", &authenticated);
    let headers = &passed.expect(200).json()["headers"];
    assert_eq!(headers["x-consumer-username"], "luka");

    // Load balancing.
    admin("POST", "/upstreams", &[("name", "example_upstream")], 201);
    gateway.add_target("example_upstream", one.address, 100);
    gateway.add_target("example_upstream", two.address, 100);
    admin("PATCH", service, &[("host", "example_upstream")], 200);
    let picks: Vec<String> = (0..10)
        .map(|_| {
            let reply = gateway.get_with("/mock/anything", &authenticated);
            reply.expect(200).header("x-backend").to_owned()
        })
        .collect();
    for pair in picks.windows(2) {
        assert_ne!(pair[0], pair[1], "{picks:?}");
    }
}

/// The commands of the page, with free ports and a folder of the test's own.
#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    let ports = [(); 2].map(|()| refusing_address().port().to_string());
    let page = fs::read_to_string("../docs/get-started.md").unwrap();
    // Each answer ends its line.
    let mut commands = String::from(
        "set -e\ntrap 'kill $(jobs -p)' EXIT\n\
         curl() { command curl --silent --show-error \"$@\"; local status=$?; echo; return $status; }\n",
    );
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => commands.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    let admin = gateway.admin.to_string();
    let proxy = gateway.proxy.to_string();
    let commands = commands
        .replace("localhost:8001", &admin)
        .replace("localhost:8000", &proxy)
        .replace("9001", &ports[0])
        .replace("9002", &ports[1])
        .replace("/tmp/", &format!("{}/", folder.path().display()));
    early_in_a_minute();
    let output = Command::new("bash")
        .args(["-c", &commands])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    let expected = [
        "200", "200", "200", "200", "200", "429", "Miss", "Hit", "401", "401", "200",
    ];
    let seen: Vec<&str> = printed
        .lines()
        .filter(|line| expected.contains(line))
        .collect();
    assert_eq!(seen, expected, "{printed}");
    // No answer of the Admin API is an error.
    assert!(!printed.contains("\"code\":"), "{printed}");
    let servers: Vec<&str> = printed
        .lines()
        .filter_map(|line| {
            let start = line.rfind("{\"server\"")?;
            line[start..].split('"').nth(3)
        })
        .collect();
    let (_, last) = servers.split_at(servers.len() - 4);
    for pair in last.windows(2) {
        assert_ne!(pair[0], pair[1], "{printed}");
    }
}
