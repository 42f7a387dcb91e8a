//! What a balancer may ask about a body beyond its start: the host scans it, and hands over numbers
//! and short texts.
//!
//! A scan of a long body takes about as long as a pick may cost, and its length is the client's
//! choice. So [`Interests`](super::columns::Interests) has the questions that a plugin asks, and
//! each request's body is scanned for these before the pick takes the lock: no other pick waits for
//! it, and no plugin is charged for it. Only a question that is new, or one of too many, is
//! answered within the pick. That time counts as that of any other fact: towards `pick_cost`, and
//! towards the time limit, which interrupts the plugin as soon as the host returns to it. The host
//! itself is not interrupted, but takes a bounded time, since bodies are bounded.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use guest_sdk::facts::{MAX_HASHES, MAX_JSON_FIELD};
use guest_sdk::json::{self, Member, Members};
use guest_sdk::prefix::Prompt;
use parking_lot::Mutex;

use crate::trace::BodyQuestion;

/// Most bytes of a body that a balancer may ask about.
pub const BODY_MOST: usize = 1 << 20;

/// Bytes of a body that a balancer may ask about, unless the upstream sets another number.
pub const BODY_USUAL: usize = 256 << 10;

/// Most members of an object whose places are remembered. Those after them are looked for anew.
const MEMBERS: usize = 256;

/// Most answers that are remembered of a body.
const ANSWERS: usize = 16;

/// Up to this length, bytes are copied for another thread. More are shared, since a copy takes the
/// worker's time.
const COPIED: usize = 16 << 10;

/// The answer to a question about a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyAnswer {
    /// Bytes that are known, and whether there may be more.
    Length(u64, bool),
    /// Text.
    Text(String),
    /// Hashes.
    Hashes(Arc<[u64]>),
}

impl BodyAnswer {
    /// Its form in a trace.
    pub(super) fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Length(length, is_cut) => {
                let mut bytes = length.to_le_bytes().to_vec();
                bytes.push((*is_cut).into());
                bytes.into()
            }
            Self::Text(text) => text.as_bytes().into(),
            Self::Hashes(hashes) => {
                let bytes = hashes.iter().flat_map(|hash| hash.to_le_bytes());
                bytes.collect::<Vec<u8>>().into()
            }
        }
    }

    /// The answer to a question that has this form in a trace; none if no answer has.
    pub(super) fn of_bytes(question: &BodyQuestion, bytes: &[u8]) -> Option<Self> {
        Some(match question {
            BodyQuestion::Length | BodyQuestion::PromptLength => {
                let (length, rest) = bytes.split_first_chunk()?;
                Self::Length(u64::from_le_bytes(*length), rest == [1])
            }
            BodyQuestion::JsonField { .. } => Self::Text(str::from_utf8(bytes).ok()?.to_owned()),
            BodyQuestion::PrefixHashes { .. } => {
                let (hashes, rest) = bytes.as_chunks();
                let hashes = hashes.iter().map(|hash| u64::from_le_bytes(*hash));
                rest.is_empty().then(|| Self::Hashes(hashes.collect()))?
            }
        })
    }
}

/// A body, as far as it was read. It is scanned once, when it is first asked about.
#[derive(Debug)]
pub struct ReadBody<'a> {
    bytes: &'a [u8],
    /// The same bytes, if another thread can share them.
    whole: Option<&'a Bytes>,
    is_cut: bool,
    outline: OnceLock<Option<Outline<'a>>>,
    answers: Mutex<Vec<(BodyQuestion, Option<BodyAnswer>)>>,
}

/// The members of the object that a body is.
#[derive(Debug)]
struct Outline<'a> {
    first: Vec<Member<'a>>,
    /// Those after them, which have not been scanned.
    others: Members<'a>,
}

impl<'a> Outline<'a> {
    fn of(body: &'a [u8]) -> Option<Self> {
        let mut others = Members::of(body)?;
        let first = others.by_ref().take(MEMBERS).collect();
        Some(Self { first, others })
    }

    fn members(&self) -> impl Iterator<Item = Member<'a>> {
        self.first.iter().copied().chain(self.others.clone())
    }
}

impl<'a> ReadBody<'a> {
    /// The first bytes of a body. `is_cut` is whether it may have more.
    pub fn new(bytes: &'a [u8], is_cut: bool) -> Self {
        Self {
            bytes,
            whole: None,
            is_cut,
            outline: OnceLock::new(),
            answers: Mutex::default(),
        }
    }

    /// As [`Self::new`], of bytes that other threads can share.
    pub fn shared(bytes: &'a Bytes, is_cut: bool) -> Self {
        Self {
            whole: Some(bytes),
            ..Self::new(bytes, is_cut)
        }
    }

    /// Finds the answers to these questions, which it remembers.
    pub fn prepare(&self, questions: &[BodyQuestion]) {
        for question in questions {
            self.answer(question);
        }
    }

    /// At most `most` of its bytes for another thread, and whether there may be more.
    pub fn keep(&self, most: usize) -> (Bytes, bool) {
        let start = self.start(most);
        let is_cut = self.is_cut || start.len() < self.bytes.len();
        // A short part is copied as well: shared, it would keep all of the body in memory.
        let is_most = start.len() > self.bytes.len() / 2;
        let shared = self.whole.filter(|_| start.len() > COPIED && is_most);
        let kept = shared.map(|whole| whole.slice_ref(start));
        (
            kept.unwrap_or_else(|| Bytes::copy_from_slice(start)),
            is_cut,
        )
    }

    /// At most `most` of its bytes.
    pub fn start(&self, most: usize) -> &'a [u8] {
        self.bytes.get(..most).unwrap_or(self.bytes)
    }

    /// Answers a question. An answer is remembered, also for later tries of the request.
    pub fn answer(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        let mut answers = self.answers.lock();
        if let Some((_, answer)) = answers.iter().find(|(known, _)| known == question) {
            return answer.clone();
        }
        let answer = self.scan(question);
        if answers.len() < ANSWERS {
            answers.push((question.clone(), answer.clone()));
        }
        answer
    }

    fn scan(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        Some(match question {
            BodyQuestion::Length => BodyAnswer::Length(self.bytes.len() as u64, self.is_cut),
            BodyQuestion::PromptLength => {
                let prompt = self.prompt()?;
                BodyAnswer::Length(prompt.text.len() as u64, prompt.is_cut())
            }
            BodyQuestion::JsonField { pointer, most } => {
                let value = self.field(pointer)?;
                BodyAnswer::Text(value.to_text(MAX_JSON_FIELD.min(*most) as usize))
            }
            BodyQuestion::PrefixHashes { block, most } => {
                let prompt = self.prompt()?;
                let hashes = prompt.hashes(*block as usize, MAX_HASHES.min(*most) as usize);
                BodyAnswer::Hashes(hashes.into())
            }
        })
    }

    fn outline(&self) -> Option<&Outline<'a>> {
        let outline = self.outline.get_or_init(|| Outline::of(self.bytes));
        outline.as_ref()
    }

    fn prompt(&self) -> Option<Prompt<'a>> {
        Prompt::among(&mut self.outline()?.members())
    }

    fn field(&self, pointer: &str) -> Option<json::Value<'a>> {
        if pointer.len() > json::MAX_POINTER {
            return None;
        }
        match (json::first_name(pointer), self.outline()) {
            (Some((name, rest)), Some(outline)) => {
                let value = outline
                    .members()
                    .find(|member| member.has_key(&name))?
                    .value;
                match rest {
                    "" => Some(value),
                    rest => json::find(value.text, rest),
                }
            }
            _ => json::find(self.bytes, pointer),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn field(body: &[u8], pointer: &str, most: u32) -> Option<String> {
        let pointer = pointer.to_owned();
        let answer = ReadBody::new(body, false).answer(&BodyQuestion::JsonField { pointer, most });
        match answer {
            Some(BodyAnswer::Text(text)) => Some(text),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[\"\\\\/a-c\n\u{1}😀ä]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            let key = prop_oneof!["[a-c~/\"\\\\]{0,2}", ".{0,3}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..6)
                    .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// The pointers of all values of a document.
    fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
        match value {
            Value::Array(elements) => {
                for (number, element) in elements.iter().enumerate() {
                    pointers(element, format!("{at}/{number}"), all);
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    pointers(member, format!("{at}/{key}"), all);
                }
            }
            _ => {}
        }
        all.push(at);
    }

    proptest! {
        #[test]
        fn each_value_of_a_document_is_found_as_serde_json_finds_it(
            document in document(), is_pretty: bool, cut in 0_usize..400,
        ) {
            let text = match is_pretty {
                true => serde_json::to_vec_pretty(&document).unwrap(),
                false => serde_json::to_vec(&document).unwrap(),
            };
            // A number at the end of a body may be cut off.
            let text = [text, b"\n".to_vec()].concat();
            let mut all = Vec::new();
            pointers(&document, String::new(), &mut all);
            for pointer in &all {
                let found = field(&text, pointer, u32::MAX);
                let expected = document.pointer(pointer).unwrap();
                let equal = match (expected, &found) {
                    (Value::String(text), Some(found)) => text == found,
                    (other, Some(found)) => serde_json::from_str::<Value>(found).unwrap() == *other,
                    (_, None) => false,
                };
                prop_assert!(equal, "{pointer} {found:?}");
                for wrong in ["/x", "/0", "/", "/9"] {
                    let wrong = format!("{pointer}{wrong}");
                    prop_assert_eq!(
                        field(&text, &wrong, 9).is_some(), document.pointer(&wrong).is_some(), "{}", wrong
                    );
                }
                // Of a document that is cut off, each value is found as it is, cut off, or not at
                // all.
                let short = &text[..cut.min(text.len())];
                if let (Some(short), Some(found)) = (field(short, pointer, u32::MAX), found) {
                    let short = short.trim_end_matches(['\u{fffd}', ' ', '\n']);
                    prop_assert!(found.starts_with(short), "{pointer} {short:?}");
                }
            }
        }

        /// The scan of the host is that of the SDK, whatever is asked first.
        #[test]
        fn a_body_has_the_prompt_that_the_sdk_finds(
            members in prop::collection::vec(
                prop::sample::select(vec![
                    r#""model":"m""#, r#""model":["x"]"#, r#""prompt":"abc\"def""#, r#""messages":[{"a":"]"},1]"#,
                    r#""input":7"#, r#""n":1"#, r#""max_tokens":9"#, r#""x"#, r#""x":"#, "{",
                ]),
                0..6,
            ),
            many in prop::option::of(0_usize..600), cut in 0_usize..9000, block in 0_u32..9, most in 0_u32..9,
        ) {
            let mut members: Vec<String> = members.into_iter().map(str::to_owned).collect();
            if let Some(many) = many {
                members.splice(0..0, (0..many).map(|number| format!("\"{number}\":{number}")));
            }
            let text = format!("{{{}}}", members.join(","));
            let text = &text.as_bytes()[..cut.min(text.len())];
            let body = ReadBody::new(text, true);
            let prompt = Prompt::of(text);
            let length = prompt.map(|prompt| BodyAnswer::Length(prompt.text.len() as u64, prompt.is_cut()));
            let hashes = prompt.map(|prompt| BodyAnswer::Hashes(prompt.hashes(block as usize, most as usize).into()));
            for _ in 0..2 {
                prop_assert_eq!(body.answer(&BodyQuestion::PrefixHashes { block, most }), hashes.clone());
                prop_assert_eq!(body.answer(&BodyQuestion::PromptLength), length.clone());
                prop_assert_eq!(body.answer(&BodyQuestion::Length), Some(BodyAnswer::Length(text.len() as u64, true)));
            }
            for pointer in ["/model", "/n", "/x", "/599", "/prompt", "/messages/0/a", "/messages/1", ""] {
                let found = json::find(text, pointer).map(|value| value.to_text(100));
                prop_assert_eq!(field(text, pointer, 100), found, "{}", pointer);
            }
        }

        #[test]
        fn an_answer_is_read_from_a_trace_as_it_was_written(
            length: u64, is_cut: bool, text: String, hashes: Vec<u64>, other: Vec<u8>,
        ) {
            let field = BodyQuestion::JsonField { pointer: "/a".into(), most: 1 };
            let blocks = BodyQuestion::PrefixHashes { block: 1, most: 1 };
            for (question, answer) in [
                (BodyQuestion::Length, BodyAnswer::Length(length, is_cut)),
                (BodyQuestion::PromptLength, BodyAnswer::Length(length, is_cut)),
                (field, BodyAnswer::Text(text)),
                (blocks, BodyAnswer::Hashes(hashes.into())),
            ] {
                let bytes = answer.to_bytes();
                prop_assert_eq!(BodyAnswer::of_bytes(&question, &bytes), Some(answer.clone()));
                let _ = BodyAnswer::of_bytes(&question, &other);
            }
        }
    }

    #[test]
    fn a_body_answers_more_questions_than_it_remembers() {
        let body = ReadBody::new(br#"{"a":[0,1,2,3,4,5,6,7,8,9]}"#, false);
        for number in (0..10).cycle().take(40) {
            for most in [1, 2] {
                let pointer = format!("/a/{number}");
                let question = BodyQuestion::JsonField { pointer, most };
                let expected = BodyAnswer::Text(number.to_string());
                assert_eq!(body.answer(&question), Some(expected));
            }
        }
        assert_eq!(body.answers.lock().len(), ANSWERS);
    }
}
