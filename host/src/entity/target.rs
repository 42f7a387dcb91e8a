//! A target: an address of an upstream. Source: Kong 3.9, `targets`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use uuid::Uuid;

pub use super::check::DEFAULT_PORT;
pub(crate) use super::check::same_target;
use super::declaration::{Declaration, Endpoints, ListOrder};
use super::field::{Check, Field, Preset, Shape};
use super::{ForeignKey, Kind, OnDelete, Row, UniqueKey, check};
use crate::authority::Authority;
use crate::endpoint_address::unix_path;

const fn limit(name: &'static str) -> Field {
    Field::integer(name).check(&[Check::Between(0, MOST_LIMIT as i64)])
}

/// The value of a label.
const LABEL: Field = Field::element(Shape::String)
    .may_be_empty()
    .check(&[Check::Text(check::label_value)]);

/// Largest weight of a target.
pub(crate) const MOST_WEIGHT: u16 = 65_535;

/// Largest limit of a target's connections and requests.
pub(crate) const MOST_LIMIT: u32 = 2_147_483_647;

/// An address of an upstream.
pub static DECLARATION: Declaration = Declaration {
    endpoints: Endpoints::NestedOnly,
    nested_key: Some("target"),
    owner: Some("upstream"),
    nested_order: ListOrder::NewestFirst,
    // Clients of Kong, where a PUT is an update, need not name the target again.
    kept_by_put: &["target"],
    put_moves: false,
    unique: &[UniqueKey::of(&["target", "upstream"])],
    fractional_times: true,
    fields: &[
        Field::id(),
        Field::created_at(),
        Field::updated_at(),
        Field::reference("upstream", Kind::Upstream)
            .required()
            .on_delete(OnDelete::Cascade),
        Field::string("target")
            .required()
            .check(&[Check::Text(check::target)])
            .compared_as(check::same_target),
        Field::integer("weight")
            .required()
            .default(Preset::Integer(100))
            .check(&[Check::Between(0, MOST_WEIGHT as i64)]),
        Field::boolean("failover")
            .default(Preset::Boolean(false))
            .extension(),
        Field::record(
            "pointsman",
            &[
                Field::optional_record("probe", super::upstream::PROBE_EXTENSION),
                Field::optional_record(
                    "circuit_breakers",
                    &[
                        limit("max_connections"),
                        limit("max_requests"),
                        limit("max_pending_requests"),
                    ],
                ),
                Field::map("labels", &[Check::Text(check::label_key)], &LABEL),
            ],
        )
        .extension(),
        Field::tags(),
    ],
    normalize: one_form,
    ..Declaration::of(Kind::Target, "targets", "target")
};

/// Stores a target in one form, after a PATCH as well (Kong leaves it as the client wrote it).
fn one_form(row: &mut Row) {
    if let Some(target) = row.get_mut("target")
        && let Some(form) = target.as_str().and_then(check::normalize_target)
    {
        *target = form.into();
    }
}

/// What the data plane reads of a target.
#[derive(Debug, Clone, Deserialize)]
pub struct Target {
    /// Primary key.
    pub id: Uuid,
    /// Where it is.
    pub target: Location,
    /// Share of the traffic, 0 to 65535; with 0 it gets none.
    pub weight: u32,
    /// The upstream that it belongs to.
    pub upstream: ForeignKey,
    /// Whether it gets traffic only while every other one is unavailable. Source: Kong Enterprise
    /// 3.12.
    #[serde(default)]
    pub failover: bool,
    /// The extensions beyond Kong.
    #[serde(default)]
    pub pointsman: Extension,
    /// Tags, which are labels too.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Host and port, the host an address or a name.
    Host(Authority<'static>),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(path) = unix_path(&text) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = Authority::of_setting(&text).map(Authority::into_owned);
        let authority = authority.map(Self::Host);
        authority.ok_or_else(|| D::Error::custom(format!("{text:?} is not a target")))
    }
}

/// The extensions beyond Kong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// How it is probed, where that differs from its upstream's probes.
    pub probe: super::upstream::Probe,
    /// Its own limits, where they differ from its upstream's.
    pub circuit_breakers: CircuitBreakers,
    /// What balancers may ask for, besides the tags.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Limits of one target; none for the limit of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CircuitBreakers {
    /// Connections at a time, busy and idle ones; with 0 there is no limit.
    pub max_connections: Option<u32>,
    /// Requests at a time; with 0 there is no limit.
    pub max_requests: Option<u32>,
    /// Requests that may wait for a place and count against this target. A waiting request counts
    /// against the first of the targets chosen for it that lets another request wait. None for as
    /// many as its upstream allows.
    pub max_pending_requests: Option<u32>,
}

impl CircuitBreakers {
    /// Whether there is a limit to the requests of the target.
    pub fn limits_requests(&self) -> bool {
        let limits = [self.max_connections, self.max_requests];
        limits.into_iter().flatten().any(|most| most > 0)
    }
}
