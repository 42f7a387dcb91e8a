//! A balancer: a component that chooses among the targets of an upstream. Pointsman's own entity.

use serde::Deserialize;
use uuid::Uuid;

use super::bounds::{self, Bounds, NOT_NEGATIVE, PERCENT};
use super::declaration::{Declaration, Endpoints};
use super::field::{Check, Field, Preset, Shape};
use super::{Kind, UniqueKey, check};

pub(super) const TEXT: Field = Field::element(Shape::String);

/// A component's description of itself.
pub(super) const DESCRIPTION: &[Field] = &[
    Field::string("name").required(),
    Field::string("version").required(),
    Field::any("config_schema").required(),
    Field::array("columns", &TEXT).required(),
];

/// The settings of a canary in a request. A bound that is null is not judged.
pub(crate) const CANARY: &[Field] = &[
    // Percentage of the picks of each upstream that follows the active version.
    Field::number("share_percent")
        .required()
        .default(Preset::Integer(5))
        .check(PERCENT),
    Field::integer("max_faults")
        .required()
        .default(Preset::Integer(0))
        .check(NOT_NEGATIVE),
    bounds::MAX_ERROR_PERCENT,
    bounds::MAX_ERROR_RATIO,
    bounds::MAX_P99_MS,
    bounds::MAX_P99_RATIO,
    // Requests that each side must have placed before anything but faults is judged.
    bounds::MIN_REQUESTS,
    bounds::DURATION,
    bounds::PROMOTE,
];

/// A component that chooses among the targets of an upstream. `digest` is that of its active
/// version, `previous_digest` that of the version that was active before, and `canary` is the
/// version that takes a share of the picks, or took one last. Size, description, exports and
/// imports are copied from the active version in the step that makes it active.
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
        Field::optional_record("description", DESCRIPTION),
        Field::array("exports", &TEXT).required(),
        // Null for one that was stored before there was this field.
        Field::array("imports", &TEXT),
        Field::string("previous_digest"),
        // The settings of CANARY and the outcome. Written only by the gateway.
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

/// A version that takes a share of the picks of the active one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Canary {
    /// A new id for each start of a canary.
    pub id: Uuid,
    /// SHA-256 of the version's component, in lower-case hex.
    pub version: String,
    /// The state, or the outcome.
    pub state: CanaryState,
    /// Percentage of the picks that the version gets, 0 to 100.
    pub share_percent: f64,
    /// Most faults of its instances.
    pub max_faults: u64,
    /// What it must not break, compared with the active version.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// Seconds without a broken bound after which the canary has passed; none for never.
    pub duration: Option<f64>,
    /// Whether a canary that has passed is made active.
    pub promote: bool,
    /// When the canary started, in seconds since 1970.
    pub created_at: u64,
}

/// The state or the outcome of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// The version takes its share.
    Running,
    /// The version takes its share, and its duration is over without a broken bound.
    Passed,
    /// The version broke a bound, and lost its share.
    Returned,
    /// The version was made active.
    Promoted,
    /// Another version was made active.
    Ended,
}

impl CanaryState {
    /// Whether the version takes its share.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Passed)
    }

    /// The state as it is stored.
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
