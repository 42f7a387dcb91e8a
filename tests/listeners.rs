//! Where the gateway listens: lists of addresses with flags, Unix sockets, and `off`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::json;

use crate::harness::{Backend, Gateway, Setup, TlsClient, with_backend};

/// Sends a request over a Unix socket, and returns the whole response.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn every_address_of_a_list_is_served() {
    let (gateway, _backend) = with_backend(
        Setup::new()
            .arg(
                "--proxy-listen",
                "127.0.0.1:0, 127.0.0.2:0 backlog=7, [::1]:0",
            )
            .arg("--admin-listen", "127.0.0.1:0,127.0.0.2:0"),
    );
    for number in 0..3 {
        let address = gateway.listener("proxy", number);
        let echo = gateway.send(address, "GET", "/x", &[], None);
        let echo = echo.expect(200).json();
        let port = address.port().to_string();
        assert_eq!(echo["headers"]["x-forwarded-port"], port);
    }
    let second = gateway.listener("admin", 1);
    gateway
        .send(second, "GET", "/services", &[], None)
        .expect(200);
    assert_eq!(gateway.listener("proxy", 0), gateway.proxy);
}

#[test]
fn the_admin_api_shows_the_addresses_with_their_flags() {
    let proxy = "127.0.0.1:0 reuseport http2 backlog=16384 so_keepalive=1m::";
    let gateway = Setup::new().arg("--proxy-listen", proxy).start();
    let shown = gateway.admin("GET", "/", &[]).expect(200).json();
    let shown = &shown["configuration"];
    let address = gateway.proxy;
    assert_eq!(
        shown["proxy_listen"],
        json!([format!(
            "{address} http2 reuseport backlog=16384 so_keepalive=60s::"
        )])
    );
    let listener = &shown["proxy_listeners"][0];
    let flags = "reuseport backlog=16384 so_keepalive=60s::";
    assert_eq!(listener["listener"], format!("{address} {flags}"));
    assert_eq!(listener["ip"], "127.0.0.1");
    assert_eq!(listener["port"], address.port());
    for set in ["http2", "reuseport", "backlog=16384", "so_keepalive=60s::"] {
        assert_eq!(listener[set], true, "{set}");
    }
    for unset in ["ssl", "proxy_protocol", "ipv6only=on", "so_keepalive=on"] {
        assert_eq!(listener[unset], false, "{unset}");
    }
    assert_eq!(shown["admin_listeners"][0]["backlog=%d+"], false);
    assert_eq!(shown["proxy_ssl_enabled"], false);
}

#[test]
fn ipv4_and_ipv6_may_have_the_same_port() {
    let first = Gateway::start();
    let port = first.proxy.port();
    drop(first);
    let both = format!("0.0.0.0:{port}, [::]:{port}");
    let (gateway, _backend) = with_backend(Setup::new().arg("--proxy-listen", both));
    for to in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let to = to.parse().unwrap();
        gateway.send(to, "GET", "/", &[], None).expect(200);
    }
}

#[test]
fn unix_sockets_are_served_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = folder.path().join("proxy.sock");
    let admin = folder.path().join("admin.sock");
    // A process that was killed has left its socket.
    drop(std::os::unix::net::UnixListener::bind(&proxy).unwrap());
    let gateway = Setup::new()
        .arg(
            "--proxy-listen",
            format!("unix:{}, 127.0.0.1:0", proxy.display()),
        )
        .arg(
            "--admin-listen",
            format!("127.0.0.1:0, unix:{}", admin.display()),
        )
        .start();
    let backend = Backend::start("b");
    gateway.balanced(&[(backend.address, 100)]);
    let response = get(&proxy, "/x");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    for header in [
        "\"x-forwarded-for\":\"127.0.0.1\"",
        "\"x-forwarded-port\":\"80\"",
    ] {
        assert!(response.contains(header), "{header} in {response}");
    }
    assert!(get(&admin, "/status").starts_with("HTTP/1.1 200"));
    let (_, said) = Setup::new()
        .arg("--proxy-listen", format!("unix:{}", proxy.display()))
        .fail();
    assert!(said.contains("cannot listen on unix:"), "{said}");

    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(!proxy.exists() && !admin.exists());
}

#[test]
fn a_list_may_be_off() {
    let gateway = Setup::new().arg("--proxy-listen", "off").start();
    let shown = gateway.admin("GET", "/", &[]).expect(200).json();
    let shown = &shown["configuration"];
    assert_eq!(shown["proxy_listen"], json!(["off"]));
    assert_eq!(shown["proxy_listeners"], json!({}));

    let gateway = Setup::new().arg("--admin-listen", "off").start();
    gateway.get("/").expect(404);
    gateway.terminate();
    assert!(gateway.wait().0.success());
}

#[test]
fn an_entry_that_is_wrong_is_refused_in_the_words_of_kong() {
    let (status, said) = Setup::new()
        .arg("--proxy-listen", "127.0.0.1:0 reuseprot")
        .arg("--admin-listen", "127.0.0.1")
        .fail();
    assert!(!status.success());
    for told in [
        "proxy_listen = \"127.0.0.1:0 reuseprot\": \"reuseprot\" is not a flag; must be of form: \
         [off] | <ip>:<port> [ssl] [http2] [proxy_protocol]",
        "admin_listen = \"127.0.0.1\": \"127.0.0.1\" does not end in a port; must be of form: ",
    ] {
        assert!(said.contains(told), "{told} in {said}");
    }
}

#[test]
fn the_status_listener_tells_the_state_and_changes_nothing_else() {
    let gateway = Setup::new()
        .arg("--status-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .start();
    let status = gateway.listener("status", 0);
    let get = |path| {
        let host = [("host", "prometheus.example")];
        gateway.send(status, "GET", path, &host, None)
    };
    assert_eq!(
        get("/status").expect(200).json()["database"]["reachable"],
        true
    );
    assert!(
        get("/metrics")
            .expect(200)
            .text()
            .contains("kong_node_info")
    );
    let dns = get("/status/dns").expect(501).json();
    assert_eq!(dns["message"], "not implemented with the legacy DNS client");
    let absent = get("/services").expect(404).json();
    assert_eq!(absent, json!({"message": "Not found"}));
    let over_tls = TlsClient::new().connect(gateway.listener("status", 1), "");
    let (head, _) = over_tls.unwrap().get("/status", "localhost");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");

    assert_eq!(
        get("/status/ready").expect(200).json(),
        json!({"message": "ready"})
    );
    let post = |content_type, body: &str| {
        let body = Some((content_type, body.as_bytes().to_vec()));
        gateway.send(status, "POST", "/status/ready", &[], body)
    };
    post("application/x-www-form-urlencoded", "status=ready").expect(400);
    post("application/x-www-form-urlencoded", "status=draining").expect(204);
    post("application/json", "{\"status\":\"draining\"}").expect(204);
    let draining = get("/status/ready").expect(503).json();
    assert_eq!(draining, json!({"message": "draining"}));
    gateway.admin("GET", "/status/ready", &[]).expect(503);
    // Requests are served all the same.
    gateway.get("/").expect(404);
    let shown = gateway.admin("GET", "/", &[]).json();
    assert_eq!(
        shown["configuration"]["status_listeners"][0]["port"],
        status.port()
    );
}
