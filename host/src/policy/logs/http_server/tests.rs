#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::*;

const TYPE: &str = "application/json; charset=utf-8";

fn target(endpoint: &str) -> Result<PostTarget, String> {
    let headers = BTreeMap::from([("X-One".to_owned(), "1".to_owned())]);
    PostTarget::of("http_endpoint", endpoint, "PUT", TYPE, headers.iter())
}

#[test]
fn errors_do_not_show_the_credentials_of_the_url() {
    for endpoint in [
        "ftp://user:secret@logs.test",
        "http://user:secret@logs.test:x",
    ] {
        let error = target(endpoint).unwrap_err();
        assert!(error.starts_with("http_endpoint: "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

/// Sends a batch to a server that answers with this text. Returns the outcome, and whether the
/// connection is kept.
fn post_to(answer: String) -> (Result<StatusCode, String>, bool) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut request = [0; 4096];
        let mut read = Vec::new();
        while !read.ends_with(b"{}") {
            let count = stream.read(&mut request).unwrap();
            assert_ne!(count, 0);
            read.extend_from_slice(&request[..count]);
        }
        // The gateway may close the connection before it has read all.
        let _ = stream.write_all(answer.as_bytes());
        // The connection stays open until the gateway closes it.
        let _ = stream.read(&mut request);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let target = target(&format!("http://{address}")).unwrap();
        let settings = crate::config::Config::load(crate::config::Written::default());
        let resolver = Arc::new(Resolver::new(&settings.unwrap().dns));
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            answer: Duration::from_secs(1),
            keepalive: Duration::from_secs(60),
        };
        let server = HttpServer::new(target, timeouts, &resolver);
        let status = server.post(Bytes::from("{}")).await;
        (status, server.kept.lock().is_some())
    });
    drop(runtime);
    serving.join().unwrap();
    outcome
}

#[test]
fn the_head_says_whether_records_are_accepted_and_the_body_whether_the_connection_is_kept() {
    let answer = |length: usize, body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let too_long = "x".repeat(2 * MOST_READ);
    for (answer, is_kept) in [
        (answer(2, "ok"), true),
        (answer(too_long.len(), &too_long), false),
        // The rest never comes.
        (answer(10, "x"), false),
    ] {
        assert_eq!(post_to(answer), (Ok(StatusCode::OK), is_kept));
    }
}

#[test]
fn the_url_says_where_and_with_which_credentials() {
    let target = target("http://us%40er:pass:word@logs.test:8080/in?a=b").unwrap();
    assert_eq!((&*target.host, target.port), ("logs.test", 8080));
    assert_eq!((&*target.path, target.is_encrypted), ("/in?a=b", false));
    let request = target.request(Bytes::new()).unwrap();
    assert_eq!(request.method(), "PUT");
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    assert_eq!(header("host"), "logs.test:8080");
    assert_eq!(header("content-type"), "application/json; charset=utf-8");
    assert_eq!(header("x-one"), "1");
    let credentials = BASE64_STANDARD.encode("us@er:pass:word");
    assert_eq!(header("authorization"), format!("Basic {credentials}"));
}

#[test]
fn the_port_and_the_path_have_defaults() {
    let plain = target("http://logs.test").unwrap();
    assert_eq!((plain.port, &*plain.path), (80, "/"));
    let encrypted = target("https://[::1]/x").unwrap();
    assert_eq!((encrypted.port, encrypted.is_encrypted), (443, true));
    assert!(encrypted.headers.get("authorization").is_none());
    assert!(target("ftp://logs.test").is_err());
}

#[test]
fn a_header_that_is_given_takes_precedence() {
    let headers = BTreeMap::from([("content-type".to_owned(), "text/plain".to_owned())]);
    let target = PostTarget::of("url", "http://logs.test", "POST", TYPE, headers.iter()).unwrap();
    assert_eq!(target.headers["content-type"], "text/plain");
    let wrong = BTreeMap::from([("x".to_owned(), "a\nb".to_owned())]);
    let error = PostTarget::of("url", "http://logs.test", "POST", TYPE, wrong.iter());
    assert_eq!(error.unwrap_err(), "the header x is not valid");
}
