//! Which certificate a client is shown.

use rustls::SignatureScheme;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use super::{p256, pair, setup, shown, store, tls};
use crate::harness::{Setup, TlsClient, metric, until, with_backend};

#[test]
fn the_certificate_is_that_of_the_closest_server_name() {
    let gateway = setup().start();
    let default = shown(&gateway, "a.example");
    let (exact, left, right) = (p256(), p256(), p256());
    store(&gateway, &exact, &["A.b.example"]);
    store(&gateway, &left, &["*.b.example"]);
    store(&gateway, &right, &["example.*"]);
    for (name, expected) in [
        ("a.b.example", &exact.der),
        ("a.B.example", &exact.der),
        ("x.b.example", &left.der),
        ("example.com", &right.der),
        ("x.y.b.example", &default),
        ("b.example", &default),
        ("", &default),
    ] {
        assert!(shown(&gateway, name) == *expected, "{name}");
    }
    let own = |reason| {
        let name = "pointsman_tls_default_certificates_total";
        metric(&gateway, &format!("{name}{{reason=\"{reason}\"}}"))
    };
    assert_eq!(own("unknown_server_name"), 3.0);
    assert_eq!(own("no_server_name"), 1.0);

    // `*` is for every name that a client asks for, and not for those that ask for none.
    let any = p256();
    store(&gateway, &any, &["*"]);
    assert!(shown(&gateway, "x.y.b.example") == any.der);
    assert!(shown(&gateway, "") == default);
}

#[test]
fn a_new_certificate_is_shown_at_once_and_breaks_no_connection() {
    let (gateway, _backend) = with_backend(setup());
    let (first, second) = (p256(), p256());
    let id = store(&gateway, &first, &["a.example"]);
    let mut connection = TlsClient::new()
        .connect(tls(&gateway), "a.example")
        .unwrap();
    assert!(connection.certificate() == first.der);
    assert!(connection.get("/", "h").0.starts_with("HTTP/1.1 200"));
    let path = format!("/certificates/{id}");
    let body = json!({ "cert": second.cert, "key": second.key });
    gateway.admin_json("PATCH", &path, &body).expect(200);
    assert!(shown(&gateway, "a.example") == second.der);
    assert!(connection.get("/", "h").0.starts_with("HTTP/1.1 200"));
    gateway.admin("DELETE", &path, &[]).expect(204);
    assert!(shown(&gateway, "a.example") != second.der);
    assert!(connection.get("/", "h").0.starts_with("HTTP/1.1 200"));
}

#[test]
fn of_two_certificates_a_client_is_shown_one_that_it_can_verify() {
    let gateway = setup().start();
    let (ecdsa, ed25519) = (p256(), pair(&rcgen::PKCS_ED25519));
    let body = json!({
        "cert": ed25519.cert, "key": ed25519.key,
        "cert_alt": ecdsa.cert, "key_alt": ecdsa.key,
        "snis": ["a.example"],
    });
    gateway
        .admin_json("POST", "/certificates", &body)
        .expect(201);
    for (scheme, expected) in [
        (SignatureScheme::ECDSA_NISTP256_SHA256, &ecdsa),
        (SignatureScheme::ED25519, &ed25519),
    ] {
        for version in [&TLS12, &TLS13] {
            let client = TlsClient::offering(&[version], &[scheme]);
            let connection = client.connect(tls(&gateway), "a.example").unwrap();
            assert!(connection.certificate() == expected.der, "{scheme:?}");
        }
    }
}

#[test]
fn a_certificate_in_files_of_a_vault_is_that_of_the_present_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let draft = folder.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, folder.path().join(file)).unwrap();
    };
    let (first, second) = (p256(), p256());
    write("cert", &first.cert);
    write("key", &first.key);
    let gateway = setup().start();
    let config = json!({ "folder": folder.path() });
    let vault = json!({ "prefix": "files", "name": "file", "config": config });
    let made = gateway.admin_json("POST", "/vaults", &vault).expect(201);
    let vault = format!("/vaults/{}", made.json()["id"].as_str().unwrap());
    let body = json!({
        "cert": "{vault://files/cert}", "key": "{vault://files/key}", "snis": ["a.example"],
    });
    gateway
        .admin_json("POST", "/certificates", &body)
        .expect(201);
    assert!(shown(&gateway, "a.example") == first.der);

    // Without one of its files, the certificate stays, even if the vault is written.
    std::fs::remove_file(folder.path().join("key")).unwrap();
    gateway
        .admin_json("PATCH", &vault, &json!({ "description": "written" }))
        .expect(200);
    assert!(shown(&gateway, "a.example") == first.der);

    write("key", &second.key);
    write("cert", &second.cert);
    until("the new certificate is shown", || {
        shown(&gateway, "a.example") == second.der
    });
}

#[test]
fn the_ocsp_response_of_a_certificate_is_shown_along_with_it() {
    let gateway = setup().start();
    let pair = p256();
    let id = store(&gateway, &pair, &["a.example"]);
    let client = TlsClient::new();
    client.connect(tls(&gateway), "a.example").unwrap();
    assert_eq!(client.staple(), b"");
    let path = format!("/certificates/{id}");
    let give = |response: &str| {
        let body = json!({ "pointsman": { "ocsp_response": response } });
        gateway.admin_json("PATCH", &path, &body)
    };
    // A sequence whose first element says that the responder has succeeded, and one that it has
    // not.
    give("MAMKAQA=").expect(200);
    let client = TlsClient::new();
    client.connect(tls(&gateway), "a.example").unwrap();
    assert_eq!(client.staple(), [0x30, 3, 0x0a, 1, 0]);
    let refused = give("MAMKAQY=").expect(400);
    assert!(
        refused.text().contains("invalid OCSP response"),
        "{}",
        refused.text()
    );
}

#[test]
fn the_generated_certificate_is_kept_in_the_data_folder() {
    let gateway = setup().start();
    let generated = shown(&gateway, "");
    assert!(gateway.data_dir.join("ssl/default.crt").exists());
    let data_dir = gateway.data_dir.clone();
    let folder = gateway.kill();
    let gateway = Setup::with_data(&data_dir)
        .arg("--proxy-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .start();
    assert!(shown(&gateway, "") == generated);
    drop((gateway, folder));
}
