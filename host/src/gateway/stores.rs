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

/// Settings of the store that do not go together.
fn mistake(config: &Config) -> Option<&'static str> {
    if !config.shares_store {
        return if config.etcd.keyring.is_some() {
            Some("keyring_file seals what is kept in etcd, but store is sled")
        } else if config.is_canary {
            Some("channel = canary tells gateways on the same etcd apart, but store is sled")
        } else {
            None
        };
    }
    if let Some(mistake) = config.etcd.mistake() {
        return Some(mistake);
    }
    if !config.database {
        return Some("database = off has nothing to share: it goes with store = sled");
    }
    let has_key = config
        .policies
        .hash_keys_file
        .as_ref()
        .is_some_and(|file| file.exists());
    (config.policies.hash_keys && !has_key).then_some(
        "with store = etcd, hash_keys needs hash_keys_file: a file that exists, the same at all gateways",
    )
}

/// What is wrong with the settings of the store, and with the files that they name. The store is
/// not looked at.
pub(super) fn mistakes(config: &Config) -> Vec<String> {
    let mut mistakes: Vec<String> = mistake(config).map(str::to_owned).into_iter().collect();
    if config.shares_store {
        let files = store::check_shared(&config.etcd, &config.dns).into_iter();
        mistakes.extend(files.map(|why| why.to_string()));
    }
    mistakes
}

/// Opens the store of the settings.
pub(super) fn open_store(config: &Config, lock: &FolderLock) -> anyhow::Result<JournaledStore> {
    if let Some(mistake) = mistake(config) {
        bail!("{mistake}");
    }
    if !config.shares_store {
        return store::open(&config.data_dir, lock).map_err(|why| cannot_open(why, config));
    }
    store::open_shared(&config.etcd, &config.dns, &config.data_dir, lock)
        .context("cannot open the store (store = etcd)")
}
