//! A file that requests are logged to.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// The file, in a folder of its own.
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) folder: TempDir,
}

impl LogFile {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            path: folder.path().join("access.log"),
            folder,
        }
    }

    /// Waits for this many lines, and checks that there are no more.
    #[track_caller]
    pub(crate) fn lines(&self, count: usize) -> Vec<String> {
        until("lines", || log_lines(&self.path).len() >= count);
        let lines = log_lines(&self.path);
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }

    /// The same of lines that are JSON.
    #[track_caller]
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count);
        let read = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        read.collect()
    }
}

/// The lines of a file that are written in full.
pub(crate) fn log_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}
