//! For a field that does not exist, the existing one that is probably meant.

use serde_json::Value;

use super::field::{Field, Shape};
use super::violations::{UNKNOWN_FIELD, Violations};

/// How many letters two names may differ in, at most a third of the shorter one.
const TYPO: usize = 3;

/// Adds a hint to each error about a field that does not exist but resembles one that does. The
/// error in `fields` stays as it is, since clients compare it; only the message has the hint.
pub(super) fn add_hints(fields: &[Field], violations: &mut Violations) {
    let mut hints = Vec::new();
    for (name, message) in &violations.fields {
        collect(fields, "", name, message, &mut hints);
    }
    violations.hints.extend(hints);
}

fn collect(
    fields: &[Field],
    around: &str,
    name: &str,
    message: &Value,
    hints: &mut Vec<(String, String)>,
) {
    if message == UNKNOWN_FIELD {
        if let Some(meant) = nearest(fields, name) {
            hints.push((format!("{around}{name}"), meant.to_owned()));
        }
        return;
    }
    let inner = fields.iter().find(|field| field.name == name);
    let (Some(Shape::Record(inner)), Value::Object(messages)) =
        (inner.map(|field| field.shape), message)
    else {
        return;
    };
    let around = format!("{around}{name}.");
    for (name, message) in messages {
        collect(inner, &around, name, message, hints);
    }
}

/// The field whose name differs the least from this one, if it differs by no more than a typing
/// error would.
fn nearest(fields: &[Field], name: &str) -> Option<&'static str> {
    let difference = |known: &str| strsim::damerau_levenshtein(known, name);
    let names = fields.iter().map(|field| field.name);
    let nearest = names.min_by_key(|known| difference(known))?;
    let most = (nearest.len().min(name.len()) / 3).min(TYPO);
    (difference(nearest) <= most).then_some(nearest)
}
