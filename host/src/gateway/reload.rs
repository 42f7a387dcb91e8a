//! Reads the settings again while the gateway runs.

use std::sync::Arc;

use tokio::sync::Notify;

use super::tls::ListenerCertificates;
use super::{declarative, supervisor};
use crate::config::{self, Config};
use crate::log_level::LogLevel;

/// The settings that are applied at once, besides the certificates.
const LOG: &str = "log";

/// The settings with the certificates of listeners.
const CERTIFICATES: [&str; 8] = [
    "ssl_cert",
    "ssl_cert_key",
    "admin_ssl_cert",
    "admin_ssl_cert_key",
    "admin_gui_ssl_cert",
    "admin_gui_ssl_cert_key",
    "status_ssl_cert",
    "status_ssl_cert_key",
];

/// What settings are applied to.
pub(super) struct Reload<F> {
    /// Reads the settings.
    pub(super) read: F,
    /// The settings that were read last.
    pub(super) config: Config,
    pub(super) log_level: Arc<LogLevel>,
    pub(super) certificates: ListenerCertificates,
    /// The declarative configuration of the settings that the gateway was started with: another
    /// one needs a start.
    pub(super) declarative: declarative::Watched,
}

impl<F: Fn() -> Result<Config, config::Error>> Reload<F> {
    /// Reloads whenever it is `asked` for, one time after the other, and the declarative
    /// configuration also when its file has changed.
    pub(super) async fn run(mut self, asked: Arc<Notify>) {
        loop {
            tokio::select! {
                () = asked.notified() => self.reload().await,
                () = self.declarative.changed() => self.declarative.reload().await,
            }
        }
    }

    /// Reads the settings and the declarative configuration, applies what can be applied, and logs
    /// what cannot.
    async fn reload(&mut self) {
        supervisor::notify_reloading();
        match (self.read)() {
            Ok(new) => self.apply(new),
            Err(error) => {
                tracing::error!("the settings have mistakes, and nothing changes: {error}")
            }
        }
        self.declarative.reload().await;
        supervisor::notify("READY=1");
    }

    fn apply(&mut self, new: Config) {
        let mut applied = Vec::new();
        let mut waiting = Vec::new();
        for name in self.config.differences(&new) {
            match name == LOG || CERTIFICATES.contains(&name) {
                true => applied.push(name),
                false => waiting.push(name),
            }
        }
        if applied.contains(&LOG) {
            self.log_level.configure(new.log.clone());
        }
        self.certificates.reload(&new);
        let applied = match applied.as_slice() {
            [] => "no setting that is applied at once has changed".to_owned(),
            names => format!("applied: {}", names.join(", ")),
        };
        tracing::info!("settings read again; {applied}; the files of certificates were read again");
        if !waiting.is_empty() {
            tracing::warn!(
                "these settings have changed and need another process (a restart, or SIGUSR2): {}",
                waiting.join(", ")
            );
        }
        // What needs a start stays as it is in effect, so that it is named again the next time.
        self.config
            .accept(&new, &[&[LOG][..], &CERTIFICATES].concat());
    }
}
