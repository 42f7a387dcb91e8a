//! Rows with references to vaults, and the values in their place.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::rotation::Rows;
use super::vaults::{Values, Vaults};
use crate::entity::{Kind, Row, has_references};

/// The rows of a kind that have references to vaults.
pub(in super::super) struct ReferencingRows {
    kind: Kind,
    /// The rows as they are stored.
    stored: BTreeMap<Uuid, Row>,
    /// Those of them whose references are to be resolved.
    unresolved: BTreeSet<Uuid>,
    /// The rows with values in place of references, as they are in effect.
    in_effect: BTreeMap<Uuid, Row>,
    /// The values that the references of each row had last.
    values: BTreeMap<Uuid, Values>,
    /// The vaults as they were when references were last resolved.
    vaults_seen: u64,
    /// Counts the changes of these rows, and of the vaults.
    generation: u64,
}

impl ReferencingRows {
    pub(in super::super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            stored: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            in_effect: BTreeMap::new(),
            values: BTreeMap::new(),
            vaults_seen: 0,
            generation: 0,
        }
    }

    /// Takes over a row that was written. Returns it if it has no references.
    pub(in super::super) fn put(&mut self, id: Uuid, row: Row) -> Option<Row> {
        // A reference that stays keeps its value.
        let values = self.values.remove(&id);
        self.delete(id);
        if !has_references(self.kind, &row) {
            return Some(row);
        }
        self.values.insert(id, values.unwrap_or_default());
        // The vaults may be in a later change of the same commit.
        self.stored.insert(id, row);
        self.unresolved.insert(id);
        None
    }

    /// Forgets a row that was deleted.
    pub(in super::super) fn delete(&mut self, id: Uuid) {
        if self.stored.remove(&id).is_some() {
            self.unresolved.remove(&id);
            self.in_effect.remove(&id);
            self.values.remove(&id);
            self.generation += 1;
        }
    }

    /// Resolves the references of new rows and, if vaults have changed, of all rows. Returns the
    /// rows that have other values now.
    pub(in super::super) fn resolve(&mut self, vaults: &Vaults) -> Vec<(Uuid, Row)> {
        let mut unresolved = std::mem::take(&mut self.unresolved);
        if std::mem::replace(&mut self.vaults_seen, vaults.changes()) != vaults.changes() {
            unresolved.extend(self.stored.keys());
        }
        let mut changed = Vec::new();
        for id in unresolved {
            let Some(mut row) = self.stored.get(&id).cloned() else {
                continue;
            };
            self.generation += 1;
            vaults.resolve(self.kind, id, &mut row, self.values.entry(id).or_default());
            if self.in_effect.get(&id) != Some(&row) {
                self.in_effect.insert(id, row.clone());
                changed.push((id, row));
            }
        }
        changed
    }

    /// The rows whose references are to be read again; `None` if there are none.
    pub(in super::super) fn rows(&self) -> Option<Rows> {
        (!self.stored.is_empty()).then(|| Rows {
            kind: self.kind,
            rows: self.stored.clone(),
            values: self.values.clone(),
            generation: self.generation,
        })
    }

    /// Takes over the values that were read again. Returns the rows that have other values now.
    pub(in super::super) fn apply_vault_values(&mut self, read: Rows) -> Vec<(Uuid, Row)> {
        if read.generation != self.generation {
            // What was written meanwhile has been resolved since.
            return Vec::new();
        }
        self.values = read.values;
        let mut changed = Vec::new();
        for (id, row) in read.rows {
            if self.in_effect.get(&id) != Some(&row) {
                let entity = self.kind.name();
                tracing::info!(entity, %id, "a value of a vault has changed");
                self.in_effect.insert(id, row.clone());
                changed.push((id, row));
            }
        }
        changed
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::rotation::References;
    use super::*;
    use crate::snapshot::compile::Part;

    const ID: Uuid = Uuid::from_u128(1);

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap()
    }

    /// The vault `files` of the files in a folder.
    fn vaults(folder: &Path) -> Vaults {
        let mut vaults = Vaults::default();
        put_vault(&mut vaults, folder);
        vaults
    }

    fn put_vault(vaults: &mut Vaults, folder: &Path) {
        let id = Uuid::from_u128(2);
        let config = json!({ "folder": folder });
        let vault = json!({ "id": id, "prefix": "files", "name": "file", "config": config });
        vaults.put(id, row(vault));
    }

    /// A certificate whose key is in the file `key`.
    fn rows() -> ReferencingRows {
        let mut rows = ReferencingRows::new(Kind::Certificate);
        let stored = json!({ "id": ID, "cert": "c", "key": "{vault://files/key}" });
        assert!(rows.put(ID, row(stored)).is_none());
        rows
    }

    fn keys(changed: Vec<(Uuid, Row)>) -> Vec<String> {
        let keys = changed.into_iter().map(|(_, row)| row["key"].clone());
        keys.map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    fn read_again(rows: &mut ReferencingRows, vaults: &Vaults) -> Vec<String> {
        let references = References {
            rows: vec![rows.rows().unwrap()],
            vaults: vaults.compiled(),
        };
        let read = references.resolve().pop().unwrap();
        keys(rows.apply_vault_values(read))
    }

    #[test]
    fn a_certificate_has_the_present_value_of_its_reference_and_without_one_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut vaults = vaults(folder.path());
        let mut rows = rows();
        std::fs::write(&path, "first").unwrap();
        assert_eq!(keys(rows.resolve(&vaults)), ["first"]);
        assert!(read_again(&mut rows, &vaults).is_empty());

        std::fs::write(&path, "second").unwrap();
        assert_eq!(read_again(&mut rows, &vaults), ["second"]);

        std::fs::remove_file(&path).unwrap();
        assert!(read_again(&mut rows, &vaults).is_empty());
        put_vault(&mut vaults, folder.path());
        assert!(rows.resolve(&vaults).is_empty());

        std::fs::write(&path, "third").unwrap();
        put_vault(&mut vaults, folder.path());
        assert_eq!(keys(rows.resolve(&vaults)), ["third"]);
    }

    #[test]
    fn each_reference_has_its_own_value_whether_others_have_one_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let mut vaults = vaults(folder.path());
        let mut rows = ReferencingRows::new(Kind::Certificate);
        let [cert, key] = ["cert", "key"].map(|name| format!("{{vault://files/{name}}}"));
        let stored = json!({ "id": ID, "cert": cert, "key": key });
        assert!(rows.put(ID, row(stored)).is_none());
        std::fs::write(path("key"), "first").unwrap();
        assert_eq!(keys(rows.resolve(&vaults)), ["first"]);
        assert!(read_again(&mut rows, &vaults).is_empty());

        std::fs::write(path("key"), "second").unwrap();
        assert_eq!(read_again(&mut rows, &vaults), ["second"]);

        std::fs::write(path("cert"), "c").unwrap();
        std::fs::remove_file(path("key")).unwrap();
        assert_eq!(read_again(&mut rows, &vaults), ["second"]);
        std::fs::remove_file(path("cert")).unwrap();
        let stored = json!({ "id": ID, "cert": cert, "key": key, "tags": ["a"] });
        assert!(rows.put(ID, row(stored)).is_none());
        assert_eq!(keys(rows.resolve(&vaults)), ["second"]);
        put_vault(&mut vaults, folder.path());
        assert!(rows.resolve(&vaults).is_empty());
    }

    #[test]
    fn a_value_that_was_read_before_a_write_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let vaults = vaults(folder.path());
        let mut rows = rows();
        std::fs::write(&path, "first").unwrap();
        assert_eq!(keys(rows.resolve(&vaults)), ["first"]);
        let read = rows.rows().unwrap();
        let stored = json!({ "id": ID, "cert": "d", "key": "{vault://files/key}" });
        assert!(rows.put(ID, row(stored)).is_none());
        assert_eq!(keys(rows.resolve(&vaults)), ["first"]);
        assert!(rows.apply_vault_values(read).is_empty());
    }

    #[test]
    fn a_reference_that_never_had_a_value_is_an_empty_text_until_it_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut vaults = Vaults::default();
        let mut rows = rows();
        assert_eq!(keys(rows.resolve(&vaults)), [""]);
        std::fs::write(folder.path().join("key"), "first").unwrap();
        put_vault(&mut vaults, folder.path());
        assert_eq!(keys(rows.resolve(&vaults)), ["first"]);
        rows.delete(ID);
        assert!(rows.rows().is_none());
    }
}
