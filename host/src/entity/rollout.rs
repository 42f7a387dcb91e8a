//! A rollout: changes that the gateways of the channel `canary` have already, and the others do not
//! have yet. Pointsman's own entity.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bounds::{self, Bounds};
use super::declaration::{Declaration, Endpoints};
use super::field::{Check, Field};
use super::{Kind, Row, UniqueKey};

/// The channel that a rollout is for, which is the name of its row.
pub const CANARY: &str = "canary";

/// The settings of a rollout in a request. A bound that is null is not judged.
pub(crate) const TRIAL: &[Field] = &[
    bounds::MAX_ERROR_PERCENT,
    bounds::MAX_ERROR_RATIO,
    bounds::MAX_P99_MS,
    bounds::MAX_P99_RATIO,
    bounds::MIN_REQUESTS,
    bounds::DURATION,
    bounds::PROMOTE,
];

/// The states and the outcomes of a rollout.
const STATES: &[&str] = &["running", "passed", "returned", "promoted", "dropped"];

/// The state or the outcome of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutState {
    /// The gateways of the channel have it.
    Running,
    /// The gateways of the channel have it, and its duration is over without a broken bound.
    Passed,
    /// It broke a bound: the gateways of the channel have what the others have.
    Returned,
    /// All gateways have it.
    Promoted,
    /// An operator has ended it: the gateways of the channel have what the others have.
    Dropped,
}

impl RolloutState {
    /// Whether the gateways of the channel have it, and the others do not.
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
            Self::Dropped => "dropped",
        }
    }

    /// The state of a row; none for one of a later version.
    pub fn of(rollout: &Row) -> Option<Self> {
        let state = rollout.get("state")?.as_str()?;
        let all = [
            Self::Running,
            Self::Passed,
            Self::Returned,
            Self::Promoted,
            Self::Dropped,
        ];
        all.into_iter().find(|known| known.name() == state)
    }
}

/// How the gateways of the channel are compared with the others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RolloutComparison {
    /// A new id for each rollout.
    pub id: Uuid,
    /// What the channel must not break, compared with the other gateways.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// Seconds without a broken bound after which the rollout has passed; none for never.
    pub duration: Option<f64>,
    /// Whether a rollout that has passed is promoted.
    pub promote: bool,
}

impl RolloutComparison {
    /// The trial of a row; none if it is of an earlier version, which had none.
    pub fn of(rollout: &Row) -> Option<Self> {
        let trial = rollout.get("trial")?;
        serde_json::from_value(trial.clone()).ok()
    }

    /// Whether the gateways judge it, and not the operator alone.
    pub fn is_judged(&self) -> bool {
        self.bounds.is_any() || self.duration.is_some()
    }
}

/// What is to be changed, as one row, so that each step of a rollout is one commit: it begins when
/// the row has changes, and ends when it has none any longer.
pub static DECLARATION: Declaration = Declaration {
    endpoints: Endpoints::Own,
    unique: &[UniqueKey::of(&["name"])],
    fields: &[
        Field::id(),
        Field::string("name").required(),
        Field::created_at(),
        Field::updated_at(),
        Field::string("state")
            .required()
            .check(&[Check::OneOf(STATES)]),
        // As [`RolloutChange`] writes them. Written only by the gateway.
        Field::any("changes"),
        // The settings of TRIAL and the outcome. Written only by the gateway.
        Field::any("trial"),
    ],
    ..Declaration::of(Kind::Rollout, "rollouts", "rollout")
};

/// A row as a rollout has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutChange {
    /// Which entity.
    pub kind: Kind,
    /// Primary key.
    pub id: Uuid,
    /// The entity; none if it is deleted.
    pub row: Option<Row>,
    /// The revision of the row that it replaces; none for a row that is added.
    pub replaces: Option<u64>,
}

impl RolloutChange {
    /// Writes changes as the field of the row.
    pub fn written(changes: &[Self]) -> Value {
        let written = changes.iter().map(|change| {
            json!({
                "entity": change.kind.name(),
                "id": change.id,
                "row": change.row,
                "replaces": change.replaces,
            })
        });
        written.collect::<Vec<_>>().into()
    }

    /// How many changes a row has.
    pub fn count(rollout: &Row) -> usize {
        let changes = rollout.get("changes").and_then(Value::as_array);
        changes.map_or(0, Vec::len)
    }

    /// The changes of a row. Those of entities that this version does not know are left out.
    pub fn of(rollout: &Row) -> Vec<Self> {
        let changes = rollout.get("changes").and_then(Value::as_array);
        let read = |change: &Value| {
            let name = change.get("entity")?.as_str()?;
            let mut kinds = Kind::ALL.into_iter();
            Some(Self {
                kind: kinds.find(|kind| kind.name() == name)?,
                id: Uuid::parse_str(change.get("id")?.as_str()?).ok()?,
                row: change.get("row").and_then(Value::as_object).cloned(),
                replaces: change.get("replaces").and_then(Value::as_u64),
            })
        };
        changes.into_iter().flatten().filter_map(read).collect()
    }
}
