//! The entities that the Admin API manages and the data plane is built from.

pub mod balancer;
mod check;
mod declaration;
pub mod retry;
pub mod route;
pub mod service;
pub mod target;
pub mod upstream;
mod validate;
pub mod version;
mod view;

use serde_json::Value;

pub use declaration::{Check, Declaration, Field, Preset, Rule, Shape};
pub use validate::Violations;
pub(crate) use validate::read_fields;
pub(crate) use view::view;

/// A row of the store: every field of an entity under its Kong name, in declared order.
pub type Row = serde_json::Map<String, Value>;

/// Which entity a row is of.
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
}

/// Fields whose values together may stand in one row only. A row in which one of them is null is
/// exempt.
pub type UniqueKey = &'static [&'static str];

/// A field that names a row of another entity.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The field of the referring entity.
    pub field: &'static str,
    /// The entity referred to.
    pub to: Kind,
    /// What the field holds.
    pub by: ReferenceBy,
    /// What deleting the row referred to does to the referring row.
    pub on_delete: OnDelete,
}

/// What a referring field holds.
#[derive(Debug, Clone, Copy)]
pub enum ReferenceBy {
    /// `{"id": "<uuid>"}`; the row must exist.
    Id,
    /// The value of this unique field of the row referred to, as a plain string. The row must exist
    /// unless the value is one of `reserved`.
    Field {
        /// The unique field of the entity referred to.
        name: &'static str,
        /// Values that stand for something even without a row.
        reserved: &'static [&'static str],
    },
}

/// What deleting a row does to the rows that refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// The delete is refused.
    Restrict,
    /// They are deleted as well.
    Cascade,
}

impl Kind {
    /// Every kind, those referred to before those that refer to them.
    pub const ALL: [Self; 6] = [
        Self::Balancer,
        Self::BalancerVersion,
        Self::Service,
        Self::Route,
        Self::Upstream,
        Self::Target,
    ];

    /// The name of the collection, as in paths and error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Route => "routes",
            Self::Upstream => "upstreams",
            Self::Target => "targets",
            Self::Balancer => "balancers",
            Self::BalancerVersion => "balancer_versions",
        }
    }

    /// What the Admin API knows of the entity.
    pub fn declaration(self) -> &'static Declaration {
        match self {
            Self::Service => &service::DECLARATION,
            Self::Route => &route::DECLARATION,
            Self::Upstream => &upstream::DECLARATION,
            Self::Target => &target::DECLARATION,
            Self::Balancer => &balancer::DECLARATION,
            Self::BalancerVersion => &version::DECLARATION,
        }
    }

    /// The combinations of fields that must be unique among the rows of this kind.
    pub fn unique_keys(self) -> &'static [UniqueKey] {
        self.declaration().unique
    }

    /// The fields that refer to rows of other kinds.
    pub fn references(self) -> &'static [Reference] {
        self.declaration().references
    }
}

/// Why a row is refused before it comes to the store.
#[derive(Debug)]
pub enum Violation {
    /// Its fields are not right.
    Schema(Violations),
    /// It refers to a row of an entity that this version does not have.
    ForeignKey {
        /// The field that refers.
        field: &'static str,
        /// The entity referred to.
        to: &'static str,
        /// What the field holds.
        key: Value,
    },
}
