//! The log lines of balancers: the last ones of each, kept in memory for the admin API.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::clock;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

/// Lines that are kept of each balancer.
const MAX_LINES: usize = 100;

/// A log line of a balancer.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Seconds since 1970.
    pub time: f64,
    /// How severe it is.
    #[serde(serialize_with = "in_lower_case")]
    pub level: tracing::Level,
    /// The upstream whose instance wrote it.
    pub upstream: Arc<str>,
    /// The line.
    pub message: String,
}

fn in_lower_case<S: Serializer>(level: &tracing::Level, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&level.as_str().to_ascii_lowercase())
}

/// The last lines of all instances of one balancer.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    dropped: u64,
}

impl Journal {
    pub(crate) fn keep(&self, level: tracing::Level, upstream: &Arc<str>, message: String) {
        let line = Line {
            time: clock::unix_millis(),
            level,
            upstream: Arc::clone(upstream),
            message,
        };
        let mut kept = self.0.lock();
        if kept.lines.len() == MAX_LINES {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
    }

    /// Counts lines that were dropped.
    pub(crate) fn drop_lines(&self, count: u64) {
        self.0.lock().dropped += count;
    }

    /// The lines, the oldest first, and the number of lines that were dropped because there were
    /// too many in a second.
    pub fn read(&self) -> (Vec<Line>, u64) {
        let kept = self.0.lock();
        (kept.lines.iter().cloned().collect(), kept.dropped)
    }
}

/// The journals of all balancers, by the names that these are loaded under. A journal lives as long
/// as a plugin that writes to it. So when a plugin is replaced, the next one goes on with the
/// journal; when it is deleted, the journal is dropped too.
#[derive(Debug, Default)]
pub(crate) struct Journals(Mutex<HashMap<String, Weak<Journal>>>);

impl Journals {
    /// The journal of this name, a new one if there is none.
    pub(crate) fn open(&self, name: &str) -> Arc<Journal> {
        let mut journals = self.0.lock();
        if let Some(journal) = journals.get(name).and_then(Weak::upgrade) {
            return journal;
        }
        journals.retain(|_, journal| journal.strong_count() > 0);
        let journal = Arc::default();
        journals.insert(name.to_owned(), Arc::downgrade(&journal));
        journal
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Journal>> {
        self.0.lock().get(name).and_then(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let journal = Journal::default();
        for number in 0..MAX_LINES + 5 {
            journal.keep(tracing::Level::INFO, &"u".into(), number.to_string());
        }
        journal.drop_lines(3);
        let (lines, dropped) = journal.read();
        assert_eq!((lines.len(), dropped), (MAX_LINES, 3));
        assert_eq!(lines[0].message, "5");
    }

    #[test]
    fn a_journal_outlives_one_of_two_plugins_and_not_both() {
        let journals = Journals::default();
        let old = journals.open("mine");
        old.keep(tracing::Level::INFO, &"u".into(), "before".into());
        let new = journals.open("mine");
        drop(old);
        assert_eq!(new.read().0.len(), 1);
        assert!(journals.find("mine").is_some());
        drop(new);
        assert!(journals.find("mine").is_none());
    }
}
