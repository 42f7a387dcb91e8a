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
            .compared_as(|name| Some(same_name(name))),
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

/// The form in which names are compared, and that clients ask for: in lower case and without the
/// trailing dot.
pub(crate) fn same_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_spellings_of_a_name_are_the_same_name() {
        for spelling in ["a.example", "A.Example", "a.example.", "A.EXAMPLE."] {
            let compared = DECLARATION.compared("name", &json!(spelling));
            assert_eq!(compared, json!("a.example"), "{spelling}");
        }
    }
}
