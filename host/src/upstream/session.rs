//! The value of a session cookie, in a form from which only the gateway learns the endpoint.
//!
//! The id of an endpoint is a hash of its host and address. It is the same on every gateway, since
//! all balancers must compute the same from it. A client that knows the host could try all ports
//! until the hash fits. So the cookie holds the id in a form that takes a secret key to make and to
//! read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Name of the file in the data folder.
const FILE: &str = "session.key";

/// Rounds of the Feistel network. With four rounds, each with a hash under a secret key, the result
/// for one id reveals nothing about another id (Luby and Rackoff, 1988).
const ROUNDS: u8 = 4;

/// Turns ids into cookie values, and back.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey")
    }
}

impl SessionKey {
    /// A new key, from the system's random numbers.
    fn random() -> Self {
        // 122 random bits each.
        let digest = Sha256::new()
            .chain_update(Uuid::new_v4().as_bytes())
            .chain_update(Uuid::new_v4().as_bytes())
            .chain_update(Uuid::new_v4().as_bytes());
        Self(digest.finalize().into())
    }

    /// A key that lasts as long as this process.
    pub(crate) fn of_process() -> Arc<Self> {
        static KEY: LazyLock<Arc<SessionKey>> = LazyLock::new(|| Arc::new(SessionKey::random()));
        Arc::clone(&KEY)
    }

    /// The key of a data folder, which is made at the first start. Where it cannot be written, it
    /// lasts as long as the process, and the log says so.
    ///
    /// # Errors
    /// A sentence, if the file exists but cannot be read or does not hold a key.
    pub fn open(data_dir: &Path) -> Result<Arc<Self>, String> {
        let path = data_dir.join(FILE);
        let shown = path.display();
        match fs::read_to_string(&path) {
            Ok(text) => parse(text.trim()).map(Arc::new).ok_or_else(|| {
                format!(
                    "{shown} does not hold a key of 64 hexadecimal digits: restore the file, or delete it, and \
                     every session begins anew"
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::random();
                if let Err(error) = key.write(data_dir, &path) {
                    tracing::warn!(
                        "cannot write {shown}: {error}; sessions will not outlive this run of the gateway"
                    );
                }
                Ok(Arc::new(key))
            }
            Err(error) => Err(format!("cannot read {shown}: {error}")),
        }
    }

    fn write(&self, data_dir: &Path, path: &Path) -> io::Result<()> {
        let draft = data_dir.join("session.key.draft");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        file.write_all(digits.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // The file is written whole or not at all.
        fs::rename(&draft, path)
    }

    /// The cookie value for this endpoint.
    pub(crate) fn seal(&self, id: u64) -> u64 {
        let (mut left, mut right) = halves(id);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.mix(round, right));
        }
        u64::from(left) << 32 | u64::from(right)
    }

    /// The endpoint that a cookie names; an arbitrary id, if the cookie is not one of ours.
    pub(crate) fn open_seal(&self, sealed: u64) -> u64 {
        let (mut left, mut right) = halves(sealed);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.mix(round, left), left);
        }
        u64::from(left) << 32 | u64::from(right)
    }

    fn mix(&self, round: u8, half: u32) -> u32 {
        let digest = Sha256::new()
            .chain_update(self.0)
            .chain_update([round])
            .chain_update(half.to_be_bytes())
            .finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn parse(text: &str) -> Option<SessionKey> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(SessionKey(key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_same_key_opens_a_sealed_id(id: u64, one: [u8; 32], other: [u8; 32]) {
            let (one, other) = (SessionKey(one), SessionKey(other));
            prop_assert_eq!(one.open_seal(one.seal(id)), id);
            prop_assert_eq!(one.seal(one.open_seal(id)), id);
            prop_assert!(one == other || one.seal(id) != other.seal(id));
        }
    }

    #[test]
    fn a_key_is_made_once_and_read_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let key = SessionKey::open(folder.path()).unwrap();
        assert_eq!(SessionKey::open(folder.path()).unwrap(), key);
        assert_ne!(
            SessionKey::open(tempfile::tempdir().unwrap().path()).unwrap(),
            key
        );
        let path = folder.path().join(FILE);
        for wrong in ["", "0123", &"g".repeat(64)] {
            fs::write(&path, wrong).unwrap();
            let error = SessionKey::open(folder.path()).unwrap_err();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
        // A change would end every session at an upgrade.
        let known = SessionKey([7; 32]);
        assert_eq!(known.seal(0x60e7_e7dd_8ab6_e371), KNOWN);
    }

    const KNOWN: u64 = 0xa251_a666_5eb1_1d17;
}
