//! What documents read as, and what is said about those that are wrong.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CheckContext, Configuration, Mistakes, Syntax, Text, read};
use crate::config::RouterFlavor;
use crate::entity::{Kind, Row};

fn parsed(text: &str) -> Text {
    Text::read(text, Syntax::Yaml).unwrap()
}

fn document(text: &str) -> Result<Configuration, Mistakes> {
    read(&parsed(&format!("_format_version: '3.0'\n{text}")), &Alone)
}

/// A gateway with one balancer and nothing else.
struct Alone;

impl CheckContext for Alone {
    fn find(&self, kind: Kind, named: &str) -> Option<Uuid> {
        (kind == Kind::Balancer && named == "round-robin").then(Uuid::nil)
    }

    fn row(&self, _: Kind, _: Uuid) -> Option<Row> {
        None
    }

    fn rows(&self, _: Kind) -> Vec<Row> {
        Vec::new()
    }

    fn flavor(&self) -> RouterFlavor {
        RouterFlavor::default()
    }

    fn pattern_memory(&self, _: &[Uuid]) -> usize {
        1 << 20
    }

    fn component_digest(&self, path: &str) -> Result<String, String> {
        Err(format!("there is no {path}"))
    }
}

fn rows(configuration: &Configuration, kind: Kind) -> Vec<&Row> {
    let entities = configuration.entities.iter();
    let of_kind = entities.filter(|entity| entity.kind == kind);
    of_kind.map(|entity| &entity.row).collect()
}

#[test]
fn nested_and_flat_entities_are_the_same_but_for_their_ids() {
    let text = "services:
- name: my-service
  url: http://a.example/x
  routes:
  - name: my-route
    paths: [/a]
  plugins:
  - name: key-auth
plugins:
- name: key-auth
consumers:
- username: my-user
  acls:
  - group: g
routes:
- name: other
  service: my-service
  paths: [/b]
- name: third
  service: {id: 0855b320-0dd2-547d-891d-601e9b38647f}
  paths: [/c]
";
    let read = document(text).unwrap();
    let service = rows(&read, Kind::Service)[0];
    let id = "0855b320-0dd2-547d-891d-601e9b38647f";
    assert_eq!(service["id"], id);
    assert_eq!(service["host"], "a.example");
    let routes = rows(&read, Kind::Route);
    assert_eq!(routes.len(), 3);
    for route in routes {
        assert_eq!(route["service"], json!({ "id": id }));
    }
    let plugins = rows(&read, Kind::Plugin);
    let ids: Vec<&Value> = plugins.iter().map(|plugin| &plugin["id"]).collect();
    assert!(
        ids.contains(&&json!("4a4d9361-8cf7-5304-acb5-d4e8f72ac40b")),
        "{ids:?}"
    );
    assert!(
        ids.contains(&&json!("6b4f38d1-e026-540b-a5ea-8634739dd2a7")),
        "{ids:?}"
    );
    let consumer = json!({ "id": "4b1b701d-de2b-5588-9aa2-3b97061d9f52" });
    assert_eq!(rows(&read, Kind::Acl)[0]["consumer"], consumer);
}

#[test]
fn errors_have_the_shape_of_the_document() {
    let text = "services:
- name: good
  host: a.example
- name: bad
  tags: [t]
  routes:
  - name: r
    protocols: [http, ftp]
    paths: [/]
unknown: []
plugins:
- name: key-auth
  service: missing
";
    let mistakes = document(text).unwrap_err();
    let fields = mistakes.fields();
    assert_eq!(fields["services"][0], Value::Null);
    assert_eq!(fields["services"][1]["host"], "required field missing");
    let protocols = &fields["services"][1]["routes"][0]["protocols"];
    assert_eq!(protocols[0], Value::Null);
    assert!(
        protocols[1]
            .as_str()
            .unwrap()
            .starts_with("expected one of: ")
    );
    assert_eq!(fields["unknown"], "unknown field");
    assert_eq!(
        fields["plugins"][0],
        "invalid reference 'service: missing' (no such entry in 'services')"
    );
    let message = Mistakes::message(&json!({ "services": [null, { "host": "x" }], "a-b": 1 }));
    assert_eq!(
        message,
        "declarative config is invalid: {services={[2]={host=\"x\"}},[\"a-b\"]=1}"
    );
    let (flat, left) = mistakes.flattened();
    assert_eq!(left, json!({ "unknown": "unknown field" }));
    assert_eq!(
        flat[0],
        json!({
            "entity_type": "service",
            "entity_name": "bad",
            "entity_tags": ["t"],
            "entity": { "name": "bad", "tags": ["t"] },
            "errors": [{ "type": "field", "field": "host", "message": "required field missing" }],
        })
    );
    assert_eq!(flat[1]["errors"][0]["field"], "protocols.2");
    assert_eq!(flat[2]["errors"][0]["type"], "entity");
    let text = parsed(&format!("_format_version: '3.0'\n{text}"));
    let told = mistakes.told(&text.lines());
    assert_eq!(
        told[0],
        "line 5: services[1] (bad): host: required field missing"
    );
    assert!(told[1].starts_with("line 9: services[1].routes[0] (r): protocols.2: "));
    assert_eq!(told[2], "line 11: unknown: unknown field");
}

#[test]
fn an_entity_may_be_there_only_once() {
    for (text, message) in [
        (
            "services:\n- {name: a, host: h}\n- {name: a, host: h}\n",
            "uniqueness violation: 'services' entity with name set to 'a' already declared",
        ),
        (
            "plugins:\n- name: key-auth\n- name: key-auth\n",
            "uniqueness violation: 'plugins' entity with primary key set to \
             '6b4f38d1-e026-540b-a5ea-8634739dd2a7' already declared",
        ),
        (
            "consumers:\n- {username: a, custom_id: x}\n- {username: b, custom_id: x}\n",
            "uniqueness violation: 'consumers' entity with custom_id set to 'x' already declared",
        ),
    ] {
        let fields = document(text).unwrap_err().fields();
        assert!(fields.to_string().contains(message), "{fields}");
    }
}

#[test]
fn the_head_of_a_document_is_checked() {
    for (text, wrong) in [
        ("{}", json!({ "_format_version": "required field missing" })),
        (
            "_format_version: 3.0",
            json!({ "_format_version": "expected a string" }),
        ),
        (
            "_format_version: '2.0'",
            json!({ "_format_version": "expected one of: 1.1, 2.1, 3.0" }),
        ),
    ] {
        let mistakes = read(&parsed(text), &Alone).unwrap_err();
        assert_eq!(mistakes.fields(), wrong);
    }
    let old = "_format_version: '2.1'\nroutes:\n- name: r\n  paths: [/a, '/b\\d+']\n";
    let read = read(&parsed(old), &Alone).unwrap();
    assert_eq!(
        rows(&read, Kind::Route)[0]["paths"],
        json!(["/a", "~/b\\d+"])
    );
}

#[test]
fn defaults_select_tags_and_shared_settings_of_deck_are_applied() {
    let text = "_info:
  select_tags: [team]
  defaults:
    service: {retries: 2}
_plugin_configs:
  limits: {minute: 5, policy: local}
services:
- {name: a, host: h, tags: [own]}
- {name: b, host: h, retries: 3}
plugins:
- name: rate-limiting
  _config: limits
  config: {minute: 7}
";
    let read = document(text).unwrap();
    assert_eq!(read.select_tags, ["team"]);
    let services = rows(&read, Kind::Service);
    assert_eq!(services[0]["tags"], json!(["own", "team"]));
    assert_eq!(services[0]["retries"], 2);
    assert_eq!(services[1]["retries"], 3);
    let plugin = rows(&read, Kind::Plugin)[0];
    assert_eq!(plugin["config"]["minute"], 7);
    assert_eq!(plugin["config"]["policy"], "local");
    assert_eq!(plugin["tags"], json!(["team"]));
}

#[test]
fn a_password_is_hashed_unless_it_is_a_stored_one() {
    let text = "consumers:
- username: a
  basicauth_credentials:
  - {username: u, password: p}
";
    let hashed = document(text).unwrap();
    let hashed = rows(&hashed, Kind::BasicAuthCredential)[0]["password"].clone();
    assert_eq!(hashed.as_str().unwrap().len(), 40);
    let stored = document(&format!("_transform: false\n{text}")).unwrap();
    assert_eq!(rows(&stored, Kind::BasicAuthCredential)[0]["password"], "p");
}

/// As for Kong, which checks it only where a plugin is written by the Admin API.
#[test]
fn a_plugin_may_be_for_protocols_that_its_route_does_not_have() {
    let text = "routes:
- name: r
  paths: [/]
  protocols: [http]
  plugins:
  - name: key-auth
    protocols: [grpc]
services:
- name: s
  host: a.example
  plugins:
  - name: cors
    protocols: [grpcs]
  routes:
  - name: other
    paths: [/]
    protocols: [http]
";
    assert!(document(text).is_ok());
}

/// The mistakes of a document, as lines for people.
fn told(text: &str) -> Vec<String> {
    let text = parsed(&format!("_format_version: '3.0'\n{text}"));
    read(&text, &Alone).unwrap_err().told(&text.lines())
}

#[test]
fn a_row_is_checked_as_the_admin_api_checks_it() {
    let text = "services:
- name: s
  host: a.example
  routes:
  - name: http
    paths: [/a]
    protocols: [http]
    plugins:
    - {name: bot-detection, config: {allow: ['(']}}
  - name: large
    paths: ['~/(a{1000}){1000}']
  plugins:
  - {name: bot-detection, config: {deny: ['(']}}
";
    let told = told(text);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].starts_with("line 10: services[0].routes[0].plugins[0] (bot-detection): config"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("line 12: services[0].routes[1] (large): paths"),
        "{told:?}"
    );
    assert!(told[2].starts_with("line 14: services[0].plugins[0] (bot-detection): config"));
}

#[test]
fn a_secret_that_is_there_twice_is_not_told() {
    let text = "consumers:
- username: one
  keyauth_credentials: [{key: not-to-be-told}]
- username: other
  keyauth_credentials: [{key: not-to-be-told}]
";
    let told = told(text);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("with the same key already declared"),
        "{told:?}"
    );
    assert!(!told[0].contains("not-to-be-told"), "{told:?}");
}

#[test]
fn an_unknown_name_is_reported_with_the_one_that_is_probably_meant() {
    let text = "servces: []
services:
- name: s
  hst: a.example
  host: a.example
  route: []
  plugin: []
";
    assert_eq!(
        told(text),
        [
            "line 2: servces: unknown field, did you mean 'services'?",
            "line 5: services[0] (s): hst: unknown field, did you mean 'host'?",
            "line 7: services[0] (s): route: unknown field, did you mean 'routes'?",
            "line 8: services[0] (s): plugin: unknown field, did you mean 'plugins'?",
        ]
    );
}

#[test]
fn the_number_of_reported_mistakes_has_a_bound() {
    let text: String = (0..1500)
        .map(|number| format!("- name: s{number}\n"))
        .collect();
    let told = told(&format!("services:\n{text}"));
    assert_eq!(told.len(), 1001);
    assert_eq!(told[1000], "and 500 more");
}

#[test]
fn defaults_cannot_stand_for_more_values_than_a_text_may() {
    let tags: String = (0..2000).map(|number| format!("t{number},")).collect();
    let services: String = (0..2000)
        .map(|number| format!("- {{name: s{number}, host: a}}\n"))
        .collect();
    let text =
        format!("_info: {{defaults: {{service: {{tags: [{tags}]}}}}}}\nservices:\n{services}");
    assert!(told(&text)[0].contains("more than 2000000 values"));
}

#[test]
fn the_only_workspace_may_be_named() {
    for text in [
        "workspaces: [{name: default}]",
        "workspaces:\n- name: default\n  id: 0dc6f45b-8f8d-40d2-a504-473544ee190b\n  meta: {color: '#fff'}\n  config: {}\n  comment: x",
        "workspaces: []",
        "workspaces: {}",
        "_workspace: default",
    ] {
        let read = document(text);
        assert!(read.is_ok_and(|read| read.entities.is_empty()), "{text}");
    }
    for (text, place, why) in [
        (
            "workspaces: [{name: default}, {name: team}]",
            "workspaces[1]",
            "no workspace 'team'",
        ),
        ("_workspace: team", "_workspace", "no workspace 'team'"),
        ("_workspace: 1", "_workspace", "expected a string"),
        ("workspaces: default", "workspaces", "expected an array"),
        (
            "workspaces: [default]",
            "workspaces[0]",
            "expected a record",
        ),
        (
            "workspaces: [{id: 1, name: default}]",
            "workspaces[0].id",
            "expected a string",
        ),
        (
            "workspaces: [{id: one, name: default}]",
            "workspaces[0].id",
            "expected a valid UUID",
        ),
        (
            "workspaces: [{nam: default}]",
            "workspaces[0]",
            "unknown field",
        ),
        (
            "workspaces: [{id: 0dc6f45b-8f8d-40d2-a504-473544ee190b}]",
            "workspaces[0]",
            "required field missing",
        ),
    ] {
        let parsed = parsed(&format!("_format_version: '3.0'\n{text}"));
        let told = read(&parsed, &Alone).unwrap_err().told(&parsed.lines());
        assert!(
            told.iter()
                .any(|line| line.contains(place) && line.contains(why)),
            "{text}: {told:?}"
        );
    }
}
