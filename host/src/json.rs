//! Numbers for programs that read JSON numbers as `double`s: JavaScript, `jq`, Lua.

use serde_json::Value;

/// Above this, a `double` cannot distinguish a whole number from the next one (RFC 8259, 6).
const EXACT: u64 = 1 << 53;

/// The number; or its digits as text, if a reader could get a different number.
pub(crate) fn exact(number: u64) -> Value {
    match number {
        0..=EXACT => number.into(),
        _ => number.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_a_double_cannot_hold_are_text() {
        assert_eq!(exact(EXACT), Value::from(9_007_199_254_740_992_u64));
        assert_eq!(exact(EXACT + 1), Value::from("9007199254740993"));
        assert_eq!(exact(u64::MAX), Value::from("18446744073709551615"));
    }
}
