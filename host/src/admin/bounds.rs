//! Bounds on what is built from the input of a client: how many arguments, levels and values.
//!
//! Rows are built, compared, written and dropped by functions that recurse once for each level. And
//! a value takes some hundred times as much memory as the two bytes of input that make one. So the
//! levels and the values are both bounded before anything is built.

use serde_json::Value;

use super::error::Error;

/// Most arguments of a query, a form, or of the top level of a JSON body. Source: Kong.
pub(super) const ARGUMENTS: usize = 1000;

/// Most levels of lists and objects; the body itself is the first. Kong's deepest field is on the
/// fifth level; stored rows are read with `serde_json`, which allows 128.
pub(super) const DEPTH: usize = 64;

/// Most values, with lists and objects counted as one each: some 60 MB of memory at the most.
pub(super) const VALUES: usize = 100_000;

/// There are more arguments than [`ARGUMENTS`]. The message is Kong's, which does not name the
/// bound.
pub(super) fn too_many_arguments() -> Error {
    Error::bad_request("Too many arguments")
}

/// There are more levels than [`DEPTH`].
pub(super) fn too_deep() -> Error {
    Error::bad_request(format!("the input is nested deeper than {DEPTH} levels"))
}

fn too_many_values() -> Error {
    Error::bad_request(format!("there are more than {VALUES} values"))
}

/// Most defaults of a row, for fields that the request does not name: they are allowed on top of
/// [`VALUES`].
const DEFAULTS: usize = 1000;

/// How many more values may be built.
pub(super) struct InputBudget(usize);

impl InputBudget {
    pub(super) fn new() -> Self {
        Self(VALUES)
    }

    /// Takes from the budget what more values need.
    ///
    /// # Errors
    /// Less is left.
    pub(super) fn take(&mut self, values: usize) -> Result<(), Error> {
        self.0 = self.0.checked_sub(values).ok_or_else(too_many_values)?;
        Ok(())
    }

    /// Reads a JSON text, if the budget allows its values.
    ///
    /// # Errors
    /// It is deeper or larger than the bounds, or is not JSON.
    pub(super) fn json(&mut self, text: &[u8]) -> Result<Value, Error> {
        self.take(values(text)?)?;
        serde_json::from_slice(text).map_err(|_| Error::bad_request("Cannot parse JSON body"))
    }
}

/// The most values that a JSON text can have: each follows a comma, an opening bracket, or nothing.
///
/// # Errors
/// It is too deep.
fn values(text: &[u8]) -> Result<usize, Error> {
    let (mut values, mut depth, mut in_string) = (1, 0_usize, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            _ if in_string => {}
            b',' => values += 1,
            b'[' | b'{' => {
                values += 1;
                depth += 1;
                if depth > DEPTH {
                    return Err(too_deep());
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(values)
}

/// Checks a value that was built in another way, such as a row after a change was merged into it.
///
/// # Errors
/// It is deeper or larger than the bounds.
pub(super) fn check(built: &Value) -> Result<(), Error> {
    let mut budget = InputBudget(VALUES + DEFAULTS);
    // Without recursion, which would be as deep as the value.
    let mut rest = vec![(built, 1)];
    while let Some((value, depth)) = rest.pop() {
        budget.take(1)?;
        if depth > DEPTH && (value.is_array() || value.is_object()) {
            return Err(too_deep());
        }
        match value {
            Value::Array(list) => rest.extend(list.iter().map(|value| (value, depth + 1))),
            Value::Object(fields) => rest.extend(fields.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_of_a_text_is_counted() {
        for (text, least) in [
            ("1", 1),
            ("[]", 1),
            ("[1,2,3]", 4),
            (r#"{"a":{"b":[1,2]},"c":"[,{\"["}"#, 6),
        ] {
            let counted = values(text.as_bytes()).unwrap_or_default();
            assert!((least..=least + 1).contains(&counted), "{text}: {counted}");
        }
    }

    #[test]
    fn brackets_and_commas_in_a_string_are_not_counted() {
        let text = format!(r#"["{}\\", "\"{}"]"#, "[".repeat(1000), "{,".repeat(1000));
        assert_eq!(values(text.as_bytes()).ok(), Some(3));
    }

    #[test]
    fn reading_and_checking_allow_the_same_depth() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deepest = InputBudget::new().json(nested(DEPTH).as_bytes());
        let deepest = deepest.unwrap_or_default();
        assert!(deepest.is_array() && check(&deepest).is_ok());
        assert!(
            InputBudget::new()
                .json(nested(DEPTH + 1).as_bytes())
                .is_err()
        );
        assert!(check(&json!({ "a": deepest })).is_err());
        let most = Value::from(vec![0; VALUES + DEFAULTS - 1]);
        assert!(check(&most).is_ok());
        assert!(check(&json!([most])).is_err());
    }
}
