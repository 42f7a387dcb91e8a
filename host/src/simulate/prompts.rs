//! Prompts of simulated requests: users have conversations, and each prompt of a conversation
//! starts with the one before; or prompts are of kinds, each with its length.

use std::borrow::Cow;

use super::random::{Costs, Keys, Random, Stream, mix};
use super::scenario::{Kind, Prompts};
use crate::balancer::{BODY_MOST, BodyAnswer, ReadBody, RequestFacts};
use crate::trace::BodyQuestion;

/// Bytes of the text of a block: 16 tokens, as vLLM's blocks have by default, of 4 characters.
const BLOCK: usize = 64;

/// What is before and after the text in a body.
const HEAD: &[u8] = br#"{"model":"simulated","prompt":""#;
const END: &[u8] = br#"","max_tokens":256}"#;

/// Tokens of a block.
const TOKENS: u32 = 16;

/// The prompt of a request, in the blocks that a server would cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prompt {
    /// The part that it shares with its group, and the part after it, which it shares only with its
    /// conversation.
    pub(super) parts: [Part; 2],
    /// Tokens after the last whole block.
    pub(super) tail: u32,
}

/// Blocks of one owner, from the owner's first block on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) owner: u64,
    pub(super) blocks: u32,
}

impl Prompt {
    pub(super) fn blocks(&self) -> u32 {
        self.parts.iter().map(|part| part.blocks).sum()
    }

    pub(super) fn tokens(&self) -> u32 {
        tokens_of(self.blocks()) + self.tail
    }
}

/// The tokens of so many blocks.
pub(super) fn tokens_of(blocks: u32) -> u32 {
    blocks * TOKENS
}

/// Prompts of several kinds, each new but for its beginning.
#[derive(Debug)]
pub(super) struct Kinds {
    kinds: Vec<(Kind, Keys, Costs)>,
    random: Random,
    /// Number of prompts so far.
    drawn: u64,
}

impl Kinds {
    pub(super) fn new(kinds: &[Kind], seed: u64) -> Self {
        let kinds = kinds.iter().zip(1..).map(|(kind, number)| {
            let seed = seed ^ mix(number);
            let groups = Keys::new(kind.groups, kind.skew, seed);
            (*kind, groups, Costs::new(kind.answer, seed))
        });
        Self {
            kinds: kinds.collect(),
            random: Random::new(seed, Stream::Users),
            drawn: 0,
        }
    }

    /// Draws a prompt and the tokens of its answer; none if there are no kinds.
    pub(super) fn draw(&mut self) -> Option<(Prompt, f64)> {
        let shares: f64 = self.kinds.iter().map(|(kind, ..)| kind.share).sum();
        let last = self.kinds.len().checked_sub(1)?;
        let mut left = self.random.unit() * shares;
        let passed = self.kinds.iter().position(|(kind, ..)| {
            left -= kind.share;
            left < 0.0
        });
        let number = passed.unwrap_or(last);
        let (kind, groups, answers) = &mut self.kinds[number];
        self.drawn += 1;
        let shared = Part {
            owner: mix(number as u64) ^ groups.draw().unwrap_or(0) as u64,
            blocks: kind.shared / TOKENS,
        };
        let own = Part {
            owner: mix(u64::MAX ^ self.drawn),
            blocks: kind.prompt / TOKENS - shared.blocks,
        };
        let prompt = Prompt {
            parts: [shared, own],
            tail: kind.prompt % TOKENS,
        };
        Some((prompt, answers.draw()))
    }
}

/// Users, each in a conversation.
#[derive(Debug)]
pub(super) struct Users {
    prompts: Prompts,
    groups: Keys,
    random: Random,
    users: Vec<User>,
    /// Number of conversations so far.
    conversations: u64,
}

#[derive(Debug, Clone, Copy)]
struct User {
    group: usize,
    conversation: u64,
    /// The number of requests so far in this conversation.
    turn: u32,
}

impl Users {
    pub(super) fn new(prompts: Prompts, seed: u64) -> Self {
        let mut this = Self {
            prompts,
            groups: Keys::new(prompts.groups, prompts.skew, seed),
            random: Random::new(seed, Stream::Users),
            users: Vec::new(),
            conversations: 0,
        };
        for _ in 0..prompts.users {
            // Not all conversations start at the same time.
            let turn = this.random.below(prompts.turns as usize) as u32;
            let user = this.begin(turn);
            this.users.push(user);
        }
        this
    }

    fn begin(&mut self, turn: u32) -> User {
        self.conversations += 1;
        User {
            group: self.groups.draw().unwrap_or(0),
            conversation: self.conversations,
            turn,
        }
    }

    /// Draws the next request: the index of its user, and its prompt.
    pub(super) fn draw(&mut self) -> (usize, Prompt) {
        let number = self.random.below(self.users.len());
        let mut user = self.users[number];
        if user.turn == self.prompts.turns {
            user = self.begin(0);
        }
        user.turn += 1;
        self.users[number] = user;
        let shared = Part {
            owner: user.group as u64,
            blocks: self.prompts.shared,
        };
        let own = Part {
            owner: self.prompts.groups as u64 + user.conversation,
            blocks: user.turn * self.prompts.turn,
        };
        let parts = [shared, own];
        (number, Prompt { parts, tail: 0 })
    }
}

/// The request as one of the OpenAI API for completions, with the facts that a balancer can ask
/// for.
impl RequestFacts for Prompt {
    fn method(&self) -> Option<Cow<'_, str>> {
        Some("POST".into())
    }

    fn path(&self) -> Option<Cow<'_, str>> {
        Some("/v1/completions".into())
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        if name.eq_ignore_ascii_case("content-length") {
            return Some((HEAD.len() + self.text() + END.len()).to_string().into());
        }
        let known = name.eq_ignore_ascii_case("content-type");
        known.then(|| "application/json".into())
    }

    fn client(&self) -> Option<Cow<'_, str>> {
        Some("192.0.2.1".into())
    }

    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(self.body(most).into())
    }

    fn of_body(&self, question: &BodyQuestion) -> Option<BodyAnswer> {
        let text = self.text() as u64;
        match question {
            BodyQuestion::Length => {
                let length = HEAD.len() as u64 + text + END.len() as u64;
                Some(BodyAnswer::Length(length, false))
            }
            BodyQuestion::PromptLength => Some(BodyAnswer::Length(text, false)),
            // The other members are the same for each prompt.
            BodyQuestion::JsonField { pointer, .. } if pointer != "/prompt" => {
                ReadBody::new(&[HEAD, END].concat(), false).answer(question)
            }
            BodyQuestion::JsonField { .. } | BodyQuestion::PrefixHashes { .. } => {
                ReadBody::new(&self.body(BODY_MOST), false).answer(question)
            }
        }
    }
}

impl Prompt {
    /// Bytes of its text.
    fn text(&self) -> usize {
        self.blocks() as usize * BLOCK + self.tail as usize * BLOCK / TOKENS as usize
    }

    /// The first `most` bytes of its body, or all of it.
    fn body(&self, most: usize) -> Vec<u8> {
        let mut text = HEAD.to_vec();
        'text: for part in self.parts {
            for block in 0..part.blocks {
                if text.len() >= most {
                    break 'text;
                }
                let mut number = mix(part.owner ^ mix(u64::from(block)));
                for _ in 0..BLOCK / 8 {
                    // Eight letters, from "a" to "p".
                    let letters = (number & 0x0f0f_0f0f_0f0f_0f0f) + 0x6161_6161_6161_6161;
                    text.extend(letters.to_le_bytes());
                    number = mix(number);
                }
            }
        }
        let tail = self.tail as usize * BLOCK / TOKENS as usize;
        text.extend(std::iter::repeat_n(b'x', tail));
        text.extend(END);
        text.truncate(most);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let prompts = Prompts {
            groups: 3,
            skew: 1.0,
            shared: 5,
            users: 10,
            turns: 4,
            turn: 2,
            block_cost: 1.0,
        };
        Users::new(prompts, 1)
    }

    #[test]
    fn a_turn_repeats_what_was_said_and_adds_to_it() {
        let mut users = users();
        let mut last = vec![None::<Prompt>; 10];
        let mut blocks = 0;
        let mut begun = 0;
        for _ in 0..4000 {
            let (user, prompt) = users.draw();
            blocks += prompt.blocks();
            let [_, own] = prompt.parts;
            if let Some(before) = last[user].replace(prompt) {
                if before.parts[1].owner == own.owner {
                    assert_eq!(before.parts[0], prompt.parts[0]);
                    assert_eq!(before.parts[1].blocks + 2, own.blocks);
                    let (before, now) = (before.body(1000), prompt.body(1000));
                    // Everything except the closing characters.
                    assert!(now.starts_with(&before[..before.len() - 20]));
                } else {
                    assert_eq!((before.parts[1].blocks, own.blocks), (8, 2));
                    begun += 1;
                }
            }
        }
        // A quarter of the requests are the first of a conversation.
        assert!((950..1050).contains(&begun), "{begun}");
        // The mean number of blocks is the scenario's.
        let mean = f64::from(blocks) / 4000.0;
        assert!((mean - users.prompts.mean_blocks()).abs() < 0.2, "{mean}");
    }

    #[test]
    fn a_body_is_json_that_may_be_cut_off() {
        let (_, prompt) = users().draw();
        let whole = prompt.body(usize::MAX);
        let document: serde_json::Value = serde_json::from_slice(&whole).unwrap_or_default();
        let text = document["prompt"].as_str().unwrap_or_default();
        assert_eq!(text.len(), prompt.blocks() as usize * BLOCK);
        for most in [0, 10, 100, whole.len()] {
            assert_eq!(prompt.body(most), whole[..most]);
        }
        // What is known without the body is what a gateway finds in it.
        let read = ReadBody::new(&whole, false);
        let field = |pointer: &str| BodyQuestion::JsonField {
            pointer: pointer.into(),
            most: 99,
        };
        for question in [
            BodyQuestion::Length,
            BodyQuestion::PromptLength,
            field("/max_tokens"),
            field("/prompt"),
            field("/n"),
            BodyQuestion::PrefixHashes { block: 64, most: 9 },
        ] {
            assert_eq!(prompt.of_body(&question), read.answer(&question));
        }
    }
}
