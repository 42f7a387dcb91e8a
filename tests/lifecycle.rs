//! Starts and ends, wanted and not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Backend, Gateway, Load, Raw, Setup};

#[test]
fn requests_in_flight_are_answered_before_the_end() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let mut idle = Raw::connect(gateway.proxy);
    idle.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    idle.read_until("\r\n\r\n");
    let mut slow = Raw::connect(gateway.proxy);
    slow.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n");
    while backend.served() < 2 {
        std::thread::yield_now();
    }
    gateway.terminate();
    let answer = slow.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"backend\":\"b\""), "{answer}");
    assert!(idle.read_to_end().contains("\"backend\":\"b\""));
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests are answered"), "{log}");
}

#[test]
fn the_wait_for_the_last_request_has_an_end() {
    let gateway = Setup::new().arg("--shutdown-timeout", 0).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let mut stuck = Raw::connect(gateway.proxy);
    stuck.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    while backend.served() < 1 {
        std::thread::yield_now();
    }
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("still in flight"), "{log}");
    assert!(stuck.is_closed());
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut folder = None;
    let mut data_dir: Option<std::path::PathBuf> = None;
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..50 {
        let setup = match &data_dir {
            None => Setup::new(),
            Some(data_dir) => Setup::with_data(data_dir),
        };
        let gateway = setup.arg("--workers", 1).start();
        data_dir = Some(gateway.data_dir.clone());
        check(&gateway, &acknowledged);
        // Four writers at once, each a service with a route; the kill comes in their midst.
        let gateway = Arc::new(gateway);
        let dead = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (gateway, dead) = (Arc::clone(&gateway), Arc::clone(&dead));
                std::thread::spawn(move || {
                    let mut done = Vec::new();
                    for number in 0.. {
                        if dead.load(Ordering::SeqCst) {
                            break;
                        }
                        let service = format!("s-{round}-{writer}-{number}");
                        let route = format!("r-{round}-{writer}-{number}");
                        let fields = [("name", &*service), ("host", "h")];
                        if gateway.try_admin("/services", &fields) != Some(201) {
                            break;
                        }
                        done.push((service.clone(), String::new()));
                        let path = format!("/services/{service}/routes");
                        let fields = [("name", &*route), ("paths[]", "/")];
                        if gateway.try_admin(&path, &fields) != Some(201) {
                            break;
                        }
                        done.push((service, route));
                    }
                    done
                })
            })
            .collect();
        // A different moment in each round.
        while gateway.writes() < 2 + round % 7 {
            std::thread::yield_now();
        }
        gateway.kill_9();
        dead.store(true, Ordering::SeqCst);
        for writer in writers {
            acknowledged.extend(writer.join().unwrap());
        }
        let gateway = Arc::into_inner(gateway).unwrap();
        if let Some(owned) = gateway.kill() {
            folder = Some(owned);
        }
    }
    let gateway = Setup::with_data(data_dir.as_ref().unwrap()).start();
    check(&gateway, &acknowledged);
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    drop(folder);
}

/// Every acknowledged row is there, by its name, and refers to what it should.
fn check(gateway: &Gateway, acknowledged: &[(String, String)]) {
    // The newest are those that could be missing; all of them are looked at in the end.
    let newest = acknowledged.len().saturating_sub(40);
    for (service, route) in &acknowledged[newest..] {
        if route.is_empty() {
            gateway
                .admin("GET", &format!("/services/{service}"), &[])
                .expect(200);
        } else {
            let path = format!("/services/{service}/routes/{route}");
            gateway.admin("GET", &path, &[]).expect(200);
        }
    }
}

#[test]
fn a_restart_under_another_process_sees_every_kind_of_row() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let load = Load::start(gateway.proxy, "/", 2);
    load.wait_for(50);
    assert_eq!(load.stop().failures, [""; 0]);
    let data_dir = gateway.data_dir.clone();
    let _folder = gateway.kill();
    let gateway = Setup::with_data(&data_dir).start();
    assert_eq!(gateway.backend_of("/"), "b");
    gateway.admin("DELETE", "/upstreams/u", &[]).expect(204);
    gateway
        .admin("GET", "/upstreams/u/targets", &[])
        .expect(404);
}

#[test]
fn settings_come_from_flag_environment_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "workers = 3\nlog = \"error\"\n").unwrap();
    let gateway = Setup::new().arg("--config", file.display()).start();
    let root = gateway.admin("GET", "/", &[]).expect(200).json();
    // The harness gives a flag, which wins.
    assert_eq!(root["configuration"]["nginx_worker_processes"], "2");
    assert!(root["version"].as_str().unwrap().starts_with("3.9."));
    assert_eq!(root["pointsman"]["version"], env!("CARGO_PKG_VERSION"));
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert_eq!(log, "", "the file wants errors only");
}

#[test]
fn a_change_in_flight_is_answered_before_the_end() {
    let gateway = Gateway::start();
    let mut idle = Raw::connect(gateway.admin);
    idle.send(b"GET /status HTTP/1.1\r\nhost: h\r\n\r\n");
    idle.read_until("\r\n\r\n");
    let mut slow = Raw::connect(gateway.admin);
    slow.send(
        b"POST /services HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n\
          expect: 100-continue\r\ncontent-length: 13\r\n\r\n",
    );
    // It is waiting for the body now.
    let told = slow.read_until("\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 100"), "{told}");
    gateway.terminate();
    assert!(idle.read_to_end().ends_with('}'));
    slow.send(b"{\"host\": \"h\"");
    slow.send(b"}");
    let answer = slow.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests are answered"), "{log}");
}
