//! A consumer: who uses a service, as authentication finds out. Source: Kong 3.9, `consumers`.

use serde::Deserialize;
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::Field;
use super::{EntityCheck, Kind, OnDelete, UniqueKey};

/// A user of a service: a person or a program.
pub static DECLARATION: Declaration = Declaration {
    unique: &[UniqueKey::of(&["username"]), UniqueKey::of(&["custom_id"])],
    endpoint_key: Some("username"),
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("username"),
        Field::string("custom_id"),
        Field::tags(),
    ],
    entity_checks: &[EntityCheck::AtLeastOneOf(&["custom_id", "username"])],
    ..Declaration::of(Kind::Consumer, "consumers", "consumer")
};

/// The consumer that a credential or a group belongs to.
pub(super) const CONSUMER: Field = Field::reference("consumer", Kind::Consumer)
    .required()
    .on_delete(OnDelete::Cascade);

/// What the data plane reads of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Consumer {
    /// Primary key.
    pub id: Uuid,
    /// Unique name.
    pub username: Option<String>,
    /// Unique id in another system.
    pub custom_id: Option<String>,
}
