//! API keys as keyed hashes (HMAC-SHA256), so that the stored rows do not show them. Beyond Kong.
//!
//! A plain hash would not do: keys that people invent can be guessed. The key of the hashes is in a
//! file and not in the store, so a copy of the rows alone is of no use, and gateways that share
//! rows share the file.

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::sync::OnceLock;

use ring::hmac;

use super::random;
use crate::key_file::{self, SecretKey};

/// What the text of a hash begins with. The hash follows in 64 hexadecimal digits.
const PREFIX: &str = "hmac-sha256:";

/// The key of the hashes.
pub(crate) struct KeyHash(hmac::Key);

impl Debug for KeyHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// The key of this process, and whether keys are to be stored as hashes. Set once, at the start:
/// declarations, which are constants, refer to it.
static INSTALLED: OnceLock<(KeyHash, bool)> = OnceLock::new();

impl KeyHash {
    fn new(key: &SecretKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The key in a file; `None` if there is no file.
    ///
    /// # Errors
    /// A sentence, if the file cannot be read or does not hold a key.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, String> {
        let remedy =
            "restore the file: without it, no client can use a key that is stored as a hash";
        let key = key_file::read(path).map_err(|error| format!("{error}: {remedy}"))?;
        Ok(key.as_ref().map(Self::new))
    }

    /// A new key, in a new file.
    ///
    /// # Errors
    /// A sentence, if the file cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let key = key_file::random();
        key_file::write(path, &key)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self::new(&key))
    }

    /// Has this process use the key. If `stores_hashes`, the keys that are written from now on are
    /// stored as hashes.
    pub(crate) fn install(self, stores_hashes: bool) {
        // It is called once.
        let _ = INSTALLED.set((self, stores_hashes));
    }

    fn hash(&self, key: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, key).as_ref());
        hash
    }

    /// The text of the hash of a key; `None` if the text is the hash of a key.
    fn text(&self, key: &str) -> Option<String> {
        let is_hash = parse(key).is_some();
        (!is_hash).then(|| format!("{PREFIX}{}", key_file::hex(&self.hash(key.as_bytes()))))
    }
}

/// The hash that a text is the form of, if it is one. Its digits are in lower case: a hash has only
/// one text, since the store compares texts.
pub(crate) fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(PREFIX)?;
    let is_lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then(|| key_file::parse(digits)).flatten()
}

/// The form in which a key is stored, where that is another one than its own.
pub(super) fn stored_form(key: &str) -> Option<String> {
    let (hash, stores_hashes) = INSTALLED.get()?;
    if *stores_hashes { hash.text(key) } else { None }
}

/// A new key, if keys are stored as hashes: then it has to be shown to the client that asked for it
/// before it is stored.
pub(crate) fn generate() -> Option<String> {
    let (_, stores_hashes) = INSTALLED.get()?;
    stores_hashes.then(random::key)
}

/// The text of the hash of a key, if this gateway has the key of the hashes; `None` for a text that
/// is a hash.
pub(crate) fn text(key: &str) -> Option<String> {
    INSTALLED.get()?.0.text(key)
}

/// The hash of a key that a client has sent, if this gateway has the key of the hashes.
pub(crate) fn hash(key: &[u8]) -> Option<[u8; 32]> {
    Some(INSTALLED.get()?.0.hash(key))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_hash_which_is_its_own_form() {
        // RFC 4231, test case 1, has this key in 20 bytes; the rest of a key is zeros (RFC 2104).
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let text = KeyHash::new(&key).text("Hi There").unwrap();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(text, format!("hmac-sha256:{expected}"));
        assert_eq!(KeyHash::new(&key).text(&text), None);
        assert_eq!(parse(&text), Some(KeyHash::new(&key).hash(b"Hi There")));
        let upper = format!("hmac-sha256:{}", expected.to_uppercase());
        for wrong in [
            &*upper,
            "Hi There",
            "hmac-sha256:",
            "hmac-sha256:xy",
            expected,
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_the_same_once_it_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hash.key");
        assert!(KeyHash::open(&path).unwrap().is_none());
        let made = KeyHash::create(&path).unwrap();
        let read = KeyHash::open(&path).unwrap().unwrap();
        assert_eq!(made.hash(b"a"), read.hash(b"a"));
        std::fs::write(&path, "x").unwrap();
        assert!(
            KeyHash::open(&path)
                .unwrap_err()
                .contains("restore the file")
        );
    }
}
