//! Sessions of UDP.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::{ask, datagrams, echo, echo_datagrams, listening, route, route_all, say, sessions};
use crate::harness::{Raw, metric, refusing_address, until};

#[test]
fn the_datagrams_of_a_client_are_a_session_of_one_endpoint() {
    let gateway = listening("127.0.0.1:0 udp").start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    for name in ["a", "b"] {
        gateway.add_target("u", echo_datagrams(name), 100);
    }
    route(
        &gateway,
        "s",
        // Longer than a busy machine takes from one datagram of a client to the next.
        json!({ "protocol": "udp", "host": "u", "read_timeout": 3000 }),
        json!({ "protocols": ["udp"], "sources": [{ "ip": "127.0.0.1" }] }),
    );
    let to = gateway.listener("stream", 0);
    let clients = [datagrams(to), datagrams(to)];
    let answers = clients.each_ref().map(|client| {
        let first = ask(client, "1");
        let second = ask(client, "2");
        assert_eq!(first.replace('1', "2"), second);
        first
    });
    assert_ne!(answers[0], answers[1]);
    until("both sessions have ended", || {
        sessions(&gateway, 200) == 2.0
    });
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let gateway = listening("0.0.0.0:0 udp").start();
    let port = gateway.listener("stream", 0).port();
    for (name, address) in [("one", "127.0.0.1"), ("two", "127.0.0.2")] {
        let server = echo_datagrams(name);
        route(
            &gateway,
            name,
            json!({ "protocol": "udp", "host": "127.0.0.1", "port": server.port() }),
            json!({ "protocols": ["udp"], "destinations": [{ "ip": address, "port": port }] }),
        );
    }
    for (name, address) in [("one", "127.0.0.1"), ("two", "127.0.0.2")] {
        // A connected socket receives from its peer alone.
        let client = datagrams(SocketAddr::new(address.parse().unwrap(), port));
        assert_eq!(ask(&client, "x"), format!("{name}: x"));
    }
}

#[test]
fn sessions_of_udp_take_nothing_from_connections_and_give_way_when_they_are_idle() {
    let gateway = listening("127.0.0.1:0 udp, 127.0.0.1:0")
        .arg("--max-udp-sessions", "2")
        .arg("--max-connections", "1")
        // A session gives way to another one of its worker.
        .arg("--workers", "1")
        .start();
    let (server, over_udp) = (echo("a"), echo_datagrams("u"));
    route_all(&gateway, &["tcp"], "tcp", server.address);
    route(
        &gateway,
        "udp",
        json!({ "protocol": "udp", "host": "127.0.0.1", "port": over_udp.port() }),
        json!({ "protocols": ["udp"], "sources": [{ "ip": "127.0.0.1" }] }),
    );
    let over_limit = |outcome| {
        let name = "pointsman_stream_udp_sessions_over_limit_total";
        metric(&gateway, &format!("{name}{{outcome=\"{outcome}\"}}"))
    };
    let to = gateway.listener("stream", 0);
    let clients = [datagrams(to), datagrams(to)];
    for client in &clients {
        assert_eq!(ask(client, "x"), "u: x");
    }
    let third = datagrams(to);
    third.send(b"x").unwrap();
    until("it is refused", || over_limit("refused") >= 1.0);
    // The only connection is left to a client of TCP.
    let mut raw = Raw::connect(gateway.listener("stream", 1));
    assert_eq!(say(&mut raw, "x"), "a: x\n");
    // Once a session is idle for a second, it gives way. The first one is kept in use.
    third
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    until("an idle session has given way", || {
        assert_eq!(ask(&clients[0], "x"), "u: x");
        third.send(b"y").unwrap();
        third.recv(&mut [0; 16]).is_ok()
    });
    assert_eq!(over_limit("displaced"), 1.0);
    assert_eq!(ask(&clients[0], "z"), "u: z");
}

#[test]
fn an_endpoint_that_refuses_datagrams_is_a_failure() {
    let gateway = listening("127.0.0.1:0 udp").start();
    route_all(&gateway, &["udp"], "udp", refusing_address());
    let client = datagrams(gateway.listener("stream", 0));
    client.send(b"x").unwrap();
    until("it is counted", || sessions(&gateway, 502) == 1.0);
}
