//! Writes lines to a descriptor that may take a part of them, or nothing for a time.

use std::fs::File;
use std::io::{self, Write};

/// What to do about a pipe or a socket that takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again.
    Again,
    /// Open the log again, and write there what is left.
    Reopen,
    /// Give up what is left.
    GiveUp,
}

/// Why lines could not be written to their end.
#[derive(Debug)]
pub(super) struct Stopped {
    /// Number of bytes that were written before.
    pub(super) written: usize,
    pub(super) error: io::Error,
    /// Whether the rest belongs into the log that is opened again.
    pub(super) reopens: bool,
}

impl Stopped {
    /// Nothing was written.
    pub(super) fn before(error: io::Error) -> Self {
        Self {
            written: 0,
            error,
            reopens: false,
        }
    }
}

/// Writes lines, each with its end; the last one before them is completed by an end if `is_torn`
/// says that it has none. While the file takes nothing, `wait` is called.
///
/// # Errors
/// Not all was written. `is_torn` says whether a line has now no end.
pub(super) fn write(
    file: &mut File,
    lines: &[u8],
    is_torn: &mut bool,
    wait: &mut dyn FnMut() -> Next,
) -> Result<(), Stopped> {
    if *is_torn {
        write_all(file, b"\n", wait)?;
        *is_torn = false;
    }
    let result = write_all(file, lines, wait);
    if let Err(Stopped { written, .. }) = &result {
        let start = lines.get(..*written).unwrap_or(lines);
        *is_torn = start.last().is_some_and(|last| *last != b'\n');
    }
    result
}

fn write_all(file: &mut File, bytes: &[u8], wait: &mut dyn FnMut() -> Next) -> Result<(), Stopped> {
    let mut left = bytes;
    while !left.is_empty() {
        let (error, next) = match file.write(left) {
            Ok(0) => (io::ErrorKind::WriteZero.into(), Next::GiveUp),
            Ok(count) => {
                left = left.get(count..).unwrap_or_default();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (error, wait()),
            Err(error) => (error, Next::GiveUp),
        };
        if next != Next::Again {
            return Err(Stopped {
                written: bytes.len() - left.len(),
                error,
                reopens: next == Next::Reopen,
            });
        }
    }
    Ok(())
}
