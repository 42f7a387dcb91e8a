//! What the gateway accepts of endpoints over TLS, and what it shows them: certificates as entities
//! and as settings.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Backend, Gateway, Setup, active_checks, has_health, health, patch_upstream, set_passive_checks,
    until,
};

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with the chain behind it, and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = format!("authority {}", next_number());
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params
}

/// A text that no other authority of the tests has as its name.
fn next_number() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(authority_params(), key).unwrap())
    }

    /// An authority whose certificate this one has signed.
    fn intermediate(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority_params(), key, &self.0).unwrap())
    }

    fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

impl Pair {
    fn followed_by(mut self, chain: &[&Authority]) -> Self {
        for authority in chain {
            self.certificate.push_str(&authority.pem());
        }
        self
    }

    fn certified(&self) -> CertifiedKey {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        CertifiedKey::from_der(chain, key, &provider()).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Shows one certificate, and notes the names that servers are asked for.
#[derive(Debug)]
struct Names {
    shown: Arc<CertifiedKey>,
    asked: Mutex<Vec<Option<String>>>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        self.asked.lock().unwrap().push(name);
        Some(Arc::clone(&self.shown))
    }
}

/// A server that shows this certificate. If `clients` is given, it accepts only clients with a
/// certificate of that authority.
fn server(pair: &Pair, clients: Option<&Authority>) -> (Backend, Arc<Names>) {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let names = Arc::new(Names {
        shown: Arc::new(pair.certified()),
        asked: Mutex::default(),
    });
    let resolver: Arc<dyn ResolvesServerCert> = names.clone();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_cert_resolver(resolver)));
    (Backend::start_over("b", acceptor), names)
}

/// A gateway with an upstream `u` of this server, which a service asks over https.
fn gateway(setup: Setup, backend: &Backend) -> Gateway {
    let gateway = setup.arg("--workers", 1).start();
    gateway.balanced(&[(backend.address, 100)]);
    set(&gateway, &json!({"protocol": "https"}));
    gateway
}

fn set(gateway: &Gateway, fields: &Value) {
    let answer = gateway.admin_json("PATCH", "/services/u-service", fields);
    answer.expect(200);
}

fn add(gateway: &Gateway, path: &str, row: &Value) -> String {
    let row = gateway.admin_json("POST", path, row).expect(201).json();
    row["id"].as_str().unwrap().to_owned()
}

fn add_authority(gateway: &Gateway, authority: &Authority) -> String {
    add(
        gateway,
        "/ca_certificates",
        &json!({"cert": authority.pem()}),
    )
}

fn pair(pair: &Pair) -> Value {
    json!({"cert": pair.certificate, "key": pair.key})
}

#[test]
fn a_service_accepts_the_authorities_that_it_names_and_a_failure_says_why() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (backend, _) = server(&ours.issue("b.example"), None);
    let gateway = gateway(Setup::new(), &backend);
    patch_upstream(&gateway, &json!({"host_header": "b.example"}));
    let (ours, other) = (
        add_authority(&gateway, &ours),
        add_authority(&gateway, &other),
    );
    set(
        &gateway,
        &json!({"tls_verify": true, "retries": 0, "ca_certificates": [other]}),
    );
    set_passive_checks(&gateway, &json!({"tcp_failures": 100}));
    gateway.get("/").expect(502);
    let (_, address) = health(&gateway, backend.address);
    let why = address.to_string();
    assert!(why.contains("UnknownIssuer"), "{why}");
    set(&gateway, &json!({"ca_certificates": [other, ours]}));
    gateway.get("/").expect(200);
    // Connections that were made while more was accepted are not used.
    set(&gateway, &json!({"ca_certificates": [other]}));
    gateway.get("/").expect(502);
    set(&gateway, &json!({"ca_certificates": [ours]}));
    gateway.get("/").expect(200);
    patch_upstream(&gateway, &json!({"host_header": "c.example"}));
    gateway.get("/").expect(502);
    gateway.terminate();
    let (_, log) = gateway.wait();
    assert!(log.contains("UnknownIssuer"), "{log}");
    assert!(
        log.contains("certificate not valid for name \"c.example\""),
        "{log}"
    );
}

#[test]
fn a_server_is_asked_for_a_name_in_one_spelling_and_for_no_address() {
    let ours = Authority::new();
    let (backend, names) = server(&ours.issue("b.example"), None);
    let gateway = gateway(Setup::new(), &backend);
    let mut name = None;
    for header in [
        json!(null),
        json!("B.Example"),
        json!("b.EXAMPLE:8443"),
        json!("b.example."),
        json!("[0:0::1]:8443"),
    ] {
        patch_upstream(&gateway, &json!({"host_header": header}));
        gateway.get("/").expect(200);
        let asked = std::mem::take(&mut *names.asked.lock().unwrap());
        if let Some(last) = asked.last() {
            name.clone_from(last);
        }
        // A connection for the same name is used again.
        let is_name = header
            .as_str()
            .is_some_and(|header| header.starts_with(['b', 'B']));
        assert_eq!(name.as_deref(), is_name.then_some("b.example"), "{header}");
        assert!(
            asked.iter().all(|asked| *asked == name),
            "{header}: {asked:?}"
        );
    }
}

#[test]
fn an_authority_whose_certificate_is_replaced_is_not_accepted_any_more() {
    let ours = Authority::new();
    let (backend, _) = server(&ours.issue("b.example"), None);
    let gateway = gateway(Setup::new(), &backend);
    patch_upstream(&gateway, &json!({"host_header": "b.example"}));
    let id = add_authority(&gateway, &ours);
    set(
        &gateway,
        &json!({"tls_verify": true, "ca_certificates": [id]}),
    );
    gateway.get("/").expect(200);
    let other = Authority::new();
    let row = json!({"cert": other.pem()});
    let path = format!("/ca_certificates/{id}");
    gateway.admin_json("PATCH", &path, &row).expect(200);
    gateway.get("/").expect(502);
}

#[test]
fn a_certificate_that_is_its_own_authority_is_accepted_for_its_names() {
    // As `openssl req -x509` makes it.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = Pair {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let (backend, _) = server(&own, None);
    let gateway = gateway(Setup::new(), &backend);
    let id = add(
        &gateway,
        "/ca_certificates",
        &json!({"cert": own.certificate}),
    );
    set(
        &gateway,
        &json!({"tls_verify": true, "ca_certificates": [id]}),
    );
    gateway.get("/").expect(502);
    patch_upstream(&gateway, &json!({"host_header": "b.example"}));
    gateway.get("/").expect(200);
}

#[test]
fn tls_verify_depth_limits_the_certificates_between_an_endpoint_and_an_authority() {
    let root = Authority::new();
    let first = root.intermediate();
    let second = first.intermediate();
    let deep = second.issue("b.example").followed_by(&[&second, &first]);
    let (backend, _) = server(&deep, None);
    let gateway = gateway(Setup::new(), &backend);
    patch_upstream(&gateway, &json!({"host_header": "b.example"}));
    let id = add_authority(&gateway, &root);
    set(
        &gateway,
        &json!({"tls_verify": true, "ca_certificates": [id]}),
    );
    // The default is that of nginx: 1.
    for (depth, status) in [
        (json!(null), 502),
        (json!(0), 502),
        (json!(2), 200),
        (json!(1), 502),
    ] {
        set(&gateway, &json!({"tls_verify_depth": depth}));
        gateway.get("/").expect(status);
    }
    let id = add_authority(&gateway, &first);
    set(&gateway, &json!({"ca_certificates": [id]}));
    gateway.get("/").expect(200);
}

#[test]
fn the_client_certificate_is_the_services_else_the_upstreams_else_that_of_the_settings() {
    let authorities = [(); 3].map(|()| Authority::new());
    let pairs = [0, 1, 2].map(|n: usize| authorities[n].issue("gateway.example"));
    let named = Authority::new().issue("b.example");
    let backends = [0, 1, 2].map(|n: usize| server(&named, Some(&authorities[n])).0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.pem");
    std::fs::write(&file, &pairs[0].certificate).unwrap();
    let setup = Setup::new()
        .arg("--client-ssl", "on")
        .arg("--client-ssl-cert", file.display())
        .env("POINTSMAN_CLIENT_SSL_CERT_KEY", &pairs[0].key);
    let gateway = gateway(setup, &backends[0]);
    for (number, backend) in backends.iter().enumerate().skip(1) {
        let (name, path) = (format!("u{number}"), format!("/u{number}"));
        gateway.balanced_as(&name, &path, &[(backend.address, 100)]);
        let service = format!("/services/{name}-service");
        let https = json!({"protocol": "https", "retries": 0});
        gateway.admin_json("PATCH", &service, &https).expect(200);
    }
    // That of the settings; the others have their own servers refuse it.
    gateway.get("/").expect(200);
    gateway.get("/u1").expect(502);
    gateway.get("/u2").expect(502);
    let ids = [1, 2].map(|n: usize| add(&gateway, "/certificates", &pair(&pairs[n])));
    let upstream = json!({"client_certificate": {"id": ids[0]}});
    gateway
        .admin_json("PATCH", "/upstreams/u1", &upstream)
        .expect(200);
    gateway.get("/u1").expect(200);
    gateway
        .admin_json("PATCH", "/upstreams/u2", &upstream)
        .expect(200);
    gateway.get("/u2").expect(502);
    let service = json!({"client_certificate": {"id": ids[1]}});
    gateway
        .admin_json("PATCH", "/services/u2-service", &service)
        .expect(200);
    gateway.get("/u2").expect(200);
    // A host that is not an upstream has the certificate of the settings as well.
    let port = backends[0].address.port();
    set(&gateway, &json!({"host": "127.0.0.1", "port": port}));
    gateway.get("/").expect(200);
}

#[test]
fn a_rotated_certificate_is_shown_on_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let (backend, _) = server(&Authority::new().issue("b.example"), Some(&new));
    let gateway = gateway(Setup::new(), &backend);
    let row = pair(&old.issue("gateway.example"));
    let id = add(&gateway, "/certificates", &row);
    set(
        &gateway,
        &json!({"client_certificate": {"id": id}, "retries": 0}),
    );
    gateway.get("/").expect(502);
    let path = format!("/certificates/{id}");
    let row = pair(&new.issue("gateway.example"));
    gateway.admin_json("PATCH", &path, &row).expect(200);
    gateway.get("/").expect(200);
    let row = pair(&old.issue("gateway.example"));
    gateway.admin_json("PATCH", &path, &row).expect(200);
    gateway.get("/").expect(502);
}

#[test]
fn probes_show_the_certificate_of_the_upstream() {
    let authority = Authority::new();
    let (backend, _) = server(&Authority::new().issue("b.example"), Some(&authority));
    let gateway = gateway(Setup::new(), &backend);
    let unverified = json!({"https_verify_certificate": false});
    patch_upstream(&gateway, &active_checks("https", &unverified));
    until("the server refuses a probe without a certificate", || {
        has_health(&gateway, backend.address, "UNHEALTHY")
    });
    let row = pair(&authority.issue("gateway.example"));
    let id = add(&gateway, "/certificates", &row);
    patch_upstream(&gateway, &json!({"client_certificate": {"id": id}}));
    until("the server accepts a probe", || {
        has_health(&gateway, backend.address, "HEALTHY")
    });
    gateway.get("/").expect(200);
}

#[test]
fn the_name_in_the_handshake_is_the_host_without_its_port_and_none_for_an_address() {
    let (backend, names) = server(&Authority::new().issue("b.example"), None);
    let gateway = gateway(Setup::new(), &backend);
    gateway.get("/").expect(200);
    patch_upstream(&gateway, &json!({"host_header": "b.example:8443"}));
    gateway.get("/").expect(200);
    let route = gateway.admin("GET", "/services/u-service/routes", &[]);
    let route = route.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let preserve = json!({"preserve_host": true});
    gateway
        .admin_json("PATCH", &format!("/routes/{route}"), &preserve)
        .expect(200);
    gateway
        .get_with("/", &[("host", "c.example:80")])
        .expect(200);
    let asked = names.asked.lock().unwrap().clone();
    let wanted = [None, Some("b.example"), Some("c.example")];
    assert_eq!(asked, wanted.map(|name| name.map(str::to_owned)));
}

#[test]
fn settings_of_a_client_certificate_that_do_not_fit_together_are_refused() {
    let (one, other) = (Authority::new(), Authority::new());
    let (one, other) = (one.issue("a.example"), other.issue("a.example"));
    let on = || Setup::new().arg("--client-ssl", "on");
    let certificate = |setup: Setup, text: &str| setup.env("POINTSMAN_CLIENT_SSL_CERT", text);
    let key = |setup: Setup, text: &str| setup.env("POINTSMAN_CLIENT_SSL_CERT_KEY", text);
    let with = |cert: &str, private: &str| key(certificate(on(), cert), private);
    for (setup, message) in [
        (key(on(), &one.key), "client_ssl_cert must be specified"),
        (
            certificate(on(), &one.certificate),
            "client_ssl_cert_key must be specified",
        ),
        (
            with("/missing.pem", &one.key),
            "client_ssl_cert: failed loading certificate from /missing.pem",
        ),
        (
            with(&one.certificate, "/missing.pem"),
            "client_ssl_cert_key: failed loading key",
        ),
        (
            with(&one.certificate, &other.key),
            "client_ssl_cert and client_ssl_cert_key cannot be used",
        ),
        (
            Setup::new().arg("--client-ssl", "maybe"),
            "expected on or off",
        ),
    ] {
        let (status, log) = setup.fail();
        assert!(!status.success() && log.contains(message), "{log}");
    }
}
