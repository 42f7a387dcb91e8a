//! Requests for the same missing response at once: one fetches it, and the others wait for it, but
//! not for one that is never complete or cannot be stored.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::{Gateway, Raw, RawServer, Setup, active_connections, metric, until};
use crate::proxy_cache::{PLAIN, cached_with, origin};

/// A server that answers each request when the test says so, with what the test says.
pub(crate) fn held() -> (RawServer, Sender<String>) {
    let (answer, answers) = channel::<String>();
    let answers: Arc<Mutex<Receiver<String>>> = Arc::new(Mutex::new(answers));
    let origin = origin(move |_| answers.lock().unwrap().recv().unwrap_or_default());
    (origin, answer)
}

fn requests(gateway: &Gateway) -> f64 {
    metric(gateway, "kong_nginx_requests_total")
}

/// Sends `count` requests at once, each on its own connection.
fn ask_at_once(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let before = requests(gateway);
    let mut clients: Vec<Raw> = (0..count).map(|_| Raw::connect(gateway.proxy)).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    }
    until("all requests are received", || {
        requests(gateway) - before >= count as f64
    });
    clients
}

#[test]
fn of_a_hundred_misses_at_once_one_asks_the_endpoint() {
    let (origin, answer) = held();
    let setup = Setup::new().arg("--proxy-cache-lock-timeout", 3_600_000);
    let gateway = cached_with(setup, &origin, json!({}));
    let clients = ask_at_once(&gateway, 100);
    answer.send(format!("{PLAIN}\r\nok")).unwrap();
    let mut hits = 0;
    for mut client in clients {
        let reply = client.read_to_end();
        assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
        hits += usize::from(reply.contains("x-cache-status: Hit\r\n"));
    }
    assert_eq!((hits, origin.accepted()), (99, 1));
}

#[test]
fn waiting_requests_ask_the_endpoint_if_the_response_is_not_stored() {
    let (origin, answer) = held();
    let setup = Setup::new().arg("--proxy-cache-lock-timeout", 3_600_000);
    let gateway = cached_with(setup, &origin, json!({}));
    let clients = ask_at_once(&gateway, 5);
    until("one asks the endpoint", || origin.accepted() > 0);
    assert_eq!(origin.accepted(), 1);
    for _ in &clients {
        answer.send(format!("{PLAIN}vary: *\r\n\r\nok")).unwrap();
    }
    for mut client in clients {
        let reply = client.read_to_end();
        assert!(reply.contains("x-cache-status: Bypass\r\n"), "{reply}");
    }
    assert_eq!(origin.accepted(), 5);
    // For a while, no request waits for such a response.
    let clients = ask_at_once(&gateway, 5);
    until("all ask the endpoint", || origin.accepted() == 10);
    drop(clients);
}

#[test]
fn an_endless_response_makes_no_request_wait() {
    let origin = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nfirst");
        // No further byte, and no end, before the client leaves.
        raw.is_closed();
    });
    let setup = Setup::new().arg("--proxy-cache-lock-timeout", 50);
    let gateway = cached_with(setup, &origin, json!({}));
    let mut clients = ask_at_once(&gateway, 5);
    for client in &mut clients {
        let reply = client.read_until("first");
        assert!(reply.contains("x-cache-status: Miss\r\n"), "{reply}");
    }
    assert_eq!(origin.accepted(), 5);
}

#[test]
fn a_response_that_grows_too_long_makes_no_request_wait() {
    let origin = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        raw.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
        raw.send("x".repeat(1 << 17).as_bytes());
        // No end before the client leaves.
        raw.is_closed();
    });
    let setup = Setup::new()
        .arg("--proxy-cache-memory", 1)
        .arg("--proxy-cache-lock-timeout", 3_600_000);
    let gateway = cached_with(setup, &origin, json!({}));
    let clients = ask_at_once(&gateway, 5);
    until("all ask the endpoint", || origin.accepted() == 5);
    drop(clients);
}

#[test]
fn waiting_requests_ask_the_endpoint_if_the_first_takes_too_long() {
    let (origin, answer) = held();
    let setup = Setup::new().arg("--proxy-cache-lock-timeout", 50);
    let gateway = cached_with(setup, &origin, json!({}));
    let clients = ask_at_once(&gateway, 3);
    until("all ask the endpoint", || origin.accepted() == 3);
    for _ in 0..3 {
        answer.send(format!("{PLAIN}\r\nok")).unwrap();
    }
    for mut client in clients {
        assert!(client.read_to_end().ends_with("\r\n\r\nok"));
    }
}

#[test]
fn one_waiting_request_takes_the_place_of_the_first_if_that_leaves() {
    let (origin, answer) = held();
    let setup = Setup::new().arg("--proxy-cache-lock-timeout", 3_600_000);
    let gateway = cached_with(setup, &origin, json!({}));
    let first = ask_at_once(&gateway, 1);
    until("the first asks the endpoint", || origin.accepted() == 1);
    let others = ask_at_once(&gateway, 20);
    let open = active_connections(&gateway);
    drop(first);
    until("the first has left", || active_connections(&gateway) < open);
    until("another one asks the endpoint", || origin.accepted() == 2);
    // To the first one, and to the one in its place.
    for _ in 0..2 {
        answer.send(format!("{PLAIN}\r\nok")).unwrap();
    }
    let mut hits = 0;
    for mut client in others {
        let reply = client.read_to_end();
        assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
        hits += usize::from(reply.contains("x-cache-status: Hit\r\n"));
    }
    assert_eq!((hits, origin.accepted()), (19, 2));
}
