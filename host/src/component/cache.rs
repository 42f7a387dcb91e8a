//! Compiled components on disk, so that a restart need not compile them again.
//!
//! A file is machine code that will run in this process. Only the gateway's user can write and read
//! it. Its name is the digest of the component and the engine's own compatibility hash, and it ends
//! with its checksum. The cache ignores any other file.
//!
//! Files are mapped into memory: the machine code of a balancer that no upstream uses takes none.
//! They are never written again under their names, and one that is removed stays mapped.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the checksum behind the machine code.
const CHECKSUM: usize = 32;

/// The layout of a file. Those of another one are removed.
const LAYOUT: u32 = 2;

/// Most bytes that the folder holds: hundreds of components of ordinary size. Beyond that, the
/// oldest files are removed; their components are compiled again when they are needed.
const MAX_BYTES: u64 = 1 << 30;

/// Age after which an unfinished file is considered as left by a killed gateway.
const UNFINISHED: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Hash of the version of wasmtime, its settings and the processor.
    compatibility: String,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // The files in the folder will run in this process, so no other user may write there.
        let owner = fs::symlink_metadata(folder)?;
        if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        LAYOUT.hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            folder: folder.to_owned(),
            compatibility: format!("{:016x}", hasher.finish()),
        })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder
            .join(format!("{digest}-{}.cwasm", self.compatibility))
    }

    /// The component, if it was compiled before for this engine and the file is not damaged.
    pub(super) fn read(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let content = fs::read(&path).ok()?;
        let whole = content.split_last_chunk::<CHECKSUM>();
        let is_whole =
            whole.is_some_and(|(code, sum)| Sha256::digest(code).as_slice() == sum.as_slice());
        drop(content);
        if !is_whole {
            tracing::warn!("the compiled component {} is damaged", path.display());
            return None;
        }
        match map(engine, &path) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!("the compiled component {}: {error:#}", path.display());
                None
            }
        }
    }

    /// Stores machine code that the compiler has just made, and loads it.
    pub(super) fn write(
        &self,
        engine: &Engine,
        digest: &str,
        machine_code: &[u8],
    ) -> wasmtime::Result<Component> {
        self.keep(digest, machine_code);
        // Without the file, memory has to hold the code.
        map(engine, &self.path(digest)).or_else(|_| load(engine, machine_code))
    }

    /// Stores machine code that the compiler has just made.
    pub(super) fn keep(&self, digest: &str, machine_code: &[u8]) {
        // Without the file the next start compiles the component again, which is no reason to
        // refuse it.
        let kept = self.store(digest, machine_code);
        if let Err(error) = kept.and_then(|()| self.bound(MAX_BYTES, &self.path(digest))) {
            tracing::warn!("cannot keep a compiled component: {error}");
        }
    }

    /// Removes the files of components that are not wanted, and those of engines with other
    /// settings.
    pub(super) fn sweep(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let ending = format!("-{}.cwasm", self.compatibility);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let digest = name.strip_suffix(&ending);
            let keep = match digest {
                Some(digest) => is_wanted(digest),
                // Another thread may be writing it.
                None if name.ends_with(".tmp") => !is_old(&entry.metadata()?),
                None => false,
            };
            if !keep {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the oldest files until no more than `most` bytes are left; `newest` always stays.
    fn bound(&self, most: u64, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        let mut size: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort_unstable();
        for (_, length, path) in files {
            if size <= most {
                break;
            }
            if path != newest {
                remove(&path)?;
                size -= length;
            }
        }
        Ok(())
    }

    fn store(&self, digest: &str, machine_code: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        let temporary = path.with_extension(format!("{:x}.tmp", fastrand::u64(..)));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(machine_code)?;
            file.write_all(&Sha256::digest(machine_code))?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        })();
        if written.is_err() {
            // A file that cannot be removed is never read, because it has another name.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().map(|modified| modified.elapsed());
    age.is_ok_and(|age| age.is_ok_and(|age| age > UNFINISHED))
}

/// Removes a file, which another thread may have removed already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Loads machine code from a file of the cache, of which only the pages that run are read.
#[expect(unsafe_code, reason = "loading machine code is unsafe by nature")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: as in `load`: the bytes come from wasmtime's own compiler, by way of a file that only
    // this user can write and whose checksum holds or which was written a moment ago. The cache
    // renames complete files into place and never changes one.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Loads machine code that wasmtime's compiler in this same build has made.
#[expect(unsafe_code, reason = "loading machine code is unsafe by nature")]
pub(super) fn load(engine: &Engine, machine_code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from wasmtime's own compiler: either a moment ago, from this process
    // or from our compile worker, or from a file that only this user can write and whose checksum
    // holds. wasmtime itself refuses code of another version or for another processor.
    unsafe { Component::deserialize(engine, machine_code) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), &Engine::default()).unwrap();
        (folder, cache)
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_sweep_keeps_only_wanted_components_of_this_engine() {
        let (folder, cache) = cache();
        for digest in ["a", "b"] {
            cache.store(digest, b"code").unwrap();
        }
        for other in ["a-0123.cwasm", "a-0123.5.tmp"] {
            fs::write(folder.path().join(other), b"code").unwrap();
        }
        cache.sweep(|digest| digest == "a").unwrap();
        let own = format!("a-{}.cwasm", cache.compatibility);
        // A file that another thread may be writing stays.
        let mut expected = ["a-0123.5.tmp".to_owned(), own];
        expected.sort_unstable();
        assert_eq!(files(folder.path()), expected);
    }

    #[test]
    fn the_oldest_files_are_removed_beyond_the_limit() {
        let (folder, cache) = cache();
        for (age, digest) in ["new", "older", "oldest"].iter().enumerate() {
            cache.store(digest, b"code").unwrap();
            let file = fs::File::options().append(true).open(cache.path(digest));
            let then = std::time::SystemTime::now() - Duration::from_secs(age as u64 * 60);
            file.unwrap().set_modified(then).unwrap();
        }
        let size = (CHECKSUM + b"code".len()) as u64;
        cache.bound(2 * size, &cache.path("oldest")).unwrap();
        let left = files(folder.path());
        assert!(
            left[0].starts_with("new-") && left[1].starts_with("oldest-"),
            "{left:?}"
        );
        assert_eq!(left.len(), 2);
    }
}
