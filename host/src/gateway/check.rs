//! Checks settings without a start.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};

use super::stores;
use super::tls::client_certificate;
use crate::config::{CertificateFiles, Config, LogTarget};
use crate::declarative::{self, Components, NoGateway, Syntax, Text};
use crate::entity::key_hash::KeyHash;
use crate::entity::route;
use crate::listener::{client_verifier, listener_certificate};

/// Checks certificates that settings name, the settings of the store with their files, whether the
/// files of access logs and of the key of hashes can be opened, and, without a database, the
/// declarative configuration, as a start does. The store is not looked at. Nothing is made or
/// changed. Returns what is wrong, a sentence for each mistake.
pub fn check(config: &Config) -> Vec<String> {
    let mut mistakes = Vec::new();
    let tls = &config.tls;
    for (prefix, files) in [
        ("", &tls.proxy),
        ("admin_", &tls.admin),
        ("admin_gui_", &tls.gui),
        ("status_", &tls.status),
    ] {
        let CertificateFiles { certificates, keys } = files;
        // Without files, a start makes the certificate.
        if !(certificates.is_empty() && keys.is_empty())
            && let Err(why) = listener_certificate(prefix, files, &config.data_dir)
        {
            mistakes.push(format!("{why:#}"));
        }
    }
    if let Err(why) = client_verifier(tls) {
        mistakes.push(format!("{why:#}"));
    }
    if let Err(why) = client_certificate(config) {
        mistakes.push(format!("{why:#}"));
    }
    mistakes.extend(stores::mistakes(config));
    mistakes.extend(in_access_logs(config));
    mistakes.extend(in_hash_file(config));
    if !config.database {
        mistakes.extend(in_document(config));
    }
    mistakes
}

/// What is wrong with the files of the access logs, as far as that is visible without opening them:
/// a start creates a file, and opening a named pipe or a device may have an effect.
fn in_access_logs(config: &Config) -> Vec<String> {
    let logs = [
        ("proxy_access_log", &config.access_log.target),
        (
            "proxy_stream_access_log",
            &config.stream_access_log.log.target,
        ),
    ];
    let wrong = logs.into_iter().filter_map(|(setting, target)| {
        let Some(LogTarget::File(path)) = target else {
            return None;
        };
        let error = check_appendable(path).err()?;
        let path = path.display();
        Some(format!(
            "{setting}: cannot open the access log {path}: {error}"
        ))
    });
    wrong.collect()
}

/// What is wrong with the file of the key of hashes. The default one is in the data folder, which a
/// start makes.
fn in_hash_file(config: &Config) -> Option<String> {
    let path = config.policies.hash_keys_file.as_deref()?;
    match KeyHash::open(path) {
        Err(why) => Some(why),
        Ok(None) if config.policies.hash_keys => {
            let error = check_appendable(path).err()?;
            Some(format!("cannot write {}: {error}", path.display()))
        }
        Ok(_) => None,
    }
}

/// Checks whether this process could open a file for lines at its end, or create it.
fn check_appendable(path: &Path) -> io::Result<()> {
    let access = |path: &Path, access| {
        rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).map_err(io::Error::from)
    };
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => access(path, Access::WRITE_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            match std::fs::metadata(folder)?.is_dir() {
                true => access(folder, Access::WRITE_OK | Access::EXEC_OK),
                false => Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        Err(error) => Err(error),
    }
}

/// What is wrong with the declarative configuration that the settings name.
fn in_document(config: &Config) -> Vec<String> {
    let (text, name) = match (
        &config.declarative_config,
        &config.declarative_config_string,
    ) {
        (Some(path), _) => match std::fs::read_to_string(path) {
            Ok(text) => (text, path.display().to_string()),
            Err(error) => return vec![format!("cannot read {}: {error}", path.display())],
        },
        (None, Some(text)) => (text.clone(), "declarative_config_string".to_owned()),
        (None, None) => return Vec::new(),
    };
    let syntax = match &config.declarative_config {
        Some(_) => Syntax::of_file(&name),
        None => Ok(Syntax::Either),
    };
    let text = match syntax.and_then(|syntax| Text::read(&text, syntax)) {
        Ok(text) => text,
        Err(why) => return vec![format!("{name}: {why}")],
    };
    route::install_flavor(config.proxy.router_flavor);
    let path = config.declarative_config.as_deref();
    let folder = path.and_then(Path::parent).unwrap_or(Path::new("."));
    let context = NoGateway {
        flavor: config.proxy.router_flavor,
        pattern_memory: config.proxy.route_regex_memory,
        components: Components::beside(&text, folder, config.balancer.upload),
    };
    match declarative::read(&text, &context) {
        Ok(_) => Vec::new(),
        Err(mistakes) => {
            let told = mistakes.told(&text.lines()).into_iter();
            told.map(|line| format!("{name}: {line}")).collect()
        }
    }
}
