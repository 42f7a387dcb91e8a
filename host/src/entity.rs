//! The entities that the Admin API manages and the data plane is built from.

pub mod balancer;
pub mod route;
pub mod service;
pub mod target;
pub mod upstream;

/// A row of the store: every field of an entity under its Kong name, in declared order.
pub type Row = serde_json::Map<String, serde_json::Value>;

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
    pub const ALL: [Self; 5] = [
        Self::Balancer,
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
        }
    }

    /// The combinations of fields that must be unique among the rows of this kind.
    pub fn unique_keys(self) -> &'static [UniqueKey] {
        match self {
            Self::Service | Self::Route | Self::Upstream | Self::Balancer => &[&["name"]],
            Self::Target => &[&["target", "upstream"]],
        }
    }

    /// The fields that refer to rows of other kinds.
    pub fn references(self) -> &'static [Reference] {
        const ROUTE: &[Reference] = &[Reference {
            field: "service",
            to: Kind::Service,
            by: ReferenceBy::Id,
            on_delete: OnDelete::Restrict,
        }];
        const TARGET: &[Reference] = &[Reference {
            field: "upstream",
            to: Kind::Upstream,
            by: ReferenceBy::Id,
            on_delete: OnDelete::Cascade,
        }];
        const UPSTREAM: &[Reference] = &[Reference {
            field: "algorithm",
            to: Kind::Balancer,
            by: ReferenceBy::Field {
                name: "name",
                reserved: upstream::KONG_ALGORITHMS,
            },
            on_delete: OnDelete::Restrict,
        }];
        match self {
            Self::Route => ROUTE,
            Self::Target => TARGET,
            Self::Upstream => UPSTREAM,
            Self::Service | Self::Balancer => &[],
        }
    }
}
