//! Seals the values of rows before they reach etcd, with keys that the gateways share.
//!
//! A sealed value is a line of JSON that names the key, and below it the nonce and the sealed bytes
//! in base64. The key of the row in etcd is authenticated as well, so that one row cannot be put in
//! the place of another.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::json;
use crate::key_file::{self, SecretKey, hex};

/// Digits of the name of a key.
const NAME: usize = 16;

/// The keys that the gateways share. The first one seals, and all of them open. Without keys,
/// nothing is sealed.
#[derive(Default)]
pub(super) struct Keyring(Vec<Key>);

struct Key {
    /// The start of its digest.
    name: String,
    key: LessSafeKey,
}

/// The first line of a sealed value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heading {
    /// The name of the key.
    sealed: String,
}

impl Keyring {
    /// Reads keys from a file: 64 hexadecimal digits on each line. Empty lines and lines that begin
    /// with `#` are left out.
    ///
    /// # Errors
    /// A sentence, if the file cannot be read or holds something else.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = key_file::parse(line).and_then(|key| Key::new(&key));
            keys.push(key.ok_or_else(|| {
                format!("line {number} of {shown} is no key of 64 hexadecimal digits")
            })?);
        }
        match keys.is_empty() {
            true => Err(format!("{shown} holds no key")),
            false => Ok(Self(keys)),
        }
    }

    /// The value of a row as it is stored under `key`.
    ///
    /// # Errors
    /// The system has no random numbers: why, as the end of a sentence.
    pub(super) fn seal(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, String> {
        let Some(first) = self.0.first() else {
            return Ok(value);
        };
        let failed = |_| "a row cannot be sealed".to_owned();
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = value;
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealing = first
            .key
            .seal_in_place_append_tag(unique, Aad::from(key), &mut sealed);
        sealing.map_err(failed)?;
        let heading = Heading {
            sealed: first.name.clone(),
        };
        let mut text = json(&heading);
        text.push(b'\n');
        text.extend(STANDARD.encode([&nonce[..], &sealed].concat()).into_bytes());
        Ok(text)
    }

    /// The value of a row that is stored under `key`.
    ///
    /// # Errors
    /// It cannot be opened: why, as the end of a sentence.
    pub(super) fn open<'a>(&self, key: &str, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let Some((name, text)) = sealed(stored) else {
            return Ok(Cow::Borrowed(stored));
        };
        let known = self.0.iter().find(|key| key.name == name);
        let known = known.ok_or_else(|| {
            format!("its rows are sealed with the key {name}, which is not in keyring_file")
        })?;
        let opened = STANDARD.decode(text).ok().and_then(|mut bytes| {
            let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = known.key.open_in_place(nonce, Aad::from(key), sealed);
            Some(opened.ok()?.to_vec())
        });
        let opened = opened.ok_or_else(|| format!("{key} was changed after it was sealed"))?;
        Ok(Cow::Owned(opened))
    }

    /// Whether a stored value is as [`Self::seal`] would make it now.
    pub(super) fn is_current(&self, stored: &[u8]) -> bool {
        let name = sealed(stored).map(|(name, _)| name);
        match self.0.first() {
            Some(first) => name.as_ref() == Some(&first.name),
            None => name.is_none(),
        }
    }
}

/// The name of the key with which a value is sealed, and what is below; none if it is not sealed.
fn sealed(stored: &[u8]) -> Option<(String, &[u8])> {
    let end = stored.iter().position(|byte| *byte == b'\n')?;
    let (heading, text) = stored.split_at(end);
    let heading: Heading = serde_json::from_slice(heading).ok()?;
    Some((heading.sealed, text.get(1..)?))
}

impl Key {
    fn new(key: &SecretKey) -> Option<Self> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut name = hex(&digest);
        name.truncate(NAME);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self {
            name,
            key: LessSafeKey::new(key),
        })
    }
}

/// Without the keys.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|key| &key.name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn keyring(keys: &[u8]) -> Keyring {
        Keyring(
            keys.iter()
                .map(|key| Key::new(&[*key; 32]).unwrap())
                .collect(),
        )
    }

    const ROW: &[u8] = b"{\"revision\":3}\n{\"key\":\"secret\"}";

    #[test]
    fn what_is_sealed_is_opened_at_its_place_and_nowhere_else() {
        let ring = keyring(&[1]);
        let sealed = ring.seal("/a", ROW.to_vec()).unwrap();
        let text = std::str::from_utf8(&sealed).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(*ring.open("/a", &sealed).unwrap(), *ROW);
        assert!(ring.open("/b", &sealed).unwrap_err().contains("changed"));
        // Nothing of it can be changed.
        for position in sealed.len() - 20..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(ring.open("/a", &changed).is_err(), "{position}");
        }
        // The same row is never sealed in the same way.
        assert_ne!(ring.seal("/a", ROW.to_vec()).unwrap(), sealed);
    }

    #[test]
    fn the_first_key_seals_and_all_keys_open() {
        let (old, both, new) = (keyring(&[1]), keyring(&[2, 1]), keyring(&[2]));
        let sealed = old.seal("/a", ROW.to_vec()).unwrap();
        assert_eq!(*both.open("/a", &sealed).unwrap(), *ROW);
        assert!(old.is_current(&sealed) && !both.is_current(&sealed));
        let reason = new.open("/a", &sealed).unwrap_err();
        assert!(reason.contains("keyring_file"), "{reason}");
        let sealed = both.seal("/a", ROW.to_vec()).unwrap();
        assert_eq!(*new.open("/a", &sealed).unwrap(), *ROW);
        assert!(both.is_current(&sealed) && new.is_current(&sealed));
    }

    #[test]
    fn without_keys_nothing_is_sealed_and_nothing_sealed_is_opened() {
        let none = Keyring::default();
        assert_eq!(none.seal("/a", ROW.to_vec()).unwrap(), ROW);
        assert_eq!(*none.open("/a", ROW).unwrap(), *ROW);
        assert!(none.is_current(ROW) && !keyring(&[1]).is_current(ROW));
        let sealed = keyring(&[1]).seal("/a", ROW.to_vec()).unwrap();
        assert!(none.open("/a", &sealed).is_err());
    }

    #[test]
    fn a_file_of_keys_has_one_on_each_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        let (one, two) = ("0".repeat(64), "a".repeat(64));
        std::fs::write(&path, format!("# new\n{one}\n\n{two}\n")).unwrap();
        assert_eq!(Keyring::read(&path).unwrap().0.len(), 2);
        for (text, reason) in [
            (format!("{one}\nx\n"), "line 2"),
            ("# none\n".to_owned(), "holds no key"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Keyring::read(&path).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Keyring::read(&path).unwrap_err().contains("cannot read"));
    }
}
