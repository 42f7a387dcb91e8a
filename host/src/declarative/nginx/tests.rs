#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod any_file;
mod servers;

use serde_json::{Value, json};

use crate::config::RouterFlavor;
use crate::declarative::syntax::{Syntax, Text};
use crate::declarative::{Components, NoGateway};

/// Converts a file for a gateway with the default settings.
fn convert_nginx(nginx: &str) -> Result<(String, Vec<String>), String> {
    convert_within(nginx, 64 << 20)
}

/// The same with this memory for all regular expressions, in bytes.
fn convert_within(nginx: &str, pattern_memory: usize) -> Result<(String, Vec<String>), String> {
    let context = NoGateway {
        flavor: RouterFlavor::default(),
        pattern_memory,
        components: Components::NONE,
    };
    super::convert_nginx(nginx, &context)
}

/// Converts a file to a document, which is one that can be loaded.
fn converted(nginx: &str) -> (Value, Vec<String>) {
    let (document, left) = convert_nginx(nginx).unwrap();
    let text = Text::read(&document, Syntax::Yaml).unwrap();
    // See the test of escaped slashes.
    let left = left.into_iter().filter(|told| !told.contains("%2F"));
    (text.value, left.collect())
}

/// The path of the route that answers escaped slashes.
const ESCAPED_SLASHES: &str = "~/{0}(?s:.*)%2[Ff]";

/// The routes of a document without a service, each as its paths and its plugins.
fn answered(document: &Value) -> Vec<(Value, Value)> {
    let routes = document["routes"].as_array().into_iter().flatten();
    let routes = routes.filter(|route| route["paths"] != json!([ESCAPED_SLASHES]));
    let of = |route: &Value| (route["paths"].clone(), route["plugins"].clone());
    routes.map(of).collect()
}

fn closed(status: u16) -> Value {
    json!([{ "name": "request-termination", "config": { "status_code": status } }])
}

#[test]
fn an_escaped_slash_leads_past_no_location_that_refuses() {
    let server = |rest: &str| {
        let nginx = format!(
            "http {{ server {{ server_name a.b;\nlocation / {{ proxy_pass http://c; }} {rest} }} }}"
        );
        let (document, left) = convert_nginx(&nginx).unwrap();
        (
            document.contains(ESCAPED_SLASHES),
            left.iter().any(|told| told.contains("%2F")),
        )
    };
    assert_eq!(server("location /admin/ { deny all; }"), (true, true));
    assert_eq!(server("location ~ \\.git { root /x; }"), (true, true));
    assert_eq!(
        server("location /more/ { proxy_pass http://d; }"),
        (false, false)
    );
}

#[test]
fn an_escaped_character_cannot_bypass_a_location() {
    let (document, left) = convert_nginx(
        "server { location / { proxy_pass http://c; } location /a:b { deny all; }
            location /c@d { proxy_pass http://c; } }",
    )
    .unwrap();
    assert!(document.contains("~/{0}(?s:.*)%3[Aa]"), "{document}");
    assert!(!document.contains("%40"), "{document}");
    assert!(
        left.iter().any(|told| told.contains("%3A as :")),
        "{left:?}"
    );
}

#[test]
fn upstreams_and_servers_become_entities_and_the_rest_is_listed() {
    let (value, left) = converted(
        "user nobody;
http {
  upstream api { # a comment
    least_conn;
    server 10.0.0.1:8080 weight=5 max_conns=10;
    server b.example backup fail_timeout=3s;
    keepalive 16;
  }
  server {
    listen 443 ssl;
    server_name a.example .b.example;
    location /v1/ { proxy_pass http://api/; proxy_read_timeout 5m; }
    location = /a.b { proxy_pass http://api; proxy_set_header Host $host; }
    location /files { root '/srv/a b'; }
  }
}
",
    );
    assert_eq!(
        left,
        [
            "line 1: user nobody: not converted",
            "line 6: server b.example backup fail_timeout=3s: not converted: fail_timeout=3s",
            "line 7: keepalive 16: not converted",
            "line 10: listen 443 ssl: addresses are in the setting proxy_listen",
            "line 14: root /srv/a b: not converted",
            "line 14: location /files: it passes nothing on: its requests are answered with 503",
        ]
    );
    let target = &value["upstreams"][0]["targets"];
    assert_eq!(target[0]["weight"], 5);
    assert_eq!(
        target[1],
        json!({ "target": "b.example:80", "weight": 1, "failover": true })
    );
    assert_eq!(value["upstreams"][0]["algorithm"], "least-connections");
    let services = &value["services"];
    assert_eq!(services[0]["read_timeout"], 300_000);
    let route = &services[0]["routes"][0];
    assert_eq!(route["strip_path"], true);
    assert_eq!(route["protocols"], json!(["https"]));
    assert_eq!(route["hosts"], json!(["a.example", "b.example"]));
    // nginx redirects requests without the slash; here they are passed on as well.
    assert_eq!(route["paths"], json!(["/v1/", "~/v1$"]));
    assert_eq!(services[1]["routes"][0]["hosts"], json!(["*.b.example"]));
    let route = &services[2]["routes"][0];
    assert_eq!(route["paths"], json!(["~/a\\.b$"]));
    assert_eq!(route["preserve_host"], true);
    let closed_routes = value["routes"].as_array().unwrap().iter();
    let closed_routes: Vec<_> = closed_routes
        .filter(|route| route["paths"] != json!([ESCAPED_SLASHES]))
        .collect();
    assert_eq!(closed_routes[0]["paths"], json!(["/files"]));
    assert_eq!(closed_routes[0]["tags"], json!(["not-converted"]));
    // Other paths of these hosts are not those of another server.
    assert_eq!(closed_routes[2]["paths"], json!(["/"]));
    assert_eq!(closed_routes[2]["plugins"], closed(404));
}

#[test]
fn a_name_that_no_entity_can_have_is_listed() {
    let (value, left) = converted(
        "upstream u\" {\nserver a:80; }\nupstream v { hash $http_;\nserver a$b; server c; }
server { server_name a.*.b;\nlocation / { proxy_pass http://v; } }",
    );
    assert_eq!(
        value,
        json!({
            "_format_version": "3.0",
            "upstreams": [{ "name": "v", "targets": [{ "target": "c:80" }] }],
        })
    );
    assert_eq!(
        left,
        [
            "line 1: upstream u\": not converted: no upstream can have this name",
            "line 3: hash $http_: requests are not hashed on this",
            "line 4: server a$b: not converted: no target can have this address",
            "line 5: server_name a.*.b: no route can have the host a.*.b",
        ]
    );
}

#[test]
fn a_server_that_is_listed_twice_becomes_one_target() {
    let targets = |servers: &str| {
        let (value, left) = converted(&format!("upstream u {{\n{servers}\n}}"));
        (value["upstreams"][0]["targets"].clone(), left)
    };
    let same = |line| format!("not converted: the server of line {line} is the same target");
    for (servers, expected, left) in [
        // Each line is a peer of its own.
        (
            "server a:80;\nserver a weight=3;\nserver c;",
            json!([{ "target": "a:80", "weight": 4 }, { "target": "c:80", "weight": 1 }]),
            vec![],
        ),
        (
            "server unix:/run/A.sock;\nserver unix:/run/A.sock;",
            json!([{ "target": "unix:/run/A.sock", "weight": 2 }]),
            vec![],
        ),
        (
            "server unix:run/a.sock;\nserver b;",
            json!([{ "target": "b:80" }]),
            vec![
                "line 2: server unix:run/a.sock: not converted: no target can have this address"
                    .into(),
            ],
        ),
        (
            "server a:80;\nserver b:81;\nserver B.:81;",
            json!([{ "target": "a:80", "weight": 1 }, { "target": "b:81", "weight": 2 }]),
            vec![],
        ),
        (
            "server a max_conns=10;\nserver a max_conns=5;",
            json!([{
                "target": "a:80", "weight": 2,
                "pointsman": { "circuit_breakers": { "max_connections": 15 } },
            }]),
            vec![],
        ),
        (
            "server a weight=65000;\nserver a weight=1000;",
            json!([{ "target": "a:80", "weight": 65_535 }]),
            vec![
                "line 2: server a weight=65000: the weight of a target is 65535 at most".to_owned(),
            ],
        ),
        // The active one stays.
        (
            "server b:81 backup;\nserver b:81;",
            json!([{ "target": "b:81" }]),
            vec![format!("line 2: server b:81 backup: {}", same(3))],
        ),
        (
            "server b:81 max_conns=1;\nserver b:81;\nserver b:81 down;",
            json!([{
                "target": "b:81",
                "pointsman": { "circuit_breakers": { "max_connections": 1 } },
            }]),
            vec![
                format!("line 3: server b:81: {}", same(2)),
                format!("line 4: server b:81 down: {}", same(2)),
            ],
        ),
    ] {
        assert_eq!(targets(servers), (expected, left), "{servers}");
    }
}

#[test]
fn locations_are_compared_in_nginxs_order() {
    let (value, _) = converted(
        "server { location ~ ^/a { proxy_pass http://1.1.1.1; }
            location ~ ^/ab { proxy_pass http://1.1.1.2; }
            location = /abc { proxy_pass http://1.1.1.3; }
            location ^~ /abd { proxy_pass http://1.1.1.4; }
            location ^~ /abde { proxy_pass http://1.1.1.5; }
            location / { proxy_pass http://1.1.1.6; } }",
    );
    let priority =
        |number: usize| value["services"][number]["routes"][0]["regex_priority"].as_u64();
    assert!(priority(2) > priority(4) && priority(4) > priority(3));
    assert!(priority(3) > priority(0) && priority(0) > priority(1));
    assert_eq!(priority(5), None);
}

#[test]
fn what_nginx_refuses_is_refused() {
    for (location, plugins) in [
        ("deny all;", closed(403)),
        ("allow 10.0.0.0/8; deny all; auth_basic x;", closed(503)),
        ("auth_basic x;", closed(503)),
        ("auth_request /auth;", closed(503)),
        ("if ($a) { return 403; }", closed(503)),
        ("rewrite ^/x /y break;", closed(503)),
        ("limit_except GET { deny all; }", closed(503)),
        ("include guarded.conf;", closed(503)),
        ("something_new on;", closed(503)),
        ("internal;", closed(404)),
        ("return 403;", closed(403)),
        ("return 444;", closed(403)),
    ] {
        let (value, left) = converted(&format!(
            "server {{ location / {{ proxy_pass http://a; }}
                location /x {{ {location} proxy_pass http://a; }} }}"
        ));
        assert_eq!(
            answered(&value),
            [(json!(["/x"]), plugins.clone())],
            "{location}"
        );
        let is_told = !left.is_empty() || plugins != closed(503);
        assert!(is_told, "{location}");
    }
}

#[test]
fn addresses_that_are_allowed_and_denied_become_a_plugin() {
    let config = |rules: &str| {
        let (value, left) = converted(&format!(
            "server {{ location / {{ {rules} proxy_pass http://a; }} }}"
        ));
        let plugins = value["services"][0]["routes"][0]["plugins"].clone();
        (plugins[0]["config"].clone(), left.len())
    };
    for (rules, expected, told) in [
        (
            "allow 10.0.0.0/8; allow ::1; deny all;",
            json!({ "allow": ["10.0.0.0/8", "::1"] }),
            0,
        ),
        ("deny 10.0.0.1;", json!({ "deny": ["10.0.0.1"] }), 0),
        (
            "deny 10.0.0.1; allow 10.0.0.0/8; deny all;",
            json!({ "allow": ["10.0.0.0/8"], "deny": ["10.0.0.1"] }),
            0,
        ),
        (
            "allow 10.0.0.1; deny 10.0.0.0/8;",
            json!({ "deny": ["10.0.0.0/8"] }),
            1,
        ),
        ("allow all; deny 10.0.0.1;", Value::Null, 0),
        (
            "satisfy any; auth_basic x; allow 10.0.0.1; deny all;",
            json!({ "allow": ["10.0.0.1"] }),
            1,
        ),
    ] {
        assert_eq!(config(rules), (expected, told), "{rules}");
    }
}

#[test]
fn directives_of_the_blocks_around_hold_unless_the_location_has_its_own() {
    let (value, left) = converted(
        "http { deny 10.0.0.1; proxy_set_header Host $host; proxy_read_timeout 7s;
          server { proxy_set_header X-A one; proxy_set_header X-B \"\";
            location /a { proxy_pass http://a; }
            location /b { proxy_pass http://a; proxy_set_header Host $host; allow all;
              location /b/c { proxy_pass http://a; proxy_read_timeout 8s; } }
            location /d { proxy_pass http://a; proxy_set_header X-C $request_id; } } }",
    );
    assert_eq!(
        left,
        ["line 6: proxy_set_header X-C $request_id: only texts without variables are converted"]
    );
    let route = |path: &str| {
        let services = value["services"].as_array().unwrap().iter();
        let mut found = services.filter(|service| service["routes"][0]["paths"][0] == path);
        let service = found.next().unwrap();
        (
            service["read_timeout"].clone(),
            service["routes"][0].clone(),
        )
    };
    let (timeout, a) = route("/a");
    assert_eq!(timeout, 7000);
    assert_eq!(a["preserve_host"], false);
    let restriction = json!({ "name": "ip-restriction", "config": { "deny": ["10.0.0.1"] } });
    let headers = json!({
        "name": "request-transformer",
        "config": {
            "remove": { "headers": ["X-B"] },
            "replace": { "headers": ["X-A:one"] },
            "add": { "headers": ["X-A:one"] },
        },
    });
    assert_eq!(a["plugins"], json!([restriction, headers]));
    let (_, b) = route("/b");
    assert_eq!(b["preserve_host"], true);
    assert_eq!(b.get("plugins"), None);
    let (timeout, inner) = route("/b/c");
    assert_eq!(
        (timeout, &inner["preserve_host"]),
        (json!(8000), &json!(true))
    );
    assert_eq!(route("/d").1["plugins"], json!([restriction]));
}

#[test]
fn redirects_are_redirects() {
    let (value, left) = converted(
        "server { server_name a.example b.example; return 301 https://$host$request_uri; }
        server { server_name c.example; location /x { return 302 https://d.example/y; } }",
    );
    assert!(left.is_empty(), "{left:?}");
    let config = |place: usize| value["routes"][place]["plugins"][0]["config"].clone();
    assert_eq!(config(0)["location"], "https://a.example/");
    assert_eq!(config(1)["location"], "https://b.example/");
    assert_eq!(config(0)["keep_incoming_path"], true);
    assert_eq!(
        config(2),
        json!({
            "status_code": 302, "location": "https://d.example/y", "keep_incoming_path": false,
        })
    );
    // To the same host over TLS, the route itself redirects.
    let (value, _) = converted(
        "server { listen 80; server_name a.example; return 301 https://$host$request_uri; }
        server { listen 443 ssl; server_name a.example; location / { proxy_pass http://a; } }",
    );
    assert_eq!(value.get("routes"), None);
    let route = &value["services"][0]["routes"][0];
    assert_eq!(route["https_redirect_status_code"], 301);
    assert_eq!(route["protocols"], json!(["https"]));
}

/// What is not in the file may refuse requests.
#[test]
fn an_include_around_servers_closes_them_unless_it_has_media_types() {
    let with = |include: &str| {
        converted(&format!(
            "include /etc/nginx/modules/*.conf;
            http {{ include {include}; server {{ server_name a.example;
            location / {{ proxy_pass http://a; }} }} }}"
        ))
    };
    let (value, left) = with("mime.types");
    assert!(
        value["services"].is_array() && answered(&value).is_empty(),
        "{left:?}"
    );
    let (value, left) = with("conf.d/*.conf");
    assert_eq!(answered(&value), [(json!(["/"]), closed(503))], "{left:?}");
    assert!(
        left.iter().any(|told| told.contains("may refuse requests")),
        "{left:?}"
    );
    // A file without a block `http` is what such a block includes.
    let (value, _) = converted("deny all; server { location / { proxy_pass http://a; } }");
    assert_eq!(answered(&value), [(json!(["/"]), closed(403))]);
}

#[test]
fn what_is_not_a_file_of_nginx_is_refused_with_its_line() {
    for (text, wrong) in [
        ("a b;\n}", "line 2: unexpected \"}\""),
        (
            "http {\n a;",
            "line 2: the file ends inside a block or a directive",
        ),
        ("http { a }", "line 1: a directive does not end in \";\""),
        ("a;\n'b", "line 2: a quote is not closed"),
        (";", "line 1: unexpected \";\""),
        (
            "http { upstream u { server a; }\nupstream U { server b; } }",
            "line 2: duplicate upstream \"U\"",
        ),
    ] {
        assert_eq!(convert_nginx(text).unwrap_err(), wrong, "{text}");
    }
    assert!(convert_nginx(&"a{".repeat(100)).is_err());
}
