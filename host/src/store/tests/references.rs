//! Tests of rules that no entity needs yet: several references to one kind, arrays of references,
//! circles, and unique keys in which null is a value. The declarations are made for these tests.

use super::*;
use crate::entity::{OnDelete, Reference, ReferenceBy, UniqueKey};
use crate::store::schema::Constraints;

const fn to_service(field: &'static str, is_array: bool, on_delete: OnDelete) -> Reference {
    Reference {
        field,
        is_array,
        to: Kind::Service,
        by: ReferenceBy::Id,
        on_delete,
        has_endpoint: false,
    }
}

const CASCADE: Reference = to_service("service", false, OnDelete::Cascade);
const RESTRICT: Reference = to_service("fallback", false, OnDelete::Restrict);
const ARRAY: Reference = to_service("mirrors", true, OnDelete::Restrict);
const CASCADING_ARRAY: Reference = to_service("owners", true, OnDelete::Cascade);

const PARENT: Reference = to_service("parent", false, OnDelete::Cascade);
const HEIR: Reference = to_service("heir", false, OnDelete::Restrict);

const NAME: UniqueKey = UniqueKey::of(&["name"]);
const NAME_IN_SERVICE: UniqueKey = UniqueKey::with_nulls(&["name", "service"]);

/// Routes refer to services four times; a service may have a parent and an heir.
pub(in crate::store) const SEVERAL: Schema = Schema(|kind| Constraints {
    unique: match kind {
        Kind::Service => &[NAME],
        Kind::Route => &[NAME_IN_SERVICE],
        _ => &[],
    },
    references: match kind {
        Kind::Route => &[CASCADE, RESTRICT, ARRAY, CASCADING_ARRAY],
        Kind::Service => &[PARENT, HEIR],
        _ => &[],
    },
});

/// As [`SEVERAL`], declared in the reverse order.
const REVERSED: Schema = Schema(|kind| Constraints {
    references: match kind {
        Kind::Route => &[CASCADING_ARRAY, ARRAY, RESTRICT, CASCADE],
        kind => (SEVERAL.0)(kind).references,
    },
    ..(SEVERAL.0)(kind)
});

/// A store with this schema and the services 1 to 4.
async fn with_services(schema: Schema) -> JournaledStore {
    let store = JournaledStore::start(Memory::default().journal([]), schema).unwrap();
    for id in 1..=4 {
        put(&store, insert(Kind::Service, id, json!({}))).await;
    }
    store
}

async fn refused(store: &JournaledStore, write: Write) -> Error {
    store.write(vec![write]).await.unwrap_err()
}

fn is_still_referenced(error: &Error) -> bool {
    let (kind, by) = (Kind::Service, Kind::Route);
    matches!(error, Error::StillReferenced { kind: k, by: b, .. } if (*k, *b) == (kind, by))
}

fn referring(store: &JournaledStore, field: &'static str, parent: u128) -> Vec<u128> {
    let parent = Uuid::from_u128(parent);
    let listed = store.list_referring(Kind::Route, field, parent, None, usize::MAX);
    let ids = listed.unwrap().into_iter().map(|stored| {
        let id: Uuid = stored.row["id"].as_str().unwrap().parse().unwrap();
        id.as_u128()
    });
    ids.collect()
}

fn route(id: u128, mut fields: Value) -> Write {
    fields["id"] = json!(Uuid::from_u128(id));
    insert(Kind::Route, id, fields)
}

#[tokio::test]
async fn each_of_two_references_to_one_kind_has_its_own_rule() {
    for schema in [SEVERAL, REVERSED] {
        let store = with_services(schema).await;
        let fields = json!({"service": link(1), "fallback": link(2)});
        put(&store, route(10, fields)).await;
        assert_eq!(referring(&store, "service", 1), [10]);
        assert_eq!(referring(&store, "fallback", 1), [0; 0]);
        assert_eq!(referring(&store, "fallback", 2), [10]);
        let error = refused(&store, delete(Kind::Service, 2)).await;
        assert!(is_still_referenced(&error), "{error}");
        put(&store, delete(Kind::Service, 1)).await;
        assert_eq!(ids_of(&store, Kind::Route), [0; 0]);
        put(&store, delete(Kind::Service, 2)).await;
        assert_eq!(ids_of(&store, Kind::Service), [3, 4]);
    }
}

#[tokio::test]
async fn a_row_that_refers_twice_to_one_row_is_kept_by_the_stricter_rule() {
    for schema in [SEVERAL, REVERSED] {
        let store = with_services(schema).await;
        let fields = json!({"service": link(1), "fallback": link(1)});
        put(&store, route(10, fields)).await;
        let error = refused(&store, delete(Kind::Service, 1)).await;
        assert!(is_still_referenced(&error), "{error}");
        put(&store, delete(Kind::Route, 10)).await;
        put(&store, delete(Kind::Service, 1)).await;
    }
}

#[tokio::test]
async fn every_element_of_an_array_is_a_reference() {
    let store = with_services(SEVERAL).await;
    let mirrors = json!([link(1), link(2), link(1)]);
    let revision = put(&store, route(10, json!({ "mirrors": mirrors }))).await;
    assert_eq!(referring(&store, "mirrors", 1), [10]);
    assert_eq!(referring(&store, "mirrors", 2), [10]);
    for wrong in [json!([link(3), link(9)]), json!([link(3), null])] {
        let named = wrong[1].clone();
        let error = refused(
            &store,
            route(11, json!({"name": "other", "mirrors": wrong})),
        )
        .await;
        assert!(
            matches!(&error, Error::ReferenceMissing { field: "mirrors", value, .. } if *value == named),
            "{error}"
        );
    }
    for id in [1, 2] {
        let error = refused(&store, delete(Kind::Service, id)).await;
        assert!(is_still_referenced(&error), "{error}");
    }
    let mut fields = row(json!({"mirrors": [link(1), link(3)]}));
    fields.insert("id".into(), json!(Uuid::from_u128(10)));
    put(
        &store,
        Write::Replace {
            kind: Kind::Route,
            id: Uuid::from_u128(10),
            row: fields,
            expected: revision,
            blob: None,
        },
    )
    .await;
    put(&store, delete(Kind::Service, 2)).await;
    for id in [1, 3] {
        assert_eq!(referring(&store, "mirrors", id), [10]);
        let error = refused(&store, delete(Kind::Service, id)).await;
        assert!(is_still_referenced(&error), "{error}");
    }
    put(&store, delete(Kind::Route, 10)).await;
    put(&store, delete(Kind::Service, 1)).await;
}

#[tokio::test]
async fn any_element_of_a_cascading_array_deletes_the_row() {
    let store = with_services(SEVERAL).await;
    put(&store, route(10, json!({"owners": [link(1), link(2)]}))).await;
    put(&store, route(11, json!({"name": "other", "owners": []}))).await;
    put(&store, delete(Kind::Service, 2)).await;
    assert_eq!(ids_of(&store, Kind::Route), [11]);
    assert_eq!(referring(&store, "owners", 1), [0; 0]);
}

#[tokio::test]
async fn rows_that_refer_to_each_other_can_be_deleted() {
    let store = with_services(SEVERAL).await;
    let replaced = |id, fields: Value, expected| Write::Replace {
        kind: Kind::Service,
        id: Uuid::from_u128(id),
        row: row(fields),
        expected,
        blob: None,
    };
    // 1 and 2 are each other's parent; 3 is its own heir.
    put(&store, replaced(1, json!({"parent": link(2)}), 1)).await;
    put(&store, replaced(2, json!({"parent": link(1)}), 2)).await;
    put(&store, replaced(3, json!({"heir": link(3)}), 3)).await;
    put(&store, delete(Kind::Service, 1)).await;
    assert_eq!(ids_of(&store, Kind::Service), [3, 4]);
    put(&store, delete(Kind::Service, 3)).await;
    put(&store, insert(Kind::Service, 5, json!({"heir": link(5)}))).await;
    assert_eq!(ids_of(&store, Kind::Service), [4, 5]);
}

#[tokio::test]
async fn null_is_a_value_of_a_unique_key_that_says_so() {
    let store = with_services(SEVERAL).await;
    put(&store, route(10, json!({"name": "a", "service": null}))).await;
    put(&store, route(11, json!({"name": "a", "service": link(1)}))).await;
    put(&store, route(12, json!({"name": null, "service": null}))).await;
    // A missing field is null.
    for (id, taken) in [
        (20, json!({"name": "a"})),
        (21, json!({"name": "a", "service": link(1)})),
        (22, json!({})),
    ] {
        let error = refused(&store, route(id, taken)).await;
        assert!(
            matches!(&error, Error::UniqueKeyTaken { key, .. } if *key == NAME_IN_SERVICE),
            "{error}"
        );
    }
    let found = store.find(
        Kind::Route,
        NAME_IN_SERVICE.fields,
        &[&json!("a"), &Value::Null],
    );
    assert_eq!(found.unwrap().unwrap().row["name"], "a");
    put(&store, delete(Kind::Route, 10)).await;
    put(&store, route(20, json!({"name": "a"}))).await;
}
