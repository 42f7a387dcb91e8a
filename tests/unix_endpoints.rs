//! Endpoints at Unix sockets: requests, upgrades, streams, probes and health.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Backend, Gateway, Raw, RawServer, Setup, active_checks, has_health, health, patch_upstream,
    until,
};

/// A Unix socket that leads to a server.
struct Front {
    path: PathBuf,
    _folder: TempDir,
}

impl Front {
    fn start(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        listen(&path, server);
        Self {
            path,
            _folder: folder,
        }
    }

    /// The target that it is.
    fn target(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

/// Passes what is sent to a Unix socket to a server. The thread ends with the test's process.
fn listen(path: &Path, server: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(server).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let (mut from, mut to): (UnixStream, TcpStream) = (from, to);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let (mut from, mut to): (TcpStream, UnixStream) = (server, client);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
}

/// An upstream `u` with this target.
fn balanced(gateway: &Gateway, target: &str) -> Value {
    gateway.balanced(&[]);
    let path = "/upstreams/u/targets";
    let added = gateway.admin("POST", path, &[("target", target)]);
    added.expect(201).json()
}

#[test]
fn requests_are_sent_to_a_unix_socket_and_share_connections() {
    let gateway = Setup::new().arg("--workers", 1).start();
    let backend = Backend::start("b");
    let front = Front::start(backend.address);
    let added = balanced(&gateway, &front.target());
    assert_eq!(added["target"], front.target());
    for _ in 0..3 {
        let answer = gateway.get("/path").expect(200);
        assert_eq!(answer.json()["headers"]["host"], "localhost");
    }
    assert_eq!(backend.connections(), 1);
    let (state, address) = health(&gateway, front.target());
    assert_eq!(state, "HEALTHCHECKS_OFF");
    assert_eq!(
        (&address["ip"], &address["port"]),
        (&json!(front.target()), &Value::Null)
    );
    // The service's `path` and the upstream's `host_header` are as for any other target.
    patch_upstream(&gateway, &json!({ "host_header": "app.example" }));
    let answer = gateway.get("/path").expect(200);
    assert_eq!(answer.json()["headers"]["host"], "app.example");

    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    assert!(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 101"));
    assert_eq!(raw.send(b"ping\n").read_until("\n"), "ping\n");
}

#[test]
fn a_unix_socket_that_is_gone_is_unhealthy_until_it_is_back() {
    let gateway = Gateway::start();
    let (app, other) = (Backend::start("app"), Backend::start("other"));
    let front = Front::start(app.address);
    let target = balanced(&gateway, &front.target());
    gateway.add_target("u", other.address, 100);
    patch_upstream(&gateway, &active_checks("http", &json!({})));
    until("it is probed", || !app.probes().is_empty());
    assert!(has_health(&gateway, front.target(), "HEALTHY"));
    assert!(
        app.probes()[0].contains("\"host\": \"localhost\""),
        "{}",
        app.probes()[0]
    );
    fs::remove_file(&front.path).unwrap();
    until("it is unhealthy", || {
        has_health(&gateway, front.target(), "UNHEALTHY")
    });
    assert!((0..4).all(|_| gateway.backend_of("/") == "other"));
    listen(&front.path, app.address);
    until("it is healthy again", || {
        has_health(&gateway, front.target(), "HEALTHY")
    });
    // An operator may name the target by its id, or by its text with escaped slashes.
    let escaped = front.target().replace('/', "%2F");
    patch_upstream(
        &gateway,
        &json!({ "healthchecks": { "active": {
        "healthy": { "interval": 0 }, "unhealthy": { "interval": 0 } } } }),
    );
    patch_upstream(
        &gateway,
        &json!({ "healthchecks": { "passive": {
        "unhealthy": { "tcp_failures": 1 } } } }),
    );
    for (key, state) in [
        (escaped.as_str(), "unhealthy"),
        (target["id"].as_str().unwrap(), "healthy"),
    ] {
        let path = format!("/upstreams/u/targets/{key}/{escaped}/{state}");
        gateway.admin("PUT", &path, &[]).expect(204);
        assert!(has_health(&gateway, front.target(), &state.to_uppercase()));
    }
}

#[test]
fn a_request_goes_elsewhere_if_a_unix_socket_does_not_answer() {
    let gateway = Gateway::start();
    let other = Backend::start("other");
    let missing = "unix:/nowhere/app.sock";
    balanced(&gateway, missing);
    gateway.add_target("u", other.address, 100);
    assert!((0..6).all(|_| gateway.backend_of("/") == "other"));
}

#[test]
fn a_stream_is_sent_to_a_unix_socket() {
    let gateway = Setup::new().arg("--stream-listen", "127.0.0.1:0").start();
    let server = RawServer::start(|_, mut raw| {
        let line = raw.read_until("\n");
        raw.send(format!("got {line}").as_bytes());
    });
    let front = Front::start(server.address);
    balanced(&gateway, &front.target());
    let service = json!({ "name": "s", "protocol": "tcp", "host": "u" });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.0/8" }] });
    gateway
        .admin_json("POST", "/services/s/routes", &route)
        .expect(201);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(raw.send(b"it\n").read_until("\n"), "got it\n");
}

#[test]
fn a_unix_socket_needs_an_absolute_path() {
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    for target in [
        "unix:app.sock/",
        "unix:./app.sock",
        &format!("unix:/{}", "x".repeat(107)),
    ] {
        let path = "/upstreams/u/targets";
        let refused = gateway.admin("POST", path, &[("target", target)]);
        let message = refused.expect(400).json()["fields"]["target"].clone();
        let message = message.as_str().unwrap();
        assert!(
            message.contains("expected unix: and an absolute path"),
            "{message}"
        );
    }
    // A service names an upstream, an address or a name, as in Kong.
    let fields = [("name", "s"), ("host", "unix:/run/app.sock")];
    let refused = gateway.admin("POST", "/services", &fields).expect(400);
    assert!(
        refused.text().contains("target of an upstream"),
        "{}",
        refused.text()
    );
}
