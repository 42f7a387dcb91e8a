//! Plugins, consumers and their credentials.

use serde_json::{Value, json};

use super::{Backend, Gateway, Reply};

/// A gateway with a service `s` that leads to a backend, and its route `r` under `/`.
pub(crate) fn with_route() -> (Gateway, Backend) {
    let gateway = Gateway::start();
    let backend = Backend::start("b");
    let url = format!("http://{}", backend.address);
    let service = json!({ "name": "s", "url": url });
    gateway
        .admin_json("POST", "/services", &service)
        .expect(201);
    let route = json!({ "name": "r", "paths": ["/"] });
    let made = gateway.admin_json("POST", "/services/s/routes", &route);
    made.expect(201);
    (gateway, backend)
}

/// Adds a plugin. `fields` has its scope, and what else differs from the defaults. Returns its
/// path.
pub(crate) fn add_plugin(gateway: &Gateway, name: &str, config: Value, fields: Value) -> String {
    let mut plugin = json!({ "name": name, "config": config });
    for (field, value) in fields.as_object().unwrap() {
        plugin[field] = value.clone();
    }
    let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    format!("/plugins/{}", made.json()["id"].as_str().unwrap())
}

/// Adds a plugin for all requests. Returns its id.
pub(crate) fn add_global_plugin(gateway: &Gateway, name: &str, config: Value) -> String {
    let plugin = json!({ "name": name, "config": config });
    let made = gateway.admin_json("POST", "/plugins", &plugin).expect(201);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// Adds a consumer. Returns its id.
pub(crate) fn add_consumer(gateway: &Gateway, username: &str) -> String {
    let consumer = json!({ "username": username });
    let made = gateway
        .admin_json("POST", "/consumers", &consumer)
        .expect(201);
    made.json()["id"].as_str().unwrap().to_owned()
}

/// Adds a credential of a consumer. Returns its row.
pub(crate) fn add_credential(gateway: &Gateway, consumer: &str, kind: &str, row: Value) -> Value {
    let path = format!("/consumers/{consumer}/{kind}");
    gateway.admin_json("POST", &path, &row).expect(201).json()
}

/// The headers that the backend has received.
#[track_caller]
pub(crate) fn received(reply: Reply) -> Value {
    reply.expect(200).json()["headers"].clone()
}
