//! The index entries of a row: they are made and removed with it. Making them refuses values of a
//! unique key that another row has, and references to rows that do not exist.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::super::Error;
use super::super::index::{Link, Needs, ReferenceEntry, RowKey, UniqueEntry};
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::stage::Stage;
use crate::entity::{Kind, Row};

impl Stage<'_> {
    /// Enters a row in the indexes.
    pub(super) fn index(&mut self, kind: Kind, id: Uuid, row: &Row) -> Result<(), Error> {
        let schema = self.schema();
        for &key in schema.unique_keys(kind) {
            let Some(values) = key.values(row) else {
                continue;
            };
            let entry = UniqueEntry::new(kind, key, &values);
            if self.unique(&entry).is_some() {
                let values = key.fields.iter().zip(values);
                let values = values.map(|(f, v)| ((*f).to_owned(), v.clone())).collect();
                return Err(Error::UniqueKeyTaken { kind, key, values });
            }
            self.own.unique.insert(entry, Some(id));
        }
        for reference in schema.references(kind) {
            for value in reference.values(row) {
                let missing = || Error::ReferenceMissing {
                    kind,
                    field: reference.field,
                    to: reference.to,
                    value: value.clone(),
                };
                let link = Link::read(schema, reference, value).ok_or_else(missing)?;
                if !self.holds(&link.needs, (kind, id)) {
                    return Err(missing());
                }
                let entry = link.entry(kind, id, reference);
                self.own.references.insert(entry, Some(()));
            }
        }
        Ok(())
    }

    /// Takes a row out of the indexes.
    pub(super) fn unindex(&mut self, kind: Kind, id: Uuid, row: &Row) {
        let schema = self.schema();
        for &key in schema.unique_keys(kind) {
            let Some(values) = key.values(row) else {
                continue;
            };
            for entry in [
                UniqueEntry::new(kind, key, &values),
                UniqueEntry::as_written(kind, key, &values),
            ] {
                if self.unique(&entry) == Some(id) {
                    self.own.unique.insert(entry, None);
                }
            }
        }
        for entry in reference_entries(schema, kind, id, row) {
            self.own.references.insert(entry, None);
        }
    }

    /// Takes a row out of the indexes, even if it cannot be read.
    pub(super) fn leave(&mut self, (kind, id): RowKey) {
        if let Ok(Some(row)) = self.readable(kind, id) {
            self.unindex(kind, id, &row);
            return;
        }
        // Its entries are found by the row that they lead to.
        for entry in self.unique_of(kind, id) {
            self.own.unique.insert(entry, None);
        }
        for entry in self.references_of(kind, id) {
            self.own.references.insert(entry, None);
        }
    }

    /// Whether what a reference of the row `own` needs exists.
    fn holds(&self, needs: &Needs, own: RowKey) -> bool {
        match needs {
            // A row may refer to itself: the write adds it.
            Needs::Row(key) => *key == own || self.has_row(*key),
            Needs::Unique(entry) => self.unique(entry).is_some(),
            Needs::Nothing => true,
        }
    }
}

/// The index entries of the references of a row, each once.
fn reference_entries(schema: Schema, kind: Kind, id: Uuid, row: &Row) -> BTreeSet<ReferenceEntry> {
    let references = schema.references(kind).iter();
    let values = references.flat_map(|reference| {
        let values = reference.values(row).into_iter();
        values.map(move |value| (reference, value))
    });
    values
        .filter_map(|(reference, value)| {
            let link = Link::read(schema, reference, value)?;
            Some(link.entry(kind, id, reference))
        })
        .collect()
}

/// How many index entries lead to a stored row; none if an entry is missing, or a row that it
/// refers to.
pub(in crate::store) fn entries_to(rows: &Rows, kind: Kind, id: Uuid, row: &Row) -> Option<usize> {
    let schema = rows.schema();
    let mut entries = 0;
    for &key in schema.unique_keys(kind) {
        let Some(values) = key.values(row) else {
            continue;
        };
        let leads_here = |entry| rows.unique.get(&entry) == Some(&id);
        if !leads_here(UniqueEntry::new(kind, key, &values))
            && !leads_here(UniqueEntry::as_written(kind, key, &values))
        {
            return None;
        }
        entries += 1;
    }
    for reference in schema.references(kind) {
        for value in reference.values(row) {
            let is_there = match Link::read(schema, reference, value)?.needs {
                Needs::Row(key) => rows.records.contains_key(&key),
                Needs::Unique(entry) => rows.unique.contains_key(&entry),
                Needs::Nothing => true,
            };
            if !is_there {
                return None;
            }
        }
    }
    let references = reference_entries(schema, kind, id, row);
    for entry in &references {
        rows.references.get(entry)?;
    }
    Some(entries + references.len())
}
