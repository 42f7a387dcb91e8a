//! Upgrades to WebSocket, and the tunnels that follow.

use crate::harness::{Raw, until};
use crate::proxy::with_route;

#[test]
fn a_connection_is_upgraded_to_websocket() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    // As in Kong, the header Upgrade is enough.
    for connection in ["connection: upgrade\r\n", ""] {
        let mut raw = Raw::connect(gateway.proxy);
        let request =
            format!("GET /upgrade HTTP/1.1\r\nhost: h\r\n{connection}upgrade: websocket\r\n\r\n");
        raw.send(request.as_bytes());
        let head = raw.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw.send(b"to and fro\n");
        assert_eq!(raw.read_until("\n"), "to and fro\n");
    }
}

#[test]
fn no_protocol_but_websocket_is_upgraded_to() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let headers = [
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
    ];
    let echo = gateway.get_with("/x", &headers).expect(200).json();
    assert!(echo["headers"].get("upgrade").is_none(), "{echo}");
    assert_eq!(echo["headers"]["connection"], "keep-alive");
}

#[test]
fn an_idle_tunnel_is_closed() {
    let (gateway, _backend) = with_route(&[("read_timeout", "500")], &[("paths[]", "/")]);
    // On a busy machine a tunnel may be idle for too long before it has carried anything.
    let mut raw = Raw::connect(gateway.proxy);
    until("a tunnel carries a message", || {
        raw = Raw::connect(gateway.proxy);
        raw.send(
            b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        );
        let head = raw.read_until("\r\n\r\n");
        raw.send(b"ping");
        head.starts_with("HTTP/1.1 101") && raw.read_until("ping") == "ping"
    });
    assert!(raw.is_closed());
}
