//! Settings that are read again while the gateway runs.

use crate::harness::{Issued, Setup, TlsClient, until};

#[test]
fn a_reload_applies_the_log_level_and_names_what_needs_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pointsman.toml");
    std::fs::write(&file, "log = \"info\"\n").unwrap();
    let gateway = Setup::new().arg("--config", file.display()).start();
    let level = || {
        let answer = gateway.admin("GET", "/debug/node/log-level", &[]);
        answer.expect(200).text()
    };
    assert!(level().contains("info"));
    std::fs::write(&file, "log = \"debug\"\nmax_headers = 200\n").unwrap();
    gateway.signal("-HUP");
    until("the settings are read", || level().contains("debug"));
    std::fs::write(&file, "log = \"warn\"\nworkers = \"many\"\n").unwrap();
    gateway.signal("-HUP");
    std::fs::write(&file, "log = \"trace\"\nmax_headers = 200\n").unwrap();
    gateway.signal("-HUP");
    until("the settings are read", || level().contains("trace"));
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("settings read again; applied: log"), "{log}");
    assert!(
        log.contains("need another process") && log.contains(": max_headers"),
        "{log}"
    );
}

#[test]
fn a_certificate_that_was_renewed_is_shown_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let write = |issued: &Issued| {
        std::fs::write(&cert, issued.certificate.pem()).unwrap();
        std::fs::write(&key, issued.key.serialize_pem()).unwrap();
    };
    let (old, new) = (Issued::to("a.test"), Issued::to("a.test"));
    write(&old);
    let gateway = Setup::new()
        .arg("--proxy-listen", "127.0.0.1:0 ssl")
        .arg("--ssl-cert", cert.display())
        .arg("--ssl-cert-key", key.display())
        .start();
    let shown = || {
        let connection = TlsClient::new().connect(gateway.proxy, "a.test").unwrap();
        connection.certificate()
    };
    assert_eq!(shown(), old.certificate.der().to_vec());
    // A file that cannot be used changes nothing.
    std::fs::write(&cert, "no certificate").unwrap();
    gateway.signal("-HUP");
    assert_eq!(shown(), old.certificate.der().to_vec());
    write(&new);
    gateway.signal("-HUP");
    until("the new certificate is shown", || {
        shown() == new.certificate.der().to_vec()
    });
}

#[test]
fn a_reload_applies_other_certificate_files_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("pointsman.toml");
    let configure = |name: &str| {
        let issued = Issued::to("a.test");
        let cert = folder.path().join(format!("{name}.pem"));
        let key = folder.path().join(format!("{name}.key"));
        std::fs::write(&cert, issued.certificate.pem()).unwrap();
        std::fs::write(&key, issued.key.serialize_pem()).unwrap();
        let text = format!(
            "admin_gui_ssl_cert = {:?}\nadmin_gui_ssl_cert_key = {:?}\n",
            cert.display().to_string(),
            key.display().to_string()
        );
        std::fs::write(&settings, text).unwrap();
        issued.certificate.der().to_vec()
    };
    let old = configure("old");
    let gateway = Setup::new()
        .arg("--config", settings.display())
        .arg("--admin-gui-listen", "127.0.0.1:0 ssl")
        .start();
    let shown = || {
        let page = gateway.listener("gui", 0);
        let connection = TlsClient::new().connect(page, "a.test").unwrap();
        connection.certificate()
    };
    assert_eq!(shown(), old);
    let new = configure("new");
    gateway.signal("-HUP");
    until("the new certificate is shown", || shown() == new);
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    let applied = "applied: admin_gui_ssl_cert, admin_gui_ssl_cert_key";
    assert!(log.contains(applied), "{log}");
    assert!(!log.contains("need another process"), "{log}");
}
