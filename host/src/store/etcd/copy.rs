//! The copy of the configuration in the data folder: a journal on sled, and a file that says of
//! which configuration it is a copy.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::Revision;
use super::super::index::RowKey;
use super::super::journal::{CommitError, Journal, JournalHandle, OpenError};
use super::super::operations::Operations;
use super::super::rows::Rows;
use super::super::schema::Schema;
use super::super::sled::SledJournal;
use super::format::json;
use super::remote::Listed;

/// The folder of the copy in the data folder.
pub(super) const FOLDER: &str = "etcd";

/// The file in it that says of which configuration it is a copy.
const ORIGIN: &str = "ORIGIN";

/// Rows from which on it is suspicious that more than half of them are gone.
const MIN_ROWS_TO_COMPARE: usize = 20;

/// The configuration that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    id: Uuid,
}

/// Why what etcd has is not what the copy was made of, and an operator has to decide.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// What is wrong, as the end of a sentence.
    pub(super) reason: String,
    /// The identity of the configuration that would be given up.
    pub(super) copied: Uuid,
    /// The consent that an operator gives to that, and to nothing else: it names what is given up.
    pub(super) consent: String,
}

/// The copy.
pub(super) struct Copy {
    folder: PathBuf,
    journal: SledJournal,
    handle: Arc<dyn JournalHandle>,
    /// None until there was something to copy.
    origin: Option<Origin>,
    /// Whether the file has the origin.
    is_noted: bool,
    /// The revision of the copy.
    head: Revision,
    has_failed: bool,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy")
            .field("folder", &self.folder)
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Copy {
    pub(super) fn new(data_dir: &Path) -> Self {
        let folder = super::copy_folder(data_dir);
        let journal = SledJournal::of_copy(&folder);
        Self {
            handle: journal.handle(),
            journal,
            folder,
            origin: None,
            is_noted: true,
            head: 0,
            has_failed: false,
        }
    }

    pub(super) fn handle(&self) -> Arc<dyn JournalHandle> {
        Arc::clone(&self.handle)
    }

    pub(super) fn load(&mut self, schema: Schema) -> Result<Rows, OpenError> {
        let rows = self.journal.load(schema)?;
        self.head = rows.head();
        let path = self.folder.join(ORIGIN);
        let wrong = |reason: String| OpenError::Unusable(format!("{}: {reason}", path.display()));
        self.origin = match fs::read(&path) {
            Ok(text) => {
                let origin = serde_json::from_slice(&text);
                Some(origin.map_err(|error| wrong(error.to_string()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(error.to_string())),
        };
        Ok(rows)
    }

    /// Whether nothing was copied yet.
    pub(super) fn is_new(&self) -> bool {
        self.origin.is_none()
    }

    /// Whether what etcd has is not what this is a copy of, in the state that it was in or a later
    /// one. It is if an operator has agreed to that (see [`Identity::replaces`]).
    pub(super) fn doubt(&self, listed: &Listed, rows: &Rows) -> Option<Doubt> {
        let copied = self.origin.as_ref()?.id;
        let etcd = &listed.identity.identity;
        if etcd.replaces.contains(&copied) {
            return None;
        }
        let (newest, here) = (listed.head.head.revision, rows.head());
        let (entities, copies) = (listed.rows.len(), rows.records.len());
        let reason = if etcd.id != copied {
            "etcd has another configuration than the one that this gateway has".to_owned()
        } else if newest < here {
            format!("etcd has revision {newest}, which is older than revision {here} here")
        } else if copies >= MIN_ROWS_TO_COMPARE && entities * 2 < copies {
            format!("etcd has {entities} entities, and this gateway {copies}")
        } else {
            return None;
        };
        Some(Doubt {
            reason,
            copied,
            consent: format!("{copied}/{here}"),
        })
    }

    /// Notes of which configuration this is a copy. Called once the copy has what etcd has: until
    /// then it is a copy of what it was before. What was copied counts whether or not the file can
    /// be written: until it can, [`Self::check`] refuses writes.
    pub(super) fn note_origin(&mut self, id: Uuid) {
        let origin = Origin { id };
        if self.origin.as_ref() != Some(&origin) {
            self.origin = Some(origin);
            self.is_noted = false;
        }
        if let Err(reason) = self.keep_origin() {
            tracing::warn!("{reason}");
        }
    }

    /// Writes the file, if it does not have the origin yet.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    fn keep_origin(&mut self) -> Result<(), String> {
        if let Some(origin) = self.origin.as_ref().filter(|_| !self.is_noted) {
            self.write_origin(origin).map_err(|error| {
                format!("the copy cannot be written: {FOLDER}/{ORIGIN} in data_dir: {error}")
            })?;
            self.is_noted = true;
        }
        Ok(())
    }

    fn write_origin(&self, origin: &Origin) -> io::Result<()> {
        let draft = self.folder.join("ORIGIN.tmp");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&json(origin))?;
        file.sync_all()?;
        fs::rename(&draft, self.folder.join(ORIGIN))?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Copies a commit.
    ///
    /// # Errors
    /// Why not, as the end of a sentence. The copy then has to recover.
    pub(super) fn commit(&mut self, operations: &Operations) -> Result<(), String> {
        match self.journal.commit(self.head, operations) {
            Ok(()) => {
                self.head = operations.head;
                Ok(())
            }
            Err(error) => {
                self.has_failed = true;
                Err(match error {
                    CommitError::Conflict => "the copy is at another revision".into(),
                    CommitError::Refused(reason) | CommitError::InDoubt { reason, .. } => {
                        format!("the copy cannot be written: {reason}")
                    }
                })
            }
        }
    }

    /// Makes the copy usable again, with the rows that are in effect.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) fn recover(&mut self, acknowledged: &Rows) -> Result<(), String> {
        if self.has_failed {
            self.head = self.journal.recover(acknowledged)?;
            self.has_failed = false;
        }
        Ok(())
    }

    /// Whether the copy can be written.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.journal.check()?;
        self.keep_origin()
    }

    /// Closes the copy for another process.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub(super) fn release(&mut self) -> Result<(), String> {
        self.has_failed = true;
        self.journal.release()
    }

    /// The blob of a row in the copy.
    pub(super) fn blob(&self, (kind, id): RowKey) -> Option<Bytes> {
        self.handle.blob(kind, id).ok().flatten()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use super::super::format::{FORMAT, Head, Identity, RowValue, UnknownFields};
    use super::super::remote::{StoredHead, StoredIdentity};
    use super::*;
    use crate::entity::Kind;

    const COPIED: Uuid = Uuid::from_u128(1);

    /// What etcd has: a configuration with a number of rows.
    fn listed(id: u128, replaces: &[Uuid], revision: Revision, count: u128) -> Listed {
        let value = RowValue {
            record: Vec::new(),
            blob: None,
        };
        let rows = (0..count).map(|id| ((Kind::Service, Uuid::from_u128(id)), value.clone()));
        Listed {
            revision: 0,
            identity: StoredIdentity {
                identity: Identity {
                    format: FORMAT,
                    id: Uuid::from_u128(id),
                    replaces: replaces.to_vec(),
                },
                mod_revision: 0,
            },
            consent: String::new(),
            head: StoredHead {
                head: Head {
                    revision,
                    after: 0,
                    commit: Uuid::nil(),
                    parts: None,
                },
                mod_revision: 0,
            },
            rows: rows.collect(),
            unknown_fields: UnknownFields::new(),
            unsealed: Vec::new(),
            unknown_keys: 0,
        }
    }

    fn rows(revision: Revision, count: u128) -> Rows {
        let mut rows = Rows::new(Schema::DECLARED);
        rows.set_head(revision);
        rows.records = (0..count)
            .map(|id| ((Kind::Service, Uuid::from_u128(id)), Vec::new().into()))
            .collect::<BTreeMap<_, _>>();
        rows
    }

    #[test]
    fn what_does_not_continue_the_copy_needs_a_consent_that_names_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let mut copy = Copy::new(folder.path());
        copy.load(Schema::DECLARED).unwrap();
        let doubt = |copy: &Copy, listed: Listed, rows: Rows| {
            let doubt = copy.doubt(&listed, &rows);
            doubt.map(|doubt| (doubt.reason, doubt.consent))
        };
        // Nothing was copied yet.
        assert_eq!(doubt(&copy, listed(2, &[], 0, 0), rows(9, 40)), None);
        copy.note_origin(COPIED);
        for (listed, reason) in [
            (listed(1, &[], 9, 40), None),
            (listed(1, &[], 12, 20), None),
            (listed(1, &[], 8, 40), Some("etcd has revision 8")),
            (listed(1, &[], 12, 19), Some("etcd has 19 entities")),
            (
                listed(2, &[], 12, 40),
                Some("etcd has another configuration"),
            ),
            (
                listed(2, &[Uuid::from_u128(3)], 12, 40),
                Some("etcd has another"),
            ),
            // An operator has agreed to it.
            (listed(2, &[COPIED], 3, 0), None),
        ] {
            match (doubt(&copy, listed, rows(9, 40)), reason) {
                (None, None) => {}
                (Some((told, consent)), Some(reason)) => {
                    assert!(told.starts_with(reason), "{told}");
                    assert_eq!(consent, format!("{COPIED}/9"));
                }
                other => panic!("{other:?}"),
            }
        }
        // Few rows may all be deleted.
        assert_eq!(doubt(&copy, listed(1, &[], 12, 0), rows(9, 19)), None);
        // The origin is kept.
        let mut again = Copy::new(folder.path());
        drop(copy);
        again.load(Schema::DECLARED).unwrap();
        assert!(doubt(&again, listed(2, &[], 12, 40), rows(9, 40)).is_some());
    }

    #[test]
    fn what_was_copied_counts_before_its_origin_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut copy = Copy::new(folder.path());
        copy.load(Schema::DECLARED).unwrap();
        let draft = folder.path().join(FOLDER).join("ORIGIN.tmp");
        fs::create_dir(&draft).unwrap();
        copy.note_origin(COPIED);
        assert!(!copy.is_new());
        let refused = copy.check().unwrap_err();
        assert!(refused.contains("etcd/ORIGIN"), "{refused}");
        fs::remove_dir(&draft).unwrap();
        copy.check().unwrap();
        drop(copy);
        let mut again = Copy::new(folder.path());
        again.load(Schema::DECLARED).unwrap();
        assert!(!again.is_new());
    }
}
