//! Files that hold a secret key: 64 hexadecimal digits, readable for their owner only.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A secret key, of 256 bits.
pub(crate) type SecretKey = [u8; 32];

/// A new key, from the system's random numbers.
pub(crate) fn random() -> SecretKey {
    // 122 random bits each.
    let digest = Sha256::new()
        .chain_update(Uuid::new_v4().as_bytes())
        .chain_update(Uuid::new_v4().as_bytes())
        .chain_update(Uuid::new_v4().as_bytes());
    digest.finalize().into()
}

/// The key of a file; `None` if there is no file.
///
/// # Errors
/// A sentence, if the file cannot be read or does not hold a key.
pub(crate) fn read(path: &Path) -> Result<Option<SecretKey>, String> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) => {
            let key = parse(text.trim());
            let message = format!("{shown} does not hold a key of 64 hexadecimal digits");
            key.map(Some).ok_or(message)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {shown}: {error}")),
    }
}

/// Writes a key to a new file.
///
/// # Errors
/// Those of the system.
pub(crate) fn write(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    writeln!(file, "{}", hex(key))?;
    file.sync_all()?;
    // The file is written whole or not at all.
    fs::rename(&draft, path)
}

/// 32 bytes as 64 hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads 64 hexadecimal digits.
pub(crate) fn parse(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_only_its_owner_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        assert_eq!(read(&path), Ok(None));
        let key = random();
        write(&path, &key).unwrap();
        assert_eq!(read(&path), Ok(Some(key)));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "x").unwrap();
        assert!(read(&path).unwrap_err().contains("64 hexadecimal digits"));
    }
}
