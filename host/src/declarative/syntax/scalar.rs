//! Scalars of YAML as JSON values.

use saphyr_parser::{ScalarStyle, Tag};
use serde_json::Value;

/// The value of a scalar. Plain ones are read as by YAML 1.1, as Kong reads them: `yes` and `on`
/// are true, and a number that begins with 0 is octal.
pub(super) fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return true.into();
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return false.into();
        }
        _ => {}
    }
    number(text).unwrap_or_else(|| text.into())
}

fn number(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let signed = |number: i64| if negative { -number } else { number };
    let in_base = |digits: &str, base| {
        let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
        let number = plain.then(|| i64::from_str_radix(digits, base).ok());
        number.flatten().map(|number| signed(number).into())
    };
    if let Some(digits) = digits.strip_prefix("0x") {
        return in_base(digits, 16);
    }
    if let Some(digits) = digits.strip_prefix("0o") {
        return in_base(digits, 8);
    }
    if digits.len() > 1 && digits.starts_with('0') && !digits.contains(['.', 'e', 'E']) {
        return in_base(digits, 8);
    }
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return in_base(digits, 10);
    }
    let is_float = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let float: f64 = is_float.then(|| text.parse().ok()).flatten()?;
    serde_json::Number::from_f64(float).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_have_types_and_quoted_ones_are_texts() {
        for (text, value) in [
            ("12", json!(12)),
            ("-1.5", json!(-1.5)),
            ("0x1F", json!(31)),
            ("017", json!(15)),
            ("08", json!("08")),
            ("1.2.3.4", json!("1.2.3.4")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("3.0", json!(3.0)),
            ("99999999999999999999", json!("99999999999999999999")),
        ] {
            assert_eq!(scalar(text, ScalarStyle::Plain, None), value, "{text}");
        }
        assert_eq!(scalar("12", ScalarStyle::SingleQuoted, None), json!("12"));
        let tag = Tag {
            handle: "tag:yaml.org,2002:".into(),
            suffix: "str".into(),
        };
        assert_eq!(scalar("12", ScalarStyle::Plain, Some(&tag)), json!("12"));
    }
}
