#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use serde_json::json;

use super::*;

const COMPONENT: &[u8] = b"\0asm and so on";

fn digest() -> String {
    Sha256::digest(COMPONENT)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A gateway that answers exactly these requests, in this order; each is a line such as `GET /x`.
fn gateway(exchanges: Vec<(&'static str, u16, Value)>) -> (SocketAddr, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let answer = |(line, status, body): (&str, u16, Value)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            assert_eq!(first.trim_end(), format!("{line} HTTP/1.1"));
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                match header.trim_end().to_ascii_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap(),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut sent = vec![0; length];
            reader.read_exact(&mut sent).unwrap();
            let location = match status {
                202 => "location: /balancers/mine/versions/v2\r\n",
                _ => "",
            };
            let body = body.to_string();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{location}\r\n"
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
            sent
        };
        exchanges.into_iter().map(answer).collect()
    };
    (address, std::thread::spawn(serve))
}

fn version(state: &str) -> Value {
    json!({"id": "v2", "digest": digest(), "state": state, "reason": null})
}

fn push_to(
    exchanges: Vec<(&'static str, u16, Value)>,
    promote: bool,
) -> (anyhow::Result<String>, Vec<Vec<u8>>) {
    let (address, served) = gateway(exchanges);
    let admin = Admin::at(&address.to_string()).unwrap();
    let said = upload(&admin, "mine", COMPONENT, promote);
    (said, served.join().unwrap())
}

const FIND: &str = "GET /balancers/mine";
const VERSIONS: &str = "POST /balancers/mine/versions";
const VERSION: &str = "GET /balancers/mine/versions/v2";
const PROMOTE: &str = "POST /balancers/mine/versions/v2/promote";

#[test]
fn a_new_name_becomes_a_balancer() {
    let (said, sent) = push_to(
        vec![
            (FIND, 404, json!({"message": "Not found"})),
            (
                "POST /balancers?name=mine",
                201,
                json!({"name": "mine", "digest": digest()}),
            ),
        ],
        false,
    );
    assert!(said.unwrap().starts_with("mine is new, and active"));
    assert_eq!(sent[1], COMPONENT);
}

#[test]
fn a_known_name_gets_a_version_which_waits_to_be_promoted() {
    let exchanges = || vec![(FIND, 200, json!({})), (VERSIONS, 201, version("ready"))];
    let (said, sent) = push_to(exchanges(), false);
    assert_eq!(
        said.unwrap(),
        "mine has a new version: v2; not active; run push again with --promote\n"
    );
    assert_eq!(sent[1], COMPONENT);
    let mut more = exchanges();
    more.push((PROMOTE, 200, version("active")));
    let (said, _) = push_to(more, true);
    assert!(
        said.unwrap()
            .starts_with("mine has a new version: v2, now active")
    );
}

#[test]
fn a_check_that_takes_long_is_waited_for() {
    let (said, _) = push_to(
        vec![
            (FIND, 200, json!({})),
            (VERSIONS, 202, version("checking")),
            (VERSION, 200, version("checking")),
            (VERSION, 200, version("ready")),
            (PROMOTE, 200, version("active")),
        ],
        true,
    );
    assert!(said.unwrap().contains("now active"));
    let mut failed = version("failed");
    failed["reason"] = "the component is not valid".into();
    let (said, _) = push_to(
        vec![
            (FIND, 200, json!({})),
            (VERSIONS, 202, version("checking")),
            (VERSION, 200, failed),
        ],
        true,
    );
    let said = said.unwrap_err().to_string();
    assert_eq!(
        said,
        "the gateway refuses the component: the component is not valid"
    );
}

#[test]
fn the_same_component_again_is_the_same_version() {
    let (said, _) = push_to(
        vec![(FIND, 200, json!({})), (VERSIONS, 200, version("active"))],
        true,
    );
    assert_eq!(
        said.unwrap(),
        "mine has this version already, and it is active: v2\n"
    );
    let exchanges = vec![
        (FIND, 200, json!({})),
        (VERSIONS, 200, version("retired")),
        (PROMOTE, 200, version("active")),
    ];
    let (said, _) = push_to(exchanges, true);
    assert!(
        said.unwrap()
            .starts_with("mine has this version already: v2, now active")
    );
}

#[test]
fn a_different_digest_is_an_error() {
    let mut other = version("ready");
    other["digest"] = "00".into();
    let (said, _) = push_to(vec![(FIND, 200, json!({})), (VERSIONS, 201, other)], true);
    assert!(
        said.unwrap_err()
            .to_string()
            .contains("received something else")
    );
}

#[test]
fn errors_have_the_message_of_the_gateway() {
    let refused = json!({
        "code": 2, "name": "schema violation", "message": "2 schema violations",
        "fields": {"component": "the component is empty", "name": "invalid value"},
    });
    let (said, _) = push_to(
        vec![
            (FIND, 404, json!({})),
            ("POST /balancers?name=mine", 400, refused),
        ],
        false,
    );
    assert_eq!(
        said.unwrap_err().to_string(),
        "the Admin API answers 400: 2 schema violations\n  component: the component is empty\n  name: invalid value"
    );
    let (said, _) = push_to(vec![(FIND, 500, json!("?"))], false);
    assert!(
        said.unwrap_err()
            .to_string()
            .ends_with("answers 500 Internal Server Error")
    );
}

#[test]
fn the_answer_of_another_server_is_no_empty_list() {
    let (address, served) = gateway(vec![("GET /balancers", 200, json!({"items": []}))]);
    let said = listed(&Admin::at(&address.to_string()).unwrap());
    served.join().unwrap();
    let said = said.unwrap_err().to_string();
    assert!(said.contains("not the Admin API of Pointsman"), "{said}");
}

#[test]
fn balancers_are_listed_with_active_version_and_upstreams() {
    let one = json!({"name": "a/b", "source": "uploaded", "digest": "00", "description": {"version": "1.2.0"}});
    let other = json!({"name": "random", "source": "shipped", "digest": "ff"});
    let active = json!({"id": "v1", "digest": "0123456789abcdef", "state": "active"});
    let page = |row: &Value, next: Option<&str>| json!({"data": [row], "next": next});
    let missing = json!({"message": "Not found"});
    let (address, served) = gateway(vec![
        (
            "GET /balancers",
            200,
            page(&one, Some("/balancers?offset=x")),
        ),
        ("GET /balancers?offset=x", 200, page(&other, None)),
        (
            "GET /balancers/a%2Fb",
            200,
            json!({"usage": {"u1": {}, "u2": {}}}),
        ),
        (
            "GET /balancers/a%2Fb/versions",
            200,
            page(&version("ready"), Some("/more")),
        ),
        ("GET /more", 200, page(&active, None)),
        ("GET /balancers/random", 200, json!({"usage": {}})),
        ("GET /balancers/random/versions", 404, missing),
    ]);
    let said = listed(&Admin::at(&address.to_string()).unwrap()).unwrap();
    served.join().unwrap();
    assert_eq!(
        said,
        "name    source    version  active  sha256        upstreams\n\
         a/b     uploaded  1.2.0    v1      0123456789ab  u1, u2\n\
         random  shipped   -        -       ff            -\n"
    );
}

#[test]
fn a_rollback_reports_the_active_version() {
    let (address, served) = gateway(vec![(
        "POST /balancers/mine/rollback",
        200,
        version("active"),
    )]);
    let said = rolled_back(&Admin::at(&address.to_string()).unwrap(), "mine").unwrap();
    served.join().unwrap();
    assert_eq!(said, format!("mine rolled back to sha256 {}\n", digest()));
}

#[test]
fn a_file_names_its_balancer_as_its_crate_is_named() {
    assert_eq!(
        name_of(Path::new("/t/my_balancer.wasm")).unwrap(),
        "my-balancer"
    );
    assert!(name_of(Path::new("/")).is_err());
}
