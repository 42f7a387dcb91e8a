//! A new process takes over from a running gateway.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{Backend, Gateway, Load, Raw, RawServer, Setup, read_answer};

/// How often a gateway is replaced under load; `TEST_REPLACEMENTS` may ask for more.
fn replacements() -> usize {
    let asked = std::env::var("TEST_REPLACEMENTS").ok();
    asked.map_or(4, |asked| asked.parse().unwrap())
}

/// A gateway with the listeners and the data folder of another one, which it replaces.
fn successor(of: &Gateway) -> Setup {
    Setup::with_data(&of.data_dir).arg("--take-over", "on")
}

#[test]
fn replacements_under_load_lose_no_request_and_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut gateway = Setup::with_data(&data_dir).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let (proxy, admin) = (gateway.proxy, gateway.admin);
    let kept = Load::start(proxy, "/", 3);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        // A connection for each request.
        let single = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut client = Raw::connect(proxy);
                client.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
                let answer = client.read_to_end();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
            }
        });
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("s{number}");
                let body = format!("name={name}&host=h");
                let request = format!(
                    "POST /services HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                     content-type: application/x-www-form-urlencoded\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let mut client = Raw::connect(admin);
                client.send(request.as_bytes());
                let answer = client.read_to_end();
                match answer.split(' ').nth(1) {
                    Some("201") => acknowledged.push(name),
                    Some("503") => assert!(answer.contains("takes over"), "{answer}"),
                    _ => panic!("{answer:?}"),
                }
            }
            acknowledged
        });
        // Other numbers of workers than before have to share the sockets, or to take several.
        for workers in [3, 1, 4, 2].into_iter().cycle().take(replacements()) {
            kept.wait_for(50);
            let next = successor(&gateway).arg("--workers", workers).start();
            assert_eq!((next.proxy, next.admin), (proxy, admin));
            let (status, log) = std::mem::replace(&mut gateway, next).wait();
            assert!(status.success(), "{log}");
            assert!(log.contains("has taken over"), "{log}");
            assert!(log.contains("all requests drained"), "{log}");
            assert!(!log.contains("ERROR"), "{log}");
        }
        kept.wait_for(50);
        stop.store(true, Ordering::Relaxed);
        single.join().unwrap();
        writer.join().unwrap()
    });
    assert_eq!(kept.stop().failures, [""; 0]);
    assert!(!acknowledged.is_empty());
    for name in acknowledged {
        let path = format!("/services/{name}");
        gateway.admin("GET", &path, &[]).expect(200);
    }
}

#[test]
fn idle_connections_are_told_with_their_next_response_that_they_end() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let mut idle = Raw::connect(gateway.proxy);
    idle.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let answer = read_answer(&mut idle).to_lowercase();
    assert!(!answer.contains("connection: close"), "{answer}");
    let mut fresh = Raw::connect(gateway.proxy);
    let next = successor(&gateway).start();
    for client in [&mut idle, &mut fresh] {
        // The old process learns a moment later than the test that the new one is ready.
        loop {
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            let answer = read_answer(client).to_lowercase();
            assert!(answer.contains("200 ok"), "{answer}");
            if answer.contains("connection: close") {
                break;
            }
        }
        assert!(client.is_closed());
    }
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert_eq!(next.backend_of("/"), "b");
}

/// Adds a service. The store is opened again a moment after a process that has not taken over.
fn add_service(gateway: &Gateway, name: &str) {
    loop {
        let fields = [("name", name), ("host", "h")];
        let answer = gateway.admin("POST", "/services", &fields);
        if answer.status != 503 {
            answer.expect(201);
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has_service(gateway: &Gateway, name: &str) -> bool {
    let path = format!("/services/{name}");
    gateway.admin("GET", &path, &[]).status == 200
}

/// A process that takes over as far as a test has it.
struct Successor(Socket);

impl Successor {
    fn connect(data_dir: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let path = data_dir.join("take-over.sock");
        socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
        Self(socket)
    }

    fn say(&mut self, message: &Value) {
        self.0.write_all(message.to_string().as_bytes()).unwrap();
    }

    fn ask(data_dir: &Path) -> Self {
        let mut successor = Self::connect(data_dir);
        successor.say(&json!({"event": "take_over", "version": "1"}));
        successor
    }

    /// Reads messages until one of this event. The descriptors that come with them are closed.
    fn await_event(&mut self, event: &str) -> Value {
        loop {
            let mut message = [0; 4096];
            let length = self.0.read(&mut message).unwrap();
            assert_ne!(length, 0, "no {event}");
            let message: Value = serde_json::from_slice(&message[..length]).unwrap();
            if message["event"] == event {
                return message;
            }
            assert_ne!(message["event"], "refused", "{message}");
        }
    }
}

#[test]
fn a_gateway_goes_on_wherever_its_successor_dies() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let steps: [fn(&Path); 5] = [
        |data_dir| drop(Successor::connect(data_dir)),
        |data_dir| drop(Successor::ask(data_dir)),
        |data_dir| drop(Successor::ask(data_dir).await_event("sockets")),
        |data_dir| drop(Successor::ask(data_dir).await_event("released")),
        |data_dir| {
            let mut successor = Successor::ask(data_dir);
            successor.await_event("released");
            successor.say(&json!({"event": "released"}));
            successor.await_event("refused");
        },
    ];
    for (number, step) in steps.iter().enumerate() {
        step(&gateway.data_dir);
        add_service(&gateway, &format!("s{number}"));
        assert_eq!(gateway.backend_of("/"), "b");
    }
    let next = successor(&gateway).start();
    for number in 0..steps.len() {
        assert!(has_service(&next, &format!("s{number}")));
    }
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn what_a_successor_that_fails_has_written_has_no_effect() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    // It replaces the whole configuration, and fails only then.
    let (status, log) = successor(&gateway)
        .arg("--database", "off")
        .arg(
            "--declarative-config-string",
            r#"{"_format_version": "3.0"}"#,
        )
        .arg("--admin-listen", "127.0.0.1:0 ssl")
        .arg("--admin-ssl-cert", "/missing.pem")
        .arg("--admin-ssl-cert-key", "/missing.key")
        .fail();
    assert!(!status.success());
    assert!(
        log.contains("entities changed") && log.contains("missing"),
        "{log}"
    );
    add_service(&gateway, "s");
    assert_eq!(gateway.backend_of("/"), "b");
    gateway.kill_9();
    let next = Setup::with_data(&gateway.data_dir).start();
    assert_eq!(next.backend_of("/"), "b");
    assert!(has_service(&next, "s"));
}

#[test]
fn of_two_successors_one_waits_for_the_other() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let load = Load::start(gateway.proxy, "/", 2);
    let (one, other) = std::thread::scope(|scope| {
        let start = || scope.spawn(|| successor(&gateway).start());
        let (one, other) = (start(), start());
        (one.join().unwrap(), other.join().unwrap())
    });
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    load.wait_for(20);
    assert_eq!(load.stop().failures, [""; 0]);
    let running = one.admin("GET", "/", &[]).expect(200).json()["pids"]["master"].clone();
    let (last, first) = if running == one.pid() {
        (one, other)
    } else {
        (other, one)
    };
    let (status, log) = first.wait();
    assert!(status.success() && log.contains("has taken over"), "{log}");
    assert_eq!(last.backend_of("/"), "b");
}

#[test]
fn a_process_that_is_late_is_told_that_the_gateway_goes_on() {
    let gateway = Gateway::start();
    let mut late = Successor::ask(&gateway.data_dir);
    late.await_event("released");
    // While it does not answer, the next one waits.
    let mut next = Successor::ask(&gateway.data_dir);
    drop(late);
    next.await_event("released");
    drop(next);
    add_service(&gateway, "s");
}

#[test]
fn a_process_that_waits_for_the_running_gateway_ends_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    // A gateway that does not answer.
    let silent = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let path = folder.path().join("take-over.sock");
    silent.bind(&SockAddr::unix(path).unwrap()).unwrap();
    silent.listen(1).unwrap();
    let setup = Setup::with_data(folder.path()).arg("--take-over", "on");
    let mut waiting = setup.command().stderr(Stdio::null()).spawn().unwrap();
    let (_asked, _) = silent.accept().unwrap();
    let pid = waiting.id().to_string();
    let mut kill = Command::new("kill");
    assert!(kill.args(["-TERM", &pid]).status().unwrap().success());
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn while_a_gateway_is_being_replaced_no_third_process_starts_on_its_data() {
    let gateway = Gateway::start();
    let mut successor = Successor::ask(&gateway.data_dir);
    // The store is closed.
    successor.await_event("released");
    let (status, log) = Setup::with_data(&gateway.data_dir).fail();
    assert!(!status.success());
    assert!(log.contains("is in use by another process"), "{log}");
    drop(successor);
    add_service(&gateway, "s");
}

#[test]
fn a_gateway_is_started_again_although_the_one_that_it_had_replaced_still_drains() {
    let gateway = Gateway::start();
    let (arrived, has_arrived) = std::sync::mpsc::channel();
    let slow = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        let _ = arrived.send(());
        raw.is_closed();
    });
    gateway.balanced(&[(slow.address, 1)]);
    let mut client = Raw::connect(gateway.proxy);
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    has_arrived.recv().unwrap();
    let next = successor(&gateway).start();
    gateway.wait_for_log("has taken over");
    drop(next.kill());
    let again = Setup::with_data(&gateway.data_dir).start();
    assert!(has_service(&again, "u-service"));
}

#[test]
fn certificates_are_requested_by_the_successor_only() {
    let gateway = Gateway::start();
    let (answers, answer) = std::sync::mpsc::channel();
    let answer = std::sync::Mutex::new(answer);
    // Keeps the old process until the end of the test.
    let slow = RawServer::start(move |_, mut raw| {
        raw.read_until("\r\n\r\n");
        let _ = answer.lock().unwrap().recv();
        raw.send(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    gateway.balanced(&[(slow.address, 1)]);
    let mut client = Raw::connect(gateway.proxy);
    client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    // An authority that never answers.
    let authority = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = json!({"account_email": "a@b.c", "tos_accepted": true, "domains": ["a.example"],
        "api_uri": format!("http://{}/", authority.local_addr().unwrap())});
    let plugin = json!({"name": "acme", "config": config});
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    let (mut first, _) = authority.accept().unwrap();
    let next = successor(&gateway).start();
    let (_second, _) = authority.accept().unwrap();
    first.read_to_end(&mut Vec::new()).unwrap();
    answers.send(()).unwrap();
    let answer = client.read_until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    drop(next);
}

#[test]
fn a_gateway_goes_on_if_its_successor_cannot_start() {
    let gateway = Gateway::start();
    let other = Gateway::start();
    let taken = other.proxy.to_string();
    let (status, log) = successor(&gateway).arg("--proxy-listen", &taken).fail();
    assert!(!status.success());
    assert!(log.contains("cannot listen on"), "{log}");
    add_service(&gateway, "s");
    let next = successor(&gateway).start();
    next.admin("GET", "/services/s", &[]).expect(200);
    assert!(gateway.wait().0.success());
}

#[test]
fn without_a_gateway_to_replace_the_start_is_as_usual() {
    let gateway = Setup::new().arg("--take-over", "on").start();
    gateway.admin("GET", "/status/ready", &[]).expect(200);
}

#[test]
fn a_unix_socket_is_handed_over_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let listen = format!("unix:{}", path.display());
    let gateway = Setup::new().arg("--proxy-listen", &listen).start();
    let next = successor(&gateway).arg("--proxy-listen", &listen).start();
    assert!(gateway.wait().0.success());
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    next.terminate();
    assert!(next.wait().0.success());
    assert!(!path.exists());
}

#[test]
fn a_gateway_that_ends_while_it_is_replaced_leaves_its_unix_sockets_to_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let listen = format!("unix:{}", path.display());
    let gateway = Setup::new().arg("--proxy-listen", &listen).start();
    let mut successor = Successor::ask(&gateway.data_dir);
    successor.await_event("released");
    gateway.terminate();
    assert!(gateway.wait().0.success());
    assert!(path.exists());
}

/// A process that is killed at the end of the test.
struct Killed(String);

impl Drop for Killed {
    fn drop(&mut self) {
        let mut kill = Command::new("kill");
        drop(kill.args(["-KILL", &self.0]).status());
    }
}

/// Has a gateway replaced by SIGUSR2.
fn replace_by_signal(gateway: &Gateway) -> Killed {
    let old = u64::from(gateway.pid());
    gateway.signal("-USR2");
    // Either process answers until the old one has left.
    loop {
        let info = gateway.admin("GET", "/", &[]).expect(200).json();
        let pid = info["pids"]["master"].as_u64().unwrap();
        if pid != old {
            return Killed(pid.to_string());
        }
    }
}

#[test]
fn the_successor_is_started_from_where_a_symbolic_link_leads_now() {
    let folder = tempfile::tempdir().unwrap();
    let (link, script) = (folder.path().join("pointsman"), folder.path().join("new"));
    let used = folder.path().join("used");
    let program = env!("CARGO_BIN_EXE_pointsman");
    symlink(program, &link).unwrap();
    let gateway = Setup::new().program(&link).start();
    let text = format!(
        "#!/bin/sh\ntouch {}\nexec {program} \"$@\"\n",
        used.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::remove_file(&link).unwrap();
    symlink(&script, &link).unwrap();
    drop(replace_by_signal(&gateway));
    assert!(used.exists());
}

#[test]
fn sigusr2_starts_the_successor() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let new = replace_by_signal(&gateway);
    let proxy = gateway.proxy;
    let kept = Load::run(proxy, "/", 2, 10);
    assert_eq!(kept.failures, [""; 0]);
    drop(new);
}
