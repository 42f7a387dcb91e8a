//! Entities that stand in the fields of others which should refer to them, in the errors of
//! `POST /config`. Source: Kong 3.9, `kong.db.errors`.

use serde_json::json;

use crate::declarative_errors::{field, flattened, items, start};

const ID: &str = "11111111-1111-4111-8111-111111111111";

#[test]
fn what_is_wrong_with_an_entity_in_a_reference_is_told_as_its_own() {
    let gateway = start();
    let certificate = json!({ "cert": "", "key": "", "tags": ["a", "b"] });
    let service = json!({
        "name": "s", "url": "https://a.example", "client_certificate": certificate,
    });
    let refused = flattened(&gateway, json!({ "services": [service] }));
    let errors = json!([
        field("cert", "length must be at least 1"),
        field("key", "length must be at least 1"),
    ]);
    // The service itself is right.
    let expected = json!([{
        "entity_type": "certificate",
        "entity_tags": ["a", "b"],
        "entity": certificate,
        "errors": errors,
    }]);
    assert_eq!(refused["flattened_errors"], expected);
    assert_eq!(refused["fields"], json!({}));

    // Where the service is wrong as well, it refers to the certificate if that has an id.
    let certificate = json!({ "id": ID, "cert": 5 });
    let service = json!({ "name": "s", "host": "a b", "client_certificate": certificate });
    let refused = flattened(&gateway, json!({ "services": [service] }));
    let items = items(&refused);
    let types: Vec<_> = items
        .iter()
        .map(|item| item["entity_type"].clone())
        .collect();
    assert_eq!(types, ["service"], "{refused}");
    assert_eq!(
        items[0]["entity"]["client_certificate"],
        json!({ "id": ID })
    );

    // Without the list of errors, they are where the document has them.
    let service = json!({ "url": "https://a", "client_certificate": { "cert": "" } });
    let document = json!({ "_format_version": "3.0", "services": [service] });
    let refused = gateway.admin_json("POST", "/config", &document).expect(400);
    let of_service = &refused.json()["fields"]["services"][0];
    assert!(of_service["client_certificate"].is_object(), "{of_service}");
}
