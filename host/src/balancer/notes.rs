//! What a balancer asks about requests: noted during a recording, and answered from the trace when
//! it is replayed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::body::BodyAnswer;
use super::facts::RequestFacts;
use crate::trace::{BodyQuestion, Fact, RequestQuestion};

/// Most bytes of questions and answers that are noted of one pick.
const MAX_NOTE_BYTES: usize = 1 << 20;

/// Approximate overhead of a note, in bytes.
const NOTE_OVERHEAD: usize = 64;

/// The questions of a pick, with the answers. A question that is asked twice is noted once, since
/// the answer is the same.
#[derive(Debug, Default)]
pub(super) struct Notes {
    known: BTreeMap<RequestQuestion, Option<Vec<u8>>>,
    size: usize,
}

impl Notes {
    /// All of them; none if they exceed the limit.
    pub(super) fn take(&mut self) -> Option<Vec<Fact>> {
        let notes = std::mem::take(self);
        let facts = notes.known.into_iter();
        let facts = facts.map(|(asked, answer)| Fact { asked, answer });
        (notes.size <= MAX_NOTE_BYTES).then(|| facts.collect())
    }

    fn add(&mut self, asked: RequestQuestion, answer: Option<&[u8]>) {
        if self.size > MAX_NOTE_BYTES || self.known.contains_key(&asked) {
            return;
        }
        // Only the longest start of a body is noted, and it is the last key of the map.
        if let (RequestQuestion::BodyStart(most), Some((RequestQuestion::BodyStart(known), _))) =
            (&asked, self.known.last_key_value())
        {
            if most <= known {
                return;
            }
            if let Some((_, shorter)) = self.known.pop_last() {
                self.size -= NOTE_OVERHEAD + shorter.map_or(0, |start| start.len());
            }
        }
        let question = match &asked {
            RequestQuestion::Header(name) => name.len(),
            RequestQuestion::Body(BodyQuestion::JsonField { pointer, .. }) => pointer.len(),
            _ => 0,
        };
        self.size += NOTE_OVERHEAD + question + answer.map_or(0, <[u8]>::len);
        self.known.insert(asked, answer.map(<[u8]>::to_vec));
    }
}

/// The facts of a request; each one that is asked for is noted.
pub(super) struct RecordedFacts<'a> {
    pub(super) facts: &'a dyn RequestFacts,
    pub(super) notes: &'a Mutex<Notes>,
}

impl<'a> RecordedFacts<'a> {
    fn text(&self, asked: RequestQuestion, answer: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        let text = answer.as_deref().map(str::as_bytes);
        self.notes.lock().add(asked, text);
        answer
    }
}

impl RequestFacts for RecordedFacts<'_> {
    fn method(&self) -> Option<Cow<'_, str>> {
        self.text(RequestQuestion::Method, self.facts.method())
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        self.text(RequestQuestion::Path, self.facts.path())
    }

    fn query(&self) -> Option<Cow<'_, str>> {
        self.text(RequestQuestion::Query, self.facts.query())
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let asked = RequestQuestion::Header(name.to_ascii_lowercase());
        self.text(asked, self.facts.header(name))
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        self.text(RequestQuestion::Client, self.facts.client())
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        let answer = self.facts.body_start(most);
        let asked = RequestQuestion::BodyStart(u32::try_from(most).unwrap_or(u32::MAX));
        self.notes.lock().add(asked, answer.as_deref());
        answer
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        let answer = self.facts.of_body(question);
        let bytes = answer.as_ref().map(BodyAnswer::to_bytes);
        let asked = RequestQuestion::Body(question.clone());
        self.notes.lock().add(asked, bytes.as_deref());
        answer
    }
}

/// What a trace holds of the request of a pick. If the plugin did not ask for a fact during the
/// recording, the answer is none.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a>(pub &'a [Fact]);

impl<'a> Told<'a> {
    fn text(&self, asked: &RequestQuestion) -> Option<Cow<'a, str>> {
        let fact = self.0.iter().find(|fact| fact.asked == *asked)?;
        fact.answer.as_deref().map(String::from_utf8_lossy)
    }
}

impl RequestFacts for Told<'_> {
    fn method(&self) -> Option<Cow<'_, str>> {
        self.text(&RequestQuestion::Method)
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        self.text(&RequestQuestion::Path)
    }

    fn query(&self) -> Option<Cow<'_, str>> {
        self.text(&RequestQuestion::Query)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.text(&RequestQuestion::Header(name.to_ascii_lowercase()))
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        self.text(&RequestQuestion::Client)
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        let mut facts = self.0.iter();
        let (known, start) = facts.find_map(|fact| match fact.asked {
            RequestQuestion::BodyStart(known) => Some((known as usize, fact.answer.as_deref()?)),
            _ => None,
        })?;
        // If the answer was shorter than asked for, it is the whole body.
        let enough = most <= known || start.len() < known;
        enough.then(|| start.get(..most).unwrap_or(start).into())
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        let asked =
            |fact: &&Fact| matches!(&fact.asked, RequestQuestion::Body(asked) if asked == question);
        let answer = self.0.iter().find(asked)?.answer.as_deref()?;
        BodyAnswer::of_bytes(question, answer)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Posted(Vec<u8>);

    impl RequestFacts for Posted {
        fn method(&self) -> Option<Cow<'_, str>> {
            Some("POST".into())
        }
        fn path(&self) -> Option<Cow<'_, str>> {
            Some("/a".into())
        }
        fn header(&self, name: &str) -> Option<Cow<'_, str>> {
            name.eq_ignore_ascii_case("x-a").then(|| "1, 2".into())
        }
        fn client(&self) -> Option<Cow<'_, str>> {
            Some("192.0.2.7".into())
        }
        fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
            Some(self.0.get(..most).unwrap_or(&self.0).into())
        }
    }

    /// The notes after these questions about a request.
    fn noted(request: &Posted, ask: impl Fn(&dyn RequestFacts)) -> Option<Vec<Fact>> {
        let notes = Mutex::default();
        ask(&RecordedFacts {
            facts: request,
            notes: &notes,
        });
        notes.into_inner().take()
    }

    #[test]
    fn each_question_is_noted_once_and_nothing_else_is_known() {
        let facts = noted(&Posted(Vec::new()), |facts| {
            for name in ["X-A", "x-a", "x-b"] {
                facts.header(name);
            }
            facts.query();
            facts.method();
        });
        let facts = facts.unwrap();
        assert_eq!(facts.len(), 4, "{facts:?}");
        let told = Told(&facts);
        assert_eq!(told.header("x-A").as_deref(), Some("1, 2"));
        assert_eq!(told.method().as_deref(), Some("POST"));
        assert_eq!((told.header("x-b"), told.query()), (None, None));
        // These were not asked.
        assert_eq!((told.path(), told.client()), (None, None));
        assert_eq!(told.body_start(1), None);
    }

    #[test]
    fn more_notes_than_the_limit_give_none() {
        let name = |number: usize| format!("{number}{}", "x".repeat(1000));
        let ask = |count| {
            noted(&Posted(Vec::new()), |facts| {
                for number in 0..count {
                    facts.header(&name(number));
                }
            })
        };
        assert_eq!(ask(900).map(|facts| facts.len()), Some(900));
        assert_eq!(ask(1100), None);
    }

    proptest! {
        /// A plugin that asked for starts of a body gets the same answers again; to other questions
        /// the answer is none if it is not known.
        #[test]
        fn a_start_of_a_body_is_replayed_as_recorded(
            body in prop::collection::vec(any::<u8>(), 0..40),
            asked in prop::collection::vec(0_usize..60, 1..6),
            other in 0_usize..60,
        ) {
            let request = Posted(body);
            let facts = noted(&request, |facts| {
                for most in &asked {
                    facts.body_start(*most);
                }
            });
            let facts = facts.unwrap();
            prop_assert_eq!(facts.len(), 1);
            let told = Told(&facts);
            for most in &asked {
                prop_assert_eq!(told.body_start(*most), request.body_start(*most));
            }
            let longest = asked.iter().copied().max().unwrap();
            let known = other <= longest || request.0.len() < longest;
            let expected = known.then(|| request.body_start(other)).flatten();
            prop_assert_eq!(told.body_start(other), expected);
        }
    }
}
