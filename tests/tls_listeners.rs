//! TLS towards clients: certificates, versions, sessions, and what follows from the scheme.

mod certificates;

use std::io::ErrorKind;
use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::{
    Backend, Gateway, Issued, Raw, Setup, TlsClient, active_connections, metric, until,
    with_backend,
};

/// A certificate with its key.
struct Pair {
    cert: String,
    key: String,
    der: Vec<u8>,
}

fn pair(algorithm: &'static SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
        der: cert.der().to_vec(),
    }
}

fn p256() -> Pair {
    pair(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// A proxy with an address in clear text and one for TLS, and what else is set.
fn setup() -> Setup {
    Setup::new().arg("--proxy-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
}

fn tls(gateway: &Gateway) -> SocketAddr {
    gateway.listener("proxy", 1)
}

/// Stores a certificate for server names, and returns its id.
fn store(gateway: &Gateway, pair: &Pair, names: &[&str]) -> String {
    let body = json!({ "cert": pair.cert, "key": pair.key, "snis": names });
    let stored = gateway.admin_json("POST", "/certificates", &body);
    stored.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// The certificate that a client is shown for a server name.
fn shown(gateway: &Gateway, name: &str) -> Vec<u8> {
    let connection = TlsClient::new().connect(tls(gateway), name).unwrap();
    connection.certificate()
}

fn failures(gateway: &Gateway, reason: &str) -> f64 {
    let labels = format!("{{listener=\"proxy\",reason=\"{reason}\"}}");
    metric(
        gateway,
        &format!("pointsman_tls_handshake_failures_total{labels}"),
    )
}

#[test]
fn the_settings_may_give_the_certificates_of_the_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let (proxy, admin) = (p256(), p256());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let proxy_key = write("proxy.key", &proxy.key);
    let gateway = setup()
        .arg("--admin-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .arg("--ssl-cert", write("proxy.crt", &proxy.cert))
        .arg("--ssl-cert-key", &proxy_key)
        .arg("--admin-ssl-cert", write("admin.crt", &admin.cert))
        .arg("--admin-ssl-cert-key", write("admin.key", &admin.key))
        .start();
    assert!(shown(&gateway, "") == proxy.der);
    let address = gateway.listener("admin", 1);
    let mut connection = TlsClient::new().connect(address, "").unwrap();
    assert!(connection.certificate() == admin.der);
    let (head, body) = connection.get("/services", "localhost");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.starts_with(b"{\"data\":[]"));
    let shown = gateway.admin("GET", "/", &[]).json();
    assert_eq!(shown["configuration"]["admin_ssl_enabled"], true);
    assert_eq!(shown["configuration"]["proxy_listeners"][1]["ssl"], true);

    let (_, said) = setup()
        .arg("--ssl-cert", write("other.crt", &admin.cert))
        .arg("--ssl-cert-key", &proxy_key)
        .fail();
    assert!(said.contains("does not match the key"), "{said}");
    let (_, said) = setup().arg("--ssl-cert-key", &proxy_key).fail();
    assert!(said.contains("ssl_cert must be specified"), "{said}");
}

#[test]
fn a_request_in_clear_text_on_a_port_for_tls_is_answered_400() {
    let gateway = setup()
        .arg("--admin-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .start();
    for address in [tls(&gateway), gateway.listener("admin", 1)] {
        let mut raw = Raw::connect(address);
        raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = raw.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
        let told = "The plain HTTP request was sent to HTTPS port";
        assert!(answer.contains(told), "{answer}");
    }
    assert_eq!(failures(&gateway, "plain_http"), 1.0);
}

#[test]
fn versions_are_those_of_the_cipher_suite() {
    let gateway = setup().start();
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&[version], &[]);
        assert!(client.connect(tls(&gateway), "").is_ok(), "{version:?}");
    }
    let gateway = setup().arg("--ssl-cipher-suite", "modern").start();
    let old = TlsClient::offering(&[&TLS12], &[]);
    assert!(old.connect(tls(&gateway), "").is_err());
    assert!(TlsClient::new().connect(tls(&gateway), "").is_ok());
    until("the failure is counted", || {
        failures(&gateway, "nothing_in_common") == 1.0
    });

    let gateway = setup()
        .arg("--ssl-cipher-suite", "custom")
        .arg("--ssl-protocols", "TLSv1.2")
        // The generated certificate has a key for ECDSA.
        .arg("--ssl-ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256")
        .start();
    assert!(old.connect(tls(&gateway), "").is_ok());
    let new = TlsClient::offering(&[&TLS13], &[]);
    assert!(new.connect(tls(&gateway), "").is_err());

    let (_, said) = setup().arg("--ssl-cipher-suite", "old").fail();
    assert!(
        said.contains("ssl_cipher_suite = \"old\": expected modern"),
        "{said}"
    );
}

#[test]
fn sessions_are_resumed_by_any_worker() {
    let (gateway, _backend) = with_backend(setup().arg("--workers", 2));
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&[version], &[]);
        for number in 0..6 {
            let mut connection = client.connect(tls(&gateway), "a.example").unwrap();
            // A session of TLS 1.3 is handed over with the first response.
            assert!(connection.get("/", "h").0.starts_with("HTTP/1.1 200"));
            assert_eq!(connection.is_resumed(), number > 0, "{version:?}, {number}");
        }
    }
    let resumed = "pointsman_tls_handshakes_total{listener=\"proxy\",kind=\"resumed\"}";
    assert_eq!(metric(&gateway, resumed), 10.0);
}

#[test]
fn the_settings_decide_whether_and_how_sessions_are_resumed() {
    let resumes = |settings: &[(&str, &str)], version| {
        let mut setup = setup();
        for (name, value) in settings {
            setup = setup.arg(&format!("--ssl-session-{name}"), value);
        }
        let (gateway, _backend) = with_backend(setup);
        let client = TlsClient::offering(&[version], &[]);
        let resumed = [(); 2].map(|()| {
            let mut connection = client.connect(tls(&gateway), "a.example").unwrap();
            assert!(connection.get("/", "h").0.starts_with("HTTP/1.1 200"));
            connection.is_resumed()
        });
        assert!(!resumed[0]);
        resumed[1]
    };
    for version in [&TLS12, &TLS13] {
        assert!(resumes(&[("tickets", "off")], version), "by the cache");
        assert!(resumes(&[("cache-size", "0")], version), "by a ticket");
        let none = [("tickets", "off"), ("cache-size", "0")];
        assert!(!resumes(&none, version), "{version:?}");
    }
    for (name, wrong) in [("tickets", "yes"), ("cache-size", "10g"), ("timeout", "8d")] {
        let flag = format!("--ssl-session-{name}");
        let (status, said) = setup().arg(&flag, wrong).fail();
        assert!(!status.success());
        assert!(said.contains(wrong) && said.contains("expected"), "{said}");
    }
}

#[test]
fn http_1_1_is_agreed_on_by_alpn_and_other_protocols_are_refused() {
    let gateway = setup().start();
    let client = TlsClient::new().protocols(&[b"http/1.1"]);
    let connection = client.connect(tls(&gateway), "").unwrap();
    assert_eq!(connection.protocol(), Some(&b"http/1.1"[..]));
    let client = TlsClient::new().protocols(&[b"spdy/3"]);
    assert!(client.connect(tls(&gateway), "").is_err());
}

#[test]
fn a_slow_handshake_is_ended_and_counts_as_a_connection() {
    let gateway = setup()
        .arg("--client-header-timeout", 1)
        .arg("--max-connections", 1)
        .start();
    let mut slow = Raw::connect(tls(&gateway));
    // The start of a record with a handshake message.
    slow.send(&[22, 3, 1]);
    until("the connection counts", || {
        active_connections(&gateway) == 1.0
    });
    until("another client is refused", || {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        raw.read_to_end().starts_with("HTTP/1.1 503")
    });
    let ended = slow.read_to_close();
    let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
    assert!(ended.as_ref().is_ok_and(Vec::is_empty) || ended.is_err_and(|error| reset(&error)));
    until("the failure is counted", || {
        failures(&gateway, "timeout") == 1.0
    });
    until("there is room again", || {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        raw.read_to_end().starts_with("HTTP/1.1 404")
    });
}

#[test]
fn endpoints_and_routes_see_the_scheme_and_the_server_name() {
    let backend = Backend::start("b");
    let gateway = setup().start();
    gateway.balanced(&[(backend.address, 100)]);
    let route = |route: serde_json::Value| {
        let routes = "/services/u-service/routes";
        gateway.admin_json("POST", routes, &route).expect(201);
    };
    let snis = ["a.example", "*.b.example"];
    route(json!({"paths": ["/sni"], "protocols": ["https"], "snis": snis}));
    route(json!({"paths": ["/secure"], "protocols": ["https"]}));
    route(json!({"paths": ["/moved"], "protocols": ["https"], "https_redirect_status_code": 301}));
    route(json!({"paths": ["/plain"], "protocols": ["http"]}));

    let connect = |name| TlsClient::new().connect(tls(&gateway), name).unwrap();
    let mut connection = connect("a.example");
    let (_, body) = connection.get("/x", "h");
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["headers"]["x-forwarded-proto"], "https");
    let port = tls(&gateway).port().to_string();
    assert_eq!(echo["headers"]["x-forwarded-port"], port);

    // The route with server names strips its path, and that of the path `/` does not.
    for (name, path) in [
        ("a.example", "/"),
        ("x.y.b.example", "/"),
        ("c.example", "/sni"),
        ("", "/sni"),
    ] {
        let (_, body) = connect(name).get("/sni", "h");
        let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(echo["uri"], path, "{name}");
    }
    let (head, _) = connection.get("/secure", "h");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (head, _) = connection.get("/plain", "h");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let refused = gateway.get("/secure").expect(426);
    assert_eq!(refused.header("upgrade"), "TLS/1.2, HTTP/1.1");
    let moved = gateway.get_with("/moved?a=b", &[("host", "a.example:8000")]);
    let moved = moved.expect(301);
    assert_eq!(moved.header("location"), "https://a.example/moved?a=b");
}

#[test]
fn bodies_and_tunnels_of_any_size_pass_over_tls() {
    let (gateway, _backend) = with_backend(setup());
    let mut connection = TlsClient::new().connect(tls(&gateway), "").unwrap();
    let request = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3000000\r\n\r\n";
    connection
        .send(request.as_bytes())
        .send(&vec![b'y'; 3_000_000]);
    let (_, body) = connection.response();
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["length"], 3_000_000);

    connection.send(b"GET /bytes/3000000 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let answer = connection.read_until("0\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches('x').count(), 3_000_000);

    let mut tunnel = TlsClient::new().connect(tls(&gateway), "").unwrap();
    tunnel.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    let head = tunnel.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    tunnel.send(b"to and fro\n");
    assert_eq!(tunnel.read_until("\n"), "to and fro\n");
}

#[test]
fn a_shutdown_answers_requests_over_tls_and_waits_for_no_handshake() {
    let (gateway, backend) = with_backend(setup());
    let mut connection = TlsClient::new().connect(tls(&gateway), "").unwrap();
    let _silent = Raw::connect(tls(&gateway));
    connection.send(b"GET /delay/300 HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request is at the backend", || backend.served() > 0);
    gateway.terminate();
    let (head, _) = connection.response();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (status, log) = gateway.wait();
    assert!(
        status.success() && log.contains("all requests drained"),
        "{log}"
    );
}

#[test]
fn clients_may_be_asked_for_certificates() {
    let (trusted, other) = (Issued::to("client.example"), Issued::to("client.example"));
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("clients.crt");
    std::fs::write(&authority, &trusted.authority).unwrap();
    let start = |verify: &str| {
        setup()
            .arg("--ssl-verify-client", verify)
            .arg("--ssl-client-certificate", authority.display())
    };
    // Over TLS 1.3, a client learns only by its first read that its certificate is refused.
    let is_served = |gateway: &Gateway, client: TlsClient| {
        let connection = client.connect(tls(gateway), "");
        connection.is_ok_and(|mut connection| {
            let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";
            connection
                .try_send(request)
                .read_until("\r\n")
                .starts_with("HTTP/1.1 404")
        })
    };
    for (verify, without, with_other) in [("on", false, false), ("optional", true, false)] {
        let gateway = start(verify).start();
        let new = TlsClient::new;
        assert!(is_served(&gateway, new().certificate(&trusted)), "{verify}");
        assert_eq!(is_served(&gateway, new()), without, "{verify}");
        assert_eq!(is_served(&gateway, new().certificate(&other)), with_other);
        let refused = if without { 1.0 } else { 2.0 };
        until("the failures are counted", || {
            failures(&gateway, "client_certificate") == refused
        });
    }
    // A certificate that has signed itself, and is named as its own authority.
    let own = Issued::by_itself("client.example");
    std::fs::write(&authority, &own.authority).unwrap();
    let gateway = start("on").start();
    assert!(is_served(&gateway, TlsClient::new().certificate(&own)));
    assert!(!is_served(&gateway, TlsClient::new().certificate(&other)));
    let (_, said) = setup().arg("--ssl-verify-client", "on").fail();
    assert!(
        said.contains("ssl_client_certificate must be specified"),
        "{said}"
    );
}
