//! The messages of etcd's API, version 3, that are used here. Source: etcd 3.5, `rpc.proto` and
//! `kv.proto`.

use bytes::Bytes;

use super::protobuf::{Malformed, Message, Value, fields};

/// The methods.
pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const PUT: &str = "/etcdserverpb.KV/Put";
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(super) const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(super) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(super) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub(super) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(super) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// etcd's own revision: counts its transactions.
pub(super) type EtcdRevision = i64;

/// A range of keys: from the first one up to, and without, the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    first: Vec<u8>,
    end: Vec<u8>,
}

impl KeyRange {
    /// One key.
    pub(super) fn key(key: &str) -> Self {
        Self {
            first: key.as_bytes().to_vec(),
            end: Vec::new(),
        }
    }

    /// All keys that begin with a prefix, which must end with an ASCII character.
    pub(super) fn prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self {
            first: prefix.as_bytes().to_vec(),
            end,
        }
    }

    /// Writes the range into fields 1 and 2 of a message. The end of a single key has to be left
    /// out: an empty one stands for all keys from the first one on.
    fn write(&self, message: Message) -> Message {
        let message = message.bytes(1, &self.first);
        match self.end.is_empty() {
            true => message,
            false => message.bytes(2, &self.end),
        }
    }

    /// The keys of this range after a key.
    pub(super) fn after(&self, key: &[u8]) -> Self {
        Self {
            first: [key, b"\0"].concat(),
            end: self.end.clone(),
        }
    }
}

/// Reads keys.
#[derive(Debug)]
pub(super) struct Range<'a> {
    pub(super) keys: &'a KeyRange,
    /// Most keys; 0 for no limit.
    pub(super) limit: u64,
    /// As of this revision; 0 for the newest.
    pub(super) revision: EtcdRevision,
    /// Whether values are left out.
    pub(super) keys_only: bool,
}

impl Range<'_> {
    pub(super) fn message(&self) -> Message {
        let message = self.keys.write(Message::default());
        message
            .number(3, self.limit)
            .number(4, self.revision.unsigned_abs())
            .number(8, self.keys_only.into())
    }
}

/// Reads the keys of a range that were changed at this revision or later.
pub(super) fn changed_since(keys: &KeyRange, revision: EtcdRevision) -> Message {
    let message = keys.write(Message::default());
    message.number(10, revision.unsigned_abs())
}

pub(super) fn put(key: &str, value: &[u8]) -> Message {
    Message::default().bytes(1, key.as_bytes()).bytes(2, value)
}

/// Writes a key that ends with a lease.
pub(super) fn put_under(key: &str, value: &[u8], lease: u64) -> Message {
    put(key, value).number(3, lease)
}

/// Makes a lease of this many seconds.
pub(super) fn lease(seconds: u64) -> Message {
    Message::default().number(1, seconds)
}

/// The lease in the answer to [`lease`].
pub(super) fn granted(message: &[u8]) -> Result<u64, Malformed> {
    number_of(message, 2)
}

/// Ends a lease, and deletes its keys.
pub(super) fn revoke(lease: u64) -> Message {
    Message::default().number(1, lease)
}

/// Renews a lease.
pub(super) fn keep_alive(lease: u64) -> Message {
    Message::default().number(1, lease)
}

/// How many seconds a lease has left, in the answer to [`keep_alive`]; 0 if it has ended.
pub(super) fn time_left(message: &[u8]) -> Result<u64, Malformed> {
    number_of(message, 3)
}

fn number_of(message: &[u8], wanted: u64) -> Result<u64, Malformed> {
    let fields = fields(message)?;
    let found = fields.into_iter().find(|(field, _)| *field == wanted);
    Ok(found.map_or(0, |(_, value)| value.number()))
}

pub(super) fn delete(keys: &KeyRange) -> Message {
    keys.write(Message::default())
}

/// What a transaction compares.
#[derive(Debug, Clone)]
pub(super) enum Compare {
    /// The key was last changed at this revision.
    ModRevision(String, EtcdRevision),
    Missing(String),
    Exists(String),
}

impl Compare {
    fn message(&self) -> Message {
        // The results `EQUAL` and `GREATER`, and the targets `CREATE` and `MOD`.
        const EQUAL: u64 = 0;
        const GREATER: u64 = 1;
        const CREATE: u64 = 1;
        const MOD: u64 = 2;
        let compare = |result, target, key: &str| {
            let message = Message::default().number(1, result).number(2, target);
            message.bytes(3, key.as_bytes())
        };
        match self {
            Self::ModRevision(key, revision) => {
                compare(EQUAL, MOD, key).number(6, revision.unsigned_abs())
            }
            Self::Missing(key) => compare(EQUAL, CREATE, key).number(5, 0),
            Self::Exists(key) => compare(GREATER, CREATE, key).number(5, 0),
        }
    }
}

/// A step of a transaction.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(String, Vec<u8>),
    /// A key that ends with a lease.
    PutUnder(String, Vec<u8>, u64),
    Delete(KeyRange),
}

/// A transaction. If a comparison fails, `read` is read.
pub(super) fn transaction(compared: &[Compare], steps: &[Step], read: &KeyRange) -> Message {
    let compared: Vec<Message> = compared.iter().map(Compare::message).collect();
    let steps = steps.iter().map(|step| match step {
        Step::Put(key, value) => Message::default().message(2, &put(key, value)),
        Step::PutUnder(key, value, lease) => {
            Message::default().message(2, &put_under(key, value, *lease))
        }
        Step::Delete(keys) => Message::default().message(3, &delete(keys)),
    });
    let read = Range {
        keys: read,
        limit: 0,
        revision: 0,
        keys_only: false,
    };
    Message::default()
        .messages(1, &compared)
        .messages(2, &steps.collect::<Vec<_>>())
        .message(3, &Message::default().message(1, &read.message()))
}

/// Starts a watch at a revision, and asks for progress notifications.
pub(super) fn watch(keys: &KeyRange, from: EtcdRevision) -> Message {
    let create = keys.write(Message::default());
    let create = create.number(3, from.unsigned_abs()).number(4, 1);
    Message::default().message(1, &create)
}

/// Asks how far the watches of a stream are.
pub(super) fn watch_progress() -> Message {
    Message::default().message(3, &Message::default())
}

pub(super) fn authenticate(name: &str, password: &str) -> Message {
    let message = Message::default().bytes(1, name.as_bytes());
    message.bytes(2, password.as_bytes())
}

/// A key with its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub(super) key: Vec<u8>,
    pub(super) value: Bytes,
    pub(super) mod_revision: EtcdRevision,
}

impl KeyValue {
    fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for (field, value) in fields(message)? {
            match field {
                1 => read.key = value.bytes().to_vec(),
                3 => read.mod_revision = revision(value),
                5 => read.value = Bytes::copy_from_slice(value.bytes()),
                _ => {}
            }
        }
        Ok(read)
    }
}

fn revision(value: Value<'_>) -> EtcdRevision {
    value.number().cast_signed()
}

/// The revision of a `ResponseHeader`.
fn header(message: &[u8]) -> Result<EtcdRevision, Malformed> {
    let fields = fields(message)?;
    let found = fields.into_iter().find(|(field, _)| *field == 3);
    Ok(found.map_or(0, |(_, value)| revision(value)))
}

/// The answer to [`Range`].
#[derive(Debug, Default)]
pub(super) struct RangeResponse {
    /// etcd's revision when it answered.
    pub(super) revision: EtcdRevision,
    pub(super) entries: Vec<KeyValue>,
    /// Whether there are further keys.
    pub(super) more: bool,
}

impl RangeResponse {
    pub(super) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for (field, value) in fields(message)? {
            match field {
                1 => read.revision = header(value.bytes())?,
                2 => read.entries.push(KeyValue::read(value.bytes())?),
                3 => read.more = value.number() != 0,
                _ => {}
            }
        }
        Ok(read)
    }
}

/// The answer to [`transaction`].
#[derive(Debug, Default)]
pub(super) struct TransactionResponse {
    pub(super) revision: EtcdRevision,
    pub(super) succeeded: bool,
    /// What was read instead.
    pub(super) read: Vec<KeyValue>,
}

impl TransactionResponse {
    pub(super) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for (field, value) in fields(message)? {
            match field {
                1 => read.revision = header(value.bytes())?,
                2 => read.succeeded = value.number() != 0,
                3 => {
                    for (field, value) in fields(value.bytes())? {
                        if field == 1 {
                            let range = RangeResponse::read(value.bytes())?;
                            read.read.extend(range.entries);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

/// A change of a key: its new value, or none if it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Bytes>,
    pub(super) revision: EtcdRevision,
}

/// A message of a watch.
#[derive(Debug, Default)]
pub(super) struct WatchResponse {
    pub(super) revision: EtcdRevision,
    pub(super) is_created: bool,
    /// Why the watch has ended.
    pub(super) cancelled: Option<String>,
    /// The oldest revision that is left, if the watch was to start before it.
    pub(super) compacted: EtcdRevision,
    pub(super) events: Vec<Event>,
}

impl WatchResponse {
    pub(super) fn read(message: &[u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let (mut is_cancelled, mut reason) = (false, String::new());
        for (field, value) in fields(message)? {
            match field {
                1 => read.revision = header(value.bytes())?,
                3 => read.is_created = value.number() != 0,
                4 => is_cancelled = value.number() != 0,
                5 => read.compacted = revision(value),
                6 => reason = String::from_utf8_lossy(value.bytes()).into_owned(),
                11 => read.events.push(event(value.bytes())?),
                _ => {}
            }
        }
        read.cancelled = is_cancelled.then_some(reason);
        Ok(read)
    }
}

fn event(message: &[u8]) -> Result<Event, Malformed> {
    const DELETE: u64 = 1;
    let (mut kind, mut entry) = (0, KeyValue::default());
    for (field, value) in fields(message)? {
        match field {
            1 => kind = value.number(),
            2 => entry = KeyValue::read(value.bytes())?,
            _ => {}
        }
    }
    Ok(Event {
        key: entry.key,
        value: (kind != DELETE).then_some(entry.value),
        revision: entry.mod_revision,
    })
}

/// The token in the answer to [`authenticate`].
pub(super) fn token(message: &[u8]) -> Result<String, Malformed> {
    let fields = fields(message)?;
    let found = fields.into_iter().find(|(field, _)| *field == 2);
    let token = found.ok_or(Malformed)?.1.bytes();
    String::from_utf8(token.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_key_has_no_end_because_an_empty_one_means_all_keys_after_it() {
        assert_eq!(delete(&KeyRange::key("a")).into_bytes(), b"\x0a\x01a");
        assert_eq!(
            delete(&KeyRange::prefix("a/")).into_bytes(),
            b"\x0a\x02a/\x12\x02a0"
        );
    }
}
