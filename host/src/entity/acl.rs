//! A group that a consumer belongs to, for the plugin `acl`. Source: Kong 3.9, `acls`.

use serde::Deserialize;
use uuid::Uuid;

use super::consumer::CONSUMER;
use super::declaration::Declaration;
use super::field::Field;
use super::{ForeignKey, Kind, UniqueKey};

/// A group that a consumer belongs to.
pub static DECLARATION: Declaration = Declaration {
    nested_key: Some("group"),
    owner: Some("consumer"),
    unique: &[UniqueKey::of(&["group", "consumer"])],
    fields: &[
        Field::id(),
        Field::created_at(),
        CONSUMER,
        Field::string("group").required(),
        Field::tags(),
    ],
    ..Declaration::of(Kind::Acl, "acls", "group")
};

/// What the data plane reads of a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Acl {
    /// Primary key.
    pub id: Uuid,
    /// Who belongs to the group.
    pub consumer: ForeignKey,
    /// The name of the group.
    pub group: String,
}
