//! A set of keys. Source: Kong 3.9, `key_sets`.

use super::declaration::Declaration;
use super::field::Field;
use super::{Kind, UniqueKey};

/// A set of keys.
pub static DECLARATION: Declaration = Declaration {
    path: "key-sets",
    endpoint_key: Some("name"),
    unique: &[UniqueKey::of(&["name"])],
    fields: &[
        Field::id(),
        Field::string("name"),
        Field::tags(),
        Field::created_at(),
        Field::updated_at(),
    ],
    ..Declaration::of(Kind::KeySet, "key_sets", "key set")
};
