//! A balancer: a component that chooses among the targets of an upstream. Pointsman's own entity.

use serde::Deserialize;
use uuid::Uuid;

use super::declaration::{Declaration, Endpoints};
use super::field::{Check, Field, Preset, Shape};
use super::{Kind, UniqueKey, check};

pub(super) const TEXT: Field = Field::element(Shape::String);

/// What a component says of itself.
pub(super) const DESCRIPTION: &[Field] = &[
    Field::string("name").required(),
    Field::string("version").required(),
    Field::any("config_schema").required(),
    Field::array("columns", &TEXT).required(),
];

const POSITIVE: &[Check] = &[Check::Between(0, 2_147_483_647)];
const PERCENT: &[Check] = &[Check::Between(0, 100)];

/// What a canary may be asked for. Bounds that are null are not judged.
pub(crate) const CANARY: &[Field] = &[
    // Of the picks of each upstream that follows the active version.
    Field::number("share_percent")
        .required()
        .default(Preset::Integer(5))
        .check(PERCENT),
    Field::integer("max_faults")
        .required()
        .default(Preset::Integer(0))
        .check(POSITIVE),
    Field::number("max_error_percent").check(PERCENT),
    Field::number("max_error_ratio").check(POSITIVE),
    Field::number("max_p99_ms").check(POSITIVE),
    Field::number("max_p99_ratio").check(POSITIVE),
    // Of each side, before anything but faults is judged.
    Field::integer("min_requests")
        .required()
        .default(Preset::Integer(100))
        .check(&[Check::Between(1, 2_147_483_647)]),
    // Seconds; a year at most.
    Field::number("duration").check(&[Check::Between(0, 31_536_000)]),
    Field::boolean("promote")
        .required()
        .default(Preset::Boolean(false)),
];

/// A component that chooses among the targets of an upstream. `digest` says which of its versions is
/// active, and `previous_digest` which one was before; `canary` which one takes a share, or took one last; size, description and exports are copied from
/// the active one in the step that makes it active.
pub static DECLARATION: Declaration = Declaration {
    endpoints: Endpoints::Own,
    unique: &[UniqueKey::of(&["name"])],
    endpoint_key: Some("name"),
    fields: &[
        Field::id(),
        Field::string("name")
            .required()
            .check(&[Check::Text(check::name)]),
        Field::created_at(),
        Field::updated_at(),
        Field::string("source")
            .required()
            .check(&[Check::OneOf(&["shipped", "uploaded"])]),
        Field::string("digest").required(),
        Field::integer("size").required(),
        Field::record("description", DESCRIPTION),
        Field::array("exports", &TEXT).required(),
        Field::string("previous_digest"),
        // What was asked for by CANARY, and what has become of it. Written by the gateway alone.
        Field::any("canary").extension(),
        Field::tags(),
    ],
    ..Declaration::of(Kind::Balancer, "balancers", "balancer")
};

/// What the data plane reads of a balancer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Balancer {
    /// Primary key.
    pub id: Uuid,
    /// Unique name, as `upstream.algorithm` gives it.
    pub name: String,
    /// SHA-256 of the active version's component, in lower-case hex.
    pub digest: String,
    /// The version that takes a share of the picks, or took one last.
    pub canary: Option<Canary>,
}

impl Balancer {
    /// The version that takes a share of the picks now.
    pub fn live_canary(&self) -> Option<&Canary> {
        self.canary.as_ref().filter(|canary| canary.state.is_live())
    }
}

impl Canary {
    /// Whether it is compared with the active version, which has to have placed something for that.
    pub fn is_compared(&self) -> bool {
        self.max_error_ratio.or(self.max_p99_ratio).is_some()
    }
}

/// A version that takes a share of the picks of the active one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Canary {
    /// Another one each time one begins.
    pub id: Uuid,
    /// SHA-256 of its component, in lower-case hex.
    pub version: String,
    /// What has become of it.
    pub state: CanaryState,
    /// How many of the picks are its, 0 to 100.
    pub share_percent: f64,
    /// Faults of its instances that it may have.
    pub max_faults: u64,
    /// How many of the requests that it places may fail, 0 to 100.
    pub max_error_percent: Option<f64>,
    /// How many times as often as those of the active version they may fail.
    pub max_error_ratio: Option<f64>,
    /// Longest p99 of the time until the head of the response, in milliseconds.
    pub max_p99_ms: Option<f64>,
    /// How many times that of the active version it may be.
    pub max_p99_ratio: Option<f64>,
    /// Requests placed before anything but faults is judged: by it, and by the active version where the
    /// two are compared.
    pub min_requests: u64,
    /// Seconds without a broken bound after which it has passed; none for never.
    pub duration: Option<f64>,
    /// Whether it is then made active.
    pub promote: bool,
    /// When it began, in seconds since 1970.
    pub created_at: u64,
}

/// What has become of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// It takes its share.
    Running,
    /// The same, and its time is over without a broken bound.
    Passed,
    /// It broke a bound.
    Returned,
    /// It was made active.
    Promoted,
    /// Another version was made active.
    Ended,
}

impl CanaryState {
    /// Whether it takes its share.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Passed)
    }

    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Returned => "returned",
            Self::Promoted => "promoted",
            Self::Ended => "ended",
        }
    }
}
