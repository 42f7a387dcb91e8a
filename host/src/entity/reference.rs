//! Relations between rows: the fields that refer to other rows, and the combinations of fields that
//! must be unique. The store makes rules of both.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Kind, Row};

/// Fields whose values, taken together, may be in one row only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueKey {
    /// The fields.
    pub fields: &'static [&'static str],
    /// What a null among the values means.
    pub nulls: Nulls,
}

/// What a null in a unique key means. The terms are those of SQL:2023.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// A null differs from every other null: a row with one is exempt from the key.
    Distinct,
    /// A null is a value like any other: two rows may not both have it. Kong's plugins are an
    /// example: a global one may exist only once.
    NotDistinct,
}

impl UniqueKey {
    /// A key from which rows with a null are exempt.
    pub const fn of(fields: &'static [&'static str]) -> Self {
        let nulls = Nulls::Distinct;
        Self { fields, nulls }
    }

    /// A key in which null is a value like any other.
    pub const fn with_nulls(fields: &'static [&'static str]) -> Self {
        let nulls = Nulls::NotDistinct;
        Self { fields, nulls }
    }

    /// The values of the key's fields in a row, in the key's order; none if the row is exempt from
    /// the key.
    pub fn values<'r>(&self, row: &'r Row) -> Option<Vec<&'r Value>> {
        let values = self.fields.iter().map(|field| {
            let value = row.get(*field).unwrap_or(&Value::Null);
            match self.nulls {
                Nulls::Distinct => Some(value).filter(|value| !value.is_null()),
                Nulls::NotDistinct => Some(value),
            }
        });
        values.collect()
    }
}

/// A field that names rows of another entity, or of the same one. Declared with the field; see
/// [`Field::refers_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The field of the referring entity. A field inside records is named with all of them,
    /// separated by dots: `config.redis`.
    pub field: &'static str,
    /// Whether the field is an array or a set of references, and not a single one.
    pub is_array: bool,
    /// The entity referred to.
    pub to: Kind,
    /// The form of a reference in the field, or in an element of it.
    pub by: ReferenceBy,
    /// What deleting a row referred to does to the referring row.
    pub on_delete: OnDelete,
    /// Whether the Admin API shows the row referred to below the referring one, as in
    /// `/routes/{route}/service`.
    pub has_endpoint: bool,
}

/// The part of a [`Reference`] that is declared with the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferenceTarget {
    pub(super) to: Kind,
    pub(super) by: ReferenceBy,
    pub(super) on_delete: OnDelete,
    pub(super) has_endpoint: bool,
}

/// The value of a field that names another row, as the data plane reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    /// Primary key of that row.
    pub id: Uuid,
}

/// The form of a reference in its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceBy {
    /// `{"id": "<uuid>"}`; the row must exist.
    Id,
    /// The primary key as a plain string; the row must exist.
    PlainId,
    /// The value of this unique field of the row referred to, as a plain string. The row must exist
    /// unless the value is one of `reserved`.
    Field {
        /// The unique field of the entity referred to.
        name: &'static str,
        /// Values that are valid without a row.
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

impl Reference {
    /// The references in a row's field: one value for each row that it refers to.
    pub fn values<'r>(&self, row: &'r Row) -> Vec<&'r Value> {
        let mut names = self.field.split('.');
        let first = names.next().and_then(|name| row.get(name));
        let value = names.try_fold(first, |value, name| Some(value?.get(name)));
        let value = value.flatten().filter(|value| !value.is_null());
        match value {
            Some(Value::Array(elements)) if self.is_array => elements.iter().collect(),
            value => value.into_iter().collect(),
        }
    }
}

/// The id of the entity that a field of a row refers to, if it refers to one.
pub(crate) fn referred(row: &Row, field: &str) -> Option<Uuid> {
    row.get(field)?.get("id")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_null_exempts_a_row_only_where_it_is_distinct() {
        let key = UniqueKey::of(&["name", "route"]);
        let with_nulls = UniqueKey::with_nulls(&["name", "route"]);
        let mut row = Row::from_iter([("name".to_owned(), json!("cors"))]);
        assert_eq!(key.values(&row), None);
        assert_eq!(
            with_nulls.values(&row),
            Some(vec![&json!("cors"), &Value::Null])
        );
        row.insert("route".into(), json!(1));
        assert_eq!(key.values(&row), with_nulls.values(&row));
    }
}
