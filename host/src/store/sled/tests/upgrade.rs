//! Tests of folders and rows of earlier versions.

use super::*;

#[tokio::test]
async fn a_folder_of_format_1_is_converted_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let old = Write::Insert {
        kind: Kind::Balancer,
        id: Uuid::from_u128(1),
        row: row(json!({"name": "a", "digest": "d", "size": 3, "updated_at": 7})),
        blob: Some(Bytes::from_static(b"abc")),
    };
    put(&store, old).await;
    drop(store);
    let marker = folder.path().join("FORMAT");
    let mut versions = Vec::new();
    // The second time as if the first start had ended before it could write the marker.
    for _ in 0..2 {
        std::fs::write(&marker, "pointsman data, format 1\n").unwrap();
        let store = reopen(&folder);
        let format = std::fs::read_to_string(&marker).unwrap();
        assert_eq!(format, "pointsman data, format 2\n");
        let listed = store
            .list(Kind::BalancerVersion, None, 10, &|_| true)
            .unwrap();
        assert_eq!(listed.len(), 1);
        let version = &listed[0].row;
        assert_eq!(version["balancer"], link(1));
        assert_eq!(version["digest"], "d");
        assert_eq!(version["state"], "ready");
        assert_eq!(version["promoted_at"], 7);
        let id = version["id"].as_str().unwrap().parse().unwrap();
        let component = Some(Bytes::from_static(b"abc"));
        assert_eq!(store.blob(Kind::BalancerVersion, id).unwrap(), component);
        assert_eq!(
            store.blob(Kind::Balancer, Uuid::from_u128(1)).unwrap(),
            None
        );
        versions.push(id);
    }
    assert_eq!(versions[0], versions[1]);
}

#[tokio::test]
async fn rows_of_an_earlier_version_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    let kind = Kind::Upstream;
    // Rows as an earlier version wrote them: keys with names in their own spelling, and any
    // algorithm with any hash.
    let names = [
        (1, "Mixed.test"),
        (2, "Twin.test"),
        (3, "twin.test"),
        (4, "plain.test"),
    ];
    for (id, name) in names {
        let fields = |name: &str| json!({"name": name, "algorithm": "consistent-hashing", "hash_on": "none"});
        let other = format!("other-{id}");
        let revision = put(&store, insert(kind, id, fields(&other))).await;
        let id = Uuid::from_u128(id);
        let key = name_key(kind, &other);
        tamper(&store, &key, None);
        let key = name_key_as_written(kind, name);
        tamper(&store, &key, Some(id.as_bytes()));
        let value = record::encode(revision, &row(fields(name))).unwrap();
        tamper(&store, &format::row((kind, id)), Some(&value));
    }
    drop(store);
    let store = reopen(&folder);
    let find = |name: &str| {
        let found = store.find(kind, &["name"], &[&json!(name)]).unwrap();
        found.map(|stored| (stored.row["name"].clone(), stored.row["algorithm"].clone()))
    };
    let settled = |name: &str| Some((json!(name), json!("round-robin")));
    assert_eq!(find("mixed.TEST"), settled("Mixed.test"));
    assert_eq!(find("PLAIN.test"), settled("plain.test"));
    // Two rows whose names differ in spelling only are each still found in their own spelling, and
    // can be deleted.
    assert_eq!(find("twin.test"), settled("twin.test"));
    assert_eq!(find("Twin.test").unwrap().0, "Twin.test");
    put(&store, delete(kind, 2)).await;
    assert_eq!(find("Twin.test"), settled("twin.test"));
    drop(store);
    let store = reopen(&folder);
    assert_eq!(store.list(kind, None, 10, &|_| true).unwrap().len(), 3);
}

#[tokio::test]
async fn rows_that_cannot_be_upgraded_do_not_stop_the_others() {
    let (folder, store) = store();
    let kind = Kind::Upstream;
    // A row nested deeper than is allowed now, a row that is cut off, and a valid row: each with a
    // key in the spelling of its name.
    let names = [(1, "Deep.test"), (2, "Broken.test"), (3, "Sound.test")];
    for (id, name) in names {
        let mut fields = json!({"name": format!("other-{id}"), "algorithm": "latency"});
        let revision = put(&store, insert(kind, id, fields.clone())).await;
        let key = name_key(kind, fields["name"].as_str().unwrap());
        tamper(&store, &key, None);
        fields["name"] = json!(name);
        if id == 1 {
            fields["deep"] = nested(DEPTH + 1);
        }
        let mut value = record::encode(revision, &row(fields)).unwrap();
        if id == 2 {
            value.pop();
        }
        let id = Uuid::from_u128(id);
        let key = name_key_as_written(kind, name);
        tamper(&store, &key, Some(id.as_bytes()));
        tamper(&store, &format::row((kind, id)), Some(&value));
    }
    drop(store);
    // The next start gives the same result.
    for _ in 0..2 {
        let store = reopen(&folder);
        let find = |name: &str| store.find(kind, &["name"], &[&json!(name)]);
        assert!(find("sound.test").unwrap().is_some());
        assert!(find("Deep.test").unwrap().is_some());
        let broken = find("Broken.test");
        assert!(matches!(broken, Err(Error::SetAside { .. })), "{broken:?}");
        assert_eq!(ids_of(&store, kind), [1, 3]);
    }
    // All of them can be deleted, and their names used again.
    let store = reopen(&folder);
    for (id, name) in names {
        put(&store, delete(kind, id)).await;
        let again = json!({"name": name.to_lowercase(), "algorithm": "latency"});
        put(&store, insert(kind, id, again)).await;
    }
    drop(store);
    let store = reopen(&folder);
    assert!(store.condition().set_aside.is_empty());
    assert_eq!(ids_of(&store, kind), [1, 2, 3]);
}
