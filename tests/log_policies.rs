//! The plugins that log, each with a real receiver.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;

use crate::harness::{
    Backend, Gateway, Raw, RawServer, Setup, metric, refusing_address, tls_acceptor, until,
    with_backend,
};

/// Adds a plugin for all requests.
fn add_plugin(gateway: &Gateway, name: &str, config: Value) -> String {
    let plugin = json!({"name": name, "config": config});
    let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// The file of a `file-log`.
struct LogFile {
    path: PathBuf,
    _folder: TempDir,
}

impl LogFile {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            path: folder.path().join("requests.log"),
            _folder: folder,
        }
    }

    fn with_plugin(gateway: &Gateway) -> Self {
        let file = Self::new();
        add_plugin(gateway, "file-log", json!({"path": file.path}));
        file
    }

    /// Waits for this many records, and checks that there are no more.
    #[track_caller]
    fn records(&self, count: usize) -> Vec<Value> {
        until("records", || lines(&self.path).len() >= count);
        let lines = lines(&self.path);
        assert_eq!(lines.len(), count, "{lines:?}");
        let read = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        read.collect()
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line that is being written is not counted.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

#[test]
fn a_proxied_request_is_recorded_with_its_entities() {
    let (gateway, backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    let headers = [("authorization", "Basic secret"), ("host", "a.test")];
    gateway.get_with("/bytes/5000?a=1&b", &headers).expect(200);
    let record = &file.records(1)[0];
    let request = &record["request"];
    assert_eq!(request["method"], "GET");
    assert_eq!(request["uri"], "/bytes/5000?a=1&b");
    assert_eq!(request["querystring"], json!({"a": "1", "b": true}));
    assert_eq!(request["headers"]["authorization"], "REDACTED");
    let url = format!("http://a.test:{}/bytes/5000?a=1&b", gateway.proxy.port());
    assert_eq!(request["url"], url);
    assert!(request["size"].as_u64() > Some(60), "{request}");
    let response = &record["response"];
    assert_eq!(response["status"], 200);
    assert_eq!(response["headers"]["x-backend"], "b");
    assert!(response["size"].as_u64() > Some(5000), "{response}");
    assert_eq!(record["upstream_uri"], "/bytes/5000?a=1&b");
    assert_eq!(record["upstream_status"], "200");
    assert_eq!(record["source"], "upstream");
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["service"]["name"], "u-service");
    assert_eq!(record["service"]["retries"], 5);
    assert_eq!(record["route"]["paths"], json!(["/"]));
    let tried = &record["tries"][0];
    assert_eq!(tried["port"], backend.address.port());
    assert_eq!(tried.get("state"), None);
    for latency in ["request", "kong", "proxy", "receive"] {
        assert!(record["latencies"][latency].as_i64() >= Some(0), "{record}");
    }
    let started = record["started_at"].as_u64().unwrap();
    assert!(
        tried["balancer_start"].as_u64() >= Some(started),
        "{record}"
    );
}

#[test]
fn a_request_without_a_route_is_recorded() {
    let gateway = Gateway::start();
    let file = LogFile::with_plugin(&gateway);
    gateway.get_with("/none", &[("host", "a.test")]).expect(404);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 404);
    assert_eq!(record["source"], "kong");
    assert_eq!(record["latencies"]["proxy"], -1);
    assert_eq!(record["upstream_status"], "");
    assert!(
        record["request"]["url"]
            .as_str()
            .unwrap()
            .starts_with("http://a.test:")
    );
    for absent in ["route", "service", "tries"] {
        assert_eq!(record.get(absent), None, "{absent}");
    }
}

#[test]
fn an_answer_of_a_policy_is_recorded() {
    let (gateway, backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    add_plugin(&gateway, "request-termination", json!({"status_code": 418}));
    gateway.get("/").expect(418);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 418);
    assert_eq!(record["source"], "kong");
    assert_eq!(record["service"]["name"], "u-service");
    assert_eq!(record.get("tries"), None);
    assert_eq!(backend.served(), 0);
}

#[test]
fn the_id_of_correlation_id_is_recorded() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    add_plugin(&gateway, "correlation-id", json!({"header_name": "x-id"}));
    gateway.get_with("/", &[("x-id", "mine")]).expect(200);
    assert_eq!(file.records(1)[0]["correlation_id"], "mine");
}

#[test]
fn failed_tries_are_recorded_with_their_state() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 100), (backend.address, 100)]);
    let file = LogFile::with_plugin(&gateway);
    // Round-robin begins with each of them once.
    for _ in 0..2 {
        gateway.get("/").expect(200);
    }
    let records = file.records(2);
    let retried = records
        .iter()
        .find(|record| record["tries"].as_array().unwrap().len() == 2);
    let retried = retried.unwrap_or_else(|| panic!("{records:?}"));
    assert_eq!(retried["upstream_status"], "502, 200");
    let failed = &retried["tries"][0];
    assert_eq!(failed["port"], refusing.port());
    assert_eq!(
        (&failed["state"], &failed["code"]),
        (&json!("failed"), &json!(502))
    );
    assert_eq!(retried["tries"][1].get("state"), None);
    assert_eq!(retried["source"], "upstream");

    backend.kill();
    gateway.get("/").expect(502);
    let record = &file.records(3)[2];
    assert_eq!(record["response"]["status"], 502);
    assert_eq!(record["source"], "kong");
    assert!(record["latencies"]["proxy"].as_i64() >= Some(0), "{record}");
}

#[test]
fn a_request_that_finds_no_endpoint_is_recorded() {
    let gateway = Gateway::start();
    gateway.balanced(&[]);
    let file = LogFile::with_plugin(&gateway);
    gateway.get("/").expect(503);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 503);
    assert_eq!(record["latencies"]["proxy"], -1);
    assert_eq!(record["source"], "kong");
}

#[test]
fn a_client_that_disconnects_before_the_response_is_recorded_with_499() {
    let (gateway, backend) = with_backend(Setup::new().arg("--client-half-close-timeout", 1));
    let file = LogFile::with_plugin(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request", || backend.served() == 1);
    drop(raw);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 499);
    assert_eq!(record["response"]["size"], 0);
    assert_eq!(record["source"], "kong");
    assert_eq!(record["upstream_status"], "-");
    assert_eq!(record["tries"][0]["port"], backend.address.port());
    assert_eq!(record["service"]["name"], "u-service");
}

#[test]
fn a_response_that_breaks_off_is_recorded_with_what_was_sent() {
    let gateway = Gateway::start();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n";
    let server = RawServer::responding_with(format!("{head}{}", "x".repeat(5000)));
    gateway.balanced(&[(server.address, 100)]);
    let file = LogFile::with_plugin(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    let answer = raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").read_to_end();
    assert!(answer.ends_with("xxx"), "{answer}");
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 200);
    let size = record["response"]["size"].as_u64().unwrap();
    assert!((5000..6000).contains(&size), "{record}");
    assert_eq!(record["source"], "upstream");
}

#[test]
fn the_body_of_a_request_and_a_head_request_have_their_sizes() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    let body = ("text/plain", vec![b'x'; 70_000]);
    gateway
        .send(gateway.proxy, "POST", "/", &[], Some(body))
        .expect(200);
    gateway
        .send(gateway.proxy, "HEAD", "/", &[], None)
        .expect(200);
    let records = file.records(2);
    let size = records[0]["request"]["size"].as_u64().unwrap();
    assert!((70_000..71_000).contains(&size), "{size}");
    let size = records[1]["response"]["size"].as_u64().unwrap();
    assert!(size < 1000, "{size}");
}

#[test]
fn an_upgraded_connection_is_recorded_once_when_it_ends() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = raw.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // Another request that ends meanwhile: the record of the upgraded connection is not there yet.
    gateway.get("/").expect(200);
    assert_eq!(file.records(1)[0]["response"]["status"], 200);
    let message = format!("{}\n", "x".repeat(3000));
    raw.send(message.as_bytes());
    assert_eq!(raw.read_until("\n"), message);
    drop(raw);
    let record = &file.records(2)[1];
    assert_eq!(record["response"]["status"], 101);
    assert_eq!(record["source"], "upstream");
    assert!(record["response"]["size"].as_u64() > Some(3000), "{record}");
    assert!(record["request"]["size"].as_u64() > Some(3000), "{record}");
}

#[test]
fn every_request_of_many_clients_is_a_whole_line() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = LogFile::with_plugin(&gateway);
    let load = crate::harness::Load::run(gateway.proxy, "/", 16, 50);
    assert_eq!(load.failures, [""; 0]);
    let records = file.records(800);
    let mut ids: Vec<&str> = records
        .iter()
        .map(|record| record["request"]["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 800);
}

#[test]
fn a_moved_file_is_made_again_only_with_reopen() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = LogFile::new();
    let id = add_plugin(&gateway, "file-log", json!({"path": file.path}));
    gateway.get("/").expect(200);
    file.records(1);
    let moved = file.path.with_extension("1");
    std::fs::rename(&file.path, &moved).unwrap();
    gateway.get("/").expect(200);
    until("the second record", || lines(&moved).len() == 2);
    assert!(!file.path.exists());

    let reopen = json!({"config": {"reopen": true}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &reopen)
        .expect(200);
    gateway.get("/").expect(200);
    file.records(1);
    std::fs::rename(&file.path, file.path.with_extension("2")).unwrap();
    gateway.get("/").expect(200);
    file.records(1);
}

#[test]
fn a_full_disk_and_a_missing_folder_cost_no_request_and_are_counted() {
    let (gateway, _backend) = with_backend(Setup::new());
    let id = add_plugin(&gateway, "file-log", json!({"path": "/dev/full"}));
    for path in ["/dev/full", "/nowhere/requests.log"] {
        let failed =
            format!("pointsman_log_records_failed_total{{plugin=\"file-log\",id=\"{id}\"}}");
        let before = metric(&gateway, &failed);
        let change = json!({"config": {"path": path}});
        gateway
            .admin_json("PATCH", &format!("/plugins/{id}"), &change)
            .expect(200);
        for _ in 0..100 {
            gateway.get("/").expect(200);
        }
        until("failures", || metric(&gateway, &failed) == before + 100.0);
    }
    // Once the disk has room again, records are written.
    let file = LogFile::new();
    let change = json!({"config": {"path": file.path}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &change)
        .expect(200);
    gateway.get("/").expect(200);
    file.records(1);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let told = log.matches("records cannot be sent").count();
    assert!((1..20).contains(&told), "{told} lines: {log}");
}

#[test]
fn tcp_log_sends_lines_over_one_connection() {
    let (gateway, _backend) = with_backend(Setup::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    add_plugin(
        &gateway,
        "tcp-log",
        json!({"host": "127.0.0.1", "port": port}),
    );
    gateway.get("/status/201").expect(201);
    let (stream, _) = listener.accept().unwrap();
    let mut received = BufReader::new(stream).lines();
    let mut next = || serde_json::from_str::<Value>(&received.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["response"]["status"], 201);
    gateway.get("/status/202").expect(202);
    assert_eq!(next()["response"]["status"], 202);
    drop(received);
    // The server has closed the connection: another one is made.
    gateway.get("/status/203").expect(203);
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["response"]["status"], 203);
}

#[test]
fn tcp_log_encrypts_without_verifying_the_certificate() {
    let (gateway, _backend) = with_backend(Setup::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (acceptor, _) = tls_acceptor("logs.test", &[]);
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = json!({
        "host": "127.0.0.1", "port": port, "tls": true, "tls_sni": "logs.test",
    });
    add_plugin(&gateway, "tcp-log", config);
    gateway.get("/").expect(200);
    let (line, name) = runtime.block_on(async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut line = String::new();
        tokio::io::BufReader::new(stream)
            .read_line(&mut line)
            .await
            .unwrap();
        (line, name)
    });
    assert_eq!(name.as_deref(), Some("logs.test"));
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["response"]["status"], 200);
}

#[test]
fn udp_log_sends_a_datagram_without_a_line_end_for_each_request() {
    let (gateway, _backend) = with_backend(Setup::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    add_plugin(
        &gateway,
        "udp-log",
        json!({"host": "localhost", "port": port}),
    );
    for status in [200, 404] {
        gateway.get(&format!("/status/{status}")).expect(status);
        let datagram = receive(&socket);
        assert!(!datagram.ends_with('\n'));
        let record: Value = serde_json::from_str(&datagram).unwrap();
        assert_eq!(record["response"]["status"], status);
    }
}

fn receive(socket: &UdpSocket) -> String {
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let mut datagram = vec![0; 65_536];
    let length = socket.recv(&mut datagram).unwrap();
    String::from_utf8(datagram[..length].to_vec()).unwrap()
}

#[test]
fn syslog_writes_messages_that_are_severe_enough_to_the_systems_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let (gateway, _backend) = with_backend(Setup::new().arg("--syslog-socket", path.display()));
    let config = json!({
        "facility": "local0", "log_level": "warning", "successful_severity": "info",
        "client_errors_severity": "warning", "server_errors_severity": "err",
    });
    add_plugin(&gateway, "syslog", config);
    for (status, priority) in [
        (200, None),
        (404, Some(16 * 8 + 4)),
        (503, Some(16 * 8 + 3)),
    ] {
        gateway.get(&format!("/status/{status}")).expect(status);
        let Some(priority) = priority else { continue };
        let mut message = vec![0; 65_536];
        let length = socket.recv(&mut message).unwrap();
        let message = std::str::from_utf8(&message[..length]).unwrap();
        assert!(message.starts_with(&format!("<{priority}>")), "{message}");
        let (_, text) = message.split_once(" kong: ").unwrap();
        let record: Value = serde_json::from_str(text).unwrap();
        assert_eq!(record["response"]["status"], status);
    }
}

/// An HTTP server that records are sent to.
struct HttpServer {
    address: SocketAddr,
    received: Receiver<(String, Value)>,
    /// The statuses of its next responses; then it answers 200.
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl HttpServer {
    fn start(statuses: impl IntoIterator<Item = u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let statuses = Arc::new(Mutex::new(statuses.into_iter().collect::<VecDeque<_>>()));
        let (sender, received) = channel();
        let next = Arc::clone(&statuses);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, next) = (sender.clone(), Arc::clone(&next));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read_request(&mut stream) {
                        let status = next.lock().unwrap().pop_front().unwrap_or(200);
                        let answer = format!("HTTP/1.1 {status} .\r\ncontent-length: 0\r\n\r\n");
                        let _ = stream.get_mut().write_all(answer.as_bytes());
                        let _ = sender.send(request);
                    }
                });
            }
        });
        Self {
            address,
            received,
            statuses,
        }
    }

    /// The next request: its head, and its body.
    fn next(&self) -> (String, Value) {
        self.received
            .recv_timeout(std::time::Duration::from_secs(60))
            .unwrap()
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap()))
}

#[test]
fn http_log_sends_one_object_with_the_credentials_of_the_url() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpServer::start([]);
    let config = json!({
        "http_endpoint": format!("http://user:pass@{}/logs?a=b", server.address),
        "method": "PUT", "headers": {"x-one": "1"},
    });
    add_plugin(&gateway, "http-log", config);
    gateway.get("/status/204").expect(204);
    let (head, body) = server.next();
    assert!(head.starts_with("PUT /logs?a=b HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    for header in [
        "authorization: basic dxnlcjpwyxnz\r\n",
        "content-type: application/json\r\n",
        "x-one: 1\r\n",
    ] {
        assert!(head.contains(header), "{head}");
    }
    assert!(
        head.contains(&format!("host: {}\r\n", server.address)),
        "{head}"
    );
    assert_eq!(body["response"]["status"], 204);
}

#[test]
fn http_log_sends_a_batch_as_an_array_and_again_until_it_is_accepted() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpServer::start([500, 301, 404]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 3, "max_coalescing_delay": 3600},
    });
    add_plugin(&gateway, "http-log", config);
    for status in [201, 202, 203] {
        gateway.get(&format!("/status/{status}")).expect(status);
    }
    let batches: Vec<Value> = (0..4).map(|_| server.next().1).collect();
    let statuses: Vec<u64> = batches[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["response"]["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 202, 203]);
    assert!(batches.iter().all(|batch| *batch == batches[0]));
    until("the batch", || {
        metric(
            &gateway,
            "pointsman_log_records_sent_total{plugin=\"http-log\"",
        ) == 3.0
    });
    assert!(server.statuses.lock().unwrap().is_empty());
}

#[test]
fn records_that_wait_are_sent_with_changed_settings() {
    let (gateway, _backend) = with_backend(Setup::new());
    let config = json!({
        "http_endpoint": format!("http://{}/", refusing_address()),
        "queue": {"max_retry_delay": 0.1},
    });
    let id = add_plugin(&gateway, "http-log", config);
    for status in [201, 202] {
        gateway.get(&format!("/status/{status}")).expect(status);
    }
    let server = HttpServer::start([]);
    let change = json!({"config": {"http_endpoint": format!("http://{}/", server.address)}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &change)
        .expect(200);
    for status in [201, 202] {
        assert_eq!(server.next().1["response"]["status"], status);
    }
}

#[test]
fn records_that_wait_are_sent_although_the_plugin_is_deleted() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpServer::start([]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 1000, "max_coalescing_delay": 3600},
    });
    let id = add_plugin(&gateway, "http-log", config);
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    gateway
        .admin("DELETE", &format!("/plugins/{id}"), &[])
        .expect(204);
    assert_eq!(server.next().1.as_array().unwrap().len(), 3);
}

#[test]
fn records_that_wait_are_sent_at_a_shutdown() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpServer::start([]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 1000, "max_coalescing_delay": 3600},
    });
    add_plugin(&gateway, "http-log", config);
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    gateway.terminate();
    let (status, _) = gateway.wait();
    assert!(status.success());
    assert_eq!(server.next().1.as_array().unwrap().len(), 3);
}

#[test]
fn a_full_queue_drops_its_oldest_records_counts_them_and_says_so_once() {
    let (gateway, _backend) = with_backend(Setup::new());
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = json!({
        "http_endpoint": format!("http://{}/", silent.local_addr().unwrap()),
        "timeout": 600_000, "queue": {"max_entries": 5},
    });
    let id = add_plugin(&gateway, "http-log", config);
    let series =
        |name: &str| format!("pointsman_log_records_{name}{{plugin=\"http-log\",id=\"{id}\"}}");
    gateway.get("/").expect(200);
    let held = silent.accept().unwrap();
    until("an empty queue", || {
        metric(&gateway, &series("waiting")) == 0.0
    });
    for _ in 0..12 {
        gateway.get("/").expect(200);
    }
    until("drops", || {
        metric(&gateway, &series("dropped_total")) == 7.0
    });
    assert_eq!(metric(&gateway, &series("waiting")), 5.0);
    gateway.kill_9();
    let (_, log) = gateway.wait();
    drop(held);
    assert_eq!(log.matches("queue at 80% capacity").count(), 1, "{log}");
    assert_eq!(
        log.matches("queue full, dropping old entries").count(),
        1,
        "{log}"
    );
}

/// The lines of the metrics of a request.
fn statsd_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn statsd_sends_a_datagram_for_each_metric_or_packs_them() {
    let (gateway, _backend) = with_backend(Setup::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let metrics = json!([
        {"name": "request_count", "stat_type": "counter", "sample_rate": 1},
        {"name": "status_count", "stat_type": "counter", "sample_rate": 1},
    ]);
    let config = json!({
        "host": "127.0.0.1", "port": port, "metrics": metrics,
        "allow_status_codes": ["200-299"],
    });
    let id = add_plugin(&gateway, "statsd", config);
    // Not in the range: nothing is sent for it.
    gateway.get("/status/404").expect(404);
    gateway.get("/status/201").expect(201);
    let expected = [
        "kong.service.u-service.request.count:1|c",
        "kong.service.u-service.status.201:1|c",
    ];
    assert_eq!([receive(&socket), receive(&socket)], expected);
    let packed = json!({"config": {"udp_packet_size": 512}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &packed)
        .expect(200);
    gateway.get("/status/201").expect(201);
    assert_eq!(receive(&socket).split('\n').collect::<Vec<_>>(), expected);
}

#[test]
fn statsd_sends_lines_over_tcp() {
    let (gateway, _backend) = with_backend(Setup::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let metrics = json!([
        {"name": "request_count", "stat_type": "counter", "sample_rate": 1},
        {"name": "response_size", "stat_type": "histogram"},
    ]);
    let config = json!({
        "host": "127.0.0.1", "port": port, "use_tcp": true, "metrics": metrics, "prefix": "p",
        "tag_style": "dogstatsd",
    });
    add_plugin(&gateway, "statsd", config);
    gateway.get("/").expect(200);
    let (stream, _) = listener.accept().unwrap();
    let mut received = BufReader::new(stream);
    let mut text = String::new();
    for _ in 0..2 {
        received.read_line(&mut text).unwrap();
    }
    let lines = statsd_lines(&text);
    assert!(
        lines[0].starts_with("p.service.u-service.request.count:1|c|#service:u-service,route:"),
        "{text}"
    );
    assert!(lines[0].ends_with(",status:200"), "{text}");
    assert!(
        lines[1].starts_with("p.service.u-service.response.size:"),
        "{text}"
    );
}
