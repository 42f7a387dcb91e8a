//! Limits of connections and of open files.

use crate::harness::{
    Backend, Raw, Setup, active_connections, assert_kong_error, exchange, guest, metric,
    read_answer, until, with_backend,
};

#[test]
fn clients_over_the_limit_are_refused_with_503() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--max-connections", 4));
    let before = active_connections(&gateway);
    let mut clients: Vec<_> = (0..4).map(|_| Raw::connect(gateway.proxy)).collect();
    until("all connections are open", || {
        active_connections(&gateway) == before + 4.0
    });
    for number in 1..=10 {
        let answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_kong_error(&answer, "503", "Too many connections");
        let refused = "pointsman_connections_refused_total{listener=\"proxy\"}";
        assert_eq!(metric(&gateway, refused), f64::from(number));
    }
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    clients.pop();
    until("a connection is accepted again", || {
        active_connections(&gateway) == before + 3.0
    });
    gateway.get("/").expect(200);
    drop(clients);
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert_told_together(&log, "connections of clients were refused", 10);
}

/// Checks that the log has all of so many refusals, and fewer lines: each worker logs the first
/// ones soon, and the others after a while or at its end.
fn assert_told_together(log: &str, words: &str, refusals: usize) {
    let lines = log.lines().filter(|line| line.contains(words));
    let number = |line: &str| {
        let before = line.split(words).next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let told: Vec<usize> = lines.map(number).collect();
    assert_eq!(told.iter().sum::<usize>(), refusals, "{log}");
    assert!(told.len() < refusals, "{log}");
}

#[test]
fn both_ports_answer_when_descriptors_run_out() {
    let (gateway, backend) = with_backend(Setup::new().ulimit("-n 160").arg("--workers", 1));
    let mut clients = Vec::new();
    let refused = "pointsman_connections_refused_total{listener=\"proxy\"}";
    until("connections are refused", || {
        clients.push(Raw::connect(gateway.proxy));
        metric(&gateway, refused) > 20.0
    });
    // Only a few of the refused connections get a response; the others are closed.
    let mut answer = String::new();
    until("a refused connection gets a response", || {
        answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        !answer.is_empty()
    });
    assert_kong_error(&answer, "503", "Too many connections");
    // The accepted connections are all served at the same time.
    let inside = active_connections(&gateway) as usize;
    assert!(inside > 10, "{inside}");
    for raw in &mut clients[..inside] {
        raw.send(b"GET /held HTTP/1.1\r\nhost: h\r\n\r\n");
    }
    until("the endpoint has all", || backend.served() >= inside as u64);
    backend.release();
    for raw in &mut clients[..inside] {
        let answer = read_answer(raw);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Descriptors are reserved for writes, and for compiling components.
    gateway
        .admin("POST", "/services", &[("url", "http://other.test")])
        .expect(201);
    gateway.upload("own", guest("reads-body")).expect(201);
    drop(clients);
    until("a connection is accepted again", || {
        gateway.get("/").status == 200
    });
    // Clients of the Admin API cannot take the descriptors of the proxy, or of each other for long.
    let held: Vec<_> = (0..200).map(|_| Raw::connect(gateway.admin)).collect();
    gateway.get("/").expect(200);
    drop(held);
    // Until the gateway has noticed that each of them is closed, it may refuse a new connection.
    let mut page = String::new();
    until("the Admin API answers", || {
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        page = exchange(gateway.admin, request);
        page.starts_with("HTTP/1.1 200")
    });
    let refused = "pointsman_connections_refused_total{listener=\"admin\"} ";
    let refused = page.split_once(refused).unwrap().1;
    assert_ne!(refused.lines().next(), Some("0"));
}

#[test]
fn idle_endpoint_connections_are_closed_to_make_room() {
    let (gateway, _backend) = with_backend(Setup::new().ulimit("-n 120").arg("--workers", 2));
    let backends: Vec<_> = (0..60).map(|_| Backend::start("b")).collect();
    for backend in &backends {
        gateway.add_target("u", backend.address, 100);
    }
    for _ in 0..240 {
        gateway
            .get_with("/", &[("connection", "close")])
            .expect(200);
    }
}

#[test]
fn the_limit_of_open_files_is_raised() {
    let (gateway, _backend) = with_backend(Setup::new().ulimit("-S -n 64"));
    let mut clients: Vec<_> = (0..200).map(|_| Raw::connect(gateway.proxy)).collect();
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_start_with_too_few_descriptors_is_refused() {
    let (status, said) = Setup::new().ulimit("-n 40").arg("--workers", 8).fail();
    assert!(!status.success());
    assert!(said.contains("limit of open files is 40"), "{said}");
}

#[test]
fn an_address_has_no_more_connections_than_it_may_have() {
    let setup = Setup::new().arg("--max-connections-per-address", 3);
    let (gateway, _backend) = with_backend(setup);
    let mut clients: Vec<_> = (0..3).map(|_| Raw::connect(gateway.proxy)).collect();
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for number in 1..=5 {
        assert!(Raw::connect(gateway.proxy).is_closed());
        let refused = "pointsman_address_connections_refused_total{listener=\"proxy\"}";
        until("the refusal is counted", || {
            metric(&gateway, refused) >= f64::from(number)
        });
    }
    clients.pop();
    until("a connection is served again", || {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        raw.read_to_end().starts_with("HTTP/1.1 200")
    });
    let refused = "pointsman_address_connections_refused_total{listener=\"proxy\"}";
    let refused = metric(&gateway, refused) as usize;
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert_told_together(&log, "connections of clients were closed", refused);
}

#[test]
fn trusted_peers_have_no_limit_of_their_address() {
    let setup = Setup::new()
        .arg("--max-connections-per-address", 1)
        .arg("--trusted-ips", "127.0.0.1");
    let (gateway, _backend) = with_backend(setup);
    let mut clients: Vec<_> = (0..3).map(|_| Raw::connect(gateway.proxy)).collect();
    for raw in &mut clients {
        let answer = read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
