//! Opens the store that the settings name.

use anyhow::{Context, bail};

use crate::config::Config;
use crate::store::{self, FolderLock, JournaledStore, OpenError};

/// The error of a store that cannot be opened. With take_over, the other process has refused to be
/// replaced, so advising that setting does not help.
pub(super) fn cannot_open(why: OpenError, config: &Config) -> anyhow::Error {
    const CANNOT_OPEN: &str = "cannot open the store (setting data_dir)";
    match why {
        OpenError::InUse(_) if !config.take_over => {
            anyhow::anyhow!("{CANNOT_OPEN}: {why}; to replace that one, start with take_over=on")
        }
        why => anyhow::Error::new(why).context(CANNOT_OPEN),
    }
}

/// Opens the store of the settings.
pub(super) fn open_store(config: &Config, lock: &FolderLock) -> anyhow::Result<JournaledStore> {
    if !config.shares_store {
        if config.etcd.keyring.is_some() {
            bail!("keyring_file seals what is kept in etcd, but store is sled");
        }
        if config.is_canary {
            bail!("channel = canary tells gateways on the same etcd apart, but store is sled");
        }
        return store::open(&config.data_dir, lock).map_err(|why| cannot_open(why, config));
    }
    if let Some(mistake) = config.etcd.mistake() {
        bail!("{mistake}");
    }
    if !config.database {
        bail!("database = off has nothing to share: it goes with store = sled");
    }
    let has_key = config
        .policies
        .hash_keys_file
        .as_ref()
        .is_some_and(|file| file.exists());
    if config.policies.hash_keys && !has_key {
        bail!(
            "with store = etcd, hash_keys needs hash_keys_file: a file that exists, the same at all \
             gateways"
        );
    }
    store::open_shared(&config.etcd, &config.dns, &config.data_dir, lock)
        .context("cannot open the store (store = etcd)")
}
