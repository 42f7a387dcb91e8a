//! Starts, drains and crashes of the gateway.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Backend, Gateway, Load, Raw, Setup, until};

#[test]
fn requests_in_flight_are_answered_before_the_exit() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let mut idle = Raw::connect(gateway.proxy);
    idle.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    idle.read_until("\r\n\r\n");
    let mut slow = Raw::connect(gateway.proxy);
    slow.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request is at the endpoint", || backend.served() == 2);
    gateway.terminate();
    let answer = slow.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"backend\":\"b\""), "{answer}");
    assert!(idle.read_to_end().contains("\"backend\":\"b\""));
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests drained"), "{log}");
}

#[test]
fn the_drain_ends_after_the_shutdown_timeout() {
    let gateway = Setup::new().arg("--shutdown-timeout", 0).start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 1)]);
    let mut stuck = Raw::connect(gateway.proxy);
    stuck.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request is at the endpoint", || backend.served() == 1);
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("still in flight"), "{log}");
    assert!(stuck.is_closed());
}

/// What a path of the Admin API must answer.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    /// Status 404.
    Missing,
    /// A row whose field has this value.
    Field(&'static str, Value),
}

/// A client that makes one change after the other, and records what was acknowledged.
struct Writer<'a> {
    gateway: &'a Gateway,
    /// What was acknowledged. A path whose last change was not answered is not in it.
    expectations: BTreeMap<String, Expected>,
}

impl Writer<'_> {
    /// Makes a change that leads to these expectations; `None` if the gateway has ended.
    fn change(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        expectations: &[(String, Expected)],
    ) -> Option<()> {
        for (path, _) in expectations {
            self.expectations.remove(path);
        }
        let expected = match method {
            "POST" => 201,
            "DELETE" => 204,
            _ => 200,
        };
        let status = self.gateway.try_admin(method, path, fields)?;
        assert_eq!(status, expected, "{method} {path}");
        self.expectations.extend(expectations.iter().cloned());
        Some(())
    }

    /// Creates, changes and deletes rows of every kind, alone and with the rows that belong to
    /// them.
    fn write_rows(&mut self, name: &str) -> Option<()> {
        let there =
            |path: &str, field, value: Value| (path.to_owned(), Expected::Field(field, value));
        let gone = |path: &str| (path.to_owned(), Expected::Missing);
        let service = &format!("/services/s-{name}");
        let route = &format!("{service}/routes/r-{name}");
        let upstream = &format!("/upstreams/u-{name}");
        let target = &format!("{upstream}/targets/10.0.0.1:80");

        let fields = [("name", &*format!("s-{name}")), ("host", "h")];
        self.change(
            "POST",
            "/services",
            &fields,
            &[there(service, "port", 80.into())],
        )?;
        let fields = [("name", &*format!("r-{name}")), ("paths[]", "/")];
        let routes = format!("{service}/routes");
        let made = there(route, "strip_path", true.into());
        self.change("POST", &routes, &fields, &[made])?;
        let changed = there(service, "port", 81.into());
        self.change("PATCH", service, &[("port", "81")], &[changed])?;
        let fields = [("name", &*format!("u-{name}"))];
        self.change(
            "POST",
            "/upstreams",
            &fields,
            &[there(upstream, "slots", 10_000.into())],
        )?;
        let fields = [("target", "10.0.0.1:80"), ("weight", "7")];
        let targets = format!("{upstream}/targets");
        self.change(
            "POST",
            &targets,
            &fields,
            &[there(target, "weight", 7.into())],
        )?;
        let changed = there(upstream, "slots", 100.into());
        self.change("PATCH", upstream, &[("slots", "100")], &[changed])?;
        if name.ends_with(['0', '2', '4', '6', '8']) {
            self.change("DELETE", upstream, &[], &[gone(upstream), gone(target)])?;
            self.change("DELETE", route, &[], &[gone(route)])?;
            self.change("DELETE", service, &[], &[gone(service), gone(route)])?;
        }
        Some(())
    }
}

#[test]
fn acknowledged_changes_survive_sigkill() {
    let owned = tempfile::tempdir().unwrap();
    let data_dir = owned.path().join("data");
    let mut all = BTreeMap::new();
    let start = || Setup::with_data(&data_dir).arg("--workers", 1).start();
    let mut gateway = start();
    for round in 0..50 {
        // Four clients write at the same time; the kill comes at a different moment in each round.
        let expectations = std::thread::scope(|scope| {
            let gateway = &gateway;
            let writers: Vec<_> = (0..4)
                .map(|number| {
                    scope.spawn(move || {
                        let mut writer = Writer {
                            gateway,
                            expectations: BTreeMap::new(),
                        };
                        let mut names = (0..).map(|n| format!("{round}-{number}-{n}"));
                        while writer.write_rows(&names.next().unwrap()).is_some() {}
                        writer.expectations
                    })
                })
                .collect();
            while gateway.writes() < 4 + round * 7 % 50 {
                std::thread::yield_now();
            }
            gateway.kill_9();
            let expectations = writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap());
            expectations.collect::<BTreeMap<String, Expected>>()
        });
        drop(gateway);
        // The start reads every row, and checks every key and reference.
        gateway = start();
        assert_expectations(&gateway, &expectations);
        all.extend(expectations);
    }
    assert_expectations(&gateway, &all);
    assert!(all.len() > 500, "{}", all.len());
    let gone = all
        .values()
        .filter(|expectation| **expectation == Expected::Missing)
        .count();
    assert!(gone > 50, "{gone}");
}

fn assert_expectations(gateway: &Gateway, expectations: &BTreeMap<String, Expected>) {
    for (path, expectation) in expectations {
        let answer = gateway.admin("GET", path, &[]);
        match expectation {
            Expected::Missing => assert_eq!(answer.status, 404, "{path}"),
            Expected::Field(field, value) => {
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.json()[field], *value, "{path}");
            }
        }
    }
}

#[test]
fn a_restarted_gateway_serves_from_the_stored_rows() {
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
fn a_change_in_flight_is_answered_before_the_exit() {
    let gateway = Gateway::start();
    let mut idle = Raw::connect(gateway.admin);
    idle.send(b"GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n");
    idle.read_until("\r\n\r\n");
    let mut slow = Raw::connect(gateway.admin);
    slow.send(
        b"POST /services HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
          expect: 100-continue\r\ncontent-length: 13\r\n\r\n",
    );
    // The gateway waits for the body now.
    let answer = slow.read_until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
    gateway.terminate();
    assert!(idle.read_to_end().ends_with('}'));
    slow.send(b"{\"host\": \"h\"");
    slow.send(b"}");
    let answer = slow.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("all requests drained"), "{log}");
}
