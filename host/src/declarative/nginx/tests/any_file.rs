//! Any file of nginx, with names in every form, becomes a document that a gateway takes.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::{convert_nginx, convert_within, converted};

/// A word as it is written: in quotes, if it would be several words or none.
fn word(text: &str) -> String {
    let is_plain = |letter: char| !letter.is_whitespace() && !";{}\"'\\#".contains(letter);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace(['"', '\\'], "")),
    }
}

/// Names of hosts, of upstreams and of addresses, most of which are none.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "u",
        "U",
        "v",
        "a.example",
        "A.Example",
        "a.example.",
        ".a.example",
        "*.a.example",
        "a.*",
        "*",
        "_",
        "",
        "a b",
        "a_b",
        "-a",
        "a-",
        "a..b",
        "ä.example",
        "xn--a",
        "$host",
        "~^x$",
        "localhost",
        "10.0.0.1",
        "10.0.0.1:80",
        "010.0.0.1",
        "10.1",
        "[::1]",
        "[::1]:80",
        "[::1",
        "[::1]:rver",
        "::1",
        "a:80",
        "a:",
        ":80",
        "a:0",
        "a:080",
        "a:65536",
        "a:1:2",
        "a:b",
        "u:80",
        "unix:/a",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "a%20b",
        "a\tb",
        "null",
        "1",
        "true",
        "{0}",
        "&a",
    ];
    prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9:._*\\[\\]~$/@%-]{0,12}",
        1 => "[a-z]{60,70}(\\.[a-z]{60,70}){0,4}",
        1 => "\\PC{0,4}",
    ]
}

/// A directive of an upstream.
fn of_upstream() -> impl Strategy<Value = String> {
    let parameter = prop::sample::select(vec![
        "",
        "weight=0",
        "weight=7",
        "weight=99999",
        "backup",
        "down",
        "max_conns=0",
        "max_conns=99999999999",
        "max_fails=3",
        "b:;1",
    ]);
    prop_oneof![
        5 => (name(), parameter).prop_map(|(name, more)| format!("server {} {more};", word(&name))),
        1 => Just("ip_hash;".to_owned()),
        1 => Just("least_conn;".to_owned()),
        1 => name().prop_map(|name| format!("hash {} consistent;", word(&format!("$http_{name}")))),
        1 => name().prop_map(|name| format!("hash {};", word(&format!("$arg_{name}")))),
        1 => name().prop_map(|name| format!("sticky cookie {};", word(&name))),
    ]
}

/// Where `proxy_pass` leads to.
fn destination() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec!["http://", "https://", "http:/", "http:", "", "ftp://"]);
    let path = prop::sample::select(vec![
        "", "/", "/a", "/a b", "/%zz", "?q", "#f", "/a//b", "/ä",
    ]);
    (scheme, name(), path).prop_map(|(scheme, name, path)| format!("{scheme}{name}{path}"))
}

/// A directive of a location.
fn of_location() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => destination().prop_map(|to| format!("proxy_pass {};", word(&to))),
        1 => name().prop_map(|name| format!("proxy_set_header Host {};", word(&name))),
        1 => name().prop_map(|name| format!("proxy_set_header {} x;", word(&name))),
        1 => name().prop_map(|name| format!("deny {};", word(&name))),
        1 => name().prop_map(|name| format!("allow {}; deny all;", word(&name))),
        1 => name().prop_map(|name| format!("proxy_read_timeout {};", word(&name))),
        1 => name().prop_map(|name| format!("return 301 {};", word(&format!("https://{name}/")))),
        1 => (0_u32..1000, name()).prop_map(|(status, text)| format!("return {status} {};", word(&text))),
        1 => Just("root /x;".to_owned()),
    ]
}

fn location() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec!["", "= ", "^~ ", "~ ", "~* ", "@"]);
    let path = prop_oneof![
        prop::sample::select(vec![
            "/", "/a", "/a/", "/a b", "a", "", "/(", "\\.php$", "^/x", "/ä", "/%2f"
        ])
        .prop_map(str::to_owned),
        name().prop_map(|name| format!("/{name}")),
    ];
    let block = prop::collection::vec(of_location(), 0..4);
    (kind, path, block).prop_map(|(kind, path, block)| {
        format!("location {kind}{} {{ {} }}", word(&path), block.join(" "))
    })
}

fn server() -> impl Strategy<Value = String> {
    let listen = prop::sample::select(vec![
        "",
        "listen 80;",
        "listen 443 ssl;",
        "listen 80; listen 443 ssl default_server;",
        "listen 127.0.0.1:81;",
        "listen [::]:80;",
        "listen unix:/a;",
        "listen x:y;",
    ]);
    let names = prop::collection::vec(name(), 0..4);
    let more = prop_oneof![
        6 => Just(String::new()),
        1 => name().prop_map(|name| format!("rewrite {} /b;", word(&name))),
        1 => Just("return 301 https://$host$request_uri;".to_owned()),
    ];
    let locations = prop::collection::vec(location(), 0..4);
    (listen, names, more, locations).prop_map(|(listen, names, more, locations)| {
        let names: Vec<String> = names.iter().map(|name| word(name)).collect();
        let names = match names.as_slice() {
            [] => String::new(),
            names => format!("server_name {};", names.join(" ")),
        };
        format!(
            "server {{ {listen} {names} {more} {} }}",
            locations.join("\n")
        )
    })
}

fn file() -> impl Strategy<Value = String> {
    let upstream = (name(), prop::collection::vec(of_upstream(), 0..5))
        .prop_map(|(name, block)| format!("upstream {} {{ {} }}", word(&name), block.join(" ")));
    let part = prop_oneof![upstream, server()];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.join("\n"))
}

proptest! {
    // The same files in each run: others are for the fuzzer.
    #![proptest_config(ProptestConfig {
        cases: 1024,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The check of the document finds nothing: what no entity can be was listed before.
    #[test]
    fn any_file_becomes_a_document_that_a_gateway_takes(file in file()) {
        if let Err(why) = convert_nginx(&file) {
            prop_assert!(!why.contains("cannot be expressed: "), "{why}\n{file}");
        }
    }
}

/// What the fuzzer and the files above have found so far.
#[test]
fn names_that_entities_do_not_take_are_listed() {
    for (file, listed) in [
        (
            "upstream u { server a:80 backup; server b:81; server a:80; }
             server { location / { proxy_pass http://u; } }",
            "the same target",
        ),
        (
            "server { location /a { proxy_pass http:/y_/10.0.0.1; } location / { proxy_pass http://a; } }",
            "proxy_pass http:/y_/10.0.0.1",
        ),
        (
            "upstream u { ip_hash; server [::1]:rver b:; server a; }
             server { location / { proxy_pass http://u; } }",
            "server [::1]:rver b:",
        ),
        (
            "server { server_name ::1; return 301 https://$host$request_uri; }",
            "no redirect can lead to ::1",
        ),
        (
            "server { location / { deny a:b; proxy_pass http://a; } }",
            "this is no address",
        ),
        (
            "server { location = a { proxy_pass http://a; } location / { proxy_pass http://a; } }",
            "no request is compared with it",
        ),
        (
            "server { location / { proxy_set_header a@b x; proxy_pass http://a; } }",
            "there is no such header",
        ),
    ] {
        let (_, left) = converted(file);
        assert!(left.iter().any(|told| told.contains(listed)), "{left:?}");
    }
    // An entity has fewer characters in its name than a host, and no empty body.
    let (value, left) = converted("server { server_name a:80; location / { return 503 \"\"; } }");
    assert_eq!(value["routes"][0]["name"], "a-80-1", "{left:?}");
}

#[test]
fn a_document_that_a_gateway_would_refuse_is_refused_with_the_lines_that_it_comes_from() {
    let file = "server { server_name a.example;\nlocation / { proxy_pass http://a; }
        location ~ \"(x|y){1,9}z\" { proxy_pass http://b; } }";
    let (value, _) = converted(file);
    assert_eq!(value["services"].as_array().map(Vec::len), Some(2));
    // The expression is one, but the gateway has no memory for it.
    let wrong = convert_within(file, 100).unwrap_err();
    let start = "line 3: location ~ (x|y){1,9}z: cannot be expressed: services[1].routes[0]";
    assert!(wrong.starts_with(start), "{wrong}");
    assert_eq!(wrong.lines().count(), 1, "{wrong}");
}
