//! Recorded picks: everything that a balancer was told and everything that it answered, in order,
//! so that the same component can be asked again and must give the same answers. docs/trace.md
//! describes the format.

mod ended;
mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use ended::{EndReason, EndedTry};
pub use read::{Error, Reader};
pub use write::Writer;

/// The first bytes of a trace without facts, of one with facts, and of one that may also have what
/// version 1.4 of the contract has added. A newer format has others.
const MAGIC: &[u8; 8] = b"PMTRACE1";
const MAGIC_WITH_FACTS: &[u8; 8] = b"PMTRACE2";
const MAGIC_OF_1_4: &[u8; 8] = b"PMTRACE3";

/// Describes a recording.
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
    /// Whether the balancer asks about requests. If the trace does not have the answers, a replay
    /// may choose differently.
    #[serde(default)]
    pub reads_facts: bool,
    /// Whether the trace has the questions about requests and their answers.
    #[serde(default)]
    pub facts: bool,
    /// Whether the balancer may use what version 1.4 of the contract has added. If not, earlier
    /// versions of this program can read the trace.
    #[serde(skip)]
    pub contract_1_4: bool,
}

/// An endpoint of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Id of the endpoint.
    pub id: u64,
    /// Its weight.
    pub weight: u32,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An instance received a table; a new instance if `fresh`. `load_answers` has the answers to
    /// what the instance asked meanwhile.
    Table {
        /// Whether the instance is new.
        fresh: bool,
        /// The endpoints, by position.
        rows: Vec<Row>,
        /// Answers of the import `load`.
        load_answers: Vec<u64>,
        /// Answers of the import `endpoint-facts`.
        facts: Vec<EndpointFact>,
    },
    /// A pick.
    Pick(Pick),
    /// An instance was told of a try that has ended. `load_answers` has the answers to what it
    /// asked meanwhile.
    Ended {
        /// The try.
        ended: EndedTry,
        /// Answers of the import `load`.
        load_answers: Vec<u64>,
    },
    /// The outcome of a pick.
    Outcome {
        /// The number of the pick, counted from 0.
        pick: u64,
        /// Status of the response; 0 if there was none.
        status: u16,
        /// Microseconds from the pick to the head of the response, or until it was certain that
        /// there is none.
        latency: u64,
    },
}

/// A pick, with everything that it depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pick {
    /// Microseconds on the clock of the gateway.
    pub now: u64,
    /// Random bits.
    pub entropy: u64,
    /// The affinity of the request.
    pub affinity: Option<u64>,
    /// Tries before this one.
    pub attempt: u32,
    /// The columns, one after another.
    pub load: Vec<u32>,
    /// Answers of the import `load`.
    pub load_answers: Vec<u64>,
    /// What the balancer asked about the request, if that is recorded: each question once.
    pub facts: Vec<Fact>,
    /// The balancer's answer.
    pub answer: BalancerAnswer,
    /// The tag that it gave, if it is told of its tries; 0 for none.
    pub tag: u64,
    /// The position that the request was sent to; it differs from the answer if the request had
    /// already been tried there. None if it was sent nowhere.
    pub chosen: Option<u32>,
}

/// A question about a request, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The question.
    pub asked: RequestQuestion,
    /// The answer: text for all questions except those for the body.
    pub answer: Option<Vec<u8>>,
}

/// A question about a request, of the import `request-facts`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestQuestion {
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
    /// A question about the body beyond its start.
    Body(BodyQuestion),
    /// At most this many bytes of the body from its start. It must stay the last variant: the
    /// search for it relies on the order.
    BodyStart(u32),
}

/// A question about the body of a request, of the import `body-facts`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyQuestion {
    /// Its length. The answer has eight bytes for the length, the lowest first, and one that is 1
    /// if there may be more.
    Length,
    /// The length of the prompt, with an answer of the same form.
    PromptLength,
    /// The value at a JSON pointer. The answer is text.
    JsonField {
        /// The pointer.
        pointer: String,
        /// Most bytes of it.
        most: u32,
    },
    /// The hashes of the prompt's prefixes. The answer has eight bytes for each, the lowest first.
    PrefixHashes {
        /// Bytes of a block.
        block: u32,
        /// Most hashes.
        most: u32,
    },
}

/// An answer to a question about an endpoint of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFact {
    /// Position of the endpoint.
    pub position: u32,
    /// The question.
    pub asked: EndpointQuestion,
    /// The answer.
    pub answer: String,
}

/// A question about an endpoint, of the import `endpoint-facts`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointQuestion {
    /// The label with this key.
    Label(String),
    /// The host.
    Host,
    /// The address.
    Address,
}

/// The answer of a balancer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BalancerAnswer {
    /// No valid answer, or the balancer was not asked: the gateway chose. The next instance that is
    /// asked is a fresh one.
    #[default]
    None,
    /// The balancer refused the request.
    Refused,
    /// The balancer refused the request, and said how.
    RefusedWith {
        /// Status of the response.
        status: u16,
        /// Seconds after which the client may try again.
        retry_after: Option<u32>,
    },
    /// A position.
    Position(u32),
    /// A position, with what the request weighs.
    Weighted {
        /// The position.
        position: u32,
        /// The part of the cost that is done with the first byte of the body.
        first_byte: u32,
        /// The rest.
        rest: u32,
    },
}

impl std::fmt::Display for BalancerAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("a fallback pick"),
            Self::Refused => f.write_str("refused"),
            Self::RefusedWith {
                status,
                retry_after: None,
            } => write!(f, "refused with {status}"),
            Self::RefusedWith {
                status,
                retry_after: Some(seconds),
            } => write!(f, "refused with {status}, Retry-After: {seconds}"),
            Self::Position(position) => write!(f, "position {position}"),
            Self::Weighted {
                position,
                first_byte,
                rest,
            } => write!(f, "position {position} at a cost of {first_byte} + {rest}"),
        }
    }
}

mod tag {
    pub(super) const TABLE: u8 = 1;
    pub(super) const FRESH: u8 = 2;
    pub(super) const PICK: u8 = 3;
    pub(super) const OUTCOME: u8 = 4;
    /// Facts of the endpoints of the table that comes next.
    pub(super) const ENDPOINT_FACTS: u8 = 5;
    pub(super) const ENDED: u8 = 6;

    // Questions of a pick.
    pub(super) const METHOD: u8 = 0;
    pub(super) const PATH: u8 = 1;
    pub(super) const QUERY: u8 = 2;
    pub(super) const HEADER: u8 = 3;
    pub(super) const CLIENT: u8 = 4;
    pub(super) const BODY_START: u8 = 5;
    pub(super) const BODY_LENGTH: u8 = 6;
    pub(super) const PROMPT_LENGTH: u8 = 7;
    pub(super) const JSON_FIELD: u8 = 8;
    pub(super) const PREFIX_HASHES: u8 = 9;

    // Questions about an endpoint.
    pub(super) const LABEL: u8 = 0;
    pub(super) const HOST: u8 = 1;
    pub(super) const ADDRESS: u8 = 2;
}

#[cfg(test)]
mod tests;
