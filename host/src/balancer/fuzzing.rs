//! The laws for uploads of components and for bodies that balancers ask about; see
//! `crate::fuzzing`.

#![expect(clippy::expect_used, reason = "a law that does not hold ends the run")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use guest_sdk::json;
use guest_sdk::prefix::Prompt;
use serde_json::Value;

use super::{BodyAnswer, Engine, ReadBody, Settings, try_settings};
use crate::trace::BodyQuestion;

/// Most bytes of a text that is asked for.
const MAX_TEXT: u32 = 40;

/// A line with a pointer, and a body. An answer is no longer than asked for, and the same whether
/// the body is asked as a whole or member by member. In a body that is valid JSON, what is found is
/// valid JSON too, and a text is the one that serde_json reads.
pub fn json_scan(input: &[u8]) {
    let (pointer, body) = input.split_at(input.iter().position(|b| *b == b'\n').unwrap_or(0));
    let pointer = String::from_utf8_lossy(pointer).into_owned();
    let read = ReadBody::new(body, true);
    let (block, most) = (3, MAX_TEXT);
    let hashes = read.answer(&BodyQuestion::PrefixHashes { block, most });
    let prompt = Prompt::of(body);
    let expected = prompt.map(|prompt| prompt.hashes(block as usize, most as usize));
    assert_eq!(hashes, expected.map(|all| BodyAnswer::Hashes(all.into())));
    let found = json::find(body, &pointer);
    let text = found.map(|found| found.to_text(MAX_TEXT as usize));
    assert!(
        text.as_ref()
            .is_none_or(|text| text.len() <= MAX_TEXT as usize)
    );
    let answer = read.answer(&BodyQuestion::JsonField { pointer, most });
    assert_eq!(answer, text.map(BodyAnswer::Text));
    if let (Some(found), Ok(_)) = (found, serde_json::from_slice::<Value>(body)) {
        let value = serde_json::from_slice(found.text).expect("a value of a valid document");
        if let Value::String(text) = value {
            assert_eq!(found.to_text(usize::MAX), text);
        }
    }
}

/// An upload becomes a balancer or is refused with a message, in bounded time. Neither the compiler
/// in this process nor a call of the component ends the process.
pub fn component(input: &[u8]) {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let settings = Settings {
            pick_timeout: Duration::from_millis(10),
            pick_cost: Duration::from_millis(10),
            memory: 16 << 20,
            state: 1 << 20,
            upload: 4 << 20,
            compile_timeout: Duration::from_secs(30),
            cache_dir: None,
            compiler: "none".into(),
        };
        Engine::new(settings).expect("a component host")
    });
    match engine.load_trusted(input) {
        Ok(plugin) => {
            let _ = try_settings(engine, &plugin, "{}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
