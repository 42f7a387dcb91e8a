//! The servers that plugins use are looked up as the settings say.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use serde_json::json;

use crate::harness::{
    AcmeServer, Dns, DnsReply, Redis, Setup, add_global_plugin, until, with_backend,
};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// The servers that plugins use, as those of targets.
#[test]
fn servers_of_plugins_are_looked_up_as_the_settings_say() {
    let dns = Dns::start();
    for name in [
        "logs.test",
        "lines.test",
        "posts.test",
        "counts.test",
        "ca.test",
    ] {
        dns.set(name, DnsReply::Addresses(vec![ONE], 0));
    }
    let (gateway, _backend) = with_backend(Setup::new().arg("--dns-resolver", dns.address));
    let datagrams = UdpSocket::bind((ONE, 0)).unwrap();
    let patience = Some(std::time::Duration::from_secs(60));
    datagrams.set_read_timeout(patience).unwrap();
    let lines = TcpListener::bind((ONE, 0)).unwrap();
    let posts = TcpListener::bind((ONE, 0)).unwrap();
    let (redis, acme) = (Redis::start(), AcmeServer::start());
    let port = |address: std::io::Result<SocketAddr>| address.unwrap().port();
    let authority = acme.directory().replace(&ONE.to_string(), "ca.test");
    for (name, config) in [
        (
            "udp-log",
            json!({"host": "logs.test", "port": port(datagrams.local_addr())}),
        ),
        (
            "tcp-log",
            json!({"host": "lines.test", "port": port(lines.local_addr())}),
        ),
        (
            "http-log",
            json!({"http_endpoint": format!("http://posts.test:{}/", port(posts.local_addr()))}),
        ),
        (
            "rate-limiting",
            json!({"policy": "redis", "minute": 1000, "redis": {
                "host": "counts.test", "port": redis.address.port(), "timeout": 20_000,
            }}),
        ),
        (
            "acme",
            json!({
                "account_email": "ops@example.com", "api_uri": authority, "tos_accepted": true,
                "domains": ["a.example"],
            }),
        ),
    ] {
        add_global_plugin(&gateway, name, config);
    }
    let reply = gateway.get("/").expect(200);
    assert!(
        reply.headers.contains_key("ratelimit-remaining"),
        "{reply:?}"
    );
    let mut datagram = [0; 64];
    assert!(datagrams.recv(&mut datagram).is_ok());
    assert!(lines.accept().is_ok());
    assert!(posts.accept().is_ok());
    until("an account", || acme.accounts() == 1);
}
