//! Services whose protocol is `https`, with real servers over TLS.

use serde_json::json;

use crate::harness::{Backend, Gateway, Raw, Setup, has_health, patch_upstream, until};

/// A gateway that trusts this authority, with an upstream `u` that is reached over https.
fn gateway(authority: &str, backend: &Backend) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let gateway = Setup::new()
        .arg("--workers", 1)
        .env("SSL_CERT_FILE", file.display())
        .start();
    gateway.balanced(&[(backend.address, 100)]);
    set(&gateway, &[("protocol", "https")]);
    (gateway, folder)
}

fn set(gateway: &Gateway, fields: &[(&str, &str)]) {
    gateway
        .admin("PATCH", "/services/u-service", fields)
        .expect(200);
}

#[test]
fn requests_and_bodies_of_any_size_are_sent_over_tls() {
    let (backend, authority) = Backend::start_tls("b", "b.example");
    let (gateway, _folder) = gateway(&authority, &backend);
    // As in Kong, certificates are not verified unless configured.
    let echo = gateway.get("/anything").expect(200).json();
    let port = backend.address.port();
    assert_eq!(echo["headers"]["host"], format!("127.0.0.1:{port}"));
    assert_eq!(echo["headers"]["x-forwarded-proto"], "http");
    let body = gateway.get("/bytes/5000000").expect(200).body;
    assert!(body.len() == 5_000_000 && body.iter().all(|byte| *byte == b'x'));
    let upload = ("application/octet-stream", vec![b'y'; 5_000_000]);
    let echo = gateway.send(gateway.proxy, "POST", "/", &[], Some(upload));
    assert_eq!(echo.expect(200).json()["length"], 5_000_000);
    // All requests used one connection.
    assert_eq!(backend.connections(), 1);

    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    assert!(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 101"));
    raw.send(b"to and fro\n");
    assert_eq!(raw.read_until("\n"), "to and fro\n");
}

#[test]
fn certificates_are_verified_if_configured() {
    let (backend, authority) = Backend::start_tls("b", "b.example");
    let (gateway, _folder) = gateway(&authority, &backend);
    set(&gateway, &[("tls_verify", "true")]);
    // The certificate is not for an address.
    gateway.get("/").expect(502);
    let host = |host: &str| {
        gateway
            .admin_json("PATCH", "/upstreams/u", &json!({"host_header": host}))
            .expect(200);
    };
    host("b.example");
    gateway.get("/").expect(200);
    host("c.example");
    gateway.get("/").expect(502);
    // A connection that was made without verification is not used where verification is required.
    set(&gateway, &[("tls_verify", "false")]);
    gateway.get("/").expect(200);
    set(&gateway, &[("tls_verify", "true")]);
    gateway.get("/").expect(502);

    let (other, _) = Backend::start_tls("other", "b.example");
    host("b.example");
    gateway.get("/").expect(200);
    let target = format!("/upstreams/u/targets/{}", backend.address);
    gateway.add_target("u", other.address, 100);
    gateway.admin("DELETE", &target, &[]).expect(204);
    gateway.get("/").expect(502);
}

#[test]
fn tls_to_a_plain_server_and_plain_to_a_tls_server_are_502() {
    let (secure, authority) = Backend::start_tls("secure", "b.example");
    let (gateway, _folder) = gateway(&authority, &secure);
    gateway.get("/").expect(200);
    set(&gateway, &[("protocol", "http")]);
    gateway.get("/").expect(502);
    let plain = Backend::start("plain");
    gateway.balanced_as("p", "/p", &[(plain.address, 100)]);
    gateway.get("/p").expect(200);
    gateway
        .admin("PATCH", "/services/p-service", &[("protocol", "https")])
        .expect(200);
    gateway.get("/p").expect(502);
}

#[test]
fn an_upstream_may_set_its_authorities_and_server_name() {
    let (backend, authority) = Backend::start_tls("b", "b.example");
    let (_, other) = Backend::start_tls("other", "b.example");
    // The gateway trusts another authority only.
    let (gateway, _folder) = gateway(&other, &backend);
    let tls = |tls: serde_json::Value| {
        let settings = json!({"pointsman": {"tls": tls}});
        gateway.admin_json("PATCH", "/upstreams/u", &settings)
    };
    // The upstream's setting wins over that of the service, which does not verify.
    tls(json!({"verify": true, "server_name": "b.example"})).expect(200);
    gateway.get("/").expect(502);
    tls(json!({"ca_certificates": [other, authority]})).expect(200);
    gateway.get("/").expect(200);
    // The server name is used in the handshake only, not as the host.
    let port = backend.address.port();
    let echo = gateway.get("/").json();
    assert_eq!(echo["headers"]["host"], format!("127.0.0.1:{port}"));
    tls(json!({"server_name": "c.example"})).expect(200);
    gateway.get("/").expect(502);
    // Pooled connections that were made with other settings are not used.
    tls(json!({"server_name": "b.example", "ca_certificates": [other]})).expect(200);
    gateway.get("/").expect(502);
    tls(json!({"verify": false})).expect(200);
    gateway.get("/").expect(200);

    // Probes trust the same authorities as requests.
    let active = json!({
        "type": "https",
        "healthy": {"interval": 0.05, "successes": 1},
        "unhealthy": {"interval": 0.05, "tcp_failures": 1},
    });
    patch_upstream(&gateway, &json!({"healthchecks": {"active": active}}));
    until("the probe rejects the certificate", || {
        has_health(&gateway, backend.address, "UNHEALTHY")
    });
    tls(json!({"ca_certificates": [authority]})).expect(200);
    until("the probe accepts the certificate", || {
        has_health(&gateway, backend.address, "HEALTHY")
    });

    let cut = &authority[..authority.len() / 2];
    for (wrong, words) in [(cut, "PEM"), ("text", "PEM"), ("", "length")] {
        let refused = tls(json!({"ca_certificates": [wrong]})).expect(400);
        assert!(refused.text().contains(words), "{}", refused.text());
    }
    let refused = tls(json!({"ca_certificates": []})).expect(400);
    assert!(
        refused.text().contains("ca_certificates"),
        "{}",
        refused.text()
    );
}
