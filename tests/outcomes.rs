//! What a balancer is told of the tries of its picks.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Raw, RawServer, Reply, Setup, guest, patch_upstream, refusing_address, until,
};
use crate::record::replayed_bytes;
use crate::retries::service;

/// What the guest has logged so far.
fn told(gateway: &Gateway) -> Vec<String> {
    let logs = gateway.admin("GET", "/balancers/takes-outcomes/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap().iter();
    let message = |line: &Value| line["message"].as_str().unwrap().to_owned();
    lines.map(message).collect()
}

/// Waits until the guest was told of as many tries, and returns the last one.
fn last_of(gateway: &Gateway, count: usize) -> String {
    let what = format!("{count} tries are told of");
    until(&what, || told(gateway).len() >= count);
    let told = told(gateway);
    assert_eq!(told.len(), count, "{told:?}");
    told[count - 1].clone()
}

fn used(gateway: &Gateway, name: &str) -> Value {
    let shown = gateway.admin("GET", &format!("/balancers/{name}"), &[]);
    shown.expect(200).json()["usage"]["u"].clone()
}

fn ask(gateway: &Gateway, path: &str, more: &str) -> Raw {
    let mut client = Raw::connect(gateway.proxy);
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    client.send(head.as_bytes());
    client
}

#[test]
fn a_balancer_is_told_of_each_try_how_it_has_ended() {
    let gateway = Gateway::start();
    let (hold, held) = channel::<()>();
    let held = Mutex::new(held);
    let server = RawServer::start(move |_, mut raw| {
        loop {
            let head = raw.read_until("\r\n\r\n");
            let path = head.split(' ').nth(1).unwrap_or_default();
            match path {
                "/ok" => raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
                "/empty" => raw.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
                "/limited" => raw.send(
                    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\n\
                      Content-Length: 4\r\n\r\nslow",
                ),
                "/busy" => {
                    raw.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
                }
                "/cut" => {
                    raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
                    return;
                }
                "/hold" => {
                    raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
                    let _ = held.lock().unwrap().recv();
                    return;
                }
                "/mute" => {
                    raw.read_to_end();
                    return;
                }
                "/socket" => {
                    raw.send(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello",
                    );
                    raw.read_to_end();
                    return;
                }
                _ => return,
            };
        }
    });
    gateway.balanced(&[(server.address, 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "takes-outcomes"}));
    let url = format!("http://{}/upstreams/u/record?seconds=600", gateway.admin);
    let mut recording = ureq::post(&url).send_empty().unwrap();
    let retries = json!({"retries": 1, "pointsman": {"retry": {"statuses": [503]}}});
    service(&gateway, &retries);

    gateway.get("/ok").expect(200);
    assert_eq!(last_of(&gateway, 1), "1 Complete Some(200) None 2 true");
    gateway.get("/limited").expect(429);
    assert_eq!(last_of(&gateway, 2), "2 Complete Some(429) Some(30) 4 true");
    gateway.get("/empty").expect(204);
    assert_eq!(last_of(&gateway, 3), "3 Complete Some(204) None 0 false");

    // The body breaks off.
    ask(&gateway, "/cut", "").read_to_end();
    assert_eq!(last_of(&gateway, 4), "4 Broken Some(200) None 3 true");

    // The client leaves in the middle of the body.
    let mut client = ask(&gateway, "/hold", "");
    client.read_until("abc");
    drop(client);
    assert_eq!(last_of(&gateway, 5), "5 Client Some(200) None 3 true");
    hold.send(()).unwrap();

    // The gateway repeats the request, and passes the second response on.
    gateway.get("/busy").expect(503);
    assert_eq!(last_of(&gateway, 7), "7 Complete Some(503) None 4 true");
    assert_eq!(told(&gateway)[5], "6 Retried Some(503) None 0 false");

    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = ask(&gateway, "/socket", more);
    client.read_until("hello");
    drop(client);
    assert_eq!(last_of(&gateway, 8), "8 Complete Some(101) None 5 false");

    service(&gateway, &json!({"retries": 0, "read_timeout": 50}));
    gateway.get("/mute").expect(504);
    assert_eq!(last_of(&gateway, 9), "9 Timeout None None 0 false");

    let usage = used(&gateway, "takes-outcomes");
    assert_eq!(usage["outcomes"], 9, "{usage}");
    assert_eq!(usage["outcomes_dropped"], 0, "{usage}");
    let metrics = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    assert!(
        metrics.contains("pointsman_outcomes_total{upstream=\"u\""),
        "{metrics}"
    );
    // Explain shows the tag, and its picks are told to no balancer.
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &json!({}));
    let explained = explained.expect(200).json();
    assert_eq!(explained["answers"][0]["tag"], 1, "{explained}");

    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    assert!(trace.starts_with(b"PMTRACE3"));
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    let counts = (&rerun["asked"], &rerun["same"]);
    assert_eq!(counts, (&json!(9), &json!(9)), "{rerun}");
    let other = guest("first");
    gateway.upload("first", other).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "first"}));
    gateway.get("/ok").expect(200);
    assert_eq!(used(&gateway, "first")["outcomes"], 0);
}

#[test]
fn a_balancer_is_told_of_an_endpoint_that_accepts_no_connection() {
    let gateway = Gateway::start();
    gateway.balanced(&[(refusing_address(), 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "takes-outcomes"}));
    service(&gateway, &json!({"retries": 1}));
    gateway.get("/").expect(502);
    assert_eq!(last_of(&gateway, 2), "2 Broken None None 0 false");
    assert_eq!(told(&gateway)[0], "1 Broken None None 0 false");
}

#[test]
fn a_balancer_is_told_of_a_client_that_leaves_before_the_response() {
    let gateway = Gateway::start();
    let (seen, requests) = channel();
    let seen = Mutex::new(seen);
    let server = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        let _ = seen.lock().unwrap().send(());
        raw.read_to_end();
    });
    gateway.balanced(&[(server.address, 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "takes-outcomes"}));
    let client = ask(&gateway, "/", "");
    requests.recv().unwrap();
    drop(client);
    assert_eq!(last_of(&gateway, 1), "1 Client None None 0 false");
}

#[test]
fn a_balancer_is_told_of_a_stream_when_it_has_ended() {
    let server = RawServer::start(|_, mut raw| {
        raw.read_until("\n");
        raw.send(b"hello").read_to_end();
    });
    let gateway = with_stream("tcp", server.address, 60_000);
    let mut client = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(client.send(b"hi\n").read_until("hello"), "hello");
    assert_eq!(told(&gateway), [""; 0]);
    drop(client);
    assert_eq!(last_of(&gateway, 1), "1 Complete None None 5 false");
}

/// A gateway that listens for streams of this protocol, whose balancer is told of them.
fn with_stream(protocol: &str, target: SocketAddr, read_timeout: u32) -> Gateway {
    let listen = match protocol {
        "udp" => "127.0.0.1:0 udp",
        _ => "127.0.0.1:0",
    };
    let gateway = Setup::new().arg("--stream-listen", listen).start();
    gateway.balanced(&[(target, 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "takes-outcomes"}));
    let stream = json!({
        "name": "s", "protocol": protocol, "host": "u", "port": 80, "retries": 0, "read_timeout": read_timeout,
    });
    gateway.admin_json("POST", "/services", &stream).expect(201);
    let route = json!({"protocols": [protocol], "sources": [{"ip": "127.0.0.0/8"}]});
    let path = "/services/s/routes";
    gateway.admin_json("POST", path, &route).expect(201);
    gateway
}

#[test]
fn a_tunnel_that_an_endpoint_resets_is_told_as_broken() {
    let server = RawServer::start(|_, mut raw| {
        let head = raw.read_until("\n");
        if head.starts_with("GET") {
            raw.read_until("\r\n\r\n");
            raw.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
            );
        }
        raw.send(b"hello").read_until("\n");
        raw.reset();
    });
    let gateway = with_stream("tcp", server.address, 60_000);
    let mut client = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(client.send(b"hi\n").read_until("hello"), "hello");
    client.send(b"go\n").read_to_end();
    assert_eq!(last_of(&gateway, 1), "1 Broken None None 5 false");

    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = ask(&gateway, "/", more);
    client.read_until("hello");
    client.send(b"go\n").read_to_end();
    assert_eq!(last_of(&gateway, 2), "2 Broken Some(101) None 5 false");

    // The client resets it.
    let mut client = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(client.send(b"hi\n").read_until("hello"), "hello");
    client.reset();
    assert_eq!(last_of(&gateway, 3), "3 Client None None 5 false");
}

#[test]
fn a_balancer_is_told_of_datagrams_when_their_session_has_ended() {
    let socket = |to: Option<SocketAddr>| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        if let Some(to) = to {
            socket.connect(to).unwrap();
        }
        socket
    };
    let server = socket(None);
    let gateway = with_stream("udp", server.local_addr().unwrap(), 500);
    let client = socket(Some(gateway.listener("stream", 0)));
    client.send(b"hi").unwrap();
    let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
    server.send_to(b"hello", from).unwrap();
    assert_eq!(client.recv(&mut [0; 9]).unwrap(), 5);
    // Nothing else tells that it has ended than that no more comes.
    assert_eq!(last_of(&gateway, 1), "1 Complete None None 5 false");
    drop(server);
    let client = socket(Some(gateway.listener("stream", 0)));
    client.send(b"hi").unwrap();
    assert_eq!(last_of(&gateway, 2), "2 Broken None None 0 false");
}

#[test]
fn a_balancer_is_told_of_a_try_at_a_target_that_is_taken_out() {
    let gateway = Gateway::start();
    let server = RawServer::start(|_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
        raw.read_to_end();
    });
    gateway.balanced(&[(server.address, 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    let drain = json!({"drain_timeout": 0.1});
    patch_upstream(
        &gateway,
        &json!({"algorithm": "takes-outcomes", "pointsman": drain}),
    );
    let mut client = ask(&gateway, "/", "");
    client.read_until("abc");
    let path = format!("/upstreams/u/targets/{}", server.address);
    gateway.admin("DELETE", &path, &[]).expect(204);
    client.read_to_end();
    assert_eq!(last_of(&gateway, 1), "1 Drained Some(200) None 3 true");
}

#[test]
fn a_balancer_is_told_of_tries_over_http2() {
    let gateway = Gateway::start();
    let backend = Backend::start_http2("b", 100);
    gateway.balanced(&[(backend.address, 100)]);
    gateway
        .upload("takes-outcomes", guest("takes-outcomes"))
        .expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "takes-outcomes"}));
    service(
        &gateway,
        &json!({"retries": 0, "pointsman": {"http2": true}}),
    );
    gateway.get("/bytes/5").expect(200);
    assert_eq!(last_of(&gateway, 1), "1 Complete Some(200) None 5 true");
    let client = ask(&gateway, "/hang", "");
    until("the request is at the endpoint", || backend.served() == 2);
    drop(client);
    assert_eq!(last_of(&gateway, 2), "2 Client None None 0 false");
    service(&gateway, &json!({"read_timeout": 50}));
    gateway.get("/hang").expect(504);
    assert_eq!(last_of(&gateway, 3), "3 Timeout None None 0 false");
    service(&gateway, &json!({"read_timeout": 60_000}));
    let mut client = ask(&gateway, "/held", "");
    until("the request is at the endpoint", || backend.served() == 4);
    backend.kill();
    assert!(client.read_until("\r\n").contains("502"));
    assert_eq!(last_of(&gateway, 4), "4 Broken None None 0 false");
}

#[test]
fn what_a_balancer_learns_of_outcomes_is_replayed() {
    let gateway = Gateway::start();
    let [limited, free] = ["a", "b"].map(Backend::start);
    gateway.balanced(&[(limited.address, 100), (free.address, 100)]);
    gateway.upload("quota", guest("quota")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "quota"}));
    let url = format!("http://{}/upstreams/u/record?seconds=600", gateway.admin);
    let mut recording = ureq::post(&url).send_empty().unwrap();
    limited.respond_with(429, 0);
    limited.respond_with_header("retry-after", "600");
    let get = |_| gateway.get("/");
    let statuses: Vec<u16> = (0..20).map(get).map(|reply: Reply| reply.status).collect();
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(429), count(200)), (1, 19), "{statuses:?}");
    // Both have asked for a pause: the balancer refuses by itself.
    free.respond_with(503, 0);
    free.respond_with_header("retry-after", "500");
    gateway.get("/").expect(503);
    let refused = gateway.get("/").expect(429);
    let seconds: u32 = refused.header("retry-after").parse().unwrap();
    assert!((490..=500).contains(&seconds), "{seconds}");

    patch_upstream(&gateway, &json!({"algorithm": "random"}));
    let trace = recording.body_mut().read_to_vec().unwrap();
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    let counts = (&rerun["asked"], &rerun["same"]);
    assert_eq!(counts, (&json!(22), &json!(22)), "{rerun}");
}
