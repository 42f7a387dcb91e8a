//! Records of requests, as the plugin `file-log` writes them, and that plugin's files.

use serde_json::json;

use crate::harness::{
    Backend, Gateway, LogFile, Raw, RawServer, Setup, add_global_plugin, log_lines, metric,
    refusing_address, until, with_backend,
};

/// The file of a `file-log` that is for all requests.
fn file_log(gateway: &Gateway) -> LogFile {
    let file = LogFile::new();
    add_global_plugin(gateway, "file-log", json!({"path": file.path}));
    file
}

#[test]
fn a_proxied_request_is_recorded_with_its_entities() {
    let (gateway, backend) = with_backend(Setup::new());
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
    let answer = gateway.get_with("/none", &[("host", "a.test")]).expect(404);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 404);
    let length = answer.body.len().to_string();
    assert_eq!(record["response"]["headers"]["content-length"], length);
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
    let file = file_log(&gateway);
    add_global_plugin(&gateway, "request-termination", json!({"status_code": 418}));
    gateway.get("/").expect(418);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 418);
    assert_eq!(record["source"], "kong");
    assert_eq!(record["service"]["name"], "u-service");
    assert_eq!(record["route"].get("methods"), None, "it has no value");
    assert_eq!(record["tries"], json!([]));
    assert_eq!(backend.served(), 0);
    // Where it would have been sent; as in Kong, the query is not there yet.
    let service = json!({ "path": "/base" });
    gateway
        .admin_json("PATCH", "/services/u-service", &service)
        .expect(200);
    gateway.get("/a%20b?c=d").expect(418);
    assert_eq!(file.records(2)[1]["upstream_uri"], "/base/a%20b");
    let change = json!({ "replace": { "uri": "/new" } });
    add_global_plugin(&gateway, "request-transformer", change);
    gateway.get("/a?c=d").expect(418);
    assert_eq!(file.records(3)[2]["upstream_uri"], "/new");
}

#[test]
fn a_status_that_ends_no_request_is_not_sent() {
    let (gateway, _backend) = with_backend(Setup::new());
    let config = json!({"status_code": 103, "message": "here"});
    add_global_plugin(&gateway, "request-termination", config);
    let answer = gateway.get("/").expect(500);
    assert_eq!(answer.json()["message"], "here");
    assert!(!answer.header("x-kong-request-id").is_empty());
}

#[test]
fn the_id_of_correlation_id_is_recorded() {
    let (gateway, _backend) = with_backend(Setup::new());
    let file = file_log(&gateway);
    add_global_plugin(&gateway, "correlation-id", json!({"header_name": "x-id"}));
    gateway.get_with("/", &[("x-id", "mine")]).expect(200);
    assert_eq!(file.records(1)[0]["correlation_id"], "mine");
}

#[test]
fn failed_tries_are_recorded_with_their_state() {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 100), (backend.address, 100)]);
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
    gateway.get("/").expect(503);
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 503);
    assert_eq!(record["latencies"]["proxy"], -1);
    assert_eq!(record["source"], "kong");
}

#[test]
fn a_client_that_disconnects_before_the_response_is_recorded_with_499() {
    let (gateway, backend) = with_backend(Setup::new().arg("--client-half-close-timeout", 1));
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
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
    let file = file_log(&gateway);
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
    let id = add_global_plugin(&gateway, "file-log", json!({"path": file.path}));
    gateway.get("/").expect(200);
    file.records(1);
    let moved = file.path.with_extension("1");
    std::fs::rename(&file.path, &moved).unwrap();
    gateway.get("/").expect(200);
    until("the second record", || log_lines(&moved).len() == 2);
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
    let id = add_global_plugin(&gateway, "file-log", json!({"path": "/dev/full"}));
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
