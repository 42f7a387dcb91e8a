//! The lock of a data folder: held by one process, or by two during a take-over.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::journal::OpenError;

/// How long a folder that is in use is tried again: a process that was killed closes its files a
/// moment after it no longer answers.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A data folder that no process works in but those that have this lock. It holds until the last
/// copy of its descriptor is closed: a process that takes over gets one, so that there is no moment
/// in between in which a third one could start.
#[derive(Debug, Clone)]
pub struct FolderLock(Option<Arc<OwnedFd>>);

impl FolderLock {
    /// Locks a data folder, which is made if it is missing.
    ///
    /// # Errors
    /// Another process works in the folder.
    pub(super) fn take(data_dir: &Path) -> Result<Self, OpenError> {
        Self::of(data_dir, LOCK_TIMEOUT)
    }

    /// The lock whose descriptor another process has sent.
    pub fn received(descriptor: OwnedFd) -> Self {
        Self(Some(Arc::new(descriptor)))
    }

    /// The descriptor for another process.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|descriptor| descriptor.as_fd())
    }

    fn of(data_dir: &Path, patience: Duration) -> Result<Self, OpenError> {
        // A folder that cannot be made or opened is reported when the store is opened.
        let _ = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir);
        let Ok(folder) = File::open(data_dir) else {
            return Ok(Self(None));
        };
        let began = Instant::now();
        let mut locked = flock(&folder, FlockOperation::NonBlockingLockExclusive);
        while locked == Err(Errno::WOULDBLOCK) && began.elapsed() < patience {
            std::thread::sleep(RETRY_PAUSE);
            locked = flock(&folder, FlockOperation::NonBlockingLockExclusive);
        }
        match locked {
            Ok(()) => Ok(Self::received(folder.into())),
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(data_dir.to_owned())),
            Err(error) => {
                // Some file systems of networks have no locks for folders. The files of the store
                // have locks of their own.
                tracing::debug!("{} cannot be locked: {error}", data_dir.display());
                Ok(Self(None))
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_the_last_process_closes_the_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::of(folder.path(), Duration::ZERO).unwrap();
        let refused = FolderLock::of(folder.path(), Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("is in use by another process"),
            "{refused}"
        );
        let sent = lock.descriptor().unwrap().try_clone_to_owned().unwrap();
        let other = FolderLock::received(sent);
        drop(lock);
        FolderLock::of(folder.path(), Duration::ZERO).unwrap_err();
        drop(other);
        FolderLock::of(folder.path(), Duration::ZERO).unwrap();
    }
}
