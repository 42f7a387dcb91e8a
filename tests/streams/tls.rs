//! Streams over TLS: terminated by the gateway, passed through, and to endpoints.

use std::sync::mpsc;

use serde_json::json;

use super::{echo, listening, route, sessions};
use crate::harness::{Backend, Issued, Raw, RawServer, TlsClient, metric, until};

#[test]
fn the_route_of_the_server_name_decides_who_decrypts() {
    let gateway = listening("127.0.0.1:0 ssl").start();
    let (passed, authority) = Backend::start_tls("passed", "passed.example");
    let plain = echo("plain");
    route(
        &gateway,
        "passed",
        json!({ "protocol": "tcp", "host": "127.0.0.1", "port": passed.address.port() }),
        json!({ "protocols": ["tls_passthrough"], "snis": ["passed.example"] }),
    );
    route(
        &gateway,
        "terminated",
        json!({ "protocol": "tcp", "host": "127.0.0.1", "port": plain.address.port() }),
        json!({ "protocols": ["tls"], "snis": ["*.terminated.example"] }),
    );
    let issued = Issued::to("a.terminated.example");
    let certificate = json!({
        "cert": issued.certificate.pem(), "key": issued.key.serialize_pem(),
        "snis": ["a.terminated.example"],
    });
    gateway
        .admin_json("POST", "/certificates", &certificate)
        .expect(201);
    let to = gateway.listener("stream", 0);
    drop(authority);
    // Any protocol that a client names is accepted.
    let client = TlsClient::new().protocols(&[b"mqtt"]);
    let mut terminated = client.connect(to, "a.terminated.example").unwrap();
    assert!(terminated.certificate() == issued.certificate.der().to_vec());
    assert_eq!(terminated.send(b"x\n").read_until("\n"), "plain: x\n");
    let mut through = TlsClient::new().connect(to, "passed.example").unwrap();
    let (head, _) = through.get("/", "passed.example");
    assert!(head.contains("x-backend: passed"), "{head}");
    assert!(TlsClient::new().connect(to, "other.example").is_err());
    assert!(Raw::connect(to).send(b"GET / HTTP/1.1\r\n\r\n").is_closed());
    until("both are counted", || {
        sessions(&gateway, 500) + sessions(&gateway, 400) == 2.0
    });
}

#[test]
fn a_first_message_in_pieces_is_routed_as_a_whole_one() {
    let gateway = listening("127.0.0.1:0 ssl").start();
    let hello = client_hello("a.example");
    let length = hello.len();
    let (sender, receiver) = mpsc::channel();
    let server = RawServer::start(move |_, mut raw| {
        let _ = sender.send(raw.read_exactly(length));
    });
    route(
        &gateway,
        "s",
        json!({ "protocol": "tcp", "host": "127.0.0.1", "port": server.address.port() }),
        json!({ "protocols": ["tls_passthrough"], "snis": ["a.example"] }),
    );
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    for piece in hello.chunks(40) {
        raw.send(piece);
    }
    assert!(receiver.recv().unwrap() == hello);
}

#[test]
fn a_client_that_leaves_amid_its_first_message_is_let_go_at_once() {
    let gateway = listening("127.0.0.1:0 ssl").start();
    let hello = client_hello("a.example");
    for sent in [3, 40, hello.len() - 1] {
        let mut raw = Raw::connect(gateway.listener("stream", 0));
        assert!(raw.send_in_two(&hello[..sent], 2).half_close().is_closed());
    }
    // Not for the reason that it has taken too long.
    let labels = "{listener=\"stream\",reason=\"disconnected\"}";
    let name = format!("pointsman_tls_handshake_failures_total{labels}");
    until("all are counted", || metric(&gateway, &name) == 3.0);
}

/// The first message of a client of TLS.
fn client_hello(name: &str) -> Vec<u8> {
    let (sender, receiver) = mpsc::channel();
    let server = RawServer::start(move |_, mut raw| {
        let head = raw.read_exactly(5);
        let rest = raw.read_exactly(usize::from(u16::from_be_bytes([head[3], head[4]])));
        let _ = sender.send([head, rest].concat());
    });
    let _ = TlsClient::new().connect(server.address, name);
    receiver.recv().unwrap()
}

#[test]
fn a_service_of_tls_is_spoken_to_over_tls() {
    let gateway = listening("127.0.0.1:0").start();
    let (backend, authority) = Backend::start_tls("b", "b.example");
    let stored = gateway.admin("POST", "/ca_certificates", &[("cert", &authority)]);
    let id = stored.expect(201).json()["id"].clone();
    let upstream = json!({ "name": "u", "host_header": "b.example" });
    gateway
        .admin_json("POST", "/upstreams", &upstream)
        .expect(201);
    gateway.add_target("u", backend.address, 100);
    route(
        &gateway,
        "s",
        json!({
            "protocol": "tls", "host": "u", "tls_verify": true, "ca_certificates": [id],
        }),
        json!({ "protocols": ["tcp"], "sources": [{ "ip": "127.0.0.1" }] }),
    );
    let ask = || {
        let mut raw = Raw::connect(gateway.listener("stream", 0));
        raw.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .read_to_end()
    };
    assert!(ask().contains("x-backend: b"));
    let wrong = json!({ "host_header": "c.example" });
    gateway
        .admin_json("PATCH", "/upstreams/u", &wrong)
        .expect(200);
    assert_eq!(ask(), "");
    until("it is counted", || sessions(&gateway, 502) == 1.0);
}
