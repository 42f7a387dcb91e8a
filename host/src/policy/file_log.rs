//! `file-log`: writes a line of JSON for each request to a file. Source: Kong 3.9, `file-log`.
//!
//! The file is opened and written on threads for that, because both may take long, such as on a
//! network's disk. What cannot be written, or not in time, is lost and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::fs::OFlags;
use tokio::sync::Mutex;

use super::logs::Logs;
use super::logs::buffer::QueueLimits;
use super::logs::document::Documents;
use super::logs::queue::{Entry, Queue, Sink};
use crate::entity::plugin::Plugin;
use crate::entity::plugin::file_log::Config;

/// How long a batch may take, the wait for the one before included. A named pipe that is not read,
/// or a network's disk that is gone, could block for ever, and new settings with it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a line for each request.
pub(super) fn new(config: Config, plugin: &Plugin, logs: &Logs) -> Arc<Queue> {
    logs.queue(plugin, QueueLimits::FIXED, |documents| {
        Arc::new(FileSink {
            documents: Arc::clone(documents),
            reopen: config.reopen,
            file: Arc::new(Mutex::new(LogFile {
                path: config.path,
                open: None,
                is_torn: false,
            })),
        })
    })
}

#[derive(Debug)]
struct FileSink {
    documents: Arc<Documents>,
    /// Whether the file is opened for each batch.
    reopen: bool,
    file: Arc<Mutex<LogFile>>,
}

impl Sink for FileSink {
    fn send<'a>(&'a self, batch: &'a [Entry]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let mut lines = String::new();
            for entry in batch {
                lines.push_str(&entry.text(&self.documents));
                lines.push('\n');
            }
            let written = write(Arc::clone(&self.file), lines, self.reopen);
            let late = |_| Err("the file takes no lines in time".to_owned());
            let written = tokio::time::timeout(WRITE_TIMEOUT, written).await;
            written.unwrap_or_else(late)
        }
        .boxed()
    }
}

/// Writes lines on another thread. If this is no longer waited for, the thread goes on, and it has
/// the file as long, so that at most one thread is blocked by it.
async fn write(file: Arc<Mutex<LogFile>>, lines: String, reopen: bool) -> Result<(), String> {
    let mut file = file.lock_owned().await;
    let written = tokio::task::spawn_blocking(move || {
        if reopen {
            file.open = None;
        }
        let written = file.write(lines.as_bytes());
        written.map_err(|error| format!("{}: {error}", file.path))
    });
    written.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// A file that lines are added to.
#[derive(Debug)]
struct LogFile {
    path: String,
    /// The file, while it is open.
    open: Option<File>,
    /// Whether the last line in it is not complete, since the disk was full.
    is_torn: bool,
}

impl LogFile {
    /// Writes lines. If that fails, the file is opened again for the next lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut left = lines;
        while !left.is_empty() {
            match file.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left = left.get(count..).unwrap_or_default();
                    let written = lines.len() - left.len();
                    self.is_torn = lines.get(written - 1) != Some(&b'\n');
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.open = Some(file);
        Ok(())
    }
}

/// Opens the file at its end, and makes it if it is missing.
fn open(path: &str) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        // Opening a named pipe that no process reads would wait for one.
        .custom_flags(nonblocking)
        .open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Read;

    use super::*;

    fn log_file(path: &std::path::Path) -> LogFile {
        LogFile {
            path: path.to_str().unwrap().to_owned(),
            open: None,
            is_torn: false,
        }
    }

    #[test]
    fn lines_are_added_and_a_removed_file_is_made_again_when_it_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let mut file = log_file(&path);
        file.write(b"one\n").unwrap();
        file.write(b"two\nthree\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "before\none\ntwo\nthree\n");
        std::fs::remove_file(&path).unwrap();
        file.write(b"into the removed file\n").unwrap();
        assert!(!path.exists());
        file.open = None;
        file.write(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn a_missing_folder_and_an_unread_pipe_are_errors_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = log_file(&folder.path().join("missing/log"));
        assert_eq!(
            file.write(b"x\n").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(log_file(&pipe).write(b"x\n").is_err());
    }

    #[tokio::test]
    async fn a_blocked_write_is_given_up_in_time_and_blocks_no_second_thread() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        // The pipe is open for reading, and nothing reads it.
        let mut reader = OpenOptions::new().read(true).write(true).open(&pipe);
        let reader = reader.as_mut().unwrap();
        let file = Arc::new(Mutex::new(log_file(&pipe)));
        let limit = Duration::from_millis(10);
        let long = "x".repeat(1 << 20) + "\n";
        let blocked = write(Arc::clone(&file), long.clone(), false);
        assert!(tokio::time::timeout(limit, blocked).await.is_err());
        let behind = write(Arc::clone(&file), "behind\n".into(), false);
        assert!(tokio::time::timeout(limit, behind).await.is_err());
        // Once the pipe is read, the first write ends. The second one was never begun.
        let mut read = vec![0; long.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == long.as_bytes());
        write(file, "next\n".into(), false).await.unwrap();
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"next\n");
    }

    #[test]
    fn the_line_after_a_torn_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = log_file(&path);
        file.write(b"torn").unwrap();
        assert!(file.is_torn);
        file.write(b"whole\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "torn\nwhole\n");
    }
}
