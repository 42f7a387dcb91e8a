//! The keys and the values in etcd: see the table in `etcd.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::super::index::RowKey;
use super::super::{Revision, record};
use crate::entity::{Kind, Row};

/// The format of the values. A gateway refuses a configuration of another one.
pub(super) const FORMAT: u32 = 1;

/// The keys of a configuration.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// What the keys of the head and of all rows begin with.
    pub(super) fn config(&self) -> String {
        format!("{}config/", self.prefix)
    }

    pub(super) fn store(&self) -> String {
        format!("{}config/store", self.prefix)
    }

    pub(super) fn head(&self) -> String {
        format!("{}config/head", self.prefix)
    }

    pub(super) fn consent(&self) -> String {
        format!("{}config/consent", self.prefix)
    }

    pub(super) fn row(&self, (kind, id): RowKey) -> String {
        format!("{}config/rows/{}/{id}", self.prefix, kind.name())
    }

    /// What the keys of the gateways begin with.
    pub(super) fn nodes(&self) -> String {
        format!("{}nodes/", self.prefix)
    }

    pub(super) fn node(&self, id: Uuid) -> String {
        format!("{}nodes/{id}", self.prefix)
    }

    /// The node whose key this is.
    pub(super) fn node_of(&self, key: &[u8]) -> Option<Uuid> {
        let key = std::str::from_utf8(key).ok()?;
        Uuid::parse_str(key.strip_prefix(&*self.nodes())?).ok()
    }

    /// What the keys of the findings of probes in a channel begin with.
    pub(super) fn findings(&self, channel: &str) -> String {
        format!("{}health/{channel}/", self.prefix)
    }

    /// The key of the findings about an upstream.
    pub(super) fn finding(&self, channel: &str, upstream: Uuid) -> String {
        format!("{}{upstream}", self.findings(channel))
    }

    /// The upstream whose findings a key has.
    pub(super) fn found_upstream(&self, channel: &str, key: &[u8]) -> Option<Uuid> {
        let key = std::str::from_utf8(key).ok()?;
        Uuid::parse_str(key.strip_prefix(&*self.findings(channel))?).ok()
    }

    /// The key of a task that one gateway does for all.
    pub(super) fn task(&self, task: &str) -> String {
        format!("{}tasks/{task}", self.prefix)
    }

    /// The key that is written to find out whether etcd can be written.
    pub(super) fn probe(&self) -> String {
        format!("{}probe", self.prefix)
    }

    /// What the keys of all parts begin with.
    pub(super) fn all_parts(&self) -> String {
        format!("{}parts/", self.prefix)
    }

    /// Which commit the key of a part belongs to.
    pub(super) fn commit_of(&self, key: &[u8]) -> Option<Uuid> {
        let key = std::str::from_utf8(key).ok()?;
        let (commit, _) = key.strip_prefix(&*self.all_parts())?.split_once('/')?;
        Uuid::parse_str(commit).ok()
    }

    /// What the keys of the parts of a commit begin with.
    pub(super) fn parts(&self, commit: Uuid) -> String {
        format!("{}{commit}/", self.all_parts())
    }

    /// Parts are read in their order.
    pub(super) fn part(&self, commit: Uuid, number: usize) -> String {
        format!("{}{number:06}", self.parts(commit))
    }

    /// What the keys of a blob begin with.
    pub(super) fn blob(&self, digest: &str) -> String {
        format!("{}blobs/{digest}/", self.prefix)
    }

    /// The key that is written once all chunks of a blob are there.
    pub(super) fn blob_size(&self, digest: &str) -> String {
        format!("{}size", self.blob(digest))
    }

    pub(super) fn chunk(&self, digest: &str, number: usize) -> String {
        format!("{}{number:06}", self.blob(digest))
    }

    /// Which key of a configuration this is.
    pub(super) fn read(&self, key: &[u8]) -> Key {
        let text = std::str::from_utf8(key).unwrap_or_default();
        let config = self.config();
        match text.strip_prefix(&*config) {
            Some("store") => Key::Store,
            Some("head") => Key::Head,
            Some("consent") => Key::Consent,
            Some(rest) => match rest.strip_prefix("rows/").and_then(row_key) {
                Some(row) => Key::Row(row),
                None => Key::Unknown,
            },
            None => Key::Unknown,
        }
    }
}

/// Reads the end of the key of a row.
fn row_key(text: &str) -> Option<RowKey> {
    let (name, id) = text.split_once('/')?;
    let mut kinds = Kind::ALL.into_iter();
    let kind = kinds.find(|kind| kind.name() == name)?;
    Some((kind, Uuid::parse_str(id).ok()?))
}

/// What a key is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Store,
    Head,
    Consent,
    Row(RowKey),
    /// This version does not write such a key. A later one may.
    Unknown,
}

/// The identity of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) id: Uuid,
    /// The configurations that this one replaces, because an operator has agreed to that: copies of
    /// them become copies of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) replaces: Vec<Uuid>,
}

/// The newest revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) revision: Revision,
    /// The revision before the commit, so that a gap is noticed.
    pub(super) after: Revision,
    /// Identifies the commit.
    pub(super) commit: Uuid,
    /// In how many parts the rows of the commit are, while they are not at their keys yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<usize>,
}

/// Writes a value that is JSON.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    // These types have neither maps with other keys than texts, nor a way to fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The key of a row with its new value, or none for a row that is deleted.
pub(super) type Entry = (String, Option<String>);

/// Reads a part of a commit, which is a list of entries in JSON.
pub(super) fn read_part(part: &[u8]) -> Vec<Entry> {
    serde_json::from_slice(part).unwrap_or_default()
}

/// The first line of the value of a row.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Heading {
    revision: Revision,
    /// The digest of the blob that belongs to the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
}

/// The value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowValue {
    /// As `record.rs` writes it.
    pub(super) record: Vec<u8>,
    /// The digest of the blob that belongs to the row.
    pub(super) blob: Option<String>,
}

/// Fields that this version does not know, of rows by their keys. They are not shown to the rest of
/// the program, and are written back with the row.
pub(super) type UnknownFields = BTreeMap<RowKey, Row>;

/// Writes the value of a row: a line of JSON about it, and the row as JSON.
pub(super) fn write_row(record: &[u8], blob: Option<&str>, unknown: Option<&Row>) -> Vec<u8> {
    let (revision, row) = record.split_at(record.len().min(8));
    let heading = Heading {
        revision: revision.try_into().map_or(0, u64::from_be_bytes),
        blob: blob.map(str::to_owned),
    };
    let mut value = json(&heading);
    value.push(b'\n');
    let merged = unknown.and_then(|unknown| {
        let mut row: Row = serde_json::from_slice(row).ok()?;
        for (field, value) in unknown {
            row.entry(field).or_insert_with(|| value.clone());
        }
        Some(json(&Value::from(row)))
    });
    value.extend_from_slice(merged.as_deref().unwrap_or(row));
    value
}

/// Reads the value of a row; the fields that this version does not know are put into `unknown`.
pub(super) fn read_row(key: RowKey, value: &[u8], unknown: &mut UnknownFields) -> RowValue {
    let split = value.iter().position(|byte| *byte == b'\n');
    let (heading, json) = value.split_at(split.unwrap_or(0));
    let json = json.strip_prefix(b"\n").unwrap_or(json);
    let heading: Heading = serde_json::from_slice(heading).unwrap_or_default();
    unknown.remove(&key);
    let known = serde_json::from_slice::<Row>(json)
        .ok()
        .and_then(|mut row| {
            let declared = key.0.declaration().fields;
            let is_known = |name: &str| declared.iter().any(|field| field.name == name);
            let names: Vec<String> = row.keys().filter(|name| !is_known(name)).cloned().collect();
            if names.is_empty() {
                return None;
            }
            let taken = names.into_iter();
            let taken = taken.filter_map(|name| row.shift_remove(&name).map(|value| (name, value)));
            unknown.insert(key, taken.collect());
            record::encode(heading.revision, &row).ok()
        });
    let record = known.unwrap_or_else(|| [&heading.revision.to_be_bytes(), json].concat());
    RowValue {
        record,
        blob: heading.blob,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let keys = Keys::new("/a/");
        let row = (Kind::Service, Uuid::from_u128(7));
        assert_eq!(keys.read(keys.row(row).as_bytes()), Key::Row(row));
        assert_eq!(keys.read(keys.head().as_bytes()), Key::Head);
        assert_eq!(keys.read(keys.store().as_bytes()), Key::Store);
        assert_eq!(keys.read(b"/a/config/rows/meteors/1"), Key::Unknown);
        assert_eq!(keys.read(b"/b/config/head"), Key::Unknown);
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let key = (Kind::Service, Uuid::from_u128(7));
        let record = record::encode(9, &row(json!({"name": "a\nb", "port": 80}))).unwrap();
        let mut unknown = UnknownFields::new();
        for blob in [None, Some("abc")] {
            let value = write_row(&record, blob, None);
            let read = read_row(key, &value, &mut unknown);
            assert_eq!(read.record, record);
            assert_eq!(read.blob.as_deref(), blob);
        }
        assert!(unknown.is_empty());
    }

    #[test]
    fn fields_of_a_later_version_are_kept_when_a_row_is_written_back() {
        let key = (Kind::Service, Uuid::from_u128(7));
        let newer = b"{\"revision\":3}\n{\"name\":\"a\",\"gravity\":9.8,\"port\":80}";
        let mut unknown = UnknownFields::new();
        let read = read_row(key, newer, &mut unknown);
        let known = record::decode(&read.record).unwrap();
        assert_eq!(known.row, row(json!({"name": "a", "port": 80})));
        let changed = record::encode(4, &row(json!({"name": "b", "port": 80}))).unwrap();
        let written = write_row(&changed, None, unknown.get(&key));
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "{\"revision\":4}\n{\"name\":\"b\",\"port\":80,\"gravity\":9.8}"
        );
    }
}
