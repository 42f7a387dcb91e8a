//! Comments fit into the width of the code, so that they are read without scrolling.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Most columns of a line that is a comment.
const MAX_COLUMNS: usize = 100;

/// The lines of comments that are wider. A table and a block of code stay as they are.
fn wide_lines(source: &str) -> Vec<usize> {
    let mut is_code = false;
    let mut wide = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_code = false;
            continue;
        };
        let text = comment.trim_start_matches(['/', '!']).trim_start();
        if text.starts_with("```") {
            is_code = !is_code;
        }
        if !is_code && !text.starts_with('|') && line.chars().count() > MAX_COLUMNS {
            wide.push(number + 1);
        }
    }
    wide
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for folder in [
        "host",
        "guest-sdk",
        "plugins",
        "tests",
        "benches",
        "examples",
        "fuzz",
    ] {
        collect(&root.join(folder), &mut sources);
    }
    let mut wide = String::new();
    for source in &sources {
        let name = source.strip_prefix(&root).unwrap().display().to_string();
        for line in wide_lines(&std::fs::read_to_string(source).unwrap()) {
            writeln!(wide, "{name}:{line}").unwrap();
        }
    }
    assert!(sources.len() > 500, "{}", sources.len());
    assert!(wide.is_empty(), "wider than {MAX_COLUMNS} columns:\n{wide}");
}

#[test]
fn tables_and_code_in_comments_may_be_wider() {
    let long = "x".repeat(100);
    let source = format!(
        "// {long}\nlet a = 1; // {long}\n/// | {long}\n/// ```\n/// {long}\n/// ```\n    //! {long}\n"
    );
    assert_eq!(wide_lines(&source), [1, 7]);
}
