//! What the transformers do to headers, to query arguments and to the fields of bodies: steps in an
//! order that is the same for all of them.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::urlencoded::Arguments;

/// Names with values that can be changed.
pub(super) trait Fields<V> {
    /// Whether there is a field of this name.
    fn has(&self, name: &str) -> bool;
    /// Removes all fields of a name.
    fn remove(&mut self, name: &str);
    /// Gives the fields of a name another one, in place of the fields that have it.
    fn rename(&mut self, old: &str, new: &str);
    /// Sets the value of a field, in place of all values that it has.
    fn set(&mut self, name: &str, value: V);
    /// Adds one more value.
    fn append(&mut self, name: &str, value: V);
}

/// The steps, in their order.
#[derive(Debug, Clone)]
pub(super) struct Steps<V> {
    pub(super) remove: Vec<String>,
    /// Present and new names.
    pub(super) rename: Vec<(String, String)>,
    /// Values for what is there.
    pub(super) replace: Vec<(String, V)>,
    /// Values for what is not there.
    pub(super) add: Vec<(String, V)>,
    /// Further values.
    pub(super) append: Vec<(String, V)>,
}

impl<V: Clone> Steps<V> {
    /// Whether nothing is changed.
    pub(super) fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.replace.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
    }

    /// Does the steps, each of which finds what the one before has left.
    pub(super) fn apply<F: Fields<V>>(&self, fields: &mut F) {
        self.apply_where(fields, F::has);
    }

    /// As [`Self::apply`] for the headers of responses: each step asks the headers as they were
    /// before the first step, which `original` is a copy of, what there is. Source: Kong.
    pub(super) fn apply_as_of<F: Fields<V>>(&self, fields: &mut F, original: &F) {
        self.apply_where(fields, |_, name| original.has(name));
    }

    /// Does the steps, with `has` to ask whether there is a field of a name.
    fn apply_where<F: Fields<V>>(&self, fields: &mut F, has: impl Fn(&F, &str) -> bool) {
        for name in &self.remove {
            fields.remove(name);
        }
        for (old, new) in &self.rename {
            // What was removed cannot be renamed, whatever `has` says.
            if old != new && !new.is_empty() && has(fields, old) && fields.has(old) {
                fields.rename(old, new);
            }
        }
        for (name, value) in &self.replace {
            if has(fields, name) {
                fields.set(name, value.clone());
            }
        }
        for (name, value) in &self.add {
            if !has(fields, name) {
                fields.set(name, value.clone());
            }
        }
        for (name, value) in &self.append {
            fields.append(name, value.clone());
        }
    }
}

/// Headers. A value that a header cannot have is left out, so that no text of a client can end a
/// header.
impl Fields<String> for HeaderMap {
    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }

    fn rename(&mut self, old: &str, new: &str) {
        let Ok(new) = HeaderName::from_bytes(new.as_bytes()) else {
            return;
        };
        if new.as_str().eq_ignore_ascii_case(old) {
            return;
        }
        let values: Vec<HeaderValue> = self.get_all(old).iter().cloned().collect();
        Self::remove(self, old);
        Self::remove(self, &new);
        for value in values {
            Self::append(self, new.clone(), value);
        }
    }

    fn set(&mut self, name: &str, value: String) {
        if let Some((name, value)) = header(name, value) {
            self.insert(name, value);
        }
    }

    fn append(&mut self, name: &str, value: String) {
        if let Some((name, value)) = header(name, value) {
            Self::append(self, name, value);
        }
    }
}

fn header(name: &str, value: String) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some((name, HeaderValue::try_from(value).ok()?))
}

/// Arguments of a query, or fields of a form.
impl Fields<String> for Arguments {
    fn has(&self, name: &str) -> bool {
        self.iter().any(|(found, _)| found == name)
    }

    fn remove(&mut self, name: &str) {
        self.retain(|(found, _)| found != name);
    }

    fn rename(&mut self, old: &str, new: &str) {
        self.retain(|(found, _)| found != new);
        for (found, _) in self.iter_mut().filter(|(found, _)| found == old) {
            new.clone_into(found);
        }
    }

    fn set(&mut self, name: &str, value: String) {
        let first = self.iter().position(|(found, _)| found == name);
        match first {
            Some(first) => {
                self[first].1 = Some(value);
                let mut at = 0;
                self.retain(|(found, _)| {
                    at += 1;
                    at - 1 <= first || found != name
                });
            }
            None => self.push((name.to_owned(), Some(value))),
        }
    }

    fn append(&mut self, name: &str, value: String) {
        self.push((name.to_owned(), Some(value)));
    }
}

/// The members of an object of JSON. Several values of one member are a list.
impl Fields<Value> for Map<String, Value> {
    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn remove(&mut self, name: &str) {
        self.shift_remove(name);
    }

    fn rename(&mut self, old: &str, new: &str) {
        if let Some(value) = self.shift_remove(old) {
            self.insert(new.to_owned(), value);
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        self.insert(name.to_owned(), value);
    }

    fn append(&mut self, name: &str, value: Value) {
        match self.get_mut(name) {
            Some(Value::Array(list)) => list.push(value),
            // Kong adds to texts and objects only, and replaces what has any other type.
            Some(other @ (Value::Null | Value::Bool(_) | Value::Number(_))) => {
                *other = vec![value].into();
            }
            Some(other) => {
                let first = other.take();
                *other = vec![first, value].into();
            }
            None => self.set(name, vec![value].into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn steps<V>(value: impl Fn(&str) -> V) -> Steps<V> {
        let pair = |name: &str, text| (name.to_owned(), value(text));
        Steps {
            remove: vec!["gone".into(), "absent".into()],
            rename: vec![
                ("old".into(), "new".into()),
                ("absent".into(), "x".into()),
                ("new".into(), "newer".into()),
            ],
            replace: vec![pair("a", "1"), pair("absent", "1")],
            add: vec![pair("a", "2"), pair("b", "2")],
            append: vec![pair("a", "3"), pair("c", "3")],
        }
    }

    #[test]
    fn the_steps_are_done_in_their_order_for_every_kind_of_fields() {
        let sent = [("gone", "x"), ("a", "x"), ("a", "y"), ("old", "z")];
        let expected = [
            ("a", "1"),
            ("newer", "z"),
            ("b", "2"),
            ("a", "3"),
            ("c", "3"),
        ];
        let texts = steps(str::to_owned);
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let argument = |(name, value): (&str, &str)| (name.to_owned(), Some(value.to_owned()));
        let mut arguments: Arguments = sent.map(argument).into();
        texts.apply(&mut arguments);
        assert_eq!(arguments, expected.map(argument));

        let mut headers = HeaderMap::new();
        for (name, value) in sent.map(owned) {
            Fields::append(&mut headers, &name, value);
        }
        texts.apply(&mut headers);
        for (name, values) in [
            ("gone", &[][..]),
            ("old", &[]),
            ("new", &[]),
            ("newer", &["z"]),
            ("a", &["1", "3"]),
            ("b", &["2"]),
            ("c", &["3"]),
        ] {
            let found: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(found, values, "{name}");
        }

        let Value::Object(mut members) = json!({ "gone": 1, "a": ["x", "y"], "old": { "z": 1.5 } })
        else {
            panic!("no object");
        };
        steps(|text| json!(text)).apply(&mut members);
        let expected = r#"{"a":["1","3"],"newer":{"z":1.5},"b":"2","c":["3"]}"#;
        assert_eq!(Value::from(members).to_string(), expected);
    }

    #[test]
    fn a_value_cannot_end_a_header() {
        let mut headers = HeaderMap::new();
        Fields::set(&mut headers, "a", "x\r\nb: y".into());
        Fields::append(&mut headers, "a b", "x".into());
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn a_field_that_is_set_has_one_value(
            sent in proptest::collection::vec("[a-c]", 0..6),
            name in "[a-c]",
        ) {
            let mut pairs: Arguments = sent.iter().map(|name| (name.clone(), None)).collect();
            pairs.set(&name, "x".into());
            let named = pairs.iter().filter(|(found, _)| *found == name);
            prop_assert_eq!(named.count(), 1);
            let others = sent.iter().filter(|found| **found != name);
            prop_assert_eq!(pairs.len(), others.count() + 1);
        }
    }
}
