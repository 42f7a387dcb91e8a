//! Targets that are killed, stopped, failing and slow, and many changes of targets, under constant
//! load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Backend, Gateway, Load, Process};

/// The time between two requests for the health of targets.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often the measured event waits for a processor: each of two probes for its timer,
/// connection, answer and reading, and then the test's own request.
const SCHEDULER_WAITS: u32 = 10;

/// Measures the longest time that a thread waits for a processor, because other processes use the
/// machine as well.
struct Stalls {
    worst_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stalls {
    fn measure() -> Self {
        let stalls = Self {
            worst_us: Arc::default(),
            stop: Arc::default(),
        };
        let (worst, stop) = (Arc::clone(&stalls.worst_us), Arc::clone(&stalls.stop));
        std::thread::spawn(move || {
            // The same priority as the thread of the probes.
            rustix::process::nice(5).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                std::thread::sleep(POLL_INTERVAL);
                let late = start.elapsed().saturating_sub(POLL_INTERVAL).as_micros();
                worst.fetch_max(late as u64, Ordering::Relaxed);
            }
        });
        stalls
    }

    fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn states(gateway: &Gateway) -> HashMap<String, String> {
    let all = gateway.admin("GET", "/upstreams/u/health", &[]).expect(200);
    let all = all.json();
    let rows = all["data"].as_array().unwrap().iter();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (word(&row["target"]), word(&row["health"])))
        .collect()
}

/// Does something to a target, and waits until the target has the state that follows from it. Fails
/// if that takes longer than the settings promise, plus what the machine delays.
fn within(
    promise: Duration,
    gateway: &Gateway,
    target: SocketAddr,
    state: &str,
    happen: impl FnOnce(),
) {
    let stalls = Stalls::measure();
    let start = Instant::now();
    happen();
    loop {
        let seen = states(gateway)[&target.to_string()] == state;
        let waited = start.elapsed();
        if seen {
            eprintln!("{target} is {state} after {waited:?}, promised {promise:?}");
            return;
        }
        let worst = stalls.worst();
        assert!(
            waited < promise + POLL_INTERVAL + SCHEDULER_WAITS * worst.max(POLL_INTERVAL),
            "{target} is not {state} after {waited:?}: promised {promise:?}, and a thread waited for \
             {worst:?} at the worst"
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn target_failures_are_detected_in_time_and_recovered_from() {
    let gateway = Gateway::start();
    let names = ["killed", "stopped", "failing", "slow", "well"];
    let [killed, stopped, mut failing, mut slow, well] = names.map(Process::start);
    let all = [&killed, &stopped, &failing, &slow, &well].map(|process| (process.address, 100));
    gateway.balanced(&all);
    gateway
        .admin("PATCH", "/services/u-service", &[("read_timeout", "1000")])
        .expect(200);
    let interval = Duration::from_millis(200);
    let timeout = Duration::from_millis(500);
    let checks = json!({"healthchecks": {
        "active": {
            "http_path": "/probe", "timeout": 0.5,
            "healthy": {"interval": 0.2, "successes": 2},
            "unhealthy": {"interval": 0.2, "http_failures": 2, "tcp_failures": 2, "timeouts": 2},
        },
        "passive": {"unhealthy": {"http_failures": 3, "tcp_failures": 2, "timeouts": 2}},
    }});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);

    // One load during the whole test.
    let clients = 8;
    let load = Load::start(gateway.proxy, "/", clients);
    let no_request_fails = |during: &str| {
        load.wait_for(500);
        assert_eq!(load.take().failures, [""; 0], "{during}");
    };
    no_request_fails("nothing has happened");
    // A refused or broken connection costs no idempotent request, before or after it is detected.
    within(2 * interval, &gateway, killed.address, "UNHEALTHY", || {
        killed.signal("KILL");
    });
    no_request_fails("one is killed");
    let twice = 2 * (interval + timeout);
    within(twice, &gateway, stopped.address, "UNHEALTHY", || {
        stopped.signal("STOP");
    });
    no_request_fails("one is stopped");

    // Responses with a failure status reach clients until they are detected.
    within(2 * interval, &gateway, failing.address, "UNHEALTHY", || {
        failing.respond_with(500, 0);
    });
    // So do those to requests that are in flight then.
    load.wait_for(2 * clients as u64);
    let noticed = load.take().failures;
    assert!(noticed.iter().all(|failure| failure.starts_with("500")));
    no_request_fails("one fails");

    // A slow target is not unhealthy: it keeps its share, and no request fails.
    slow.respond_with(0, 40);
    load.wait_for(2 * clients as u64);
    load.take();
    load.wait_for(400);
    let tally = load.take();
    assert_eq!(tally.failures, [""; 0], "one is slow");
    let share = tally.by_backend["slow"];
    let most = tally.by_backend["well"] + clients as u64;
    assert!(
        share + clients as u64 >= tally.by_backend["well"] && share <= most,
        "{tally:?}"
    );

    slow.respond_normally();
    let again = Process::start_on("killed", killed.address);
    within(2 * interval, &gateway, again.address, "HEALTHY", || {});
    within(
        2 * interval + timeout,
        &gateway,
        stopped.address,
        "HEALTHY",
        || {
            stopped.signal("CONT");
        },
    );
    within(2 * interval, &gateway, failing.address, "HEALTHY", || {
        failing.respond_normally();
    });
    no_request_fails("all are healthy again");
    load.wait_for(5000);
    let outcomes = load.stop();
    assert_eq!(outcomes.failures, [""; 0]);
    let total: u64 = outcomes.by_backend.values().sum();
    for name in names {
        let share = outcomes.by_backend[name] * 100 * names.len() as u64;
        let even = 98 * total..=102 * total;
        assert!(even.contains(&share), "{:?}", outcomes.by_backend);
    }
}

#[test]
fn a_thousand_changes_of_targets_cost_no_request() {
    let gateway = Gateway::start();
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    gateway.balanced(&[(backends[0].address, 100)]);
    let checks = json!({"healthchecks": {"passive": {"unhealthy": {"tcp_failures": 1}}}});
    gateway
        .admin_json("PATCH", "/upstreams/u", &checks)
        .expect(200);
    let load = Load::start(gateway.proxy, "/", 4);
    let path = |number: usize| format!("/upstreams/u/targets/{}", backends[number].address);
    for round in 0..1000 / 5 {
        let number = 1 + round % 3;
        // Each round makes five changes.
        gateway.add_target("u", backends[number].address, 50);
        let weight = [("weight", "100")];
        gateway.admin("PATCH", &path(number), &weight).expect(200);
        let unhealthy = format!("{}/unhealthy", path(number));
        gateway.admin("PUT", &unhealthy, &[]).expect(204);
        gateway
            .admin("PUT", &format!("{}/healthy", path(number)), &[])
            .expect(204);
        gateway.admin("DELETE", &path(number), &[]).expect(204);
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.by_backend.len() > 1);
}
