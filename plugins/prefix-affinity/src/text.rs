//! What of a request tells whether it begins as another one did.

use guest_sdk::mix;

/// Keys of a JSON object that are followed by a prompt, in the APIs of OpenAI and of those who follow them.
const PROMPTS: [&[u8]; 3] = [b"prompt", b"messages", b"input"];

/// What a body asks of an inference server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    /// The name of the model, if it comes before the prompt; else empty.
    pub(crate) model: &'a [u8],
    /// What is between the quotes or the brackets of the prompt, as it was sent; up to where the body is cut off.
    pub(crate) prompt: &'a [u8],
}

impl<'a> Asked<'a> {
    /// Finds the prompt in the start of a body that is a JSON object. `None` where there is none.
    ///
    /// It does not check that the JSON is right: a server does that. Nothing is decoded, so the same text written in
    /// another way is another one, and costs a miss.
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

/// What is inside of the quotes or brackets of a value, and what follows them. A value that is cut off goes to the
/// end. `None` if there is no value.
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

/// Where the quote is that ends a string.
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

/// Where the bracket is that ends an array or an object.
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

/// A hash of each beginning of a prompt: of its first block of so many bytes, of its first two blocks, and so on. What is
/// left behind the last whole block does not count.
pub(crate) fn of_prompt(asked: &Asked<'_>, size: usize, most: usize) -> Vec<u64> {
    let blocks = asked.prompt.chunks_exact(size).take(most);
    chain(hash(1, asked.model), blocks)
}

/// The same of a path and a query: a block is a segment of the path, the last one is the query.
pub(crate) fn of_path(path: &str, query: Option<&str>, most: usize) -> Vec<u64> {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut hashes = chain(hash(2, &[]), segments.map(str::as_bytes).take(most));
    if let (Some(query), Some(path)) = (query, hashes.last()) {
        // A query is no segment, whatever is in it.
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

/// Hashes some bytes, eight at a time. Whoever makes two texts collide on purpose gets them to the same server; where
/// in the index a hash is found depends on a secret besides.
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
    fn a_prompt_is_found_where_it_is() {
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
            // Only at the top.
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
    fn what_is_no_prompt_is_none() {
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
        fn nothing_makes_it_panic(body: Vec<u8>, pieces in proptest::collection::vec(
            prop::sample::select(vec!["{", "}", "[", "]", "\"", "\\", ":", ",", "prompt", "\"prompt\"", " ", "1"]), 0..30,
        )) {
            let _ = Asked::of(&body);
            let _ = Asked::of(pieces.concat().as_bytes());
        }

        #[test]
        fn whatever_is_around_it_a_prompt_is_found_and_what_is_there_of_it_if_it_is_cut_off(
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
            // With the space and the quote.
            let begin = head.len() + 2;
            let end = (begin + cut).min(begin + found.prompt.len());
            let short = Asked::of(&body.as_bytes()[..end]);
            prop_assert_eq!(short.map(|asked| asked.prompt), Some(&found.prompt[..end - begin]));
        }

        #[test]
        fn as_many_hashes_are_equal_as_whole_blocks_are(
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
            // And never again.
            prop_assert!(one[same..].iter().all(|hash| !other.contains(hash)));
        }
    }

    #[test]
    fn another_model_is_another_beginning() {
        let of = |model: &[u8]| {
            let prompt = &[7; 64];
            of_prompt(&Asked { model, prompt }, 64, 1)
        };
        assert_ne!(of(b"small"), of(b"large"));
        assert_eq!(of(b"").len(), 1);
    }

    #[test]
    fn a_path_is_cut_into_segments() {
        let of = |path, query, most| of_path(path, query, most);
        let (one, other) = (of("/video/7/a.ts", None, 9), of("/video/7/b.ts", None, 9));
        assert_eq!((one.len(), &one[..2]), (3, &other[..2]));
        assert_ne!(one[2], other[2]);
        let asked = of("/video/7/a.ts", Some("q=1"), 9);
        assert_eq!((asked.len(), &asked[..3]), (4, &one[..]));
        assert_eq!(of("/video/7/a.ts", Some("q=1"), 3), one);
        // What looks alike and is not.
        assert_ne!(of("/ab", None, 9)[0], of("/a/b", None, 9)[0]);
        assert_ne!(of("/a/q=1", None, 9), of("/a", Some("q=1"), 9));
        assert_eq!((of("/", None, 9).len(), of("", None, 9).len()), (1, 1));
    }
}
