//! Who a client is: what proxies that are trusted say of it, in headers and by the PROXY protocol.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Raw, Setup, TlsClient, active_connections, add_plugin, exchange, metric,
    patch_upstream, received, until, with_backend,
};

/// A gateway that believes its peers on this machine, and what else is set.
fn trusting() -> Setup {
    Setup::new().arg("--trusted-ips", "127.0.0.0/8, 10.0.0.0/8")
}

/// The headers that the backend gets for a request with these headers.
fn headers(gateway: &Gateway, sent: &[(&str, &str)]) -> Value {
    received(gateway.get_with("/", sent))
}

/// The only record that `file-log` has written.
fn record(path: &Path) -> Value {
    let lines = || std::fs::read_to_string(path).unwrap_or_default();
    until("a record", || lines().ends_with('\n'));
    serde_json::from_str(lines().trim()).unwrap()
}

#[test]
fn a_redirect_has_the_host_that_a_trusted_peer_tells() {
    for (setup, host) in [(trusting(), "a.test:8443"), (Setup::new(), "127.0.0.1")] {
        let (gateway, _backend) = with_backend(setup);
        let route = json!({
            "paths": ["/moved"], "protocols": ["https"], "https_redirect_status_code": 301,
        });
        let routes = "/services/u-service/routes";
        gateway.admin_json("POST", routes, &route).expect(201);
        let told = [("x-forwarded-host", "a.test:8443")];
        let moved = gateway.get_with("/moved?a=b", &told).expect(301);
        assert_eq!(
            moved.header("location"),
            format!("https://{host}/moved?a=b")
        );
        if host != "127.0.0.1" {
            let wrong = [("x-forwarded-host", "a.test/evil, b")];
            let moved = gateway.get_with("/moved", &wrong).expect(301);
            assert_eq!(moved.header("location"), "https://127.0.0.1/moved");
        }
    }
}

#[test]
fn headers_of_untrusted_peers_are_ignored() {
    let forged = [
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-for", "192.0.2.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "forged"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-path", "/forged"),
        ("x-forwarded-prefix", "/forged"),
    ];
    for setup in [
        Setup::new(),
        Setup::new().arg("--trusted-ips", "10.0.0.0/8,unix:"),
    ] {
        let (gateway, _backend) = with_backend(setup);
        let headers = headers(&gateway, &forged);
        assert_eq!(headers["x-real-ip"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.8, 127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-path"], "/");
        assert_eq!(
            headers["x-forwarded-port"],
            gateway.proxy.port().to_string()
        );
        assert_ne!(headers["x-forwarded-host"], "forged");
        assert!(headers.get("x-forwarded-prefix").is_none());
    }
}

#[test]
fn a_trusted_peer_names_the_client_and_describes_its_request() {
    let (gateway, _backend) = with_backend(trusting());
    let sent = [
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-path", "/shop/x"),
        ("x-forwarded-prefix", "/shop"),
    ];
    let got = headers(&gateway, &sent);
    for (name, value) in sent {
        assert_eq!(got[name], value, "{name}");
    }
    assert_eq!(got["x-forwarded-for"], "192.0.2.7");
    let listed = headers(&gateway, &[("x-forwarded-for", "192.0.2.7")]);
    assert_eq!(listed["x-forwarded-for"], "192.0.2.7, 127.0.0.1");
    assert_eq!(listed["x-real-ip"], "127.0.0.1");
    // Each request of a connection may be of another client, or of none that is named.
    for sent in ["192.0.2.9", "no address", "2001:db8::1"] {
        let got = headers(&gateway, &[("x-real-ip", sent)]);
        let expected = if sent == "no address" {
            "127.0.0.1"
        } else {
            sent
        };
        assert_eq!(got["x-real-ip"], expected);
    }
}

#[test]
fn a_list_is_read_from_its_end_as_far_as_its_proxies_are_trusted() {
    let list = [("x-forwarded-for", "198.51.100.1, 192.0.2.7, 10.0.0.2")];
    for (recursive, client) in [("off", "10.0.0.2"), ("on", "192.0.2.7")] {
        let setup = trusting()
            .arg("--real-ip-header", "X-Forwarded-For")
            .arg("--real-ip-recursive", recursive);
        let (gateway, _backend) = with_backend(setup);
        let got = headers(&gateway, &list);
        assert_eq!(got["x-real-ip"], client, "{recursive}");
        assert_eq!(got["x-forwarded-for"], format!("{}, 127.0.0.1", list[0].1));
    }
}

#[test]
fn policies_logs_and_hashing_know_the_client_that_is_named() {
    let (gateway, _backend) = with_backend(trusting());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.log");
    add_plugin(
        &gateway,
        "ip-restriction",
        json!({"deny": ["192.0.2.0/24"]}),
        json!({}),
    );
    let log = add_plugin(&gateway, "file-log", json!({"path": path}), json!({}));
    let denied = gateway.get_with("/", &[("x-real-ip", "192.0.2.7")]);
    let said = "IP address not allowed: 192.0.2.7";
    assert_eq!(denied.expect(403).json()["message"], said);
    assert_eq!(record(&path)["client_ip"], "192.0.2.7");
    gateway.admin("DELETE", &log, &[]);

    let config = json!({"day": 1, "policy": "local", "limit_by": "ip"});
    add_plugin(&gateway, "rate-limiting", config, json!({}));
    let status = |client| gateway.get_with("/", &[("x-real-ip", client)]).status;
    assert_eq!(status("198.51.100.1"), 200);
    assert_eq!(status("198.51.100.1"), 429);
    assert_eq!(status("198.51.100.2"), 200);
}

#[test]
fn clients_that_are_named_are_spread_by_their_addresses() {
    let gateway = trusting().start();
    let backends = ["a", "b"].map(Backend::start);
    gateway.balanced(&backends.each_ref().map(|backend| (backend.address, 100)));
    patch_upstream(&gateway, &json!({"hash_on": "ip"}));
    let endpoint_of = |client: u8| {
        let client = format!("192.0.2.{client}");
        let reply = gateway.get_with("/", &[("x-real-ip", &client)]);
        reply.expect(200).header("x-backend").to_owned()
    };
    let first: Vec<String> = (0..32).map(endpoint_of).collect();
    let again: Vec<String> = (0..32).map(endpoint_of).collect();
    assert_eq!(first, again);
    assert!(first.iter().any(|name| *name != first[0]));
}

#[test]
fn a_route_for_https_takes_the_word_of_a_trusted_peer() {
    for (setup, expected) in [(trusting(), 200), (Setup::new(), 426)] {
        let (gateway, _backend) = with_backend(setup);
        let routes = gateway.admin("GET", "/routes", &[]).expect(200).json();
        let id = routes["data"][0]["id"].as_str().unwrap().to_owned();
        let https = json!({"protocols": ["https"]});
        gateway
            .admin_json("PATCH", &format!("/routes/{id}"), &https)
            .expect(200);
        gateway.get("/").expect(426);
        let sent = [("x-forwarded-proto", "https")];
        assert_eq!(gateway.get_with("/", &sent).status, expected);
    }
}

#[test]
fn an_invalid_address_is_refused_with_kongs_message() {
    let (status, said) = Setup::new()
        .arg("--trusted-ips", "10.0.0.0/8, localhost")
        .arg("--real-ip-header", "not a name")
        .arg("--real-ip-recursive", "yes")
        .fail();
    assert!(!status.success());
    for told in [
        "trusted_ips = \"localhost\": expected a comma separated list in the form of IPv4 or IPv6 \
         address or CIDR block or 'unix:'",
        "real_ip_header = \"not a name\": expected the name of a header, or proxy_protocol",
        "real_ip_recursive = \"yes\": expected on or off",
    ] {
        assert!(said.contains(told), "{told} in {said}");
    }
}

const HEADER: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";

/// A gateway whose clients come through a proxy that speaks the PROXY protocol.
fn behind_a_proxy() -> Setup {
    let listens = "127.0.0.1:0 proxy_protocol, 127.0.0.1:0 ssl proxy_protocol, 127.0.0.1:0";
    Setup::new().arg("--proxy-listen", listens)
}

/// The response to a request that follows these bytes on its connection.
fn after(to: SocketAddr, first: &[u8], headers: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let sent = [first, request.as_bytes()].concat();
    Raw::connect(to).send(&sent).read_to_end()
}

/// The header in version 2, with the same addresses, and with so many bytes of extensions.
fn header_v2(extensions: u16) -> Vec<u8> {
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    let length = (12 + extensions).to_be_bytes();
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
    let extensions = vec![0x20; extensions.into()];
    [&start[..], &length, &addresses, &extensions].concat()
}

#[test]
fn the_proxy_protocol_names_the_client_of_a_connection() {
    let setup = behind_a_proxy()
        .arg("--trusted-ips", "127.0.0.1")
        .arg("--real-ip-header", "proxy_protocol");
    let (gateway, _backend) = with_backend(setup);
    let (plain, tls) = (gateway.proxy, gateway.listener("proxy", 1));
    for header in [
        HEADER.as_bytes(),
        &header_v2(0),
        &header_v2(30),
        &header_v2(3000),
    ] {
        let response = after(plain, header, "x-real-ip: 198.51.100.1\r\n");
        assert!(
            response.contains("\"x-real-ip\":\"192.0.2.7\""),
            "{response}"
        );
        let over_tls = TlsClient::new().connect_after(tls, header, "");
        let (_, body) = over_tls.unwrap().get("/", "x");
        let echo: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(echo["headers"]["x-real-ip"], "192.0.2.7");
    }
    // The list ends with the proxy that the connection comes from.
    let response = after(
        plain,
        HEADER.as_bytes(),
        "x-forwarded-for: 198.51.100.1\r\n",
    );
    let list = "\"x-forwarded-for\":\"198.51.100.1, 127.0.0.1\"";
    assert!(response.contains(list), "{response}");
    let response = after(plain, b"PROXY UNKNOWN\r\n", "");
    assert!(
        response.contains("\"x-real-ip\":\"127.0.0.1\""),
        "{response}"
    );
}

#[test]
fn the_proxy_protocol_names_no_client_unless_its_proxy_is_trusted_and_asked() {
    let both = |trusted, header| {
        let setup = behind_a_proxy().arg("--trusted-ips", trusted);
        setup.arg("--real-ip-header", header)
    };
    for setup in [
        behind_a_proxy(),
        both("10.0.0.0/8", "proxy_protocol"),
        both("127.0.0.1", "X-Real-IP"),
    ] {
        let (gateway, _backend) = with_backend(setup);
        let response = after(gateway.proxy, HEADER.as_bytes(), "");
        assert!(
            response.contains("\"x-real-ip\":\"127.0.0.1\""),
            "{response}"
        );
    }
}

#[test]
fn a_connection_without_the_header_is_closed_and_counted() {
    let (gateway, backend) = with_backend(behind_a_proxy());
    let failures = || {
        metric(
            &gateway,
            "pointsman_proxy_protocol_failures_total{listener=\"proxy\"}",
        )
    };
    assert!(after(gateway.proxy, b"", "").is_empty());
    assert!(after(gateway.proxy, b"PROXY TCP4 192.0.2.7 x\r\n", "").is_empty());
    assert!(after(gateway.proxy, &[b'P'; 600], "").is_empty());
    let tls = gateway.listener("proxy", 1);
    assert!(TlsClient::new().connect(tls, "").is_err());
    assert_eq!(failures(), 4.0);
    assert_eq!(backend.served(), 0);
    // Addresses without the flag are served without it, and know no such header.
    let without = gateway.listener("proxy", 2);
    assert!(after(without, b"", "").starts_with("HTTP/1.1 200"));
    assert!(after(without, HEADER.as_bytes(), "").starts_with("HTTP/1.1 400"));
    assert_eq!(failures(), 4.0);
    until("no connection", || active_connections(&gateway) == 0.0);
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(!log.contains("PROXY"), "{log}");
}

#[test]
fn a_missing_proxy_protocol_header_times_out_like_a_request_head() {
    let setup = behind_a_proxy().arg("--client-header-timeout", "1");
    let (gateway, _backend) = with_backend(setup);
    let mut slow = Raw::connect(gateway.proxy);
    assert!(slow.send(b"PROXY TCP4").is_closed());
    let failures = metric(
        &gateway,
        "pointsman_proxy_protocol_failures_total{listener=\"proxy\"}",
    );
    assert_eq!(failures, 1.0);
}

#[test]
fn the_header_may_arrive_in_pieces() {
    let (gateway, _backend) = with_backend(behind_a_proxy());
    let mut raw = Raw::connect(gateway.proxy);
    for byte in HEADER.as_bytes() {
        raw.send(&[*byte]);
    }
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(raw.send(request).read_to_end().starts_with("HTTP/1.1 200"));
}

#[test]
fn the_admin_api_and_the_status_listener_take_the_header_too() {
    let gateway = Setup::new()
        .arg("--admin-listen", "127.0.0.1:0, 127.0.0.1:0 proxy_protocol")
        .arg("--status-listen", "127.0.0.1:0 proxy_protocol")
        .start();
    let get = |to, header: &str| {
        let request = "GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        exchange(to, &format!("{header}{request}"))
    };
    for (of, number) in [("admin", 1), ("status", 0)] {
        let to = gateway.listener(of, number);
        assert!(get(to, HEADER).starts_with("HTTP/1.1 200"));
        assert!(get(to, "").is_empty());
        let failures = format!("pointsman_proxy_protocol_failures_total{{listener=\"{of}\"}}");
        assert_eq!(metric(&gateway, &failures), 1.0, "{of}");
    }
}
