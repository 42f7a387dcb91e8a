//! A version of a balancer: an uploaded component, with the outcome of its check. Pointsman's own
//! entity.

use serde::Deserialize;

use super::balancer::{DESCRIPTION, TEXT};
use super::declaration::{Declaration, Endpoints};
use super::field::{Check, Field};
use super::{ForeignKey, Kind, OnDelete, UniqueKey};

/// The key by which a version of a balancer is found.
pub const BY_DIGEST: UniqueKey = UniqueKey::of(&["digest", "balancer"]);

/// A component that was uploaded under the name of a balancer. The component itself is the row's
/// blob.
///
/// Only the balancer says which version is active, so that there is always exactly one.
pub static DECLARATION: Declaration = Declaration {
    endpoints: Endpoints::Own,
    nested_key: Some("digest"),
    owner: Some("balancer"),
    unique: &[BY_DIGEST],
    fields: &[
        Field::id(),
        Field::reference("balancer", Kind::Balancer)
            .required()
            .on_delete(OnDelete::Cascade),
        Field::string("digest").required(),
        Field::created_at(),
        Field::integer("size").required(),
        // Null, like the exports, until the component is checked.
        Field::optional_record("description", DESCRIPTION),
        Field::array("exports", &TEXT),
        // Null as well for one of before there was this field.
        Field::array("imports", &TEXT),
        Field::string("state")
            .required()
            .check(&[Check::OneOf(&["checking", "ready", "failed"])]),
        Field::string("reason"),
        Field::integer("promoted_at"),
    ],
    ..Declaration::of(Kind::BalancerVersion, "balancer_versions", "version")
};

/// What the data plane reads of a version.
#[derive(Debug, Clone, Deserialize)]
pub struct Version {
    /// The balancer that it is a version of.
    pub balancer: ForeignKey,
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
}
