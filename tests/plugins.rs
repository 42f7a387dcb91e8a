//! Plugins in the Admin API: their scopes, their names and their protocols. Facts: Kong 3.9.

use serde_json::{Value, json};

use crate::admin_input::said;
use crate::harness::{Gateway, Reply};

pub(crate) const LIMIT: &[(&str, &str)] = &[("name", "rate-limiting"), ("config.minute", "5")];

pub(crate) fn post(gateway: &Gateway, plugin: Value) -> Reply {
    gateway.admin_json("POST", "/plugins", &plugin)
}

#[test]
fn a_plugin_has_a_scope_once() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    gateway
        .admin(
            "POST",
            "/services/s/routes",
            &[("name", "r"), ("paths[]", "/")],
        )
        .expect(201);
    gateway
        .admin("POST", "/consumers", &[("username", "luka")])
        .expect(201);
    for path in [
        "/plugins",
        "/services/s/plugins",
        "/routes/r/plugins",
        "/consumers/luka/plugins",
    ] {
        gateway.admin("POST", path, LIMIT).expect(201);
        let refused = gateway.admin("POST", path, LIMIT).expect(409).json();
        assert_eq!(
            (&refused["code"], &refused["name"]),
            (&json!(5), &json!("unique constraint violation"))
        );
        assert_eq!(refused["fields"]["name"], "rate-limiting", "{path}");
    }
    let refused = gateway.admin("POST", "/plugins", LIMIT).expect(409);
    assert_eq!(
        said(&refused),
        "UNIQUE violation detected on '{consumer=null,name=\"rate-limiting\",route=null,service=null}'"
    );
    assert_eq!(
        refused.json()["fields"],
        json!({ "consumer": null, "name": "rate-limiting", "route": null, "service": null })
    );
    for (path, count) in [
        ("/plugins", 4),
        ("/services/s/plugins", 1),
        ("/consumers/luka/plugins", 1),
    ] {
        let listed = gateway.admin("GET", path, &[]).expect(200).json();
        assert_eq!(listed["data"].as_array().unwrap().len(), count, "{path}");
    }
    // Deleting what a plugin is for deletes the plugin.
    gateway.admin("DELETE", "/consumers/luka", &[]).expect(204);
    gateway.admin("DELETE", "/routes/r", &[]).expect(204);
    let listed = gateway.admin("GET", "/plugins", &[]).expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
}

#[test]
fn a_plugin_that_finds_the_consumer_cannot_be_for_one() {
    let gateway = Gateway::start();
    let consumer = gateway
        .admin("POST", "/consumers", &[("username", "luka")])
        .expect(201)
        .json();
    let consumer = json!({ "id": consumer["id"] });
    for name in ["key-auth", "basic-auth", "jwt", "cors", "bot-detection"] {
        let refused = post(&gateway, json!({ "name": name, "consumer": consumer })).expect(400);
        assert_eq!(
            refused.json()["fields"],
            json!({ "consumer": "value must be null" }),
            "{name}"
        );
    }
    let plugin = json!({ "name": "acl", "consumer": consumer, "config": { "allow": ["a"] } });
    post(&gateway, plugin).expect(400);
}

#[test]
fn an_instance_is_named_in_paths() {
    let gateway = Gateway::start();
    let made = gateway
        .admin("PUT", "/plugins/my-limit", LIMIT)
        .expect(200)
        .json();
    assert_eq!(made["instance_name"], "my-limit");
    let read = gateway
        .admin("GET", "/plugins/my-limit", &[])
        .expect(200)
        .json();
    assert_eq!(read, made);
    let changed = gateway
        .admin("PATCH", "/plugins/my-limit", &[("enabled", "false")])
        .expect(200);
    assert_eq!(changed.json()["enabled"], false);
    let replaced = gateway
        .admin("PUT", "/plugins/my-limit", LIMIT)
        .expect(200)
        .json();
    assert_eq!(
        (&replaced["id"], &replaced["enabled"]),
        (&made["id"], &json!(true))
    );
    let other = json!({ "name": "cors", "instance_name": "my-limit" });
    let refused = post(&gateway, other).expect(409);
    assert_eq!(
        said(&refused),
        "UNIQUE violation detected on '{instance_name=\"my-limit\"}'"
    );
    gateway
        .admin("DELETE", "/plugins/my-limit", &[])
        .expect(204);
    gateway.admin("GET", "/plugins/my-limit", &[]).expect(404);
    gateway
        .admin("DELETE", "/plugins/my-limit", &[])
        .expect(204);
}

#[test]
fn the_protocols_of_a_plugin_fit_those_of_its_routes() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/services", &[("name", "s"), ("host", "h")])
        .expect(201);
    let plugin = |protocol: &str| json!({ "name": "rate-limiting", "config": { "minute": 5 }, "protocols": [protocol] });
    // A service without routes may get any.
    let made = gateway
        .admin_json("POST", "/services/s/plugins", &plugin("grpc"))
        .expect(201)
        .json();
    let path = format!("/plugins/{}", made["id"].as_str().unwrap());
    let route = json!({ "name": "r", "paths": ["/"], "protocols": ["http", "https"] });
    gateway
        .admin_json("POST", "/services/s/routes", &route)
        .expect(201);

    let refused = gateway
        .admin_json("POST", "/routes/r/plugins", &plugin("grpc"))
        .expect(400);
    assert_eq!(
        refused.json()["fields"],
        json!({ "protocols": "must match the associated route's protocols" })
    );
    gateway
        .admin_json("POST", "/routes/r/plugins", &plugin("https"))
        .expect(201);

    // The plugin that was there before the route can still be changed in other ways.
    gateway
        .admin("PATCH", &path, &[("enabled", "false")])
        .expect(200);
    let refused = gateway
        .admin_json("PATCH", &path, &json!({ "protocols": ["grpcs"] }))
        .expect(400);
    assert_eq!(
        refused.json()["fields"],
        json!({ "protocols":
            "must match the protocols of at least one route pointing to this Plugin's service" })
    );
    gateway
        .admin_json("PATCH", &path, &json!({ "protocols": ["http"] }))
        .expect(200);
    // Not all plugins are for streams.
    let refused = post(&gateway, plugin("tcp")).expect(400);
    assert_eq!(
        refused.json()["fields"],
        json!({ "protocols": ["expected one of: grpc, grpcs, http, https"] })
    );
}
