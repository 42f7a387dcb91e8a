//! The identity of this gateway among others, and of its machine.

mod peers;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use uuid::Uuid;

pub(crate) use peers::{NodeShare, PEERS, PeerSubscription};

/// The file in the data folder that has the identity.
const FILE: &str = "node.id";

static ID: OnceLock<Uuid> = OnceLock::new();

/// Identifies this gateway. Source: Kong, `node_id`.
pub(crate) fn id() -> Uuid {
    *ID.get_or_init(Uuid::new_v4)
}

/// Has the gateway keep its identity in its data folder, so that it is the same after a restart.
/// Called before [`id`] is.
///
/// # Errors
/// Those of the system. The identity then ends with this process.
pub(crate) fn keep_id(data_dir: &Path) -> io::Result<()> {
    let kept = read_or_make(&data_dir.join(FILE))?;
    ID.get_or_init(|| kept);
    Ok(())
}

/// The identity in a file. If there is none, or the file holds something else, a new one is
/// written.
fn read_or_make(path: &Path) -> io::Result<Uuid> {
    match fs::read_to_string(path) {
        Ok(text) => {
            if let Ok(id) = Uuid::parse_str(text.trim()) {
                return Ok(id);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(error) => return Err(error),
    }
    let id = Uuid::new_v4();
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    // The file is written whole or not at all.
    fs::rename(&draft, path)?;
    Ok(id)
}

/// The name of this machine, as its system knows it.
pub(crate) fn hostname() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_one_that_cannot_be_read_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let made = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), made);
        for damaged in [&b"x"[..], b"", b"\xff"] {
            fs::write(&path, damaged).unwrap();
            let new = read_or_make(&path).unwrap();
            assert_ne!(new, made);
            assert_eq!(read_or_make(&path).unwrap(), new);
        }
    }
}
