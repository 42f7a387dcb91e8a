//! Who a client is: what proxies that are trusted say of it, in headers and by the PROXY protocol.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{
    Backend, Gateway, Setup, add_plugin, patch_upstream, received, until, with_backend,
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
fn nobody_is_believed_unless_it_is_trusted() {
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

    let config = json!({"minute": 1, "policy": "local", "limit_by": "ip"});
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
fn an_entry_that_is_no_address_is_refused_in_the_words_of_kong() {
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
