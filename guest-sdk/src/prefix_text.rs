//! The prefixes of a request, and their hashes.

use crate::json::{Member, Members};
use crate::mix;

/// The keys of a JSON object whose value is a prompt, in the APIs of OpenAI and compatible ones.
const PROMPTS: [&[u8]; 3] = [b"prompt", b"messages", b"input"];

/// The keys of a JSON object whose value limits the tokens of the answer.
const LIMITS: [&[u8]; 3] = [
    b"max_tokens",
    b"max_completion_tokens",
    b"max_output_tokens",
];

/// The prompt in the body of a request to an inference server, in OpenAI's APIs and compatible
/// ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// The name of the model, if it comes before the prompt; otherwise empty.
    pub model: &'a [u8],
    /// The text between the quotes or brackets of the prompt, as it was sent. If the body is cut
    /// off, up to its end.
    pub text: &'a [u8],
    is_cut: bool,
    /// The body's members after the prompt; empty if the body is cut off before them.
    rest: &'a [u8],
    /// The limit of the answer's tokens, if it comes before the prompt.
    limit: Option<u32>,
}

impl<'a> Prompt<'a> {
    /// Finds the prompt in the start of a body that is a JSON object. `None` if there is none.
    ///
    /// It does not check that the JSON is valid: the server does that. It decodes nothing, so the
    /// same text with other escapes counts as another text, and costs a cache miss.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Option<Self> {
        let mut members = Members::of(body)?;
        let prompt = Self::among(&mut members)?;
        Some(Self {
            rest: members.rest(),
            ..prompt
        })
    }

    /// Finds the prompt among the members of a body, without those after it.
    pub fn among(members: &mut impl Iterator<Item = Member<'a>>) -> Option<Self> {
        let mut prompt = Self::default();
        loop {
            let Member { key, value } = members.next()?;
            if key == b"model" {
                prompt.model = value.inside();
            } else if PROMPTS.contains(&key) {
                (prompt.text, prompt.is_cut) = (value.inside(), value.is_cut);
                return Some(prompt);
            } else if LIMITS.contains(&key) {
                prompt.limit = number(value.inside());
            }
        }
    }

    /// Whether the body was cut off inside of the prompt.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The number of tokens that the client allows for the answer, if it says so in the part of the
    /// body that is known: `max_tokens`, `max_completion_tokens` or `max_output_tokens`.
    #[must_use]
    pub fn answer_limit(&self) -> Option<u32> {
        let mut after = Members::after(self.rest);
        let later = after.find(|member| LIMITS.contains(&member.key));
        let later = later.and_then(|member| number(member.value.inside()));
        later.or(self.limit)
    }

    /// The hashes of its prefixes: of its first block of `size` bytes, of its first two blocks, and
    /// so on, at most `most`. The bytes after the last whole block are ignored.
    #[must_use]
    pub fn hashes(&self, size: usize, most: usize) -> Vec<u64> {
        let blocks = self.text.chunks_exact(size.max(1)).take(most);
        chain(hash(1, self.model), blocks)
    }
}

fn number(text: &[u8]) -> Option<u32> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// The hashes of the prefixes of a path and a query, as those of a prompt: each segment of the path
/// is a block, and the query is the last block.
#[must_use]
pub fn of_path(path: &str, query: Option<&str>, most: usize) -> Vec<u64> {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut hashes = chain(hash(2, &[]), segments.map(str::as_bytes).take(most));
    if let (Some(query), Some(path)) = (query, hashes.last()) {
        // With another seed, so that a query never equals a segment of the path.
        hashes.push(hash(!path, query.as_bytes()));
        hashes.truncate(most);
    }
    hashes
}

fn chain<'a>(seed: u64, blocks: impl Iterator<Item = &'a [u8]>) -> Vec<u64> {
    let next = |before: &mut u64, block| {
        *before = hash(*before, block);
        Some(*before)
    };
    blocks.scan(seed, next).collect()
}

/// Hashes bytes, eight at a time. A client that makes two texts collide on purpose only achieves
/// that they go to the same server. It cannot fill one chain of the index, because the chain of a
/// hash also depends on a secret.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in words.iter().chain([&last]) {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state ^= state >> 29;
    }
    mix(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(body: &str) -> Option<(&str, &str)> {
        let asked = Prompt::of(body.as_bytes())?;
        let text = |bytes| str::from_utf8(bytes).unwrap_or("no UTF-8");
        Some((text(asked.model), text(asked.text)))
    }

    #[test]
    fn a_prompt_is_found_at_the_top_level_also_if_it_is_cut_off() {
        for (body, found) in [
            (r#"{"model":"m","prompt":"Say hi","n":1}"#, ("m", "Say hi")),
            (
                r#" { "model" : "m" , "prompt" : "Say \"hi\"" }"#,
                ("m", r#"Say \"hi\""#),
            ),
            (r#"{"prompt":"Say hi","model":"m"}"#, ("", "Say hi")),
            (
                r#"{"n":1,"stream":true,"stop":null,"input":["a","b"]}"#,
                ("", r#""a","b""#),
            ),
            (
                r#"{"messages":[{"role":"user","content":"]"}],"n":1}"#,
                ("", r#"{"role":"user","content":"]"}"#),
            ),
            // Only at the top level.
            (
                r#"{"metadata":{"prompt":"no","x":[{}]},"prompt":"yes"}"#,
                ("", "yes"),
            ),
            (r#"{"user":"\\","prompt":""}"#, ("", "")),
            // Cut off.
            (r#"{"model":"m","prompt":"Say h"#, ("m", "Say h")),
            (r#"{"model":"m","prompt":"Say \"#, ("m", r"Say \")),
            (r#"{"messages":[{"role":"us"#, ("", r#"{"role":"us"#)),
        ] {
            assert_eq!(asked(body), Some(found), "{body}");
        }
    }

    #[test]
    fn a_body_without_a_prompt_gives_none() {
        for body in [
            "",
            "{",
            "{}",
            "[]",
            "null",
            r#""prompt""#,
            r#"["prompt","x"]"#,
            "prompt=x&model=m",
            r#"{"promp"#,
            r#"{"prompt"}"#,
            r#"{"prompt":"#,
            r#"{"prompt" "x"}"#,
            r#"{"a":1 "prompt":"x"}"#,
            r#"{,"prompt":"x"}"#,
            r#"{"a":}"#,
            r#"{"Prompt":"x"}"#,
            r#"{"a":"prompt"}"#,
        ] {
            assert_eq!(asked(body), None, "{body}");
        }
    }

    #[test]
    fn the_limit_of_the_answer_is_found_before_and_after_the_prompt() {
        let limit =
            |body: &str| Prompt::of(body.as_bytes()).and_then(|prompt| prompt.answer_limit());
        assert_eq!(limit(r#"{"max_tokens":7,"prompt":"x"}"#), Some(7));
        assert_eq!(
            limit(r#"{"prompt":"x","n":1, "max_output_tokens" : 8 }"#),
            Some(8)
        );
        assert_eq!(limit(r#"{"prompt":"x","max_tokens":null}"#), None);
        assert_eq!(limit(r#"{"prompt":"x","max_tokens":-1}"#), None);
        assert_eq!(limit(r#"{"prompt":"x","user":{"max_tokens":1}}"#), None);
        assert_eq!(limit(r#"{"prompt":"x"}"#), None);
    }

    /// A JSON string, written as a serializer writes it.
    fn written(text: &str) -> String {
        let escaped = text.chars().map(|letter| match letter {
            '"' | '\\' => format!("\\{letter}"),
            '\0'..' ' => format!("\\u{:04x}", u32::from(letter)),
            _ => letter.to_string(),
        });
        format!("\"{}\"", escaped.collect::<String>())
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body: Vec<u8>, pieces in proptest::collection::vec(
            prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ":", ",", "prompt", "\"prompt\"", " ", "1"]), 0..30,
        )) {
            let _ = Prompt::of(&body).and_then(|prompt| prompt.answer_limit());
            let _ = Prompt::of(pieces.concat().as_bytes()).and_then(|prompt| prompt.answer_limit());
        }

        #[test]
        fn a_prompt_is_found_beside_any_other_members_also_if_it_is_cut_off(
            before: String, model: String, prompt: String, after: String, cut in 0_usize..200,
        ) {
            let (written, name) = (written(&prompt), written(&model));
            let other = self::written(&before);
            let head = format!("{{{}: [{other}, {{\"prompt\": {other}}}], \"model\": {name}, \"prompt\":",
                self::written(&format!("x{before}")));
            let body = format!("{head} {written}, \"user\": {}}}", self::written(&after));
            let (name, text) = (&name.as_bytes()[1..name.len() - 1], &written.as_bytes()[1..written.len() - 1]);
            let found = Prompt::of(body.as_bytes()).map(|found| (found.model, found.text, found.is_cut()));
            prop_assert_eq!(found, Some((name, text, false)));
            // After the space and the quote.
            let begin = head.len() + 2;
            let end = (begin + cut).min(begin + text.len());
            let short = Prompt::of(&body.as_bytes()[..end]).map(|short| (short.text, short.is_cut()));
            prop_assert_eq!(short, Some((&text[..end - begin], true)));
        }

        #[test]
        fn hashes_are_equal_for_the_shared_whole_blocks_only(
            one: Vec<u8>, other: Vec<u8>, shared in proptest::collection::vec(0_u8.., 0..100), size in 1_usize..20,
        ) {
            let (one, other) = ([&shared[..], &one].concat(), [&shared[..], &other].concat());
            let of = |prompt: &[u8]| {
                let prompt = Prompt { model: b"m", text: prompt, ..Prompt::default() };
                prompt.hashes(size, 1000)
            };
            let equal = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
            let (one, other) = (of(&one), of(&other));
            let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(same, (equal / size).min(one.len()).min(other.len()));
            // No hash after the shared ones occurs in the other prompt.
            prop_assert!(one[same..].iter().all(|hash| !other.contains(hash)));
        }
    }

    #[test]
    fn prompts_for_different_models_have_different_hashes() {
        let of = |model: &[u8]| {
            let text = &[7; 64];
            let prompt = Prompt {
                model,
                text,
                ..Prompt::default()
            };
            prompt.hashes(64, 1)
        };
        assert_ne!(of(b"small"), of(b"large"));
        assert_eq!(of(b"").len(), 1);
    }

    #[test]
    fn the_blocks_of_a_path_are_its_segments_and_its_query() {
        let of = |path, query, most| of_path(path, query, most);
        let (one, other) = (of("/video/7/a.ts", None, 9), of("/video/7/b.ts", None, 9));
        assert_eq!((one.len(), &one[..2]), (3, &other[..2]));
        assert_ne!(one[2], other[2]);
        let asked = of("/video/7/a.ts", Some("q=1"), 9);
        assert_eq!((asked.len(), &asked[..3]), (4, &one[..]));
        assert_eq!(of("/video/7/a.ts", Some("q=1"), 3), one);
        // Similar paths with different segments have different hashes.
        assert_ne!(of("/ab", None, 9)[0], of("/a/b", None, 9)[0]);
        assert_ne!(of("/a/q=1", None, 9), of("/a", Some("q=1"), 9));
        assert_eq!((of("/", None, 9).len(), of("", None, 9).len()), (1, 1));
    }
}
