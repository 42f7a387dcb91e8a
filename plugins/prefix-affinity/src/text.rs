//! The prefixes of a request, and their hashes.

use guest_sdk::mix;

/// The keys of a JSON object whose value is a prompt, in the APIs of OpenAI and compatible ones.
const PROMPTS: [&[u8]; 3] = [b"prompt", b"messages", b"input"];

/// The parts of a request to an inference server that count for its prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// The name of the model, if it comes before the prompt; otherwise empty.
    pub(crate) model: &'a [u8],
    /// The text between the quotes or brackets of the prompt, as it was sent. If the body is cut
    /// off, up to its end.
    pub(crate) prompt: &'a [u8],
}

impl<'a> Asked<'a> {
    /// Finds the prompt in the start of a body that is a JSON object. `None` if there is none.
    ///
    /// It does not check that the JSON is valid: the server does that. It decodes nothing, so the
    /// same text with other escapes counts as another text, and costs a cache miss.
    pub(crate) fn of(body: &'a [u8]) -> Option<Self> {
        let mut rest = body.trim_ascii_start().strip_prefix(b"{")?;
        let mut model: &[u8] = &[];
        loop {
            let (key, found);
            (key, rest) = value(rest.trim_ascii_start())?;
            rest = rest.trim_ascii_start().strip_prefix(b":")?;
            (found, rest) = value(rest.trim_ascii_start())?;
            if key == b"model" {
                model = found;
            } else if PROMPTS.contains(&key) {
                let prompt = found;
                return Some(Self { model, prompt });
            }
            rest = rest.trim_ascii_start().strip_prefix(b",")?;
        }
    }
}

/// The text inside the quotes or brackets of a value, and the text after them. A value that is cut
/// off extends to the end of the text. `None` if there is no value.
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let close = match text.first()? {
        b'"' => string(text),
        b'{' | b'[' => nested(text),
        _ => {
            let ends = |byte: &u8| b",:]}".contains(byte) || byte.is_ascii_whitespace();
            let end = text.iter().position(ends).filter(|end| *end > 0)?;
            return text.split_at_checked(end);
        }
    };
    let inside = &text[1..close.unwrap_or(text.len())];
    let rest = close.and_then(|close| text.get(close + 1..));
    Some((inside, rest.unwrap_or_default()))
}

/// The index of the quote that ends a string.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The index of the bracket that ends an array or an object.
fn nested(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at += string(&text[at..])?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// The hashes of the prefixes of a prompt: of its first block of `size` bytes, of its first two
/// blocks, and so on, at most `most`. The bytes after the last whole block are ignored.
pub(crate) fn of_prompt(asked: &Asked<'_>, size: usize, most: usize) -> Vec<u64> {
    let blocks = asked.prompt.chunks_exact(size).take(most);
    chain(hash(1, asked.model), blocks)
}

/// The same for a path and a query: each segment of the path is a block, and the query is the last
/// block.
pub(crate) fn of_path(path: &str, query: Option<&str>, most: usize) -> Vec<u64> {
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
        let asked = Asked::of(body.as_bytes())?;
        let text = |bytes| str::from_utf8(bytes).unwrap_or("no UTF-8");
        Some((text(asked.model), text(asked.prompt)))
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

    /// A JSON string, written as a serializer writes it.
    fn written(text: &str) -> String {
        serde_json::Value::from(text).to_string()
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body: Vec<u8>, pieces in proptest::collection::vec(
            prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ":", ",", "prompt", "\"prompt\"", " ", "1"]), 0..30,
        )) {
            let _ = Asked::of(&body);
            let _ = Asked::of(pieces.concat().as_bytes());
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
            let found = Asked { model: &name.as_bytes()[1..name.len() - 1],
                prompt: &written.as_bytes()[1..written.len() - 1] };
            prop_assert_eq!(Asked::of(body.as_bytes()), Some(found));
            // After the space and the quote.
            let begin = head.len() + 2;
            let end = (begin + cut).min(begin + found.prompt.len());
            let short = Asked::of(&body.as_bytes()[..end]);
            prop_assert_eq!(short.map(|asked| asked.prompt), Some(&found.prompt[..end - begin]));
        }

        #[test]
        fn hashes_are_equal_for_the_shared_whole_blocks_only(
            one: Vec<u8>, other: Vec<u8>, shared in proptest::collection::vec(0_u8.., 0..100), size in 1_usize..20,
        ) {
            let (one, other) = ([&shared[..], &one].concat(), [&shared[..], &other].concat());
            let of = |prompt: &[u8]| {
                let asked = Asked { model: b"m", prompt };
                of_prompt(&asked, size, 1000)
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
            let prompt = &[7; 64];
            of_prompt(&Asked { model, prompt }, 64, 1)
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
