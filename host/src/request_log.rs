//! Which request a thread is busy with, so that each line of the log about it can name it.
//!
//! A worker works on one request at a time, from one poll of its task to the next. What it calls
//! meanwhile (balancers, health checks) knows nothing of requests, and may have something to say
//! all the same. A span of `tracing` for each request would cost more than routing it.

use std::cell::Cell;
use std::fmt;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// The id of a request, in hex digits.
pub(crate) type Id = [u8; 32];

thread_local! {
    static CURRENT: Cell<Option<Id>> = const { Cell::new(None) };
}

/// While it lives, what this thread logs is about a request. Not to be held across an `await`.
pub(crate) struct Scope(Option<Id>);

/// Begins a part of the work on a request.
pub(crate) fn enter(id: Option<Id>) -> Scope {
    Scope(CURRENT.replace(id))
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Writes the fields of a line of the log, and the id of the request that it is about as
/// `request_id`.
#[derive(Debug, Default)]
pub struct LogFields(DefaultFields);

impl<'writer> FormatFields<'writer> for LogFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match CURRENT.get() {
            None => Ok(()),
            Some(id) => {
                let id = std::str::from_utf8(&id).unwrap_or_default();
                write!(writer, " request_id=\"{id}\"")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_within_work_is_named_for_the_inner_request() {
        let (one, two) = (Some([b'1'; 32]), Some([b'2'; 32]));
        let outer = enter(one);
        let inner = enter(two);
        assert_eq!(CURRENT.get(), two);
        drop(inner);
        assert_eq!(CURRENT.get(), one);
        drop(outer);
        assert_eq!(CURRENT.get(), None);
    }
}
