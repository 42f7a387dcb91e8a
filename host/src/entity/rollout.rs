//! A rollout: changes that the gateways of the channel `canary` have already, and the others do not
//! have yet. Pointsman's own entity.

use serde_json::{Value, json};
use uuid::Uuid;

use super::declaration::{Declaration, Endpoints};
use super::field::{Check, Field};
use super::{Kind, Row, UniqueKey};

/// The channel that a rollout is for, which is the name of its row.
pub const CANARY: &str = "canary";

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
            .check(&[Check::OneOf(&["running", "promoted", "dropped"])]),
        // As [`RolloutChange`] writes them. Written only by the gateway.
        Field::any("changes"),
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
