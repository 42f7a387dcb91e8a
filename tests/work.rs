//! What requests weigh, counted at their endpoints.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, RawServer, guest, patch_upstream, until};
use crate::record::replayed_bytes;

/// A server that takes each step of a response to `/hold` when a test tells it to.
struct Stepwise {
    server: RawServer,
    steps: Sender<()>,
    requests: Receiver<()>,
}

impl Stepwise {
    fn start() -> Self {
        let (steps, awaited) = channel();
        let (seen, requests) = channel();
        let shared = Mutex::new((awaited, seen));
        let retried = Mutex::new(false);
        let server = RawServer::start(move |_, mut raw| {
            loop {
                let head = raw.read_until("\r\n\r\n");
                let step = || {
                    let _ = shared.lock().unwrap().0.recv();
                };
                let is_first = || !std::mem::replace(&mut *retried.lock().unwrap(), true);
                if head.is_empty() || (head.starts_with("GET /retry") && is_first()) {
                    return;
                } else if head.starts_with("GET /hold") || head.starts_with("GET /retry") {
                    let _ = shared.lock().unwrap().1.send(());
                    step();
                    raw.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
                    step();
                    raw.send(b"3\r\ntwo\r\n0\r\n\r\n");
                } else if head.starts_with("GET /socket") {
                    raw.send(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
                    );
                    raw.read_to_end();
                    return;
                } else {
                    raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        });
        Self {
            server,
            steps,
            requests,
        }
    }
}

/// The load that the guest was told of with a request that is sent now.
fn load(gateway: &Gateway) -> String {
    gateway.get("/").expect(200);
    let logs = gateway.admin("GET", "/balancers/weighs/logs", &[]);
    let logs = logs.expect(200).json();
    let lines = logs["data"].as_array().unwrap();
    lines.last().unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn explained(gateway: &Gateway) -> Value {
    // Of a balancer that logs nothing: a gateway keeps a limited number of lines.
    let asked = json!({"balancer": "random"});
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &asked);
    explained.expect(200).json()
}

fn ask(gateway: &Gateway, path: &str, more: &str) -> Raw {
    let mut client = Raw::connect(gateway.proxy);
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nx-cost: 30 12\r\n{more}\r\n");
    client.send(head.as_bytes());
    client
}

#[test]
fn a_cost_is_counted_until_each_part_of_it_is_done() {
    let gateway = Gateway::start();
    let stepwise = Stepwise::start();
    gateway.balanced(&[(stepwise.server.address, 100)]);
    gateway.upload("weighs", guest("weighs")).expect(201);
    patch_upstream(&gateway, &json!({"algorithm": "weighs"}));
    let url = format!(
        "http://{}/upstreams/u/record?seconds=60&facts=true",
        gateway.admin
    );
    let mut recording = ureq::post(&url).send_empty().unwrap();
    let nothing = "[0] [0] [0] [0]";
    assert_eq!(load(&gateway), nothing);

    let mut client = ask(&gateway, "/hold", "");
    stepwise.requests.recv().unwrap();
    assert_eq!(load(&gateway), "[1] [42] [1] [30]");
    // Explain shows what the balancer has seen.
    let shown = |field: &str| explained(&gateway)["endpoints"][0][field].clone();
    let sums = [
        "in_flight",
        "in_flight_cost",
        "unanswered",
        "unanswered_cost",
    ];
    let shows = |values: [u32; 4]| sums.map(shown) == values.map(|value| json!(value));
    until("explain shows the costs", || shows([1, 42, 1, 30]));
    stepwise.steps.send(()).unwrap();
    client.read_until("one");
    assert_eq!(load(&gateway), "[1] [12] [0] [0]");
    until("explain shows what is left", || shows([1, 12, 0, 0]));
    stepwise.steps.send(()).unwrap();
    client.read_until("0\r\n\r\n");
    assert_eq!(load(&gateway), nothing);

    // The client gives up before the first byte.
    let client = ask(&gateway, "/hold", "");
    stepwise.requests.recv().unwrap();
    drop(client);
    until("the request is over", || load(&gateway) == nothing);
    stepwise.steps.send(()).unwrap();
    stepwise.steps.send(()).unwrap();

    // The first try breaks off, and another one at the same endpoint weighs as much.
    let mut client = ask(&gateway, "/retry", "");
    stepwise.requests.recv().unwrap();
    assert_eq!(load(&gateway), "[1] [42] [1] [30]");
    stepwise.steps.send(()).unwrap();
    stepwise.steps.send(()).unwrap();
    client.read_until("0\r\n\r\n");
    assert_eq!(load(&gateway), nothing);

    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut client = ask(&gateway, "/socket", more);
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 101"));
    assert_eq!(load(&gateway), "[1] [12] [0] [0]");
    drop(client);
    until("the tunnel has ended", || load(&gateway) == nothing);

    // New settings make another instance, and a request that is in flight still counts.
    let mut client = ask(&gateway, "/hold", "");
    stepwise.requests.recv().unwrap();
    patch_upstream(
        &gateway,
        &json!({"pointsman": {"balancer_limits": {"state": 1}}}),
    );
    assert_eq!(load(&gateway), "[1] [42] [1] [30]");
    stepwise.steps.send(()).unwrap();
    stepwise.steps.send(()).unwrap();
    client.read_until("0\r\n\r\n");
    assert_eq!(load(&gateway), nothing);

    let trace = recording.body_mut().read_to_vec().unwrap();
    assert!(trace.starts_with(b"PMTRACE3"));
    let document = replayed_bytes(&trace, &["-b", "random"]);
    let rerun = &document["replayed"];
    assert!(rerun["asked"].as_u64() > Some(8), "{rerun}");
    assert_eq!(rerun["asked"], rerun["same"], "{rerun}");
    let shown = gateway
        .admin("GET", "/balancers/weighs", &[])
        .expect(200)
        .json();
    assert_eq!(shown["usage"]["u"]["host_choices"], 0, "{shown}");
    // Explain shows the cost, and counts it nowhere.
    let asked = json!({"headers": {"x-cost": "30 12"}, "balancer": "weighs"});
    let explained = gateway.admin_json("POST", "/upstreams/u/explain", &asked);
    let explained = explained.expect(200).json();
    let cost = json!({"first_byte": 30, "rest": 12});
    assert_eq!(explained["answers"][0]["cost"], cost, "{explained}");
    assert_eq!(load(&gateway), nothing);
}
