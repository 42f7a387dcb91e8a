//! Where the lines of the access log are written to.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::file::LogFile;
use super::syslog::Syslog;
use super::text::count;
use crate::config;

/// How long the thread waits before it tries again to write to a pipe or a socket that takes nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Where lines are written to.
#[derive(Debug)]
pub(super) enum Sink {
    File(LogFile),
    /// The standard output or the standard error.
    Stream(&'static str, File),
    Syslog(Syslog),
}

impl Sink {
    /// Opens the log.
    ///
    /// # Errors
    /// A sentence, if it cannot be opened.
    pub(super) fn open(
        target: &config::LogTarget,
        settings: &config::AccessLog,
        syslog_socket: &Path,
    ) -> Result<Self, String> {
        let stream = |name, descriptor: io::Result<std::os::fd::OwnedFd>| {
            let descriptor = descriptor.map_err(|error| {
                format!("cannot open {name} (setting proxy_access_log): {error}")
            })?;
            Ok(Self::Stream(name, descriptor.into()))
        };
        match target {
            config::LogTarget::File(path) => {
                let file = LogFile::open(path, settings.max_size, settings.max_files);
                file.map(Self::File).map_err(|error| {
                    let path = path.display();
                    format!("cannot open the access log {path} (setting proxy_access_log): {error}")
                })
            }
            // A socket, as services of systemd have it, cannot be opened by its path.
            config::LogTarget::Stdout => {
                stream("/dev/stdout", io::stdout().as_fd().try_clone_to_owned())
            }
            config::LogTarget::Stderr => {
                stream("/dev/stderr", io::stderr().as_fd().try_clone_to_owned())
            }
            config::LogTarget::Syslog(target) => {
                Ok(Self::Syslog(Syslog::new(target.clone(), syslog_socket)))
            }
        }
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Stream(name, _) => (*name).to_owned(),
            Self::Syslog(_) => "syslog".to_owned(),
        }
    }

    /// Has a file be opened again by its path.
    pub(super) fn reopen(&mut self) {
        match self {
            Self::File(file) => file.close(),
            Self::Stream(..) => {}
            Self::Syslog(syslog) => syslog.close(),
        }
    }

    /// Writes lines, each with its end. Returns how many were written, and why the others were not.
    pub(super) fn write(&mut self, lines: &[u8], shared: &Shared) -> (u64, io::Result<()>) {
        let mut wait = || wait(shared);
        match self {
            Self::File(file) => file.write(lines, &mut wait),
            Self::Stream(_, stream) => match stream.write_all(lines) {
                Ok(()) => (count(lines), Ok(())),
                Err(error) => (0, Err(error)),
            },
            Self::Syslog(syslog) => syslog.write(lines, &mut wait),
        }
    }
}

/// Waits a moment. Returns whether to try again.
fn wait(shared: &Shared) -> bool {
    std::thread::park_timeout(PAUSE);
    !shared.is_late.load(Ordering::Acquire) && !shared.reopens.load(Ordering::Acquire)
}
