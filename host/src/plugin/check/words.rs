//! What a component prints or logs while it is checked: the message of a panic is among it.

use std::cell::RefCell;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What the gateway logs in front of it.
const MARK: &str = "the balancer says: ";

/// Bytes of it that are kept.
const KEPT: usize = 4096;

/// Characters of it that a sentence quotes.
const QUOTED: usize = 300;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what the component prints while something works on this thread, and shows nothing of it.
pub(super) fn listen<R>(work: impl FnOnce() -> R) -> R {
    let subscriber = tracing_subscriber::registry().with(Listener);
    tracing::subscriber::with_default(subscriber, work)
}

/// What was printed since this was last asked.
pub(super) fn take() -> String {
    LAST.take()
}

/// What a fault quotes by itself begins with this.
const QUOTE: &str = "; it said: ";

/// A sentence with what was printed before it, the last of it if that is much, unless it quotes the words of a
/// panic already.
pub(super) fn with(sentence: String) -> String {
    let said = take();
    let said: Vec<&str> = said
        .lines()
        .map(str::trim)
        // What Rust says after each panic helps nobody here.
        .filter(|line| !line.is_empty() && !line.contains("RUST_BACKTRACE"))
        .collect();
    if said.is_empty() || sentence.contains(QUOTE) {
        return sentence;
    }
    let said = said.join(" ");
    let skipped = said.chars().count().saturating_sub(QUOTED);
    let end: String = said.chars().skip(skipped).collect();
    let gap = if skipped > 0 { "... " } else { "" };
    format!("{sentence}{QUOTE}{gap}{end}")
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if let Some(said) = message.0.strip_prefix(MARK) {
            LAST.with_borrow_mut(|last| {
                last.push_str(said);
                last.push('\n');
                let excess = last.len().saturating_sub(KEPT);
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
