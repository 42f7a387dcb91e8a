//! What a component prints or logs during a check, which includes the message of a panic.

use std::cell::RefCell;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The prefix of the balancer's output in the gateway's log.
const MARK: &str = "the balancer says: ";

/// Bytes of the output that are kept.
const MAX_OUTPUT: usize = 4096;

/// Characters of the output that a sentence quotes.
const QUOTED: usize = 300;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what the component prints while `work` runs on this thread, and shows nothing of it.
pub(super) fn capture<R>(work: impl FnOnce() -> R) -> R {
    let subscriber = tracing_subscriber::registry().with(Capture);
    tracing::subscriber::with_default(subscriber, work)
}

/// The output since the last call.
pub(super) fn take() -> String {
    LAST.take()
}

/// The prefix of the output that a fault itself quotes.
const QUOTE: &str = "; it said: ";

/// A sentence with the output before it, of which only the end if it is long. If the sentence
/// quotes the message of a panic already, it stays as it is.
pub(super) fn with(sentence: String) -> String {
    let printed = take();
    let printed: Vec<&str> = printed
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if printed.is_empty() || sentence.contains(QUOTE) {
        return sentence;
    }
    let printed = printed.join(" ");
    let skipped = printed.chars().count().saturating_sub(QUOTED);
    let end: String = printed.chars().skip(skipped).collect();
    let gap = if skipped > 0 { "... " } else { "" };
    format!("{sentence}{QUOTE}{gap}{end}")
}

struct Capture;

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if let Some(said) = message.0.strip_prefix(MARK) {
            LAST.with_borrow_mut(|last| {
                last.push_str(said);
                last.push('\n');
                let excess = last.len().saturating_sub(MAX_OUTPUT);
                let start = last.ceil_char_boundary(excess);
                last.drain(..start);
            });
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}
