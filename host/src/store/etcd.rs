//! The journal in etcd, which several gateways share.
//!
//! | key below the prefix | value |
//! |---|---|
//! | `config/store` | identity and format of the configuration, made once |
//! | `config/head` | the newest revision, the one before it, and which commit made it |
//! | `config/consent` | what an operator writes to have another configuration applied than the one before, and names that one |
//! | `config/rows/KIND/ID` | a row, with the revision that wrote it and the digest of its blob |
//! | `parts/COMMIT/N` | the rows of a commit that is larger than a transaction may be |
//! | `blobs/DIGEST/N`, `blobs/DIGEST/size` | a blob in chunks, and how many bytes it has |
//! | `nodes/ID` | a gateway, under a lease |
//! | `health/CHANNEL/ID` | the unhealthy endpoints of an upstream whose probes are shared |
//! | `tasks/TASK` | the gateway that does a task for all, under its lease |
//! | `probe` | nothing: written to find out whether etcd can be written, after it has refused a commit |
//!
//! A commit is one transaction of etcd: it compares the head with the one that the rules were
//! checked on, and replaces it. So all commits of all gateways are in one order, and unique keys
//! and references hold without entries of their own in etcd: each gateway derives its indexes from
//! the rows. A gateway whose head was replaced follows the others, has the rules check its writes
//! again, and tries again.
//!
//! A commit that is too large is first written in parts. The transaction then only replaces the
//! head, which names the parts: from then on the commit is in effect. Its rows are copied from the
//! parts to their keys afterwards, by any gateway, and before any further commit.
//!
//! A watch of `config/` follows the others. What it cannot tell (etcd has compacted the revisions
//! in between, or its events do not join up) is read as a whole and compared, so that only rows
//! that differ are changed.
//!
//! With a keyring, the values of rows are sealed (`seal.rs`), here and in parts.
//!
//! Each gateway keeps a copy in its data folder, in a journal on sled. It starts from the copy, and
//! serves while etcd is away.

mod blobs;
mod client;
mod commit;
mod copy;
mod endpoint;
mod feed;
mod follow;
mod format;
mod grpc;
mod journal;
mod large;
mod messages;
mod nodes;
mod protobuf;
mod remote;
mod seal;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::OpenError;
use super::journaled::JournaledStore;
use super::lock::FolderLock;
use super::schema::Schema;
use crate::config::{Dns, Etcd};
use crate::dns::Resolver;
use client::Client;
use journal::EtcdJournal;
use nodes::EtcdNodes;
use seal::Keyring;

/// Where the copy of the configuration is.
pub(super) fn copy_folder(data_dir: &Path) -> PathBuf {
    data_dir.join(copy::FOLDER)
}

/// Checks what the settings of a shared store name: the keyring, and certificates. Returns what
/// cannot be used.
pub fn check_shared(settings: &Etcd, names: &Dns) -> Vec<OpenError> {
    let keyring = read_keyring(settings).err();
    let client = Client::new(settings, &Arc::new(Resolver::new(names))).err();
    keyring.into_iter().chain(client).collect()
}

fn read_keyring(settings: &Etcd) -> Result<Keyring, OpenError> {
    let keyring = settings.keyring.as_deref().map(Keyring::read).transpose();
    let keyring = keyring.map_err(|reason| OpenError::Unusable(format!("keyring_file: {reason}")));
    Ok(keyring?.unwrap_or_default())
}

/// Opens the store that several gateways share, with the copy in a data folder. The names of etcd's
/// members are looked up as `names` says. The caller has to have the folder's lock.
///
/// # Errors
/// A sentence, if the settings or the copy cannot be used, or if there is no copy yet and etcd
/// cannot be reached.
pub fn open_shared(
    settings: &Etcd,
    names: &Dns,
    data_dir: &Path,
    _lock: &FolderLock,
) -> Result<JournaledStore, OpenError> {
    let opening = || {
        let keyring = read_keyring(settings)?;
        let resolver = Arc::new(Resolver::new(names));
        let nodes = Arc::new(EtcdNodes::new(settings, &resolver)?);
        let journal = EtcdJournal::new(settings, &resolver, keyring, data_dir)?;
        Ok(JournaledStore::start(journal, Schema::DECLARED)?.shared_by(nodes))
    };
    // The journal waits for etcd, which a thread of an asynchronous runtime must not do.
    std::thread::scope(|scope| match scope.spawn(opening).join() {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
