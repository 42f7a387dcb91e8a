//! For a field that does not exist, the existing one that is probably meant.

use serde_json::Value;

use super::field::{Field, Shape};
use super::violations::{UNKNOWN_FIELD, Violations};

/// How many letters two names may differ in, at most a third of the shorter one.
const TYPO: usize = 3;

/// Longest name that is compared, in bytes.
const LONGEST: usize = 64;

/// Most fields for which a hint is looked for.
const MAX_FIELDS: usize = 100;

/// Adds a hint to each error about a field that does not exist but resembles one that does. The
/// error in `fields` stays as it is, since clients compare it; only the message has the hint.
///
/// `hints` are about fields that the declaration has only with other settings.
pub(super) fn add_hints(
    fields: &[Field],
    hints: &[(&'static str, &'static str)],
    violations: &mut Violations,
) {
    let mut unknown = Vec::new();
    for (name, message) in &violations.fields {
        collect(fields, "", name, message, &mut unknown);
    }
    let hints = unknown.into_iter().filter_map(|(fields, around, name)| {
        let path = format!("{around}{name}");
        let hint = hints.iter().find(|(field, _)| *field == path);
        let hint = match hint {
            Some((_, hint)) => (*hint).to_owned(),
            None => did_you_mean(nearest(fields, name)?),
        };
        Some((path, hint))
    });
    let hints: Vec<(String, String)> = hints.collect();
    violations.hints.extend(hints);
}

/// What a message asks about a name that does not exist.
pub(crate) fn did_you_mean(name: &str) -> String {
    format!("did you mean '{name}'?")
}

/// A field that does not exist: the fields that do, the names of the records around it, and its
/// name.
type Unknown<'a> = (&'a [Field], String, &'a str);

/// Collects the first fields that do not exist.
fn collect<'a>(
    fields: &'a [Field],
    around: &str,
    name: &'a str,
    message: &'a Value,
    unknown: &mut Vec<Unknown<'a>>,
) {
    if unknown.len() == MAX_FIELDS {
        return;
    }
    if message == UNKNOWN_FIELD {
        unknown.push((fields, around.to_owned(), name));
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
        collect(inner, &around, name, message, unknown);
    }
}

/// The field whose name differs the least from this one, if it differs by no more than a typing
/// error would.
fn nearest(fields: &[Field], name: &str) -> Option<&'static str> {
    nearest_name(fields.iter().map(|field| field.name), name)
}

/// The one of these names that differs the least from this one, if it differs by no more than a
/// typing error would.
pub(crate) fn nearest_name<'n>(
    names: impl Iterator<Item = &'n str>,
    name: &str,
) -> Option<&'n str> {
    let difference = |known: &str| strsim::damerau_levenshtein(known, name);
    // No name of ours is longer, and the comparison takes the product of both lengths.
    if name.len() > LONGEST {
        return None;
    }
    let nearest = names.min_by_key(|known| difference(known))?;
    let most = (nearest.len().min(name.len()) / 3).min(TYPO);
    (difference(nearest) <= most).then_some(nearest)
}
