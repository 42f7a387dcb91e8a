//! A name of a TLS server, with the certificate that is shown to clients that ask for it. Source:
//! Kong 3.9, `snis`.

use serde::Deserialize;
use uuid::Uuid;

use super::declaration::Declaration;
use super::field::{Check, Field};
use super::{ForeignKey, Kind, OnDelete, UniqueKey, check};

/// A name of a TLS server.
pub static DECLARATION: Declaration = Declaration {
    endpoint_key: Some("name"),
    owner: Some("certificate"),
    unique: &[UniqueKey::of(&["name"])],
    fields: &[
        Field::id(),
        Field::string("name")
            .required()
            .check(&[Check::Text(check::sni)])
            .compared_as(|name| Some(name.to_ascii_lowercase())),
        Field::created_at(),
        Field::updated_at(),
        Field::tags(),
        Field::reference("certificate", Kind::Certificate)
            .required()
            .on_delete(OnDelete::Cascade)
            .without_endpoint(),
    ],
    ..Declaration::of(Kind::Sni, "snis", "sni")
};

/// What the data plane reads of a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sni {
    /// Primary key.
    pub id: Uuid,
    /// The name; its first or last character may be a `*` that stands for any text.
    pub name: String,
    /// The certificate of that name.
    pub certificate: ForeignKey,
}
