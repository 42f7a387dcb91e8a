//! gRPC on the client's side: which requests a gRPC route takes, and the gateway's own responses.

use crate::harness::http2::{Answer, Http2, empty, full};
use crate::harness::{Gateway, RawServer, exchange};
use crate::proxy::add_route;

/// A gateway with a gRPC route `/` to a service that nothing listens for.
fn with_grpc(protocols: &[(&str, &str)]) -> Gateway {
    let gateway = Gateway::start();
    let refusing = crate::harness::refusing_address().to_string();
    let service = [("retries", "0")];
    let route = [&[("paths[]", "/")], protocols].concat();
    add_route(&gateway, "s", &refusing, &service, &route);
    gateway
}

fn call(gateway: &Gateway, content_type: &str) -> Answer {
    let client = Http2::connect(gateway.proxy);
    let request = client
        .request("POST", "/pkg.Service/Method")
        .header("te", "trailers");
    let request = request.header("content-type", content_type).body(full("x"));
    client.send(request.unwrap())
}

/// Checks that a response is a head alone, as gRPC clients need it.
#[track_caller]
fn assert_grpc(answer: &Answer, status: &str, message: &str) {
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.header("grpc-status"), status);
    assert_eq!(answer.header("grpc-message"), message);
    assert_eq!(answer.header("content-length"), "");
    assert_eq!(answer.body, b"");
    assert!(answer.trailers.is_empty());
}

#[test]
fn a_grpc_route_takes_grpc_over_http2_only() {
    let gateway = with_grpc(&[("protocols[]", "grpc")]);
    let answer = call(&gateway, "application/json").expect(415);
    assert_eq!(
        answer.json()["message"],
        "Non-gRPC request matched gRPC route"
    );
    let client = Http2::connect(gateway.proxy);
    let without = client.request("POST", "/").body(empty()).unwrap();
    client.send(without).expect(415);
    let request = "POST /pkg.Service/Method HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                   content-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let answer = exchange(gateway.proxy, request);
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains("\r\nupgrade: HTTP/2\r\n"), "{answer}");
    assert!(answer.contains("\r\ngrpc-status: 3\r\n"), "{answer}");
}

#[test]
fn a_grpcs_route_takes_no_grpc_in_clear_text() {
    let gateway = with_grpc(&[("protocols[]", "grpcs")]);
    let answer = call(&gateway, "application/grpc").expect(200);
    assert_grpc(&answer, "1", "gRPC request matched gRPCs route");
    let both = with_grpc(&[("protocols[]", "grpc"), ("protocols[]", "grpcs")]);
    call(&both, "application/grpc").expect(502);
}

#[test]
fn the_gateways_own_responses_to_grpc_are_trailers_only() {
    let gateway = Gateway::start();
    let answer = call(&gateway, "application/grpc").expect(404);
    assert_grpc(&answer, "5", "NotFound");
    let gateway = with_grpc(&[("protocols[]", "grpc")]);
    let answer = call(&gateway, "application/grpc+proto").expect(502);
    let message = "An invalid response was received from the upstream server";
    assert_grpc(&answer, "13", message);
    for (plugin, config, status, grpc, message) in [
        (
            "request-termination",
            serde_json::json!({ "status_code": 401 }),
            401,
            "16",
            "Unauthorized",
        ),
        (
            "key-auth",
            serde_json::json!({}),
            401,
            "16",
            "Unauthenticated",
        ),
    ] {
        let path = crate::harness::add_plugin(&gateway, plugin, config, serde_json::json!({}));
        let answer = call(&gateway, "application/grpc").expect(status);
        assert_eq!(answer.header("grpc-status"), grpc, "{plugin}: {answer:?}");
        assert_eq!(
            answer.header("grpc-message"),
            message,
            "{plugin}: {answer:?}"
        );
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
}

#[test]
fn the_status_of_an_endpoint_stays_as_it_is() {
    let server = RawServer::responding_with(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\ngrpc-status: 7\r\ngrpc-message: no\r\n\r\n",
    );
    let gateway = Gateway::start();
    let route = [("paths[]", "/"), ("protocols[]", "grpc")];
    add_route(&gateway, "s", &server.address.to_string(), &[], &route);
    let answer = call(&gateway, "application/grpc").expect(200);
    assert_eq!(answer.body, b"abc");
    assert_eq!(answer.trailers["grpc-status"], "7");
    assert_eq!(answer.trailers["grpc-message"], "no");
}
