//! Who may use the Admin API: its tokens, the log of their changes, and the warning without them.

use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{Gateway, Reply, Setup, guest};

/// Makes a token as an operator does: the token, and its entry for the setting.
fn make(arguments: &[&str]) -> (String, String) {
    let output = pointsman(&[&["admin-token"], arguments].concat(), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .to_owned()
    };
    (value("token: "), value("admin_tokens entry: "))
}

/// Runs a command with a token in the environment.
fn pointsman(arguments: &[&str], token: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(arguments).env("POINTSMAN_ADMIN_TOKEN", token);
    command.output().unwrap()
}

struct Tokens {
    gateway: Gateway,
    writing: String,
    reading: String,
}

fn start() -> Tokens {
    let (writing, ci) = make(&["ci"]);
    let (reading, graphs) = make(&["graphs", "--read-only"]);
    let gateway = Setup::new()
        .arg("--admin-tokens", format!("{ci},{graphs}"))
        // A variable of the commands is not a mistyped setting.
        .env("POINTSMAN_ADMIN_TOKEN", "x")
        .env("NO_COLOR", "1")
        .start();
    Tokens {
        gateway,
        writing,
        reading,
    }
}

impl Tokens {
    fn send(&self, method: &str, path: &str, token: &str) -> Reply {
        let authorization = format!("Bearer {token}");
        let headers: &[(&str, &str)] = match token {
            "" => &[],
            _ => &[("authorization", &authorization)],
        };
        let body = ["POST", "PUT"].contains(&method);
        let document = json!({"name": "s", "host": "h"}).to_string().into_bytes();
        let body = body.then_some(("application/json", document));
        self.gateway
            .send(self.gateway.admin, method, path, headers, body)
    }
}

#[test]
fn each_request_needs_a_token_that_may_do_it() {
    let tokens = start();
    let (writing, reading) = (&*tokens.writing, &*tokens.reading);
    for token in ["", "x", "Bearer", &writing[1..]] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/services"),
            ("GET", "/metrics"),
            ("GET", "/nowhere"),
            ("POST", "/services"),
            ("DELETE", "/services/s"),
        ] {
            let refused = tokens.send(method, path, token).expect(401);
            assert_eq!(refused.header("www-authenticate"), "Bearer");
            assert!(refused.json()["message"].is_string());
        }
        tokens.send("GET", "/status/ready", token).expect(200);
        tokens.send("OPTIONS", "/services", token).expect(204);
    }
    for (method, path) in [
        ("POST", "/services"),
        ("PUT", "/services/s"),
        ("DELETE", "/services/s"),
        ("PUT", "/debug/node/log-level/off"),
    ] {
        let refused = tokens.send(method, path, reading).expect(403);
        let message = json!({"message": "the token \"graphs\" is read-only"});
        assert_eq!(refused.json(), message);
    }
    tokens.send("POST", "/services", writing).expect(201);
    for token in [writing, reading] {
        tokens.send("GET", "/services/s", token).expect(200);
        tokens.send("HEAD", "/services/s", token).expect(200);
    }
    tokens.send("DELETE", "/services/s", writing).expect(204);
}

#[test]
fn each_change_is_logged_with_the_name_of_its_token() {
    let tokens = start();
    tokens
        .send("POST", "/services", &tokens.writing)
        .expect(201);
    tokens
        .send("PUT", "/services/s", &tokens.writing)
        .expect(200);
    tokens
        .send("GET", "/services/s", &tokens.reading)
        .expect(200);
    tokens
        .send("PUT", "/services/s", &tokens.reading)
        .expect(403);
    tokens
        .send("DELETE", "/services/s", &tokens.writing)
        .expect(204);
    let Tokens {
        gateway,
        writing,
        reading,
    } = tokens;
    gateway.terminate();
    let (_, log) = gateway.wait();
    for done in ["created", "replaced", "deleted"] {
        let lines = log.lines().filter(|line| line.ends_with(done));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 1, "{done}: {log}");
        assert!(
            lines[0].contains("INFO admin{token=\"ci\"}"),
            "{}",
            lines[0]
        );
        assert!(lines[0].contains("service \"s\""), "{}", lines[0]);
    }
    assert!(
        log.contains("refused: the token \"graphs\" is read-only"),
        "{log}"
    );
    for secret in [writing, reading] {
        assert!(!log.contains(&secret), "{log}");
    }
}

#[test]
fn the_commands_send_their_token() {
    let tokens = start();
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("mine.wasm");
    std::fs::write(&component, guest("first")).unwrap();
    let admin = format!("http://{}", tokens.gateway.admin);
    let push = [
        "plugin",
        "push",
        component.to_str().unwrap(),
        "--admin",
        &admin,
    ];
    let said = |output: Output| String::from_utf8(output.stderr).unwrap();
    let without = said(pointsman(&push, ""));
    assert!(
        without.contains("401: the Admin API needs a token"),
        "{without}"
    );
    let reading = said(pointsman(&push, &tokens.reading));
    assert!(
        reading.contains("403: the token \"graphs\" is read-only"),
        "{reading}"
    );
    let done = pointsman(&push, &tokens.writing);
    assert!(done.status.success(), "{}", said(done));
    let list = [
        "plugin",
        "list",
        "--admin",
        &admin,
        "--admin-token",
        &tokens.reading,
    ];
    let listed = pointsman(&list, "");
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("mine"), "{listed}");
}

#[test]
fn an_admin_api_beyond_this_machine_without_tokens_is_warned_of() {
    let warning = "CAN CHANGE ALL OF THE CONFIGURATION";
    let (_, entry) = make(&["ci"]);
    for (address, token, warned) in [
        ("127.0.0.1:0", None, false),
        ("0.0.0.0:0", None, true),
        ("0.0.0.0:0", Some(&entry), false),
    ] {
        let mut setup = Setup::new().arg("--admin-listen", address);
        if let Some(token) = token {
            setup = setup.arg("--admin-tokens", token);
        }
        let gateway = setup.start();
        gateway.terminate();
        let (_, log) = gateway.wait();
        assert_eq!(log.contains(warning), warned, "{address}: {log}");
    }
}

#[test]
fn a_wrong_name_or_entry_is_refused() {
    let refused = pointsman(&["admin-token", "a b"], "");
    assert!(!refused.status.success());
    let setup = Setup::new().arg("--admin-tokens", "ci:read-write:secret");
    let (status, log) = setup.fail();
    assert!(!status.success());
    assert!(
        log.contains("admin_tokens = \"ci…\": expected tokens"),
        "{log}"
    );
    assert!(!log.contains("secret"), "{log}");
}
