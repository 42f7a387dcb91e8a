//! Invalid input: requests on both ports, and the data folder.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, Setup, exchange};

#[test]
fn malformed_requests_are_refused_on_both_ports() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let long = "x".repeat(200_000);
    let cases = [
        ("rubbish\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\nhost: h\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n: no name\r\nhost: h\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nhost: h\r\na\0b: c\r\n\r\n".into(), 400),
        (
            "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n".into(),
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"
                .into(),
            400,
        ),
        (
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\nabc".into(),
            400,
        ),
        (format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n"), 431),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"),
            431,
        ),
        ("\0\0\0\0".into(), 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".into(), 400),
    ];
    for to in [gateway.proxy, gateway.admin] {
        for (case, status) in &cases {
            let mut raw = Raw::connect(to);
            let answer = raw.send(case.as_bytes()).half_close().read_to_end();
            let shown: String = case.chars().take(60).collect();
            // The proxy tells as nginx does that the request line is what is too long.
            let long_line = to == gateway.proxy && shown.starts_with("GET /x");
            let status = if long_line { &414 } else { status };
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{shown:?}: {answer}");
        }
    }
    // An invalid chunk is found only when the body is read.
    for (to, path) in [(gateway.proxy, "/"), (gateway.admin, "/services")] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\nzz\r\n"
        );
        let answer = exchange(to, &request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    // The gateway still serves.
    for _ in 0..20 {
        assert_eq!(gateway.backend_of("/"), "b");
    }
    gateway.admin("GET", "/services", &[]).expect(200);
}

#[test]
fn a_request_must_have_exactly_one_host() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    for request in [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
        // The form of CONNECT alone.
        "GET a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n",
    ] {
        let answer = exchange(gateway.proxy, request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("Bad request"), "{answer}");
    }
    for line in [
        "CONNECT a:80",
        "CONNECT /p",
        "CONNECT http://a/p",
        "TRACE /",
    ] {
        let head = format!("{line} HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n");
        let answer = exchange(gateway.proxy, &head);
        assert!(answer.starts_with("HTTP/1.1 405"), "{line}: {answer}");
        assert!(answer.contains("\r\nallow: GET, "), "{line}: {answer}");
    }
}

#[test]
fn smuggled_framing_does_not_reach_the_backend() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\nContent-Length: 4",
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n");
        let behind = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
        let answer = exchange(gateway.proxy, &format!("{head}{behind}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(backend.served(), 0);
}

#[test]
fn a_length_that_cannot_be_counted_is_too_large() {
    let gateway = Gateway::start();
    for length in [u64::MAX, u64::MAX - 1] {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        let answer = exchange(gateway.proxy, &head);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[test]
fn slow_clients_are_disconnected() {
    let gateway = Setup::new()
        .arg("--client-header-timeout", 1)
        .arg("--client-body-timeout", 1)
        .start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    for to in [gateway.proxy, gateway.admin] {
        let mut idle = Raw::connect(to);
        let mut head = Raw::connect(to);
        head.send(b"GET / HTTP/1.1\r\nhost");
        assert!(idle.is_closed());
        let said = head.read_to_end();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
    }
    for (to, path) in [(gateway.proxy, "/"), (gateway.admin, "/services")] {
        let mut body = Raw::connect(to);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 10\r\n\r\nabc"
        );
        let said = body.send(head.as_bytes()).read_to_end();
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert_eq!(gateway.backend_of("/"), "b");
}

#[test]
fn an_unread_body_leaves_the_connection_open() {
    let gateway = Gateway::start();
    let head = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    for to in [gateway.proxy, gateway.admin] {
        let mut raw = Raw::connect(to);
        for _ in 0..2 {
            raw.send(head.as_bytes());
            // A gateway that did not read the body would have answered by now.
            gateway.admin("GET", "/status", &[]).expect(200);
            assert_eq!(gateway.get("/nowhere").status, 404);
            raw.send(b"3\r\nabc\r\n0\r\n\r\n");
            let answer = raw.read_until("}");
            assert!(answer.contains(" 404 "), "{answer}");
        }
    }
}

#[test]
fn bodies_over_the_admin_limit_are_413() {
    let gateway = Gateway::start();
    let document = json!({"name": "x".repeat(11 << 20)});
    let status = gateway.admin_json("POST", "/services", &document).status;
    assert_eq!(status, 413);
    gateway.admin("GET", "/services", &[]).expect(200);
}

/// If the connection were closed with the body unread, the client could not send it, and many
/// clients would not look for an answer then.
#[test]
fn a_client_that_sends_a_long_body_can_send_it_and_gets_its_answer() {
    const LENGTH: usize = 8 << 20;
    let gateway = Gateway::start();
    let mut client = TcpStream::connect(gateway.admin).unwrap();
    let head =
        format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    // The answer comes before the body.
    let mut start = [0; 12];
    client.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 404");
    client.write_all(&vec![b'x'; LENGTH]).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with('}'), "{rest}");
}

#[test]
fn a_folder_of_other_files_is_refused_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "content").unwrap();
    let (status, said) = Setup::with_data(folder.path()).fail();
    assert!(!status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("(setting data_dir)")
            && said.contains("holds something else than Pointsman's data"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // The folder of a gateway whose store was etcd.
    let shared = tempfile::tempdir().unwrap();
    std::fs::create_dir(shared.path().join("etcd")).unwrap();
    std::fs::write(shared.path().join("node.id"), "x").unwrap();
    let (status, said) = Setup::with_data(shared.path()).fail();
    assert!(!status.success());
    assert!(
        said.contains("was used with the setting store = etcd"),
        "{said}"
    );

    let (status, said) = Setup::with_data(&file).fail();
    assert!(!status.success());
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn damaged_data_is_refused_in_one_line_and_not_overwritten() {
    let gateway = Gateway::start();
    for number in 0..50 {
        let name = format!("s{number}");
        gateway
            .admin("POST", "/services", &[("name", &name), ("host", "h")])
            .expect(201);
    }
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let database = data_dir.join("entities/db");
    let good = std::fs::read(&database).unwrap();
    let mut flipped = good.clone();
    // In the last tenth of the file: sled alone would drop what follows without an error.
    let written = good.iter().rposition(|byte| *byte != 0).unwrap();
    for byte in &mut flipped[written * 9 / 10..written] {
        *byte ^= 0x55;
    }
    let damages: [(&str, Vec<u8>); 5] = [
        ("flipped", flipped),
        ("cut", good[..written * 9 / 10].to_vec()),
        ("gone", Vec::new()),
        ("zeroed", vec![0; good.len()]),
        (
            "rubbish",
            (0..good.len()).map(|at| (at * 31 % 251) as u8).collect(),
        ),
    ];
    for (name, bad) in damages {
        std::fs::write(&database, &bad).unwrap();
        let (status, said) = Setup::with_data(&data_dir).fail();
        assert!(!status.success(), "{name}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(said.contains("is damaged"), "{name}: {said}");
        std::fs::write(&database, &good).unwrap();
    }
    std::fs::remove_dir_all(data_dir.join("entities")).unwrap();
    let (status, said) = Setup::with_data(&data_dir).fail();
    assert!(!status.success());
    assert!(
        said.contains("is damaged: its folder entities is missing"),
        "{said}"
    );

    std::fs::write(data_dir.join("FORMAT"), "pointsman data, format 99\n").unwrap();
    let (_, said) = Setup::with_data(&data_dir).fail();
    assert!(said.contains("is of another version"), "{said}");
}

#[test]
fn one_process_at_a_time_uses_a_folder_and_a_port() {
    let gateway = Gateway::start();
    let (status, said) = Setup::with_data(&gateway.data_dir).fail();
    assert!(!status.success());
    assert!(said.contains("is in use by another process"), "{said}");
    for flag in ["--proxy-listen", "--admin-listen"] {
        let (status, said) = Setup::new().arg(flag, gateway.proxy).fail();
        assert!(!status.success());
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains(&format!("cannot listen on {}", gateway.proxy))
                && said.contains("_listen): Address already in use"),
            "{said}"
        );
    }
}
