//! The log of a gateway, which is its standard error.

use std::io::Read;
use std::process::ChildStderr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::wait::WAIT_TIMEOUT;

/// How long the end of a log is waited for after its process has ended. Another process that it has
/// started may hold it open for as long as it lives.
const END: Duration = Duration::from_secs(5);

/// Reads the log of a process on a thread of its own.
pub(super) struct Log(Mutex<Parts>);

struct Parts {
    /// What was received so far.
    read: Vec<u8>,
    further: Receiver<Vec<u8>>,
}

impl Log {
    pub(super) fn read(mut stderr: ChildStderr) -> Self {
        let (sender, further) = channel();
        std::thread::spawn(move || {
            let mut part = vec![0; 1 << 16];
            while let Ok(read @ 1..) = stderr.read(&mut part) {
                // Read in any case: a process that cannot write its log would fail.
                let _ = sender.send(part[..read].to_vec());
            }
        });
        let read = Vec::new();
        Self(Mutex::new(Parts { read, further }))
    }

    /// Waits until the log has a text.
    #[track_caller]
    pub(super) fn wait_for(&self, text: &str) {
        let parts = &mut *self.0.lock().unwrap();
        while !String::from_utf8_lossy(&parts.read).contains(text) {
            let part = parts.further.recv_timeout(WAIT_TIMEOUT);
            let log = String::from_utf8_lossy(&parts.read);
            let part = part.unwrap_or_else(|_| panic!("no {text:?} in the log: {log}"));
            parts.read.extend(part);
        }
    }

    /// All that was logged until the end, which is near because the process has ended.
    pub(super) fn to_end(&self) -> String {
        let deadline = Instant::now() + END;
        let Parts { read, further } = &mut *self.0.lock().unwrap();
        while let Ok(part) =
            further.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            read.extend(part);
        }
        String::from_utf8_lossy(read).into_owned()
    }
}
