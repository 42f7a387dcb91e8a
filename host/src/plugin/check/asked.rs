//! Requests whose facts a balancer is tried with: chats, and bodies of which little can be said.

use std::borrow::Cow;

use fastrand::Rng;

use crate::balancer::{BodyAnswer, ReadBody, RequestFacts};
use crate::trace::BodyQuestion;

/// Bytes of a long body: several hundred blocks of a prompt, beyond what `body-start` returns.
const LONG: usize = 40 << 10;

/// Bodies that are JSON, or nearly, and not what an author expects.
const ODD: [&str; 12] = [
    "",
    "null",
    "[]",
    "{",
    r#""prompt""#,
    r#"{"prompt":""}"#,
    r#"{"prompt":7,"max_tokens":"seven"}"#,
    r#"{"prompt":["a",["b"]],"max_tokens":99999999999999999999}"#,
    r#"{"messages":{},"max_tokens":-1}"#,
    r#"{"messages":[{"role":null}],"max_tokens":1e99}"#,
    r#"{"input":[1,2,3],"model":[]}"#,
    "a=b&prompt=c\u{0}\u{fffd}",
];

/// A request of a client.
pub(super) struct Asked {
    body: Option<Vec<u8>>,
    /// Whether the gateway has not read all of it.
    is_cut: bool,
    /// What `Content-Length` says.
    length: Option<u64>,
}

impl Asked {
    /// The next request. Chats are the most frequent ones, of a few conversations.
    pub(super) fn draw(chance: &mut Rng) -> Self {
        let (body, is_cut) = match chance.u8(0..32) {
            0..6 => (None, false),
            6..12 => {
                let odd = ODD[chance.usize(0..ODD.len())];
                (Some(odd.as_bytes().to_vec()), false)
            }
            12..14 => {
                let mut body = chat(chance, LONG);
                let is_cut = chance.bool();
                if is_cut {
                    body.truncate(chance.usize(0..body.len()));
                }
                (Some(body), is_cut)
            }
            _ => {
                let length = [0, 10, 500, 3000][chance.usize(0..4)];
                (Some(chat(chance, length)), false)
            }
        };
        let known = body.as_ref().map(|body| body.len() as u64);
        let length = match is_cut {
            // Without it, as in a chunked body, or with any value: it is the client's.
            true => [None, known, Some(1 << 20), Some(u64::MAX)][chance.usize(0..4)],
            false => known.filter(|_| chance.bool()),
        };
        Self {
            body,
            is_cut,
            length,
        }
    }

    /// What the balancer may ask about it.
    pub(super) fn facts(&self) -> AskedFacts<'_> {
        let body = self.body.as_deref();
        AskedFacts {
            asked: self,
            body: body.map(|body| ReadBody::new(body, self.is_cut)),
        }
    }
}

/// A chat of one of four assistants, whose prompt has about so many bytes.
fn chat(chance: &mut Rng, bytes: usize) -> Vec<u8> {
    let assistant = chance.u8(0..4);
    let said = format!("As assistant {assistant} you say \\\"yes\\\". ");
    let said = said.repeat(bytes / said.len());
    let (question, limit) = (chance.u8(..), chance.u32(1..2000));
    let chat = format!(
        r#"{{"model":"m","messages":[{{"role":"system","content":"{said}"}},{{"role":"user","content":"{question}?"}}],"max_tokens":{limit}}}"#
    );
    chat.into_bytes()
}

/// The facts of such a request.
pub(super) struct AskedFacts<'a> {
    asked: &'a Asked,
    body: Option<ReadBody<'a>>,
}

impl RequestFacts for AskedFacts<'_> {
    fn method(&self) -> Option<Cow<'_, str>> {
        Some(if self.body.is_some() { "POST" } else { "GET" }.into())
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        Some("/v1/chat/completions".into())
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let length = self.asked.length?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| length.to_string().into())
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        Some("192.0.2.1".into())
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(self.body.as_ref()?.start(most).into())
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        self.body.as_ref()?.answer(question)
    }

    fn prepare(&self, questions: &[BodyQuestion]) {
        if let Some(body) = &self.body {
            body.prepare(questions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_every_kind_of_body() {
        let mut chance = Rng::with_seed(1);
        let all: Vec<Asked> = (0..2000).map(|_| Asked::draw(&mut chance)).collect();
        let with = |is: fn(&Asked) -> bool| all.iter().filter(|asked| is(asked)).count();
        assert!(with(|asked| asked.body.is_none()) > 200);
        assert!(with(|asked| asked.is_cut) > 20);
        let prompt = |asked: &Asked| asked.facts().of_body(&BodyQuestion::PromptLength);
        let lengths = all.iter().filter_map(|asked| match prompt(asked) {
            Some(BodyAnswer::Length(length, is_cut)) => Some((length, is_cut)),
            _ => None,
        });
        let lengths: Vec<(u64, bool)> = lengths.collect();
        assert!(
            lengths
                .iter()
                .any(|(length, is_cut)| *length > 16 << 10 && !is_cut)
        );
        assert!(lengths.iter().any(|(_, is_cut)| *is_cut));
        assert!(
            lengths.len() < all.len(),
            "some are not JSON, or have no prompt"
        );
    }
}
