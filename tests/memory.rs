//! How much memory the gateway and its connections hold.

use std::fmt::Write as _;

use crate::harness::{
    Gateway, Raw, Setup, active_connections, metric, put_document, read_answer, until, with_backend,
};

#[test]
fn a_stalled_reader_holds_little_memory() {
    const READERS: usize = 60;
    let (gateway, _backend) = with_backend(Setup::new().arg("--workers", 1));
    gateway.get_large("/bytes/8000000");
    let before = gateway.reset_peak();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut raw = Raw::connect(gateway.proxy);
        raw.send(b"GET /bytes/100000000 HTTP/1.1\r\nhost: h\r\n\r\n");
        raw.read_until("\r\n\r\n");
        readers.push(raw);
    }
    // Meanwhile other clients are served; the stalled ones get what socket buffers hold.
    for _ in 0..20 {
        gateway.get_large("/bytes/1000000");
    }
    let held = gateway.peak_bytes().saturating_sub(before) / READERS;
    println!("a stalled reader holds {held} bytes");
    assert!(held <= 128 << 10, "{held} bytes");
}

#[test]
fn an_idle_connection_holds_little_memory() {
    const CLIENTS: usize = 2000;
    let (gateway, _backend) = with_backend(Setup::new().arg("--workers", 1));
    let clients = |requests: bool| {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut raw = Raw::connect(gateway.proxy);
            if requests {
                read_answer(raw.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
            }
            clients.push(raw);
        }
        clients
    };
    // The first few thousand connections allocate what later ones use again: they are not measured.
    drop(clients(true));
    until("the connections are closed", || {
        metric(&gateway, "kong_nginx_connections_total{") >= 0.0
            && active_connections(&gateway) < 100.0
    });
    let before = gateway.resident_bytes();
    let silent = clients(false);
    until("the connections are open", || {
        active_connections(&gateway) >= CLIENTS as f64
    });
    let each = gateway.resident_bytes().saturating_sub(before) / CLIENTS;
    println!("a new connection holds {each} bytes");
    assert!(each < 4 << 10, "{each} bytes");
    let served = clients(true);
    let each = || gateway.resident_bytes().saturating_sub(before) / (2 * CLIENTS);
    until("the memory of the requests is freed", || each() < 4 << 10);
    println!("a connection holds {} bytes", each());
    drop((silent, served));
}

#[test]
fn an_import_leaves_little_memory() {
    const CONSUMERS: usize = 2000;
    let gateway = Gateway::start();
    let before = gateway.resident_bytes();
    let mut document = "_format_version: '3.0'\nconsumers:\n".to_owned();
    for number in 0..CONSUMERS {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let key = format!("keyauth_credentials: [{{id: {id}, key: k{number}}}]");
        let consumer = format!("- {{username: c{number}, acls: [{{group: g}}], {key}}}");
        writeln!(document, "{consumer}").unwrap();
    }
    put_document(&gateway, &document, "").expect(200);
    // Nothing else is asked of it.
    let held = || gateway.resident_bytes().saturating_sub(before);
    println!("at the answer, it holds {} KiB more", held() >> 10);
    until("what the import has freed is returned", || {
        held() <= 60 << 20
    });
}

/// The goal is 40 MiB of resident memory, of a build for production: `benches/idle` measures that.
/// A build for tests has twice as many pages of the program, and the same memory besides.
#[test]
fn an_idle_gateway_holds_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    // The first start compiles the balancers, the second one reads their code.
    for _ in 0..2 {
        // With the default settings, the page included.
        let gateway = Setup::with_data(folder.path())
            .uncompiled()
            .arg("--admin-gui-listen", "127.0.0.1:0")
            .start();
        holds_little_memory(&gateway);
        gateway.terminate();
        assert!(gateway.wait().0.success());
    }
}

/// What the start has freed is returned within 20 seconds.
fn holds_little_memory(gateway: &Gateway) {
    until("an idle gateway holds little memory", || {
        anonymous_kib(gateway) <= 24 << 10
    });
}

/// Anonymous memory beside the program, in KiB.
fn anonymous_kib(gateway: &Gateway) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", gateway.pid())).unwrap();
    // Only anonymous memory beyond the program has a limit: the program is mapped from its file,
    // and so are the pages of it that the linker has relocated. Both are larger without
    // optimisation.
    let mut of_program = false;
    let mut anonymous = 0;
    for line in maps.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(size) if !of_program => {
                let size = size.trim().trim_end_matches(" kB");
                anonymous += size.parse::<usize>().unwrap();
            }
            Some(_) => {}
            // A mapping begins with its addresses, and ends with its file.
            None if line.split(' ').next().unwrap().contains('-') => {
                of_program = line.ends_with("/pointsman");
            }
            None => {}
        }
    }
    println!("{anonymous} KiB are anonymous");
    anonymous
}
