//! WebSockets over streams of HTTP/2 (RFC 8441).

use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::http2::{Body, END_HEADERS, Frames, Http2, empty, head, kind};
use crate::harness::{Gateway, RawServer, add_plugin, until, websocket_accept};
use crate::proxy::with_route;

/// A stream that a client asks to become a WebSocket.
fn websocket(client: &Http2, path: &str, protocol: &'static str) -> hyper::Request<Body> {
    let request = client
        .request("CONNECT", path)
        .header("sec-websocket-version", "13");
    let protocol = hyper::ext::Protocol::from_static(protocol);
    request.extension(protocol).body(empty()).unwrap()
}

#[test]
fn a_stream_becomes_a_websocket_of_an_endpoint() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/"), ("methods[]", "GET")]);
    let setup = websocket_client(&gateway);
    let response = setup.start(websocket(&setup, "/upgrade", "websocket"));
    let response = setup.runtime.block_on(response).unwrap().unwrap();
    assert_eq!(response.status(), 200);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    setup.runtime.block_on(async {
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        let mut stream = TokioIo::new(upgraded);
        let long = vec![b'x'; 300_000];
        for message in [&b"to and fro"[..], &long] {
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let mut received = vec![0; message.len()];
            let (written, received_all) =
                tokio::join!(write.write_all(message), read.read_exact(&mut received));
            written.unwrap();
            received_all.unwrap();
            assert!(received == message);
        }
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
    // Other streams of the connection are served meanwhile and after it.
    setup.get("/").expect(200);
}

/// A client that knows that the gateway takes WebSockets.
fn websocket_client(gateway: &Gateway) -> Http2 {
    let client = Http2::connect(gateway.proxy);
    // The gateway's settings have arrived with the first response.
    client.get("/").expect(200);
    client
}

#[test]
fn an_endpoint_that_refuses_a_websocket_opens_no_tunnel() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let client = websocket_client(&gateway);
    client
        .send(websocket(&client, "/status/403", "websocket"))
        .expect(403);
    client
        .send(websocket(&client, "/", "websocket"))
        .expect(502);
    client
        .send(websocket(&client, "/", "connect-udp"))
        .expect(501);
}

#[test]
fn an_endpoint_that_does_not_accept_the_key_opens_no_tunnel() {
    for accept in ["", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"] {
        let server = RawServer::responding_with(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\n{accept}\r\n"
        ));
        let gateway = Gateway::start();
        gateway.balanced(&[(server.address, 100)]);
        let client = Http2::connect(gateway.proxy);
        // The gateway's settings have arrived with the first response.
        client.get("/").expect(502);
        client
            .send(websocket(&client, "/", "websocket"))
            .expect(502);
    }
}

#[test]
fn a_connection_that_an_endpoint_resets_is_a_reset_of_the_stream() {
    let server = RawServer::start(|_, mut raw| {
        let head = raw.read_until("\r\n\r\n");
        let key = head.split("sec-websocket-key: ").nth(1);
        let key = key.and_then(|rest| rest.split("\r\n").next()).unwrap();
        let accept = websocket_accept(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        raw.send(answer.as_bytes());
        until("bytes of the client arrive", || raw.has_bytes());
        // The system resets a connection that is closed with unread bytes.
    });
    let gateway = Gateway::start();
    gateway.balanced(&[(server.address, 100)]);
    let mut client = Frames::connect(gateway.proxy, &[]);
    let asked = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    client.send(kind::HEADERS, END_HEADERS, 1, &head("CONNECT", "/", &asked));
    client.next_of(kind::HEADERS).unwrap();
    client.send(kind::DATA, 0, 1, b"hello");
    let reset = client.next_of(kind::RST_STREAM).unwrap();
    assert_eq!((reset.stream, &reset.payload[..]), (1, &[0, 0, 0, 8][..]));
}

#[test]
fn a_policy_that_answers_a_websocket_opens_no_tunnel() {
    let (gateway, _backend) = with_route(&[], &[("paths[]", "/")]);
    let config = json!({ "status_code": 200, "message": "closed" });
    add_plugin(&gateway, "request-termination", config, json!({}));
    let client = Http2::connect(gateway.proxy);
    client.get("/").expect(200);
    client
        .send(websocket(&client, "/", "websocket"))
        .expect(502);
}

#[test]
fn an_idle_tunnel_ends_with_its_stream() {
    // The endpoint answers within this time also on a busy machine.
    let service = [("read_timeout", "2000")];
    let (gateway, _backend) = with_route(&service, &[("paths[]", "/")]);
    let client = websocket_client(&gateway);
    let response = client.start(websocket(&client, "/upgrade", "websocket"));
    let response = client.runtime.block_on(response).unwrap().unwrap();
    client.runtime.block_on(async {
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    });
    client.get("/").expect(200);
}
