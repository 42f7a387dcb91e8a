//! Regular expressions of routes stay within a limit of memory.

use serde_json::{Value, json};

use crate::harness::{Gateway, Setup};

/// A path of a route whose compiled regular expression takes some megabytes.
fn large(number: usize) -> String {
    format!("~/{number}/\\w{{90}}$")
}

/// Whether the route with that path, which has no service, matches its requests.
fn is_taken(gateway: &Gateway, number: usize) -> bool {
    let path = format!("/{number}/{}", "w".repeat(90));
    match gateway.get(&path).status {
        503 => true,
        404 => false,
        other => panic!("{other}"),
    }
}

#[test]
fn regular_expressions_stay_within_their_memory_limit() {
    let gateway = Setup::new().arg("--route-regex-memory", 32).start();
    let post = |name: &str, fields: Value| {
        let mut route = json!({"name": name});
        route
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        gateway.admin_json("POST", "/routes", &route)
    };
    let mut made = 0;
    let refused = loop {
        let reply = post(&format!("r{made}"), json!({"paths": [large(made)]}));
        if reply.status != 201 {
            break reply.expect(400);
        }
        made += 1;
        assert!(made < 32, "each takes more than a megabyte");
    };
    assert!(made > 2, "{made}");
    let wrong = refused.json()["fields"]["paths"].to_string();
    assert!(wrong.contains("route_regex_memory"), "{wrong}");
    let refused = post("h", json!({"headers": {"a": ["~*\\w{90}"]}})).expect(400);
    let wrong = refused.json()["fields"]["headers"].to_string();
    assert!(wrong.contains("route_regex_memory"), "{wrong}");
    let refused = post("l", json!({"paths": ["~/\\w{1000}{1000}"]})).expect(400);
    assert!(refused.text().contains("regex"), "{}", refused.text());
    // A path without a regular expression is accepted, and the existing routes can be changed.
    post("p", json!({"paths": ["/plain"]})).expect(201);
    let tags = json!({"tags": ["t"]});
    gateway.admin_json("PATCH", "/routes/r0", &tags).expect(200);
    gateway.admin("DELETE", "/routes/r0", &[]).expect(204);
    post("again", json!({"paths": [large(0)]})).expect(201);
    assert!((0..made).all(|number| is_taken(&gateway, number)));

    // At a start with less memory some routes are set aside, and logged by name, until others are
    // deleted.
    let folder = gateway.kill().unwrap();
    let data = folder.path().join("data");
    let gateway = Setup::with_data(&data)
        .arg("--route-regex-memory", 16)
        .start();
    let (there, aside): (Vec<usize>, Vec<usize>) =
        (0..made).partition(|number| is_taken(&gateway, *number));
    assert!(
        !there.is_empty() && !aside.is_empty(),
        "{there:?} {aside:?}"
    );
    gateway.admin("GET", "/routes", &[]).expect(200);
    let name_of = |number: usize| match number {
        0 => "again".to_owned(),
        number => format!("r{number}"),
    };
    for number in &there {
        let path = format!("/routes/{}", name_of(*number));
        gateway.admin("DELETE", &path, &[]).expect(204);
    }
    assert!(
        aside.iter().any(|number| is_taken(&gateway, *number)),
        "{aside:?}"
    );
    gateway.terminate();
    let (_, log) = gateway.wait();
    for number in aside {
        assert!(log.contains(&name_of(number)), "{number}: {log}");
    }
}
