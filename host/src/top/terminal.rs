//! The terminal: keys in, lines out, and as it was in the end, however the program ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::model::Order;

/// Shows another page of the terminal, without a cursor and without wrapping long lines.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

/// Shows the former page again.
const CLOSE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    End,
    Order,
    OrderBy(Order),
    Reverse,
    Up,
    Down,
}

/// A terminal that reports each key at once.
pub(super) struct Terminal {
    /// How it was before.
    before: Termios,
    /// Whether the process was told to end.
    ends: Arc<AtomicBool>,
}

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up: a sentence.
    pub(super) fn open() -> anyhow::Result<Self> {
        let cannot = "the terminal cannot be set up: use --once";
        let ends = Arc::<AtomicBool>::default();
        end_on_signals(&ends).context(cannot)?;
        let before = tcgetattr(io::stdin()).context(cannot)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw).context(cannot)?;
        // From here on it is put back when this is dropped.
        let terminal = Self { before, ends };
        write(OPEN)?;
        Ok(terminal)
    }

    /// Its columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            // A terminal that does not know its size says 0.
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (80, 24),
        }
    }

    /// Draws lines from the top of so many rows, in place of what was there.
    pub(super) fn draw(&mut self, lines: &[String], rows: usize) -> io::Result<()> {
        write(&drawn(lines, rows))
    }

    /// The next key that means something, if there is one within this time.
    pub(super) fn key(&mut self, within: Duration) -> io::Result<Option<Key>> {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        let within = Timespec {
            tv_sec: within.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        match poll(&mut polled, Some(&within)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if self.ends.load(Ordering::Relaxed) {
            return Ok(Some(Key::End));
        }
        if polled[0].revents().is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 64];
        // Not through `Stdin`, whose buffer `poll` does not know.
        let read = rustix::io::read(&stdin, &mut bytes)?;
        Ok(match bytes.get(..read) {
            // The terminal is gone.
            Some([]) | None => Some(Key::End),
            Some(bytes) => key_of(bytes),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nothing left to do if the terminal is gone.
        let _ = write(CLOSE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// What draws lines from the top of so many rows, in place of what was there. A row is erased
/// before it is written, since the cursor stays on the last character of a line that is as wide as
/// the terminal.
fn drawn(lines: &[String], rows: usize) -> String {
    let mut text = "\x1b[H".to_owned();
    for row in 0..rows.max(lines.len()) {
        if row > 0 {
            text.push_str("\r\n");
        }
        text.push_str("\x1b[K");
        text.push_str(lines.get(row).map_or("", String::as_str));
    }
    text
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Has the flag set by the signals that end a program. Keys send none, since the terminal is raw.
fn end_on_signals(ends: &Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ends = Arc::clone(ends);
    let (mut terminated, mut interrupted, mut hung_up, mut quit) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminated.recv() => {}
                    _ = interrupted.recv() => {}
                    _ = hung_up.recv() => {}
                    _ = quit.recv() => {}
                }
            });
            ends.store(true, Ordering::Relaxed);
        })
        .map(drop)
}

/// The meaning of what a key sends. Several keys may come at once; the first one counts.
fn key_of(bytes: &[u8]) -> Option<Key> {
    match bytes {
        // The arrows, in both modes of terminals.
        [0x1b, b'[' | b'O', b'A', ..] | [b'k', ..] => Some(Key::Up),
        [0x1b, b'[' | b'O', b'B', ..] | [b'j', ..] => Some(Key::Down),
        // Escape alone, Ctrl-C, Ctrl-D.
        [0x1b] | [b'q' | b'Q' | 3 | 4, ..] => Some(Key::End),
        [b's', ..] => Some(Key::Order),
        [b'r', ..] => Some(Key::Reverse),
        [letter, ..] => Order::of_key(*letter).map(Key::OrderBy),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_erased_before_they_are_written() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(drawn(&lines, 2), "\x1b[H\x1b[Ka\r\n\x1b[Kb");
        assert_eq!(drawn(&lines, 3), "\x1b[H\x1b[Ka\r\n\x1b[Kb\r\n\x1b[K");
    }

    #[test]
    fn keys_mean_what_the_screen_says() {
        for (bytes, key) in [
            (&b"q"[..], Some(Key::End)),
            (b"\x03", Some(Key::End)),
            (b"\x1b", Some(Key::End)),
            (b"\x1b[A", Some(Key::Up)),
            (b"\x1bOB", Some(Key::Down)),
            (b"4", Some(Key::OrderBy(Order::P99))),
            (b"r", Some(Key::Reverse)),
            (b"\x1b[15~", None),
            (b"x", None),
            (b"", None),
        ] {
            assert_eq!(key_of(bytes), key, "{bytes:?}");
        }
    }
}
