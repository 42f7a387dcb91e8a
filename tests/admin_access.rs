//! From which web pages and under which host names the Admin API can be used.

use crate::admin_input::{FORM, header, message, request, status};
use crate::harness::{Gateway, Raw, Setup, exchange};

#[test]
fn web_pages_of_other_origins_cannot_administer() {
    let gateway = Setup::new()
        .arg(
            "--admin-gui-url",
            "https://manager.example/gui, http://other.example:8002",
        )
        .start();
    let port = gateway.admin.port();
    let own = format!("http://127.0.0.1:{port}");
    let allowed = [
        own.as_str(),
        "http://localhost:3000",
        "https://localhost",
        "http://kong.localhost:8002",
        "http://127.0.0.1",
        "http://127.8.9.10:1",
        "http://[::1]:8002",
        "https://manager.example",
        "http://other.example:8002",
    ];
    let foreign = [
        "null",
        "http://evil.example",
        "http://manager.example",
        "https://manager.example:8443",
        "http://other.example",
        "https://manager.example.evil.example",
        "http://localhost.evil.example",
        "http://notlocalhost",
        "http://192.0.2.1:8001",
        "http://127.0.0.1.evil.example",
        "http://127.1",
        "file://",
        "chrome-extension://abc",
        "http://localhost/path",
        "http://user@localhost",
        "http://evil.example http://localhost",
        "",
    ];
    let ask = |method: &str, origin: &str, fetch: &str| {
        let host = format!("127.0.0.1:{port}");
        let mut headers = vec![("host", &*host), ("origin", origin)];
        if !fetch.is_empty() {
            headers.push(("sec-fetch-site", fetch));
        }
        exchange(gateway.admin, &request(method, "/services/x", &headers, ""))
    };
    let cors = [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-methods",
        "access-control-allow-headers",
    ];
    for origin in allowed {
        for (method, expected) in [("GET", "404"), ("DELETE", "204"), ("OPTIONS", "204")] {
            let answer = ask(method, origin, "cross-site");
            assert_eq!(status(&answer), expected, "{method} {origin}: {answer}");
            assert_eq!(header(&answer, cors[0]), Some(origin), "{answer}");
            assert_eq!(header(&answer, cors[1]), Some("true"), "{answer}");
            assert_eq!(header(&answer, "vary"), Some("Origin"), "{answer}");
        }
    }
    for origin in foreign {
        for (method, expected) in [
            ("GET", "404"),
            ("HEAD", "404"),
            ("OPTIONS", "204"),
            ("DELETE", "403"),
            ("POST", "403"),
            ("PUT", "403"),
            ("PATCH", "403"),
            ("TRACE", "403"),
        ] {
            let answer = ask(method, origin, "");
            assert_eq!(status(&answer), expected, "{method} {origin:?}: {answer}");
            for name in cors {
                assert_eq!(header(&answer, name), None, "{method} {origin:?}: {answer}");
            }
            if expected == "403" {
                let said = message(&answer);
                assert!(said.contains("admin_gui_url"), "{answer}");
            }
        }
    }
    // A browser that hides the origin still says that it is another site's.
    let host = format!("127.0.0.1:{port}");
    for (site, expected) in [
        ("cross-site", "403"),
        ("same-origin", "204"),
        ("none", "204"),
    ] {
        let headers = [("host", &*host), ("sec-fetch-site", site)];
        let answer = exchange(
            gateway.admin,
            &request("DELETE", "/services/x", &headers, ""),
        );
        assert_eq!(status(&answer), expected, "{site}: {answer}");
    }
    // A page that cannot read an answer must not hold it open either.
    let live = |origin: (&str, &str)| {
        let headers = [("host", &*host), origin];
        let mut raw = Raw::connect(gateway.admin);
        raw.send(request("GET", "/pointsman/live", &headers, "").as_bytes());
        status(&raw.read_until("\r\n")).to_owned()
    };
    for (name, value, expected) in [
        ("origin", "http://evil.example", "403"),
        ("sec-fetch-site", "cross-site", "403"),
        ("sec-fetch-site", "same-site", "403"),
        ("sec-fetch-site", "same-origin", "200"),
        ("sec-fetch-site", "none", "200"),
        ("origin", &own, "200"),
    ] {
        assert_eq!(live((name, value)), expected, "{name}: {value}");
    }
    // Clients of Kong send neither.
    let plain = gateway.admin("DELETE", "/services/x", &[]).expect(204);
    assert_eq!(plain.header("access-control-allow-origin"), "*");
    // No browser sends two of them.
    let twice = [
        ("host", &*host),
        ("origin", &*own),
        ("origin", "http://evil.example"),
    ];
    let answer = exchange(gateway.admin, &request("DELETE", "/services/x", &twice, ""));
    assert_eq!(status(&answer), "403", "{answer}");
}

#[test]
fn a_write_that_is_refused_changes_nothing() {
    let gateway = Gateway::start();
    let host = gateway.admin.to_string();
    let body = "name=x&host=h";
    for origin in ["http://evil.example", "null"] {
        let headers = [("host", &*host), ("origin", origin), ("content-type", FORM)];
        let answer = exchange(gateway.admin, &request("POST", "/services", &headers, body));
        assert_eq!(status(&answer), "403", "{answer}");
    }
    gateway.admin("GET", "/services/x", &[]).expect(404);
}

#[test]
fn the_admin_api_answers_for_addresses_and_listed_names_only() {
    let gateway = Setup::new()
        .arg("--admin-hosts", "Admin.Example, kong-admin")
        .start();
    let port = gateway.admin.port();
    let at = |host: &str| host.replace("PORT", &port.to_string());
    for host in [
        "127.0.0.1:PORT",
        "127.0.0.1",
        "192.0.2.7:8001",
        "[::1]:PORT",
        "[::1]",
        "[2001:db8::1]",
        "localhost",
        "localhost:PORT",
        "LOCALHOST:1",
        "localhost.",
        "kong.localhost:PORT",
        "admin.example",
        "ADMIN.EXAMPLE.:PORT",
        "kong-admin:8001",
    ] {
        let headers = [("host", &*at(host))];
        let answer = exchange(gateway.admin, &request("GET", "/status", &headers, ""));
        assert_eq!(status(&answer), "200", "{host}: {answer}");
    }
    for host in [
        "evil.example",
        "evil.example:PORT",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "sub.admin.example",
        "2130706433",
        "0x7f.1",
    ] {
        for method in ["GET", "POST", "OPTIONS", "HEAD"] {
            let host = at(host);
            // The origin of a page after DNS rebinding: its name leads to another address by now.
            let origin = format!("http://{host}");
            let headers = [("host", &*host), ("origin", &*origin)];
            let answer = exchange(gateway.admin, &request(method, "/status", &headers, ""));
            assert_eq!(status(&answer), "421", "{host}: {answer}");
            assert_eq!(header(&answer, "access-control-allow-origin"), None);
            if method == "GET" {
                assert!(message(&answer).contains("admin_hosts"), "{answer}");
            }
        }
    }
    for hosts in [
        vec![],
        vec![("host", "")],
        vec![("host", "localhost"), ("host", "localhost")],
        vec![("host", "a b")],
        vec![("host", "user@localhost")],
        vec![("host", "localhost:99999")],
        vec![("host", "[::1")],
        vec![("host", "::1")],
    ] {
        let answer = exchange(gateway.admin, &request("GET", "/status", &hosts, ""));
        assert_eq!(status(&answer), "400", "{hosts:?}: {answer}");
        assert!(!message(&answer).is_empty(), "{answer}");
    }
    // What a target names wins over the header (RFC 9112, 3.2.2), with a slash at its end too.
    for target in ["http://evil.example/status", "http://evil.example/status/"] {
        let headers = [("host", "localhost")];
        let answer = exchange(gateway.admin, &request("GET", target, &headers, ""));
        assert_eq!(status(&answer), "421", "{target}: {answer}");
    }
    // HTTP/1.0 has no host to name, and browsers do not speak it.
    let answer = exchange(gateway.admin, "GET /status HTTP/1.0\r\n\r\n");
    assert_eq!(status(&answer), "200", "{answer}");
}

#[test]
fn settings_of_the_admin_api_are_checked() {
    for (flag, value, expected) in [
        (
            "--admin-gui-url",
            "manager.example",
            "admin_gui_url = \"manager.example\"",
        ),
        ("--admin-gui-url", "ftp://manager.example", "admin_gui_url"),
        ("--admin-gui-url", "http://", "admin_gui_url"),
        ("--admin-hosts", "http://a", "admin_hosts = \"http://a\""),
        ("--admin-hosts", "a:8001", "admin_hosts"),
        ("--admin-hosts", "a b", "admin_hosts"),
    ] {
        let (status, said) = Setup::new().arg(flag, value).fail();
        assert!(!status.success());
        assert!(said.contains(expected), "{value}: {said}");
    }
}
