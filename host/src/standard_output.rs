//! What commands print.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Writes to standard output. A pipe whose reader closes it early is not an error.
///
/// # Errors
/// The text cannot be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
