//! Where the lines of the access log are written to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::file::LogFile;
use super::output::{self, Next};
use super::syslog::Syslog;
use super::text::count;
use crate::config;

/// How long the thread waits before it tries again to write to a pipe or a socket that takes
/// nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Where lines are written to.
#[derive(Debug)]
pub(super) enum Sink {
    File(LogFile),
    /// The standard output or the standard error.
    Stream(Stream),
    Syslog(Syslog),
}

/// A descriptor that the gateway was started with.
#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    file: File,
    /// Whether the last line in it is not complete, since it could not be written to its end.
    is_torn: bool,
}

impl Stream {
    pub(super) fn new(name: &'static str, descriptor: OwnedFd) -> Self {
        Self {
            name,
            file: descriptor.into(),
            is_torn: false,
        }
    }

    /// Writes lines. A pipe or a terminal that takes nothing for a time, because another process
    /// has made it non-blocking, is waited for.
    fn write(&mut self, lines: &[u8], wait: &mut dyn FnMut() -> Next) -> (u64, io::Result<()>) {
        // It has no path by which it could be opened again.
        let mut wait = || match wait() {
            Next::Again | Next::Reopen => Next::Again,
            Next::GiveUp => Next::GiveUp,
        };
        match output::write(&mut self.file, lines, &mut self.is_torn, &mut wait) {
            Ok(()) => (count(lines), Ok(())),
            Err(stopped) => {
                let written = lines.get(..stopped.written).unwrap_or(lines);
                (count(written), Err(stopped.error))
            }
        }
    }
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
        dns: &config::Dns,
    ) -> Result<Self, String> {
        let stream = |name, descriptor: io::Result<OwnedFd>| {
            let descriptor = descriptor.map_err(|error| format!("cannot open {name}: {error}"))?;
            Ok(Self::Stream(Stream::new(name, descriptor)))
        };
        match target {
            config::LogTarget::File(path) => {
                let file = LogFile::open(path, settings.max_size, settings.max_files);
                file.map(Self::File).map_err(|error| {
                    let path = path.display();
                    format!("cannot open the access log {path}: {error}")
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
                let syslog = Syslog::new(target.clone(), syslog_socket, dns);
                Ok(Self::Syslog(syslog))
            }
        }
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Stream(stream) => stream.name.to_owned(),
            Self::Syslog(_) => "syslog".to_owned(),
        }
    }

    /// Opens a file again by its path. If that fails, the lines go to the one that is open.
    pub(super) fn reopen(&mut self) {
        match self {
            Self::File(file) => {
                file.reopen();
            }
            Self::Stream(_) => {}
            Self::Syslog(syslog) => syslog.close(),
        }
    }

    /// Writes lines, each with its end. Returns how many were written, and why the others were not.
    pub(super) fn write(&mut self, lines: &[u8], shared: &Shared) -> (u64, io::Result<()>) {
        let mut wait = || wait(shared);
        match self {
            Self::File(file) => file.write(lines, &mut wait),
            Self::Stream(stream) => stream.write(lines, &mut wait),
            Self::Syslog(syslog) => syslog.write(lines, &mut wait),
        }
    }
}

/// Waits a moment, and says what to do then.
fn wait(shared: &Shared) -> Next {
    std::thread::park_timeout(RETRY_PAUSE);
    if shared.is_late.load(Ordering::Acquire) {
        Next::GiveUp
    } else if shared.reopens.swap(false, Ordering::AcqRel) {
        Next::Reopen
    } else {
        Next::Again
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stream_that_takes_nothing_tears_no_line_but_its_last() {
        let (output, mut reader) = UnixStream::pair().unwrap();
        output.set_nonblocking(true).unwrap();
        let mut stream = Stream::new("a socket", output.into());
        let line = format!("{}\n", "x".repeat(999));
        let (written, result) = stream.write(line.repeat(2000).as_bytes(), &mut || Next::GiveUp);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!((1..2000).contains(&written), "{written}");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        // Now it is waited for, and SIGUSR1 changes nothing about that.
        let mut answers = [Next::Reopen, Next::Again].into_iter().cycle();
        let mut wait = || {
            std::thread::yield_now();
            answers.next().unwrap()
        };
        assert_eq!(stream.write(b"next\n", &mut wait).0, 1);
        assert_eq!(
            stream.write(line.repeat(2000).as_bytes(), &mut wait).0,
            2000
        );
        drop(stream);
        let text = reading.join().unwrap();
        let (before, after) = text.split_once("next\n").unwrap();
        assert_eq!(before.matches(&line).count() as u64, written);
        assert!(before.is_empty() || before.ends_with('\n'));
        assert_eq!(after, line.repeat(2000));
    }
}
