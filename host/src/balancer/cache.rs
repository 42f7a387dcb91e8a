//! Compiled components on disk, so that a restart compiles nothing.
//!
//! A file is machine code that will run in this process: it is written by us alone, readable by us
//! alone, named by the digest of the component and by the engine's own compatibility hash, and begins
//! with its checksum. Anything else is not there, as far as the cache is concerned.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the checksum in front of the machine code.
const CHECKSUM: usize = 32;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Stands for the version of wasmtime, its settings and the processor.
    compatibility: String,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // What is in the folder will run in this process, so nobody else may write there.
        let owner = fs::symlink_metadata(folder)?;
        if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to someone else"));
        }
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
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

    /// The component, if it was compiled before for this engine and the file is whole.
    pub(super) fn read(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        let content = fs::read(&path).ok()?;
        let (checksum, machine_code) = content.split_at_checked(CHECKSUM)?;
        if checksum != Sha256::digest(machine_code).as_slice() {
            tracing::warn!("the compiled component {} is damaged", path.display());
            return None;
        }
        match load(engine, machine_code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!("the compiled component {}: {error:#}", path.display());
                None
            }
        }
    }

    /// Keeps machine code that the compiler has just made, and loads it.
    pub(super) fn write(
        &self,
        engine: &Engine,
        digest: &str,
        machine_code: &[u8],
    ) -> wasmtime::Result<Component> {
        let component = load(engine, machine_code)?;
        // Without the file the next start compiles again: no reason to refuse the component.
        if let Err(error) = self.store(digest, machine_code) {
            tracing::warn!("cannot keep a compiled component: {error}");
        }
        Ok(component)
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
            file.write_all(&Sha256::digest(machine_code))?;
            file.write_all(machine_code)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        })();
        if written.is_err() {
            // What cannot be removed is not read either: it has another name.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Loads machine code that wasmtime's compiler has made in this very build.
#[expect(unsafe_code, reason = "loading machine code is unsafe by nature")]
pub(super) fn load(engine: &Engine, machine_code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from wasmtime's own compiler: either a moment ago, from this process or from
    // our compile worker, or from a file that only this user can write and whose checksum holds. wasmtime itself
    // refuses code of another version or for another processor.
    unsafe { Component::deserialize(engine, machine_code) }
}
