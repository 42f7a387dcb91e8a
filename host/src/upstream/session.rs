//! The value of a session cookie, in a form from which only the gateway learns the endpoint.
//!
//! The id of an endpoint is a hash of its host and address. It is the same on every gateway, since
//! all balancers must compute the same from it. A client that knows the host could try all ports
//! until the hash fits. So the cookie holds the id in a form that takes a secret key to make and to
//! read.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

use crate::key_file::{self, SecretKey};

/// Name of the file in the data folder.
const FILE: &str = "session.key";

/// Rounds of the Feistel network. With four rounds, each with a hash under a secret key, the result
/// for one id reveals nothing about another id (Luby and Rackoff, 1988).
const ROUNDS: u8 = 4;

/// Turns ids into cookie values, and back.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(SecretKey);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey")
    }
}

impl SessionKey {
    /// A key that lasts as long as this process.
    pub(crate) fn of_process() -> Arc<Self> {
        static KEY: LazyLock<Arc<SessionKey>> =
            LazyLock::new(|| Arc::new(SessionKey(key_file::random())));
        Arc::clone(&KEY)
    }

    /// The key of a data folder, which is made at the first start. Where it cannot be written, it
    /// lasts as long as the process, and the log says so.
    ///
    /// # Errors
    /// A sentence, if the file exists but cannot be read or does not hold a key.
    pub fn open(data_dir: &Path) -> Result<Arc<Self>, String> {
        let path = data_dir.join(FILE);
        let read = key_file::read(&path).map_err(|error| {
            format!("{error}: restore the file, or delete it, and every session begins anew")
        })?;
        let key = read.unwrap_or_else(|| {
            let key = key_file::random();
            if let Err(error) = key_file::write(&path, &key) {
                tracing::warn!(
                    "cannot write {}: {error}; sessions will not outlive this run of the gateway",
                    path.display()
                );
            }
            key
        });
        Ok(Arc::new(Self(key)))
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::fs;

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
