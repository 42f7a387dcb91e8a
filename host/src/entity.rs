//! The entities that operators manage through the Admin API and that the data plane is built from.

pub mod acl;
pub mod balancer;
pub mod basic_auth_credential;
pub mod bounds;
pub mod ca_certificate;
pub mod certificate;
mod check;
mod conformance;
pub mod consumer;
mod declaration;
mod entity_check;
mod expiry;
mod field;
pub mod jwt_secret;
pub mod key;
pub mod key_auth_credential;
pub mod key_hash;
pub mod key_set;
pub mod kongs_own;
mod merge;
mod normal_form;
pub mod plugin;
mod random;
mod reference;
pub mod retry;
pub mod rollout;
pub mod route;
mod schema;
pub mod service;
mod shorthand;
pub mod sni;
mod subschema;
mod suggestion;
pub mod target;
#[cfg(test)]
mod tests;
pub mod upstream;
mod validate;
pub mod vault;
mod vault_reference;
pub mod version;
mod view;
mod violations;

use std::sync::LazyLock;

use serde_json::Value;

pub(crate) use check::{tag as check_tag, uuid};
pub use declaration::{Declaration, Endpoints, IdOrder, ListOrder};
pub use entity_check::{EntityCheck, Match, Rule};
pub use expiry::Expiry;
pub use field::{Check, Deprecation, Field, Preset, Shape, Shorthand, TextPattern};
pub use merge::without_nulls;
pub(crate) use reference::referred;
pub use reference::{
    ForeignKey, Nulls, OnDelete, Reference, ReferenceBy, ReferenceTarget, UniqueKey,
};
pub use subschema::{Subschema, Subschemas};
pub(crate) use suggestion::{did_you_mean, nearest_name};
pub(crate) use validate::read_fields;
pub(crate) use vault_reference::{has_references, resolve_references};
pub(crate) use view::view;
pub use violations::Violations;

/// A row of the store: every field of an entity under its Kong name, in declared order.
pub type Row = serde_json::Map<String, Value>;

/// The entity that a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where the requests of a route are sent.
    Service,
    /// Which requests go to a service.
    Route,
    /// A virtual host name with targets to balance over.
    Upstream,
    /// An address of an upstream.
    Target,
    /// A component that chooses among the targets of an upstream.
    Balancer,
    /// One of the components that were uploaded as a balancer.
    BalancerVersion,
    /// A user of a service: a person or a program.
    Consumer,
    /// A policy with its settings, and the requests that it is for.
    Plugin,
    /// A key of a consumer.
    KeyAuthCredential,
    /// A name and a password of a consumer.
    BasicAuthCredential,
    /// What the tokens of a consumer are signed with.
    JwtSecret,
    /// A group that a consumer belongs to.
    Acl,
    /// A certificate with its key.
    Certificate,
    /// A name of a TLS server, with its certificate.
    Sni,
    /// The certificate of an authority.
    CaCertificate,
    /// Where the values that references name come from.
    Vault,
    /// A set of keys.
    KeySet,
    /// A key.
    Key,
    /// A change that only some gateways have yet.
    Rollout,
}

impl Kind {
    /// Every kind; a kind comes before those that refer to it.
    pub const ALL: [Self; 19] = [
        Self::Balancer,
        Self::BalancerVersion,
        Self::Consumer,
        Self::KeyAuthCredential,
        Self::BasicAuthCredential,
        Self::JwtSecret,
        Self::Acl,
        Self::Certificate,
        Self::Sni,
        Self::CaCertificate,
        Self::Vault,
        Self::KeySet,
        Self::Key,
        Self::Service,
        Self::Route,
        Self::Plugin,
        Self::Upstream,
        Self::Target,
        Self::Rollout,
    ];

    /// The entity's name in the store, in errors and in `/schemas`.
    pub fn name(self) -> &'static str {
        self.declaration().name
    }

    /// The declaration of the entity, from which the Admin API works.
    pub fn declaration(self) -> &'static Declaration {
        match self {
            Self::Service => &service::DECLARATION,
            Self::Route => route::of_flavor(),
            Self::Upstream => &upstream::DECLARATION,
            Self::Target => &target::DECLARATION,
            Self::Balancer => &balancer::DECLARATION,
            Self::BalancerVersion => &version::DECLARATION,
            Self::Rollout => &rollout::DECLARATION,
            Self::Consumer => &consumer::DECLARATION,
            Self::Plugin => &plugin::DECLARATION,
            Self::KeyAuthCredential => &key_auth_credential::DECLARATION,
            Self::BasicAuthCredential => &basic_auth_credential::DECLARATION,
            Self::JwtSecret => &jwt_secret::DECLARATION,
            Self::Acl => &acl::DECLARATION,
            Self::Certificate => &certificate::DECLARATION,
            Self::Sni => &sni::DECLARATION,
            Self::CaCertificate => &ca_certificate::DECLARATION,
            Self::Vault => &vault::DECLARATION,
            Self::KeySet => &key_set::DECLARATION,
            Self::Key => &key::DECLARATION,
        }
    }

    /// The combinations of fields that must be unique among the rows of this kind.
    pub fn unique_keys(self) -> &'static [UniqueKey] {
        self.declaration().unique
    }

    /// The fields that refer to rows of other kinds.
    pub fn references(self) -> &'static [Reference] {
        static OF_KINDS: LazyLock<[Vec<Reference>; Kind::ALL.len()]> =
            LazyLock::new(|| Kind::ALL.map(|kind| kind.declaration().references()));
        let place = Self::ALL.iter().position(|kind| *kind == self);
        place.map_or(&[], |place| &OF_KINDS[place])
    }
}

/// Why a row is refused before it comes to the store.
#[derive(Debug)]
pub enum Violation {
    /// Fields of the row are wrong.
    Schema(Violations),
    /// An argument that is not about the content of the row is wrong.
    Option {
        /// The argument.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl From<Violations> for Violation {
    fn from(violations: Violations) -> Self {
        Self::Schema(violations)
    }
}
