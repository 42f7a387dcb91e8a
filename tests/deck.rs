//! What decK reads and writes: Kong's tool for configurations as files.

use serde_json::Value;

use crate::harness::{Gateway, Reply, of_every_kind, put_document};

fn get(gateway: &Gateway, path: &str) -> Reply {
    gateway.admin("GET", path, &[])
}

/// What decK sends: an entity as it is read, without what is null, by its id.
fn put_as_deck_does(gateway: &Gateway, path: &str, row: &Value) {
    let mut row = row.as_object().unwrap().clone();
    row.retain(|_, value| !value.is_null());
    let id = row["id"].as_str().unwrap().to_owned();
    gateway
        .admin_json("PUT", &format!("{path}/{id}"), &row.into())
        .expect(200);
}

/// Rows in the order of ids: that of targets depends on the time of their creation.
fn without_times(mut rows: Value) -> Value {
    let list = rows.as_array_mut().unwrap();
    list.sort_by_key(|row| row["id"].to_string());
    for row in rows.as_array_mut().unwrap() {
        for time in ["created_at", "updated_at"] {
            row.as_object_mut().unwrap().remove(time);
        }
    }
    rows
}

#[test]
fn what_deck_reads_from_one_gateway_it_can_write_to_another() {
    let (from, to) = (Gateway::start(), Gateway::start());
    put_document(&from, &of_every_kind(), "").expect(200);
    let rows = |gateway: &Gateway, path: &str| {
        let page = get(gateway, &format!("{path}?size=1000"))
            .expect(200)
            .json();
        assert_eq!(page.get("offset"), None);
        without_times(page["data"].clone())
    };
    let upstream = rows(&from, "/upstreams")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let targets = format!("/upstreams/{upstream}/targets");
    let consumer = rows(&from, "/consumers")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let levels = [
        &[
            "/certificates",
            "/ca_certificates",
            "/consumers",
            "/vaults",
            "/key-sets",
        ][..],
        &[
            "/services",
            "/upstreams",
            "/keys",
            "/key-auths",
            "/jwts",
            "/acls",
        ],
        &["/routes", &targets],
        &["/plugins"],
    ];
    for path in levels.concat() {
        let to_path = match path {
            "/key-auths" => format!("/consumers/{consumer}/key-auth"),
            "/jwts" => format!("/consumers/{consumer}/jwt"),
            "/acls" => format!("/consumers/{consumer}/acls"),
            path => path.to_owned(),
        };
        for row in rows(&from, path).as_array().unwrap() {
            put_as_deck_does(&to, &to_path, row);
        }
    }
    for path in levels.concat() {
        assert_eq!(rows(&from, path), rows(&to, path), "{path}");
    }
}
