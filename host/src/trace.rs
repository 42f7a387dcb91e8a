//! Recorded picks: all that a balancer was told and all that it answered, in the order in which it
//! happened, so that the same component answers the same again. docs/trace.md has the format.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{Error, Reader};
pub use write::Writer;

/// What a trace begins with: one that tells no facts, and one that does. A newer format has another one.
const MAGIC: &[u8; 8] = b"PMTRACE1";
const MAGIC_WITH_FACTS: &[u8; 8] = b"PMTRACE2";

/// What a recording is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the upstream.
    pub upstream: String,
    /// Name that the balancer had in the gateway.
    pub balancer: String,
    /// SHA-256 of its component, in lower-case hex.
    pub digest: String,
    /// Its settings, as JSON.
    pub config: String,
    /// When the recording began, in seconds since 1970.
    pub started: f64,
    /// Version of the gateway.
    pub gateway: String,
    /// Whether the balancer asks about requests. Unless the trace tells that, it may choose otherwise the
    /// next time.
    pub reads_facts: bool,
    /// Whether the trace tells what it asked about requests, and what it was answered.
    #[serde(default)]
    pub facts: bool,
}

/// An endpoint of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Id of the endpoint.
    pub id: u64,
    /// Its weight.
    pub weight: u32,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An instance was told of a table; a new instance if `fresh`. `heard` is what the gateway answered
    /// when it asked meanwhile.
    Table {
        /// Whether the instance is new.
        fresh: bool,
        /// The endpoints, by position.
        rows: Vec<Row>,
        /// Answers of the import `load`.
        heard: Vec<u64>,
    },
    /// A pick.
    Pick(Pick),
    /// What came of a pick.
    Outcome {
        /// Which one, counted from 0.
        pick: u64,
        /// Status of the answer; 0 if there was none.
        status: u16,
        /// Microseconds from the pick to the head of the answer, or until it was known that there is
        /// none.
        latency: u64,
    },
}

/// A pick, with all that it depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pick {
    /// Microseconds on the clock of the gateway.
    pub now: u64,
    /// Random bits.
    pub entropy: u64,
    /// What the request is tied to.
    pub affinity: Option<u64>,
    /// Tries before this one.
    pub attempt: u32,
    /// The columns, one after another.
    pub load: Vec<u32>,
    /// Answers of the import `load`.
    pub heard: Vec<u64>,
    /// What the balancer asked about the request, where that is recorded: each question once.
    pub facts: Vec<Fact>,
    /// What the balancer said.
    pub answer: Answer,
    /// Where the request went, which is elsewhere if it had been there already; none if nowhere.
    pub chosen: Option<u32>,
}

/// A question about a request, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The question.
    pub asked: Asked,
    /// The answer: text in all cases but that of a body.
    pub answer: Option<Vec<u8>>,
}

/// A question about a request, of the import `request-facts`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The method.
    Method,
    /// The path.
    Path,
    /// The query.
    Query,
    /// The header of this name, in lower case.
    Header(String),
    /// The client.
    Client,
    /// So many bytes of the body, at most. The last in order, which who looks for it relies on.
    BodyStart(u32),
}

/// What a balancer said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answer {
    /// Nothing of use, or it was not asked: the gateway chose. The next event of the instance is that
    /// of a fresh one.
    #[default]
    None,
    /// It refused the request.
    Refused,
    /// A position.
    Position(u32),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("a fallback pick"),
            Self::Refused => f.write_str("refused"),
            Self::Position(position) => write!(f, "position {position}"),
        }
    }
}

mod tag {
    pub(super) const TABLE: u8 = 1;
    pub(super) const FRESH: u8 = 2;
    pub(super) const PICK: u8 = 3;
    pub(super) const OUTCOME: u8 = 4;

    // Questions of a pick.
    pub(super) const METHOD: u8 = 0;
    pub(super) const PATH: u8 = 1;
    pub(super) const QUERY: u8 = 2;
    pub(super) const HEADER: u8 = 3;
    pub(super) const CLIENT: u8 = 4;
    pub(super) const BODY_START: u8 = 5;
}

#[cfg(test)]
mod tests;
