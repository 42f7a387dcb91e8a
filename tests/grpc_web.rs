//! The plugin `grpc-web`: browsers call gRPC services, in both forms of bodies.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::grpc::{Server, message};
use crate::harness::http2::{END_HEADERS, END_STREAM, fields, frame, kind};
use crate::harness::{Gateway, Reply, Setup, refusing_address};
use crate::http2_endpoints::{Short, open, read_frame};

/// A gateway with a gRPC service behind `/api`, which browsers may call.
fn gateway(address: std::net::SocketAddr, config: Value) -> Gateway {
    let gateway = Setup::new().start();
    gateway.balanced_as("u", "/api", &[(address, 100)]);
    let service = json!({ "protocol": "grpc", "retries": 0 });
    gateway
        .admin_json("PATCH", "/services/u-service", &service)
        .expect(200);
    let plugin = json!({ "name": "grpc-web", "config": config });
    gateway
        .admin_json("POST", "/services/u-service/plugins", &plugin)
        .expect(201);
    gateway
}

fn call(gateway: &Gateway, path: &str, content_type: &str, body: Vec<u8>) -> Reply {
    gateway.send(gateway.proxy, "POST", path, &[], Some((content_type, body)))
}

/// The frame with these trailers.
fn trailers(fields: &str) -> Vec<u8> {
    let mut frame = vec![0x80];
    frame.extend(u32::try_from(fields.len()).unwrap().to_be_bytes());
    frame.extend(fields.as_bytes());
    frame
}

#[test]
fn a_binary_call_gets_its_trailers_after_the_messages() {
    let server = Server::start(None);
    let gateway = gateway(server.address, json!({ "pass_stripped_path": true }));
    for content_type in ["application/grpc-web", "application/grpc-web+proto"] {
        let body = message("hello").to_vec();
        let reply = call(&gateway, "/api/echo.Echo/Echo", content_type, body).expect(200);
        assert_eq!(reply.header("content-type"), content_type);
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert_eq!(reply.header("x-path"), "/echo.Echo/Echo");
        assert_eq!(reply.header("got-te"), "trailers");
        let expected = [message("hello").to_vec(), trailers("grpc-status:0\r\n")].concat();
        assert_eq!(reply.body, expected);
    }
}

#[test]
fn a_call_in_base64_is_answered_in_base64() {
    let server = Server::start(None);
    let origin = json!({ "allow_origin_header": "https://a.example" });
    let gateway = gateway(server.address, origin);
    let content_type = "application/grpc-web-text";
    let body = BASE64_STANDARD.encode(message("hello")).into_bytes();
    let reply = call(&gateway, "/api/echo.Echo/Echo", content_type, body).expect(200);
    assert_eq!(reply.header("content-type"), content_type);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://a.example"
    );
    // Without pass_stripped_path, a service of gRPC gets the path as it was sent. Source: Kong.
    assert_eq!(reply.header("x-path"), "/api/echo.Echo/Echo");
    let end = BASE64_STANDARD.encode(trailers("grpc-status:0\r\n"));
    let expected = [BASE64_STANDARD.encode(message("hello")), end].concat();
    assert_eq!(reply.text(), expected);
    let reply = call(&gateway, "/api/x", content_type, b"no base64".to_vec());
    reply.expect(400);
}

#[test]
fn a_failed_call_has_its_status_in_the_body() {
    let server = Server::start(None);
    let served = gateway(server.address, json!({}));
    let content_type = "application/grpc-web";
    let body = || message("hello").to_vec();
    let reply = call(&served, "/api/echo.Echo/Fail", content_type, body()).expect(200);
    let text = reply.text();
    assert_eq!(reply.header("grpc-status"), "");
    assert!(text.contains("grpc-status:5\r\n"), "{text}");
    assert!(text.contains("grpc-message:no such thing\r\n"), "{text}");
    let unserved = gateway(refusing_address(), json!({}));
    let reply = call(&unserved, "/api/echo.Echo/Echo", content_type, body()).expect(502);
    let text = reply.text();
    assert_eq!(reply.header("content-type"), content_type);
    assert!(text.contains("grpc-status:13\r\n"), "{text}");
}

#[test]
fn an_answer_that_is_no_grpc_becomes_a_status() {
    for (http, grpc) in [(503, 14), (401, 16), (404, 12), (200, 2)] {
        let server = Short::serving(move |mut stream| {
            open(&mut stream)?;
            loop {
                let (kind, flags, id) = read_frame(&mut stream)?;
                if kind <= kind::HEADERS && flags & END_STREAM > 0 {
                    let status = http.to_string();
                    let head = [(":status", &*status), ("content-type", "text/html")];
                    let head = frame(kind::HEADERS, END_HEADERS, id, &fields(&head));
                    let page = frame(kind::DATA, END_STREAM, id, b"<html>");
                    stream.write_all(&[head, page].concat()).ok()?;
                }
            }
        });
        let gateway = gateway(server.address, json!({}));
        let said = format!("not gRPC, but HTTP status {http}");
        let end = trailers(&format!("grpc-status:{grpc}\r\ngrpc-message:{said}\r\n"));
        let text = BASE64_STANDARD.encode(&end).into_bytes();
        for (content_type, expected) in [
            ("application/grpc-web", end),
            ("application/grpc-web-text", text),
        ] {
            let body = BASE64_STANDARD.encode(message("hello")).into_bytes();
            let reply = call(&gateway, "/api/echo.Echo/Echo", content_type, body);
            let reply = reply.expect(http);
            assert_eq!(reply.header("content-type"), content_type);
            assert_eq!(reply.body, expected, "{http}");
        }
    }
}

#[test]
fn preflights_and_other_media_types_are_answered_by_the_gateway() {
    let server = Server::start(None);
    let gateway = gateway(server.address, json!({}));
    let path = "/api/echo.Echo/Echo";
    let reply = gateway.send(gateway.proxy, "OPTIONS", path, &[], None);
    let reply = reply.expect(200);
    assert_eq!(reply.text(), "OK");
    assert_eq!(reply.header("access-control-allow-methods"), "POST");
    let allowed = "content-type,x-grpc-web,x-user-agent";
    assert_eq!(reply.header("access-control-allow-headers"), allowed);
    let asked = "authorization,grpc-timeout,x-custom";
    let headers = [("access-control-request-headers", asked)];
    let reply = gateway.send(gateway.proxy, "OPTIONS", path, &headers, None);
    let reply = reply.expect(200);
    assert_eq!(reply.header("access-control-allow-headers"), asked);
    let reply = call(&gateway, path, "application/json", b"{}".to_vec()).expect(400);
    let message = "transcoding requests require a .proto file defining the service";
    assert_eq!(reply.text(), message);
    let plugin = json!({ "name": "grpc-web", "config": { "proto": "/a.proto" } });
    let refused = gateway.admin_json("POST", "/plugins", &plugin).expect(400);
    assert!(refused.text().contains("leave 'proto' out"));
}
