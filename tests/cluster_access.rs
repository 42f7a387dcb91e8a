//! Gateways that share an etcd which does not let everybody in.

use serde_json::json;

use crate::harness::{
    Dns, DnsReply, Etcd, Gateway, Issued, Relay, Setup, add_consumer, add_credential, until,
};

fn has_consumer(gateway: &Gateway, name: &str) -> bool {
    let path = format!("/consumers/{name}");
    gateway.admin("GET", &path, &[]).status == 200
}

#[test]
fn gateways_share_an_etcd_that_asks_for_their_certificates() {
    let etcd = Etcd::start_with_tls();
    let a = etcd.gateway().start();
    let b = etcd.gateway().start();
    add_consumer(&a, "one");
    until("it is at the other one", || has_consumer(&b, "one"));
    add_consumer(&b, "two");
    until("it is at the other one", || has_consumer(&a, "two"));
}

#[test]
fn an_etcd_whose_certificate_is_not_trusted_is_not_used() {
    let etcd = Etcd::start_with_tls();
    let (status, log) = Setup::new()
        .arg("--store", "etcd")
        .arg("--etcd-endpoints", etcd.endpoints())
        .env("POINTSMAN_ETCD_CA", Issued::to("127.0.0.1").authority)
        .fail();
    assert!(!status.success());
    assert!(log.contains("etcd cannot be read"), "{log}");
    assert!(log.contains("TLS: "), "{log}");
}

#[test]
fn a_user_whose_token_has_expired_gets_another_one() {
    let mut etcd = Etcd::start_with(1, &["--auth-token-ttl", "1"]);
    etcd.require_users();
    let a = etcd.gateway().start();
    let relay = Relay::start(etcd.address(0));
    let b = etcd.gateway_through(&relay).start();
    add_consumer(&a, "one");
    until("it is at the other one", || has_consumer(&b, "one"));
    // Its watch has to begin again, with a token that etcd has forgotten in the meantime.
    relay.cut(true);
    until("it is noticed", || {
        b.admin("GET", "/status/ready", &[]).status == 503
    });
    relay.cut(false);
    add_consumer(&a, "two");
    until("the watch goes on", || has_consumer(&b, "two"));
    until("it is ready", || {
        b.admin("GET", "/status/ready", &[]).status == 200
    });
    add_consumer(&b, "three");
    // A restart of etcd makes all tokens invalid.
    etcd.kill(0);
    etcd.run(0);
    etcd.wait();
    let consumer = json!({ "username": "four" });
    until("it can be written again", || {
        let status = a.admin_json("POST", "/consumers", &consumer).status;
        assert!([201, 409, 503].contains(&status), "{status}");
        status != 503
    });
    until("it is at the other one", || has_consumer(&b, "four"));
}

#[test]
fn missing_read_permission_is_reported() {
    let mut etcd = Etcd::start();
    etcd.require_users();
    for (user, password, reason) in [
        ("gateway", "wrong", "invalid user ID or password"),
        ("nobody", "word", "invalid user ID or password"),
    ] {
        let (status, log) = Setup::new()
            .arg("--store", "etcd")
            .arg("--etcd-endpoints", etcd.endpoints())
            .arg("--etcd-user", user)
            .arg("--etcd-password", password)
            .fail();
        assert!(!status.success());
        assert!(log.contains(reason), "{log}");
    }
    let (status, log) = etcd.gateway().arg("--etcd-prefix", "/other/").fail();
    assert!(!status.success());
    assert!(log.contains("permission denied"), "{log}");
}

#[test]
fn entities_are_sealed_in_etcd_and_the_keys_can_be_replaced() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let keyring = |keys: &[&String]| {
        let name = keys.iter().map(|key| &key[..1]).collect::<String>();
        let path = folder.path().join(name);
        let lines = keys.iter().map(|key| format!("{key}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let with = |keys: &[&String]| etcd.gateway().arg("--keyring-file", keyring(keys));
    let rows = || etcd.ctl(&["get", "/pointsman/config/rows/", "--prefix"]);
    let plain = etcd.gateway().start();
    add_consumer(&plain, "was-in-clear");
    assert!(rows().contains("was-in-clear"));
    plain.kill();
    // What is there already is sealed at the start.
    let a = with(&[&one]).start();
    let b = with(&[&one]).start();
    add_consumer(&a, "never-in-clear");
    until("it is at the other one", || {
        has_consumer(&b, "never-in-clear")
    });
    add_credential(
        &b,
        "never-in-clear",
        "key-auth",
        json!({ "key": "open sesame" }),
    );
    assert!(has_consumer(&b, "was-in-clear"));
    let stored = rows();
    for text in ["in-clear", "open sesame"] {
        assert!(!stored.contains(text), "{stored}");
    }
    // Without the key, nothing of it is used.
    let (status, log) = etcd.gateway().fail();
    assert!(!status.success());
    assert!(log.contains("which is not in keyring_file"), "{log}");
    // With another one in front, everything is sealed anew.
    let data_dir = a.data_dir.clone();
    let owned = a.kill();
    let a = with(&[&two, &one]).data_dir(&data_dir).start();
    assert!(has_consumer(&a, "never-in-clear"));
    until("the one without the new key does not apply it", || {
        let ready = b.admin("GET", "/status/ready", &[]);
        ready.status == 503 && ready.text().contains("keyring_file")
    });
    assert!(has_consumer(&b, "never-in-clear"), "it keeps what it has");
    let c = with(&[&two]).start();
    assert!(has_consumer(&c, "never-in-clear"));
    assert!(has_consumer(&c, "was-in-clear"));
    add_consumer(&c, "last");
    until("it is at the other one", || has_consumer(&a, "last"));
    drop((a, owned));
}

#[test]
fn names_of_members_are_looked_up_as_those_of_targets() {
    let etcd = Etcd::start();
    let dns = Dns::start();
    let loopback = std::net::Ipv4Addr::LOCALHOST;
    dns.set("etcd.test", DnsReply::Addresses(vec![loopback], 0));
    let endpoint = format!("http://etcd.test:{}", etcd.address(0).port());
    let gateway = Setup::new()
        .arg("--store", "etcd")
        .arg("--etcd-endpoints", endpoint)
        .arg("--dns-resolver", dns.address)
        .start();
    let other = etcd.gateway().start();
    add_consumer(&gateway, "named");
    until("it is at the other one", || has_consumer(&other, "named"));
}
