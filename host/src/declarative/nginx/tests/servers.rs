//! Which server answers the requests for a host.

use serde_json::{Value, json};

use super::{answered, closed, convert_nginx, converted};

#[test]
fn a_server_that_cannot_be_expressed_answers_no_request() {
    for directive in [
        "if ($x) { return 403; }",
        "include other.conf;",
        "return 200 $x;",
    ] {
        let (value, left) = converted(&format!(
            "server {{ server_name a.example; {directive} location / {{ proxy_pass http://a; }} }}"
        ));
        assert_eq!(
            answered(&value),
            [(json!(["/"]), closed(503))],
            "{directive}"
        );
        assert_eq!(value.get("services"), None);
        assert_eq!(left.len(), 1, "{left:?}");
    }
    let (value, _) =
        converted("server { listen 127.0.0.1:81; location / { proxy_pass http://a; } }");
    let plugins = &value["services"][0]["routes"][0]["plugins"];
    assert_eq!(
        plugins[0]["config"],
        json!({ "allow": ["127.0.0.0/8", "::1"] })
    );
    let (value, _) =
        converted("server { rewrite ^/old /new; location / { proxy_pass http://a; } }");
    assert_eq!(answered(&value), [(json!(["~/old"]), closed(503))]);
}

#[test]
fn a_name_that_is_a_regular_expression_takes_nothing_from_the_next_directive() {
    let with = |own: &str, other: &str| {
        convert_nginx(&format!(
            "server {{ server_name ~^(?<user>.+)\\.example\\.com$;
              location / {{ {own} proxy_pass http://a; }} }}
            server {{ listen 80 default_server; server_name {other}; location / {{ proxy_pass http://a; }} }}"
        ))
    };
    let (document, left) = with("", "_").unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left[0].contains("hosts are no regular expressions"),
        "{left:?}"
    );
    assert_eq!(document.matches("paths:").count(), 1, "{document}");
    // Its requests would be answered by a server that does not refuse them.
    let refused = with("deny all;", "_").unwrap_err();
    assert!(refused.starts_with("line 1: server_name ~^"), "{refused}");
    assert!(with("deny all;", "b.example").is_ok());
}

#[test]
fn servers_of_one_name_at_several_addresses_answer_no_request() {
    let (value, left) = converted(
        "server { listen 80; server_name a.example; location / { proxy_pass http://a; } }
        server { listen 8080; server_name a.example; location / { deny all; } }",
    );
    assert_eq!(answered(&value), [(json!(["/"]), closed(503))]);
    assert_eq!(left.len(), 4, "{left:?}");
}

/// nginx gives requests for other hosts to the default server of an address.
#[test]
fn hosts_that_no_server_names_are_for_the_default_server_of_an_address_alone() {
    for (listens, names, is_default) in [
        (["80", "80"], ["a.example", "_"], [false, false]),
        (["80", "80"], ["_", "a.example"], [true, false]),
        (
            ["80", "*:80 default_server"],
            ["a.example", "_"],
            [false, true],
        ),
        (["80", "80 default_server"], ["\"\"", "_"], [false, true]),
        (["80", "0.0.0.0"], ["\"\"", "_"], [true, false]),
        (["80", "8080"], ["a.example", "_"], [false, true]),
        (["80", "[::]:80"], ["a.example", "_"], [false, true]),
    ] {
        let servers = listens.iter().zip(names).zip(["a", "b"]);
        let servers = servers.map(|((listen, name), service)| {
            format!(
                "server {{ listen {listen}; server_name {name};
                location / {{ proxy_pass http://{service}; }} }}\n"
            )
        });
        let (value, left) = converted(&servers.collect::<String>());
        let services = value["services"].as_array().unwrap();
        let takes_all = |host: &str| {
            let mut own = services.iter();
            own.any(|own| {
                own["url"] == format!("http://{host}") && own["routes"][0]["hosts"].is_null()
            })
        };
        assert_eq!(
            [takes_all("a"), takes_all("b")],
            is_default,
            "{listens:?} {names:?}"
        );
        let is_told = left
            .iter()
            .any(|told| told.contains("default of its address"));
        let unnamed = names.iter().zip(is_default);
        let is_left = unnamed
            .into_iter()
            .any(|(name, is)| *name != "a.example" && !is);
        assert_eq!(is_told, is_left, "{left:?}");
    }
}

#[test]
fn the_longer_wildcard_comes_first_whatever_the_paths() {
    let (value, _) = converted(
        "server { server_name *.example; location /long/path { proxy_pass http://a; } }
        server { server_name *.a.example; location / { deny all; } }",
    );
    let priority = |row: &Value| row["regex_priority"].as_u64().unwrap();
    let wide = priority(&value["services"][0]["routes"][0]);
    let narrow = value["routes"].as_array().unwrap().iter();
    let mut narrow = narrow.filter(|route| route["hosts"][0] == "*.a.example");
    assert!(narrow.all(|route| priority(route) > wide));
}

#[test]
fn a_unix_socket_that_a_location_passes_to_becomes_an_upstream() {
    let (value, left) = converted(
        "upstream unix-run-b-sock { server c; }
        server {
          location / { proxy_pass http://unix:/run/A.sock; }
          location /a/ { proxy_pass https://unix:/run/A.sock:/x/; }
          location /b { proxy_pass http://unix:/run/b.sock:; }
        }",
    );
    assert_eq!(left, [""; 0]);
    assert_eq!(
        value["upstreams"],
        json!([
            { "name": "unix-run-b-sock", "targets": [{ "target": "c:80" }] },
            { "name": "unix-run-A-sock", "targets": [{ "target": "unix:/run/A.sock" }] },
            { "name": "unix-run-b-sock-2", "targets": [{ "target": "unix:/run/b.sock" }] },
        ])
    );
    let services = value["services"].as_array().unwrap().iter();
    let passed: Vec<(&Value, &Value)> = services
        .map(|own| (&own["url"], &own["routes"][0]["strip_path"]))
        .collect();
    assert_eq!(
        passed,
        [
            (&json!("http://unix-run-A-sock"), &json!(false)),
            (&json!("https://unix-run-A-sock/x/"), &json!(true)),
            (&json!("http://unix-run-b-sock-2"), &json!(false)),
        ]
    );
    for url in [
        "http://unix:",
        "http://unix:80",
        "http://unix:run/a",
        "http://unix:/a:b",
        "http://unix:/a:.b/c",
    ] {
        let (value, left) = converted(&format!("server {{ location / {{ proxy_pass {url}; }} }}"));
        assert_eq!(answered(&value), [(json!(["/"]), closed(503))], "{url}");
        assert!(
            left[0].contains("no target can have this address"),
            "{left:?}"
        );
    }
}

#[test]
fn a_server_on_a_unix_socket_alone_is_not_opened_to_other_clients() {
    let (value, left) = converted(
        "server { listen unix:/run/a.sock; location / { proxy_pass http://a; } }
        server { listen unix:/run/b.sock; listen 80; location / { proxy_pass http://b; } }",
    );
    assert_eq!(value["services"].as_array().unwrap().len(), 1);
    assert_eq!(value["services"][0]["url"], "http://b");
    assert!(
        left.iter()
            .any(|told| told.contains("it listens on Unix sockets alone")),
        "{left:?}"
    );
}
