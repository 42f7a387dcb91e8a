//! The access log: one line for each request, whatever becomes of it.

use std::collections::BTreeSet;
use std::io::Read;

use crate::harness::http2::Http2;
use crate::harness::{
    Backend, Gateway, Load, LogFile, Raw, Setup, add_global_plugin, exchange, log_lines, metric,
    read_answer, refusing_address, until, with_backend,
};

/// A gateway that logs to a file.
fn logging_to(file: &LogFile, format: &str) -> Setup {
    Setup::new()
        .arg("--proxy-access-log", file.path.display())
        .arg("--proxy-access-log-format", format)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";

#[test]
fn a_request_is_a_line_in_kongs_form() {
    let file = LogFile::new();
    let setup = Setup::new().arg("--proxy-access-log", file.path.display());
    let (gateway, _backend) = with_backend(setup);
    let headers = [("referer", "http://a.test/"), ("user-agent", "curl/8")];
    let answer = gateway.get_with("/bytes/5000?a=1", &headers).expect(200);
    let id = answer.header("x-kong-request-id").to_owned();
    let line = &file.lines(1)[0];
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let rest = format!(
        "] \"GET /bytes/5000?a=1 HTTP/1.1\" 200 5000 \"http://a.test/\" \"curl/8\" \
         kong_request_id: \"{id}\""
    );
    assert!(line.ends_with(&rest), "{line}");
}

#[test]
fn a_host_has_one_spelling_in_all_lines() {
    let file = LogFile::new();
    let setup = logging_to(&file, "$host $upstream_addr");
    let gateway = setup.arg("--workers", 1).start();
    let backend = Backend::start_on("b", "[::1]:0".parse().unwrap());
    let port = backend.address.port();
    gateway.balanced(&[]);
    let target = format!("[0:0:0::0001]:{port}");
    gateway
        .admin("POST", "/upstreams/u/targets", &[("target", &target)])
        .expect(201);
    let hosts = [
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("a.EXAMPLE:8000", "a.example"),
        ("[0:0::1]", "[::1]"),
        ("[0:0::0001]:8000", "[::1]"),
        ("127.0.0.1:8000", "127.0.0.1"),
    ];
    for (sent, _) in hosts {
        let request = format!("GET / HTTP/1.1\r\nhost: {sent}\r\nconnection: close\r\n\r\n");
        let answer = exchange(gateway.proxy, &request);
        assert!(answer.starts_with("HTTP/1.1 200"), "{sent}: {answer}");
    }
    let expected = hosts.map(|(_, logged)| format!("{logged} [::1]:{port}"));
    assert_eq!(file.lines(hosts.len()), expected);
}

#[test]
fn json_has_route_service_upstream_tries_and_times() {
    let file = LogFile::new();
    let (gateway, backend) = with_backend(logging_to(&file, "json"));
    gateway.get("/a?b=c").expect(200);
    let record = &file.records(1)[0];
    assert_eq!(record["uri"], "/a?b=c");
    assert_eq!(record["service"]["name"], "u-service");
    assert!(record["route"]["id"].is_string(), "{record}");
    assert_eq!(record["upstream"], "u");
    assert_eq!(record["source"], "upstream");
    let one = &record["tries"][0];
    assert_eq!(one["address"], backend.address.to_string());
    assert_eq!(one["chosen_by"], "plugin");
    assert_eq!(one["balancer"], "round-robin");
    assert_eq!(one["digest"].as_str().unwrap().len(), 64);
    assert_eq!(one["status"], 200);
    for stage in ["match", "pick", "first_byte", "total"] {
        assert!(record["times_us"][stage].is_u64(), "{stage}: {record}");
    }
    // Without a route, and with the answer of a policy.
    gateway
        .admin("PATCH", "/services/u-service", &[("enabled", "true")])
        .expect(200);
    add_global_plugin(
        &gateway,
        "request-termination",
        serde_json::json!({"status_code": 418}),
    );
    gateway.get("/").expect(418);
    let record = &file.records(2)[1];
    assert_eq!(record["policy"], "request-termination");
    assert_eq!(
        (&record["reason"], &record["source"]),
        (&"policy".into(), &"kong".into())
    );
    assert!(record["times_us"]["access"].is_u64(), "{record}");
}

#[test]
fn every_try_is_in_the_line() {
    let file = LogFile::new();
    let gateway = logging_to(&file, "$status $upstream_addr $upstream_status $chosen_by").start();
    let backend = Backend::start("b");
    let refusing = refusing_address();
    gateway.balanced(&[(refusing, 100), (backend.address, 100)]);
    // Round-robin begins with each of them once.
    for _ in 0..2 {
        gateway.get("/").expect(200);
    }
    let expected = format!(
        "200 {refusing}, {} 502, 200 plugin, plugin",
        backend.address
    );
    let lines = file.lines(2);
    assert!(lines.contains(&expected), "{lines:?}");
}

#[test]
fn a_client_that_disconnects_before_the_response_is_a_line_with_499() {
    let file = LogFile::new();
    let setup = logging_to(&file, "json").arg("--client-half-close-timeout", 1);
    let (gateway, backend) = with_backend(setup);
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /hang HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the request", || backend.served() == 1);
    drop(raw);
    let record = &file.records(1)[0];
    assert_eq!(record["status"], 499);
    assert_eq!(record["reason"], "client_closed");
    assert_eq!(record["tries"][0]["failure"], "client_closed");
}

#[test]
fn an_upgraded_connection_is_one_line_when_it_ends() {
    let file = LogFile::new();
    let (gateway, _backend) = with_backend(logging_to(&file, "$status $body_bytes_sent"));
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(
        b"GET /upgrade HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    assert!(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 101"));
    gateway.get("/bytes/7").expect(200);
    assert_eq!(file.lines(1), ["200 7"]);
    let message = format!("{}\n", "x".repeat(3000));
    raw.send(message.as_bytes());
    assert_eq!(raw.read_until("\n"), message);
    drop(raw);
    assert_eq!(file.lines(2)[1], "101 3001");
}

#[test]
fn requests_of_http2_are_lines_of_their_own() {
    let file = LogFile::new();
    let (gateway, _backend) =
        with_backend(logging_to(&file, "$request $status $connection_requests"));
    let client = Http2::connect(gateway.proxy);
    for _ in 0..3 {
        client.get("/a").expect(200);
    }
    let expected: Vec<String> = (1..=3)
        .map(|n| format!("GET /a HTTP/2.0 200 {n}"))
        .collect();
    assert_eq!(file.lines(3), expected);
}

#[test]
fn heads_that_cannot_be_read_are_lines_too() {
    let file = LogFile::new();
    let format = "$status \"$request\" $reason $body_bytes_sent $request_id";
    let (gateway, _backend) = with_backend(logging_to(&file, format));
    let long = "x".repeat(40_000);
    for (number, (head, status, line)) in [
        (
            "nonsense\r\n\r\n".to_owned(),
            400,
            "400 \"nonsense\" bad_request",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"),
            431,
            "431 \"GET / HTTP/1.1\" head_too_large",
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: \r\n".repeat(100)),
            431,
            "431 \"GET / HTTP/1.1\" too_many_headers",
        ),
        (
            format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n"),
            414,
            "414 \"GET /xxx",
        ),
        (
            "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n".to_owned(),
            400,
            "400 \"GET / HTTP/1.1\" bad_request",
        ),
        (
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            400,
            "400 \"GET / HTTP/1.1\" bad_request",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = exchange(gateway.proxy, &head);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let lines = file.lines(number + 1);
        let last = &lines[number];
        assert!(last.starts_with(line), "{last}");
        // The page, and not its head.
        let body = answer.split_once("\r\n\r\n").unwrap().1.len();
        // The id that the client has seen.
        let answer = answer.to_ascii_lowercase();
        let id = answer.split_once("x-kong-request-id: ").unwrap().1;
        let end = format!(" {body} {}", &id[..32]);
        assert!(last.ends_with(&end), "{last}: {answer}");
    }
}

#[test]
fn a_request_in_clear_text_on_a_port_for_tls_is_a_line() {
    let file = LogFile::new();
    let setup = logging_to(&file, "$status $reason $scheme $remote_addr");
    let gateway = setup.arg("--proxy-listen", "127.0.0.1:0 ssl").start();
    let answer = exchange(gateway.proxy, "GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(file.lines(1), ["400 plain_on_tls https 127.0.0.1"]);
}

#[test]
fn a_head_that_does_not_end_is_408_or_400() {
    let file = LogFile::new();
    let setup = logging_to(&file, "$status $bytes_sent \"$request\" $request_length");
    let (gateway, _backend) = with_backend(setup.arg("--client-header-timeout", 1));
    let mut slow = Raw::connect(gateway.proxy);
    slow.send(b"GET /slow HTTP/1.1\r\nho");
    assert!(slow.is_closed());
    assert_eq!(file.lines(1), ["408 0 \"GET /slow HTTP/1.1\" 22"]);
    let mut cut = Raw::connect(gateway.proxy);
    read_answer(cut.send(GET));
    cut.send(b"GET /cut HTT").half_close();
    assert!(cut.is_closed());
    let lines = file.lines(3);
    assert!(
        lines[2].starts_with("400 0 \"GET /cut HTT\" 12"),
        "{lines:?}"
    );
    // A connection without a request is no line.
    let mut idle = Raw::connect(gateway.proxy);
    assert!(idle.is_closed());
    gateway.get("/").expect(200);
    file.lines(4);
}

#[test]
fn global_policies_get_the_record_of_a_head_that_cannot_be_read() {
    let gateway = Gateway::start();
    let file = LogFile::new();
    add_global_plugin(&gateway, "file-log", serde_json::json!({"path": file.path}));
    exchange(gateway.proxy, "nonsense\r\n\r\n");
    let record = &file.records(1)[0];
    assert_eq!(record["response"]["status"], 400);
    assert_eq!(record["request"]["method"], "");
    assert_eq!(record["pointsman"]["unread_line"], "nonsense");
    assert_eq!(record["pointsman"]["reason"], "bad_request");
    assert_eq!(record["request"]["id"].as_str().unwrap().len(), 32);
}

#[test]
fn a_client_cannot_forge_a_line() {
    let file = LogFile::new();
    let (gateway, _backend) = with_backend(logging_to(&file, "combined"));
    let mut raw = Raw::connect(gateway.proxy);
    raw.send(b"GET /?q HTTP/1.1\r\nhost: h\r\nuser-agent: a\"\x80\xff\\b\tc\r\n\r\n");
    raw.read_until("\"}");
    let lines = file.lines(1);
    assert!(lines[0].contains("\"GET /?q HTTP/1.1\" 200 "), "{lines:?}");
    assert!(
        lines[0].ends_with(r#""a\x22\x80\xFF\x5Cb\x09c""#),
        "{lines:?}"
    );
    exchange(gateway.proxy, "GET /\u{1b}[2J\" 200 0 \x0b\r\n\r\n");
    let last = &file.lines(2)[1];
    assert!(
        last.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "{last}"
    );
    assert!(
        last.contains(r#""GET /\x1B[2J%22 200 0 \x0B" 400"#),
        "{last}"
    );
}

#[test]
fn every_request_of_many_clients_is_exactly_one_line() {
    let file = LogFile::new();
    let (gateway, _backend) = with_backend(logging_to(&file, "$request_id"));
    let load = Load::run(gateway.proxy, "/", 64, 25);
    assert_eq!(load.failures, [""; 0]);
    let lines = file.lines(64 * 25);
    let ids: BTreeSet<&String> = lines.iter().collect();
    assert_eq!(ids.len(), lines.len());
    assert!(lines.iter().all(|line| line.len() == 32));
    let name = "pointsman_access_log_lines_written_total";
    assert_eq!(metric(&gateway, name), 1600.0);
}

#[test]
fn sigusr1_opens_a_renamed_file_again() {
    let file = LogFile::new();
    let (gateway, _backend) = with_backend(logging_to(&file, "$status"));
    gateway.get("/").expect(200);
    file.lines(1);
    let renamed = file.path.with_extension("1");
    std::fs::rename(&file.path, &renamed).unwrap();
    gateway.get("/").expect(200);
    until("a line in the renamed file", || {
        log_lines(&renamed).len() == 2
    });
    gateway.signal("-USR1");
    until("another file", || {
        file.path.exists() || {
            gateway.get("/").expect(200);
            false
        }
    });
    until("a line in it", || {
        gateway.get("/").expect(200);
        !log_lines(&file.path).is_empty()
    });
}

#[test]
fn a_large_file_is_renamed_and_no_line_is_lost() {
    let file = LogFile::new();
    let format = format!("$request_id {}", "x".repeat(2000));
    let setup = logging_to(&file, &format)
        .arg("--proxy-access-log-max-size", 1)
        .arg("--proxy-access-log-max-files", 3);
    let (gateway, _backend) = with_backend(setup);
    let load = Load::run(gateway.proxy, "/", 16, 80);
    assert_eq!(load.failures, [""; 0]);
    let files = ["access.log", "access.log.1", "access.log.2", "access.log.3"];
    let files = files.map(|name| file.folder.path().join(name));
    let all = || {
        files
            .iter()
            .flat_map(|path| log_lines(path))
            .collect::<Vec<_>>()
    };
    until("all lines", || all().len() == 1280);
    let all = all();
    assert!(all.iter().all(|line| line.len() == 32 + 1 + 2000));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1280);
    for path in &files[1..3] {
        let size = std::fs::metadata(path).unwrap().len();
        assert!(size <= 1 << 20, "{size}");
    }
}

#[test]
fn a_full_disk_costs_no_request_and_is_counted() {
    let setup = Setup::new().arg("--proxy-access-log", "/dev/full");
    let (gateway, _backend) = with_backend(setup);
    for _ in 0..100 {
        gateway.get("/").expect(200);
    }
    let failed = "pointsman_access_log_lines_failed_total";
    until("failures", || metric(&gateway, failed) == 100.0);
    gateway.terminate();
    let (_, log) = gateway.wait();
    let told = log.matches("/dev/full cannot be written").count();
    assert!((1..5).contains(&told), "{told} lines: {log}");
}

#[test]
fn a_blocked_pipe_delays_no_request_and_no_end() {
    let file = LogFile::new();
    let made = std::process::Command::new("mkfifo")
        .arg(&file.path)
        .status();
    assert!(made.unwrap().success());
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file.path);
    let mut reader = reader.unwrap();
    // A pipe has room for 64 KiB, and a worker keeps 4 MiB.
    let format = format!("$status {}", "x".repeat(60_000));
    let (gateway, _backend) = with_backend(logging_to(&file, &format));
    let load = Load::run(gateway.proxy, "/", 8, 50);
    assert_eq!(load.failures, [""; 0]);
    let dropped = "pointsman_access_log_lines_dropped_total";
    until("dropped lines", || metric(&gateway, dropped) > 0.0);
    let mut start = [0; 5];
    reader.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"200 x");
    gateway.terminate();
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("lines of the access log still waited"),
        "{log}"
    );
}

#[test]
fn a_daemon_gets_each_line_as_a_message() {
    let daemon = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = format!(
        "syslog:server={},tag=edge,facility=local0,nohostname",
        daemon.local_addr().unwrap()
    );
    let setup = Setup::new().arg("--proxy-access-log", &target);
    let (gateway, _backend) = with_backend(setup.arg("--proxy-access-log-format", "$status"));
    gateway.get("/").expect(200);
    let mut message = [0; 500];
    let length = daemon.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(message.starts_with("<134>"), "{message}");
    assert!(message.ends_with(" edge: 200"), "{message}");
}

#[test]
fn wrong_settings_say_what_is_accepted() {
    for (name, value, words) in [
        (
            "--proxy-access-log",
            "syslog:facility=none",
            "facility=local7",
        ),
        (
            "--proxy-access-log-format",
            "$nothing",
            "there is no variable $nothing",
        ),
        (
            "--proxy-access-log-format",
            "escape=none $uri",
            "lines of its own",
        ),
        (
            "--proxy-access-log-format",
            "xml",
            "json, common, combined, kong",
        ),
        (
            "--proxy-access-log",
            "/nowhere/access.log",
            "proxy_access_log: cannot open the access log /nowhere",
        ),
        (
            "--proxy-stream-access-log",
            "/nowhere/streams.log",
            "proxy_stream_access_log: cannot open the access log /nowhere",
        ),
    ] {
        let (status, log) = Setup::new().arg(name, value).fail();
        assert!(!status.success());
        assert!(log.contains(words), "{name} {value}: {log}");
    }
}
