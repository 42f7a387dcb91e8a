//! The entries of the indexes: which row has these values of a unique key, and which rows refer to
//! a row.

use serde_json::Value;
use uuid::Uuid;

use super::schema::Schema;
use crate::entity::{Kind, Reference, ReferenceBy, UniqueKey};

/// Identifies a row: its kind and its primary key.
pub(super) type RowKey = (Kind, Uuid);

/// Identifies the row of a kind that has these values of a unique key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UniqueEntry {
    pub(super) kind: Kind,
    /// The fields of the key.
    pub(super) fields: &'static [&'static str],
    /// The values in the order of the fields, as JSON texts with commas between.
    pub(super) values: String,
}

impl UniqueEntry {
    /// The entry of these values in the form in which they are compared: all spellings of a value
    /// have the same entry.
    pub(super) fn new(kind: Kind, key: UniqueKey, values: &[&Value]) -> Self {
        let compared = key.fields.iter().zip(values);
        let compared: Vec<Value> = compared
            .map(|(field, value)| kind.declaration().compared(field, value))
            .collect();
        Self::as_written(kind, key, &compared.iter().collect::<Vec<_>>())
    }

    /// The entry of these values in exactly this spelling. Earlier versions wrote all entries so.
    pub(super) fn as_written(kind: Kind, key: UniqueKey, values: &[&Value]) -> Self {
        let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
        Self {
            kind,
            fields: key.fields,
            values: values.join(","),
        }
    }
}

/// Says that a row refers to another one by a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReferenceEntry {
    /// The kind referred to.
    pub(super) to: Kind,
    pub(super) parent: Parent,
    /// The kind that refers.
    pub(super) kind: Kind,
    pub(super) field: &'static str,
    /// The row that refers.
    pub(super) id: Uuid,
}

/// How a reference names the row that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parent {
    /// Its primary key.
    Id(Uuid),
    /// The value of a field, as JSON text.
    Value(String),
}

impl Parent {
    /// The value of the field by which a row is referred to.
    pub(super) fn value(to: Kind, field: &str, value: &Value) -> Self {
        Self::Value(to.declaration().compared(field, value).to_string())
    }
}

/// What the value of a referring field refers to.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) parent: Parent,
    pub(super) needs: Needs,
}

/// What has to exist for a reference to be valid.
#[derive(Debug)]
pub(super) enum Needs {
    Row(RowKey),
    Unique(UniqueEntry),
    /// The value is valid without a row.
    Nothing,
}

impl Link {
    /// Reads a value of a referring field; none for a value that can name no row.
    pub(super) fn read(schema: Schema, reference: &Reference, value: &Value) -> Option<Self> {
        let to = reference.to;
        let by_id = |id: &Value| {
            let id = Uuid::parse_str(id.as_str()?).ok()?;
            Some(Self {
                parent: Parent::Id(id),
                needs: Needs::Row((to, id)),
            })
        };
        match reference.by {
            ReferenceBy::Id => by_id(value.get("id")?),
            ReferenceBy::PlainId => by_id(value),
            ReferenceBy::Field { name, reserved } => {
                let is_reserved = value.as_str().is_some_and(|text| reserved.contains(&text));
                let needs = if is_reserved {
                    Needs::Nothing
                } else {
                    let key = schema.unique_key(to, &[name])?;
                    Needs::Unique(UniqueEntry::new(to, key, &[value]))
                };
                Some(Self {
                    parent: Parent::value(to, name, value),
                    needs,
                })
            }
        }
    }

    /// The index entry of the row that holds this value.
    pub(super) fn entry(&self, kind: Kind, id: Uuid, reference: &Reference) -> ReferenceEntry {
        ReferenceEntry {
            to: reference.to,
            parent: self.parent.clone(),
            kind,
            field: reference.field,
            id,
        }
    }
}
