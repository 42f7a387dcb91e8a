//! A report as a table for people.

use std::collections::HashSet;
use std::fmt::Write;

use super::{Report, Verdict};

/// One line for each check, and the outcome of all.
pub(super) fn table(report: &Report) -> String {
    let mut text = report.file.clone();
    if let Some(component) = &report.component {
        let (name, version) = (&component.name, &component.version);
        let (size, digest) = (component.size, &component.digest);
        let _ = write!(text, ": {name} {version}, {size} bytes, sha256 {digest}");
    }
    text.push_str("\n\n");
    let width = report.checks.iter().map(|finding| finding.id.len()).max();
    let width = width.unwrap_or(0);
    // A balancer that fails usually fails in the same way in every check.
    let mut told = HashSet::new();
    for finding in &report.checks {
        let word = match finding.verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let sentence = match finding.sentence.split_once(": ") {
            Some((when, what)) if finding.verdict == Verdict::Fail && !told.insert(what) => {
                format!("{when}: the same as above")
            }
            _ => finding.sentence.clone(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {word}  {:width$}  {sentence}", finding.id);
    }
    let count = |verdict| {
        report
            .checks
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
    let passed = count(Verdict::Pass);
    let _ = writeln!(
        text,
        "\n{passed} passed, {warned} to look at, {failed} failed"
    );
    text
}
