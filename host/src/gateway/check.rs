//! Checks settings without a start.

use std::path::Path;

use super::stores::check_store;
use super::tls::client_certificate;
use crate::config::{CertificateFiles, Config};
use crate::declarative::{self, Components, NoGateway, Syntax, Text};
use crate::entity::route;
use crate::listener::{client_verifier, listener_certificate};

/// Checks certificates that settings name, the settings of the store with their files, and, without a
/// database, the declarative configuration, as a start does. The store is not looked at. Nothing is
/// opened, made or changed. Returns what is wrong, a sentence for each mistake.
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
    if let Err(why) = check_store(config) {
        mistakes.push(format!("{why:#}"));
    }
    if !config.database {
        mistakes.extend(in_document(config));
    }
    mistakes
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
