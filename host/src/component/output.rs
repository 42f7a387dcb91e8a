//! The output of an instance, through `log` or by printing. It goes to the log and to the journal,
//! and is bounded to a number of lines a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;

use super::journal::Journal;

/// Printed bytes that are taken of each call. More is dropped, and a log line says so.
const PRINTED_PER_CALL: usize = 4096;

/// Lines that are taken in each [`SPAN`]. A panic prints three.
const LINES: u32 = 20;
const SPAN: Duration = Duration::from_secs(1);

/// Bytes of a line that are taken.
const LENGTH: usize = 1000;

/// Bytes of standard error that are kept of the running call, for the message of a fault: the last
/// ones, since they tell the cause.
const TAIL: usize = 1024;

/// How the message of a Rust panic begins, after the name of the thread.
const PANICKED: &str = "panicked at ";

/// What the hint of a Rust panic contains how to get a backtrace, which is not available here.
const BACKTRACE_HINT: &str = "RUST_BACKTRACE=";

/// Last lines that are quoted if the output has no message of a panic.
const LAST_LINES: usize = 3;

/// The output of one instance.
pub(crate) struct Output {
    /// All that a call prints. It is split into lines at the end of the call, because it may come
    /// in pieces.
    text: Vec<u8>,
    /// Bytes that the running call may still print.
    left: usize,
    /// Whether it has tried to print more.
    overflowed: bool,
    /// The end of what the running call has written to standard error.
    tail: Vec<u8>,
    upstream: Arc<str>,
    plugin: Box<str>,
    /// None before the plugin has its name, for example while it is checked.
    journal: Option<Arc<Journal>>,
    /// When the present span began, and the lines taken and dropped in it.
    span: Option<Instant>,
    taken: u32,
    dropped: u64,
}

impl Output {
    pub(crate) fn new(upstream: &str, plugin: &str, journal: Option<Arc<Journal>>) -> Self {
        Self {
            text: Vec::new(),
            left: PRINTED_PER_CALL,
            overflowed: false,
            tail: Vec::new(),
            upstream: upstream.into(),
            plugin: plugin.into(),
            journal,
            span: None,
            taken: 0,
            dropped: 0,
        }
    }

    /// Has later lines be those of this plugin, in this journal.
    pub(crate) fn belongs_to(&mut self, plugin: &str, journal: Option<Arc<Journal>>) {
        self.tell_dropped();
        self.plugin = plugin.into();
        self.journal = journal;
    }

    /// Takes bytes that are written to standard error.
    pub(crate) fn print_error(&mut self, bytes: &[u8]) {
        let end = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (self.tail.len() + end.len()).saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.tail.extend_from_slice(end);
        self.print(bytes);
    }

    /// The last output of the running call to standard error, as one line: the whole message of a
    /// panic, or the last lines. None if there is no output.
    pub(crate) fn last_words(&self) -> Option<String> {
        let tail = String::from_utf8_lossy(&self.tail);
        let text = match tail.rfind(PANICKED) {
            Some(start) => &tail[start..],
            None => &tail,
        };
        let mut lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.contains(BACKTRACE_HINT))
            .collect();
        if !text.starts_with(PANICKED) {
            lines.drain(..lines.len().saturating_sub(LAST_LINES));
        }
        (!lines.is_empty()).then(|| cut(&lines.join(" ")))
    }

    /// Takes bytes that are printed.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        self.text.extend_from_slice(&bytes[..taken]);
        self.overflowed |= taken < bytes.len();
    }

    /// Ends a call: logs what it printed, and lets the next call print again.
    pub(crate) fn end_call(&mut self) {
        if !self.tail.is_empty() {
            self.tail.clear();
        }
        if self.left < PRINTED_PER_CALL {
            let text = std::mem::take(&mut self.text);
            let text = String::from_utf8_lossy(&text);
            let lines = text.lines().filter(|line| !line.contains(BACKTRACE_HINT));
            self.say(Level::INFO, &lines.collect::<Vec<_>>().join("\n"));
            self.left = PRINTED_PER_CALL;
        }
        if std::mem::take(&mut self.overflowed) {
            let notice = format!(
                "more than {PRINTED_PER_CALL} bytes printed in a call: the rest is dropped"
            );
            self.say(Level::WARN, &notice);
        }
    }

    /// Logs a line, or several.
    pub(crate) fn say(&mut self, level: Level, text: &str) {
        self.say_at(Instant::now(), level, text);
    }

    fn say_at(&mut self, now: Instant, level: Level, text: &str) {
        if self
            .span
            .is_none_or(|began| now.saturating_duration_since(began) >= SPAN)
        {
            self.tell_dropped();
            self.span = Some(now);
            self.taken = 0;
        }
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        while self.taken < LINES {
            let Some(line) = lines.next() else {
                return;
            };
            self.taken += 1;
            let line = cut(line);
            emit(level, &self.upstream, &self.plugin, &line);
            if let Some(journal) = &self.journal {
                journal.keep(level, &self.upstream, line);
            }
        }
        let dropped = lines.count() as u64;
        self.dropped += dropped;
        if let (Some(journal), true) = (&self.journal, dropped > 0) {
            journal.drop_lines(dropped);
        }
    }

    fn tell_dropped(&mut self) {
        if self.dropped > 0 {
            let (upstream, plugin, dropped) = (&*self.upstream, &*self.plugin, self.dropped);
            tracing::warn!(
                upstream,
                plugin,
                "the balancer logs too much: {dropped} lines were dropped"
            );
            self.dropped = 0;
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.tell_dropped();
    }
}

/// A line that is safe in a log: without control characters and not too long.
fn cut(line: &str) -> String {
    let end = line.floor_char_boundary(LENGTH);
    let mut text: String = line[..end]
        .chars()
        .map(|char| match char {
            '\t' => ' ',
            // It could move the cursor of a terminal that shows the log.
            char if char.is_control() => char::REPLACEMENT_CHARACTER,
            char => char,
        })
        .collect();
    if end < line.len() {
        text.push_str(" ...");
    }
    text
}

/// The level for a severity of the WIT contract.
pub(crate) fn level_of(severity: u8) -> Level {
    match severity {
        0..=4 => Level::TRACE,
        5..=8 => Level::DEBUG,
        9..=12 => Level::INFO,
        13..=16 => Level::WARN,
        17.. => Level::ERROR,
    }
}

/// Emits an event. Its level is fixed where a macro of tracing is called, so there is one call for
/// each level.
fn emit(level: Level, upstream: &str, plugin: &str, line: &str) {
    match level {
        Level::TRACE => tracing::trace!(upstream, plugin, "the balancer says: {line}"),
        Level::DEBUG => tracing::debug!(upstream, plugin, "the balancer says: {line}"),
        Level::INFO => tracing::info!(upstream, plugin, "the balancer says: {line}"),
        Level::WARN => tracing::warn!(upstream, plugin, "the balancer says: {line}"),
        Level::ERROR => tracing::error!(upstream, plugin, "the balancer says: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice() -> (Output, Arc<Journal>) {
        let journal = Arc::<Journal>::default();
        (Output::new("u", "p", Some(Arc::clone(&journal))), journal)
    }

    #[test]
    fn lines_per_second_are_bounded() {
        let (mut output, journal) = voice();
        let start = Instant::now();
        for _ in 0..50 {
            output.say_at(start, Level::INFO, "one\n\ntwo");
        }
        let (lines, dropped) = journal.read();
        assert_eq!(
            (lines.len() as u32, dropped),
            (LINES, 100 - u64::from(LINES))
        );
        output.say_at(start + SPAN, Level::WARN, "three");
        let (lines, _) = journal.read();
        assert_eq!(lines.last().map(|line| &*line.message), Some("three"));
    }

    #[test]
    fn output_of_a_call_is_split_into_lines_and_bounded() {
        let (mut output, journal) = voice();
        for piece in ["a l", "ine\nanother\x1b one\n"] {
            output.print(piece.as_bytes());
        }
        output.end_call();
        output.end_call();
        for _ in 0..100 {
            output.print(&[b'x'; 1000]);
        }
        output.end_call();
        let (lines, _) = journal.read();
        let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
        assert_eq!(messages[..2], ["a line", "another\u{fffd} one"]);
        assert_eq!(messages.len(), 4);
        assert!(messages[2].len() < LENGTH + 10 && messages[2].ends_with(" ..."));
        assert!(messages[3].starts_with("more than 4096 bytes"));
        assert!(output.text.capacity() < 2 * PRINTED_PER_CALL);
    }

    #[test]
    fn a_fault_quotes_the_panic_or_the_last_lines() {
        let words = |pieces: &[&str]| {
            let (mut output, _) = voice();
            for piece in pieces {
                output.print_error(piece.as_bytes());
            }
            output.last_words()
        };
        let panic = "\nthread '<unnamed>' (1) panicked at src/lib.rs:9:5:\n";
        let hint =
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let said = words(&["before\n", panic, "left: 1\n  right: 2\n", hint]);
        let expected = "panicked at src/lib.rs:9:5: left: 1 right: 2";
        assert_eq!(said.as_deref(), Some(expected));
        // The message of the panic is found however much was written before.
        let much = "x".repeat(5000);
        let said = words(&[&much, panic, "why\n", hint]);
        assert_eq!(said.as_deref(), Some("panicked at src/lib.rs:9:5: why"));
        let said = words(&["1\n2\n3\n4\n\n"]);
        assert_eq!(said.as_deref(), Some("2 3 4"));
        assert_eq!(words(&[]), None);
        assert_eq!(words(&["\n", hint]), None);
        let (mut output, _) = voice();
        output.print_error(b"of another call");
        output.end_call();
        assert_eq!(output.last_words(), None);
    }

    #[test]
    fn every_severity_has_a_level() {
        let levels = [0, 4, 5, 9, 13, 16, 17, 24, 255].map(level_of);
        let expected = [
            Level::TRACE,
            Level::TRACE,
            Level::DEBUG,
            Level::INFO,
            Level::WARN,
            Level::WARN,
            Level::ERROR,
            Level::ERROR,
            Level::ERROR,
        ];
        assert_eq!(levels, expected);
    }
}
