//! Values as Kong's messages show them.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Writes a value as Lua does in Kong's messages. In a list, elements after a gap have their
/// position: `[3]=`.
pub(super) fn lua(value: &Value, text: &mut String) {
    match value {
        Value::Array(list) => {
            text.push('{');
            let mut first = true;
            let mut has_gap = false;
            for (number, value) in (1..).zip(list) {
                if value.is_null() {
                    has_gap = true;
                    continue;
                }
                if !std::mem::take(&mut first) {
                    text.push(',');
                }
                if has_gap {
                    let _ = write!(text, "[{number}]=");
                }
                lua(value, text);
            }
            text.push('}');
        }
        Value::Object(fields) => {
            text.push('{');
            for (place, (name, value)) in fields.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !name.starts_with(|first: char| first.is_ascii_digit());
                let _ = match is_plain {
                    true => write!(text, "{name}="),
                    false => write!(text, "[{}]=", json!(name)),
                };
                lua(value, text);
            }
            text.push('}');
        }
        value => {
            let _ = write!(text, "{value}");
        }
    }
}
