//! gRPC between a client and servers that are made with the library of gRPC itself. `scripts/test`
//! installs it for Python; `grpc_peers/` has the two programs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Gateway, Issued, Setup};

/// A command that runs one of the two programs.
fn python(program: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join("target/grpcio-1.76.0/bin/python");
    assert!(
        python.exists(),
        "{} is missing: scripts/test installs it",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(root.join("tests/grpc_peers").join(program));
    command
}

/// The PEM files of a certificate for `peer.example`, of its key and of its authority.
struct Pem {
    _folder: tempfile::TempDir,
    issued: Issued,
    cert: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl Pem {
    fn new() -> Self {
        let issued = Issued::to("peer.example");
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            cert: write("cert", &issued.certificate.pem()),
            key: write("key", &issued.key.serialize_pem()),
            authority: write("authority", &issued.authority),
            issued,
            _folder: folder,
        }
    }
}

/// A gRPC server. Killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, tls: Option<&Pem>) -> Self {
        let mut command = python("server.py");
        command.arg(name);
        if let Some(pem) = tls {
            command.args([&pem.cert, &pem.key]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().parse::<u16>();
        let port = port.unwrap_or_else(|_| panic!("server.py did not start: {line:?}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that sends the calls of the service `peers.Peer` to these servers.
fn gateway(protocol: &str, servers: &[&Server]) -> Gateway {
    let setup = Setup::new().arg("--workers", 1);
    let listen = "127.0.0.1:0 http2, 127.0.0.1:0 ssl http2";
    let gateway = setup.arg("--proxy-listen", listen).start();
    gateway
        .admin("POST", "/upstreams", &[("name", "peers")])
        .expect(201);
    for server in servers {
        gateway.add_target("peers", server.address, 100);
    }
    let service = json!({ "name": "peers", "protocol": protocol, "host": "peers" });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({ "protocols": ["grpc", "grpcs"], "paths": ["/peers.Peer/"] });
    gateway
        .admin_json("POST", "/services/peers/routes", &route)
        .expect(201);
    gateway
}

/// What the client saw of these calls.
fn calls(to: SocketAddr, calls: &str, tls: Option<&Pem>) -> Value {
    let mut command = python("client.py");
    command.args([&to.to_string(), calls]);
    if let Some(pem) = tls {
        command.arg(&pem.authority).arg("peer.example");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hex(text: &[u8]) -> String {
    text.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks calls of the four kinds to a server named `a`.
fn assert_kinds(seen: &Value) {
    assert_eq!(seen["unary"], hex(b"a text \x01 hello"));
    let initial = &seen["initial"];
    assert_eq!(
        (&initial["first"], &initial["first-bin"]),
        (&json!("head"), &json!("00ff"))
    );
    assert_eq!(
        seen["trailing"],
        json!({ "last": "trailer", "last-bin": "fe01" })
    );
    assert_eq!(seen["code"], "OK");
    assert_eq!(seen["count"], json!(["0", "1", "2", "3", "4"]));
    assert_eq!(seen["join"], "0,1,2,3,4");
    let chat: Vec<String> = (0..20).map(|number| format!("re: {number}")).collect();
    assert_eq!(seen["chat"], json!(chat));
    assert_eq!(
        (&seen["long"], &seen["compressed"]),
        (&json!(true), &json!(true))
    );
}

#[test]
fn calls_of_all_four_kinds_pass_with_their_metadata() {
    let server = Server::start("a", None);
    let gateway = gateway("grpc", &[&server]);
    assert_kinds(&calls(gateway.proxy, "kinds", None));
}

#[test]
fn calls_of_all_four_kinds_pass_over_tls_on_both_sides() {
    let pem = Pem::new();
    let server = Server::start("a", Some(&pem));
    let gateway = gateway("grpcs", &[&server]);
    let verified = json!({ "pointsman": { "tls": {
        "verify": true,
        "server_name": "peer.example",
        "ca_certificates": [pem.issued.authority],
    } } });
    gateway
        .admin_json("PATCH", "/upstreams/peers", &verified)
        .expect(200);
    let certificate = json!({
        "cert": pem.issued.certificate.pem(),
        "key": pem.issued.key.serialize_pem(),
        "snis": ["peer.example"],
    });
    gateway
        .admin_json("POST", "/certificates", &certificate)
        .expect(201);
    assert_kinds(&calls(gateway.listener("proxy", 1), "kinds", Some(&pem)));
}

#[test]
fn the_calls_of_one_channel_are_balanced_over_two_servers() {
    let servers = ["a", "b"].map(|name| Server::start(name, None));
    let gateway = gateway("grpc", &[&servers[0], &servers[1]]);
    let seen = calls(gateway.proxy, "spread", None);
    let of = |name: &str| {
        let answers = seen.as_array().unwrap().iter();
        answers.filter(|answer| **answer == *name).count()
    };
    assert_eq!((of("a"), of("b")), (5, 5), "{seen}");
}

#[test]
fn a_client_learns_how_a_call_has_failed() {
    let server = Server::start("a", None);
    let gateway = gateway("grpc", &[&server]);
    let seen = calls(gateway.proxy, "failed", None);
    let fail = &seen["Fail"];
    assert_eq!(fail["code"], "NOT_FOUND");
    assert_eq!(fail["details"], "no such thing: \u{e9} 100%");
    assert_eq!(fail["trailing"]["why"], "missing");
    assert_eq!(seen["Unknown"]["code"], "UNIMPLEMENTED");
    let broken = &seen["BreakOff"];
    assert_eq!(broken["messages"], json!(["one", "two"]));
    assert_eq!(
        (&broken["code"], &broken["details"]),
        (&json!("DATA_LOSS"), &json!("no third"))
    );
    assert_eq!(seen["no route"]["code"], "NOT_FOUND");
    drop(server);
    let seen = calls(gateway.proxy, "failed", None);
    // What Kong makes of its 502.
    assert_eq!(seen["Fail"]["code"], "INTERNAL");
    assert_eq!(
        seen["Fail"]["details"],
        "An invalid response was received from the upstream server"
    );
}

#[test]
fn the_end_of_a_call_reaches_the_server() {
    let server = Server::start("a", None);
    let gateway = gateway("grpc", &[&server]);
    let seen = calls(gateway.proxy, "deadline", None);
    let ended = |code, first| json!({ "first": first, "code": code, "reached the server": "yes" });
    assert_eq!(seen["deadline"], ended("DEADLINE_EXCEEDED", "left"));
    assert_eq!(seen["cancel"], ended("CANCELLED", "endless"));
}
