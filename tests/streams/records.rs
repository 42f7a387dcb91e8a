//! What logs and Prometheus are told of streams.

use serde_json::json;

use super::{ask, datagrams, echo, echo_datagrams, listening, route, route_all, say, sessions};
use crate::harness::{LogFile, Raw, TlsClient, until};

#[test]
fn a_stream_is_logged_when_it_has_ended() {
    let gateway = listening("127.0.0.1:0, 127.0.0.1:0 udp, 127.0.0.1:0 ssl").start();
    let (server, over_udp) = (echo("a"), echo_datagrams("u"));
    let file = LogFile::new();
    let plugin = json!({
        "name": "file-log", "config": { "path": file.path }, "protocols": ["tcp", "tls", "udp"],
    });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    for (name, protocol, port, server) in [
        ("tcp", "tcp", 0, server.address),
        ("udp", "udp", 1, over_udp),
        ("tls", "tls", 2, server.address),
    ] {
        let port = gateway.listener("stream", port).port();
        // A session of datagrams ends when it was idle for so long; connections end by themselves.
        let (protocol_of_service, read_timeout) = match protocol {
            "udp" => ("udp", 200),
            _ => ("tcp", 60_000),
        };
        route(
            &gateway,
            name,
            json!({
                "protocol": protocol_of_service, "host": "127.0.0.1", "port": server.port(),
                "read_timeout": read_timeout,
            }),
            json!({ "protocols": [protocol], "destinations": [{ "port": port }] }),
        );
    }
    let to = gateway.listener("stream", 0);
    let mut raw = Raw::connect(to);
    assert_eq!(say(&mut raw, "one"), "a: one\n");
    assert_eq!(raw.half_close().read_to_end(), "a: bye");
    let record = &file.records(1)[0];
    let session = json!({
        "received": 4, "sent": 13, "status": 200, "server_port": to.port(),
    });
    assert_eq!(record["session"], session);
    assert_eq!(record["upstream"], json!({ "received": 13, "sent": 4 }));
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["source"], "upstream");
    assert_eq!(record["route"]["name"], "tcp");
    assert_eq!(record["service"]["name"], "tcp");
    assert_eq!(record["tries"][0]["port"], server.address.port());
    assert!(record["latencies"]["session"].as_i64() >= record["latencies"]["kong"].as_i64());
    let client = datagrams(gateway.listener("stream", 1));
    assert_eq!(ask(&client, "xy"), "u: xy");
    let record = &file.records(2)[1];
    assert_eq!(record["session"]["received"], 2);
    assert_eq!(record["session"]["sent"], 5);
    assert_eq!(record["route"]["name"], "udp");
    let to = gateway.listener("stream", 2);
    let mut client = TlsClient::new().connect(to, "a.example").unwrap();
    assert_eq!(client.send(b"x\n").read_until("\n"), "a: x\n");
    drop(client);
    let tls = &file.records(3)[2]["session"]["tls"];
    assert_eq!(tls["version"], "TLSv1.3");
    assert!(tls["cipher"].as_str().unwrap().starts_with("TLS_"), "{tls}");
    assert_eq!(tls["client_verify"], "NONE");
    // A stream without a route, and one that a policy refuses, are logged as well.
    gateway.admin("DELETE", "/routes/tls", &[]).expect(204);
    assert!(TlsClient::new().connect(to, "a.example").is_err());
    let record = &file.records(4)[3];
    assert_eq!(record["session"]["status"], 500);
    assert_eq!(record.get("route"), None);
    assert_eq!(record["source"], "kong");
    let deny = json!({ "name": "ip-restriction", "config": { "deny": ["127.0.0.1"] } });
    gateway
        .admin_json("POST", "/routes/tcp/plugins", &deny)
        .expect(201);
    assert!(Raw::connect(gateway.listener("stream", 0)).is_closed());
    assert_eq!(file.records(5)[4]["session"]["status"], 403);
}

#[test]
fn prometheus_counts_streams_under_kongs_names() {
    let gateway = listening("127.0.0.1:0").start();
    let server = echo("a");
    route_all(&gateway, &["tcp"], "tcp", server.address);
    let plugin = json!({
        "name": "prometheus", "protocols": ["tcp"],
        "config": {
            "status_code_metrics": true, "bandwidth_metrics": true, "latency_metrics": true,
        },
    });
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    let mut raw = Raw::connect(gateway.listener("stream", 0));
    assert_eq!(say(&mut raw, "one"), "a: one\n");
    assert_eq!(raw.half_close().read_to_end(), "a: bye");
    until("it is counted", || sessions(&gateway, 200) == 1.0);
    let page = gateway.admin("GET", "/metrics", &[]).expect(200).text();
    for line in [
        r#"kong_stream_sessions_total{service="s",route="s",code="200",source="service",workspace="default"} 1"#,
        r#"kong_bandwidth_bytes{service="s",route="s",direction="ingress",workspace="default"} 4"#,
        r#"kong_bandwidth_bytes{service="s",route="s",direction="egress",workspace="default"} 13"#,
        r#"kong_session_duration_ms_count{service="s",route="s",workspace="default"} 1"#,
        r#"kong_kong_latency_ms_count{service="s",route="s",workspace="default"} 1"#,
    ] {
        assert!(
            page.lines().any(|of_page| of_page == line),
            "{line}\n{page}"
        );
    }
    assert!(!page.contains("kong_http_requests_total"));
}
