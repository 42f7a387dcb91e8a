//! The request that a thread is working on, so that each log line about it has its id.
//!
//! A worker works on one request at a time, from one poll of its task to the next. The code that it
//! calls (balancers, health checks) does not know the request, and may log as well. A `tracing`
//! span for each request would cost more than routing the request.

use std::cell::Cell;
use std::fmt;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

/// The id of a request, in hexadecimal digits.
pub(crate) type Id = [u8; 32];

thread_local! {
    static CURRENT: Cell<Option<Id>> = const { Cell::new(None) };
}

/// While it lives, log lines of this thread have the id of the request. It must not be held across
/// an `await`.
pub(crate) struct Scope(Option<Id>);

/// Enters the scope of a request, until the result is dropped.
pub(crate) fn enter(id: Option<Id>) -> Scope {
    Scope(CURRENT.replace(id))
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Writes the fields of a log line, and the id of the current request as `request_id`.
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
    fn the_inner_scope_takes_precedence() {
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
