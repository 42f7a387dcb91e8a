//! The plugins that send records to a server, each with a real one.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;

use crate::harness::{
    HttpReceiver, Setup, add_global_plugin, metric, refusing_address, tls_acceptor, until,
    with_backend,
};

#[test]
fn tcp_log_sends_lines_over_one_connection() {
    let (gateway, _backend) = with_backend(Setup::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    add_global_plugin(
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
    add_global_plugin(&gateway, "tcp-log", config);
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
    add_global_plugin(
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
    add_global_plugin(&gateway, "syslog", config);
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

/// The next request with records: its head, and its body.
fn next(server: &HttpReceiver) -> (String, Value) {
    let (head, body) = server.next();
    (head, serde_json::from_slice(&body).unwrap())
}

#[test]
fn http_log_sends_one_object_with_the_credentials_of_the_url() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpReceiver::start([]);
    let config = json!({
        "http_endpoint": format!("http://user:pass@{}/logs?a=b", server.address),
        "method": "PUT", "headers": {"x-one": "1"},
    });
    add_global_plugin(&gateway, "http-log", config);
    gateway.get("/status/204").expect(204);
    let (head, body) = next(&server);
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
    let server = HttpReceiver::start([500, 301, 404]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 3, "max_coalescing_delay": 3600},
    });
    add_global_plugin(&gateway, "http-log", config);
    for status in [201, 202, 203] {
        gateway.get(&format!("/status/{status}")).expect(status);
    }
    let batches: Vec<Value> = (0..4).map(|_| next(&server).1).collect();
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
    let id = add_global_plugin(&gateway, "http-log", config);
    for status in [201, 202] {
        gateway.get(&format!("/status/{status}")).expect(status);
    }
    let server = HttpReceiver::start([]);
    let change = json!({"config": {"http_endpoint": format!("http://{}/", server.address)}});
    gateway
        .admin_json("PATCH", &format!("/plugins/{id}"), &change)
        .expect(200);
    for status in [201, 202] {
        assert_eq!(next(&server).1["response"]["status"], status);
    }
}

#[test]
fn records_that_wait_are_sent_although_the_plugin_is_deleted() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpReceiver::start([]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 1000, "max_coalescing_delay": 3600},
    });
    let id = add_global_plugin(&gateway, "http-log", config);
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    gateway
        .admin("DELETE", &format!("/plugins/{id}"), &[])
        .expect(204);
    assert_eq!(next(&server).1.as_array().unwrap().len(), 3);
}

#[test]
fn records_that_wait_are_sent_at_a_shutdown() {
    let (gateway, _backend) = with_backend(Setup::new());
    let server = HttpReceiver::start([]);
    let config = json!({
        "http_endpoint": format!("http://{}/", server.address),
        "queue": {"max_batch_size": 1000, "max_coalescing_delay": 3600},
    });
    add_global_plugin(&gateway, "http-log", config);
    for _ in 0..3 {
        gateway.get("/").expect(200);
    }
    gateway.terminate();
    let (status, _) = gateway.wait();
    assert!(status.success());
    assert_eq!(next(&server).1.as_array().unwrap().len(), 3);
}

#[test]
fn a_server_that_cannot_be_reached_does_not_hold_up_a_shutdown() {
    let (gateway, _backend) = with_backend(Setup::new().arg("--shutdown-timeout", "5"));
    let config = json!({
        "http_endpoint": format!("http://{}/", refusing_address()),
        "queue": {"max_retry_time": 600, "initial_retry_delay": 60, "max_retry_delay": 60},
    });
    add_global_plugin(&gateway, "http-log", config);
    gateway.get("/").expect(200);
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success());
    assert!(log.contains("records cannot be sent"), "{log}");
    assert!(!log.contains("still waited to be logged"), "{log}");
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
    let id = add_global_plugin(&gateway, "http-log", config);
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
    let id = add_global_plugin(&gateway, "statsd", config);
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
    add_global_plugin(&gateway, "statsd", config);
    gateway.get("/").expect(200);
    let (stream, _) = listener.accept().unwrap();
    let mut received = BufReader::new(stream);
    let mut text = String::new();
    for _ in 0..2 {
        received.read_line(&mut text).unwrap();
    }
    let lines = statsd_lines(&text);
    assert!(
        lines[0].starts_with("p.request.count:1|c|#service:u-service,route:"),
        "{text}"
    );
    assert!(lines[0].ends_with(",status:200"), "{text}");
    assert!(lines[1].starts_with("p.response.size:"), "{text}");
}
