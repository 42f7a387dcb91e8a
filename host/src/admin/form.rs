//! Forms to JSON: names with dots and brackets become structure, and texts get the types that the
//! declaration gives.

use serde_json::{Number, Value};

use super::bounds::{self, ARGUMENTS, InputBudget};
use super::error::Error;
use crate::entity::{Field, Row, Shape};

/// Builds the structure that the names of a form describe: `a.b=1`, `a[]=1`, `a[1]=1`. A name that
/// comes more than once becomes a list.
///
/// # Errors
/// It is deeper or larger than the bounds of what is built from input.
pub(super) fn structure(
    pairs: impl IntoIterator<Item = (String, Value)>,
    budget: &mut InputBudget,
) -> Result<Row, Error> {
    let mut root = Value::Object(Row::new());
    for (name, value) in pairs {
        let steps = steps(&name)?;
        put(&mut root, &steps, value, budget)?;
    }
    // A single value that became a list adds a level that is in no name.
    bounds::check(&root)?;
    Ok(match root {
        Value::Object(row) => row,
        _ => Row::new(),
    })
}

/// One step into a structure.
#[derive(Debug, PartialEq)]
enum Step<'n> {
    Name(&'n str),
    /// The next element of a list.
    Append,
    /// The element of a list at this position, counted from 1.
    At(usize),
}

/// The steps that a name describes.
fn steps(name: &str) -> Result<Vec<Step<'_>>, Error> {
    let mut steps = Vec::new();
    let mut step = |step| {
        steps.push(step);
        if steps.len() > bounds::DEPTH {
            return Err(bounds::too_deep());
        }
        Ok(())
    };
    for part in name.split('.') {
        let (key, mut brackets) = part.find('[').map_or((part, ""), |at| part.split_at(at));
        step(Step::Name(key))?;
        while let Some((inner, rest)) = brackets
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            step(match place(inner)? {
                Some(place) => Step::At(place),
                None if inner.is_empty() => Step::Append,
                None => Step::Name(inner),
            })?;
            brackets = rest;
        }
    }
    Ok(steps)
}

/// The position in brackets; none if the brackets hold a name. The largest position is the largest
/// number of arguments that a form may have.
fn place(inner: &str) -> Result<Option<usize>, Error> {
    let digits = inner.trim_start_matches('0');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match digits.parse() {
        Ok(place @ 1..=ARGUMENTS) => Ok(Some(place)),
        _ => Err(Error::bad_request(format!(
            "the index [{inner}] of an argument is larger than {ARGUMENTS}"
        ))),
    }
}

fn put(
    root: &mut Value,
    steps: &[Step<'_>],
    value: Value,
    budget: &mut InputBudget,
) -> Result<(), Error> {
    let mut at = root;
    for step in steps {
        budget.take(1)?;
        at = match step {
            Step::Name(name) => {
                if !at.is_object() {
                    *at = Row::new().into();
                }
                let Value::Object(row) = at else {
                    return Ok(());
                };
                row.entry(*name).or_insert(Value::Null)
            }
            Step::Append => {
                let Value::Array(list) = list(at) else {
                    return Ok(());
                };
                list.push(Value::Null);
                let Some(last) = list.last_mut() else {
                    return Ok(());
                };
                last
            }
            Step::At(place) => {
                let Value::Array(list) = list(at) else {
                    return Ok(());
                };
                if list.len() < *place {
                    budget.take(place - list.len())?;
                    list.resize(*place, Value::Null);
                }
                let Some(element) = list.get_mut(place - 1) else {
                    return Ok(());
                };
                element
            }
        };
    }
    match at {
        // The name has come before: a list of both values.
        Value::Array(list) => list.push(value),
        Value::Null => *at = value,
        _ => *at = vec![at.take(), value].into(),
    }
    Ok(())
}

fn list(at: &mut Value) -> &mut Value {
    if !at.is_array() {
        *at = match at.take() {
            Value::Null => Value::Array(Vec::new()),
            single => vec![single].into(),
        };
    }
    at
}

/// Converts the texts of a form to the types of the fields. A text that does not fit stays a text,
/// which validation then refuses.
pub(super) fn infer(fields: &[Field], row: &mut Row) {
    for (name, value) in row {
        if let Some(field) = fields.iter().find(|field| field.name == name) {
            infer_value(field, value);
        } else if value == "" {
            *value = Value::Null;
        }
    }
}

fn infer_value(field: &Field, value: &mut Value) {
    if *value == "" {
        // The only way to write null in a form, for a list as well.
        *value = Value::Null;
        return;
    }
    match &field.shape {
        Shape::Integer
        | Shape::Number
        | Shape::CreatedAt
        | Shape::UpdatedAt
        | Shape::TimeToLive => {
            if let Some(number) = value.as_str().and_then(number) {
                *value = number.into();
            }
        }
        Shape::Boolean => match value.as_str() {
            Some("true") => *value = true.into(),
            Some("false") => *value = false.into(),
            _ => {}
        },
        Shape::Array(element) | Shape::Set(element) => {
            if !value.is_array() && !value.is_object() {
                *value = vec![value.take()].into();
            }
            if let Value::Array(elements) = value {
                for element_value in elements {
                    infer_value(element, element_value);
                }
            }
        }
        Shape::Map { values, .. } => {
            if let Value::Object(map) = value {
                for value in map.values_mut() {
                    infer_value(values, value);
                }
            }
        }
        Shape::Record(fields) => {
            if let Value::Object(row) = value {
                infer(fields, row);
                for shorthand in field.shorthands {
                    if let Some(value) = row.get_mut(shorthand.field.name) {
                        infer_value(&shorthand.field, value);
                    }
                }
            }
        }
        Shape::Any | Shape::Settings => guess(value),
        Shape::Reference(_) => {
            if let Value::Object(key) = value {
                let empty = key.values_mut().filter(|value| **value == "");
                empty.for_each(|value| *value = Value::Null);
            }
        }
        Shape::String | Shape::Uuid | Shape::Id => {}
    }
}

/// Reads a text as the JSON type that it looks like, for settings whose types only a balancer
/// knows.
fn guess(value: &mut Value) {
    match value {
        Value::String(text) => {
            *value = match text.as_str() {
                "" => Value::Null,
                "true" => true.into(),
                "false" => false.into(),
                text => match number(text) {
                    Some(number) => number.into(),
                    None => return,
                },
            };
        }
        Value::Array(elements) => elements.iter_mut().for_each(guess),
        Value::Object(fields) => fields.values_mut().for_each(guess),
        _ => {}
    }
}

fn number(text: &str) -> Option<Number> {
    match text.parse::<i64>() {
        Ok(number) => Some(number.into()),
        Err(_) => Number::from_f64(text.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::entity::Kind;

    fn decoded(kind: Kind, pairs: &[(&str, &str)]) -> Value {
        let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).into()));
        let row = structure(pairs, &mut InputBudget::new());
        let mut row = row.unwrap_or_default();
        infer(kind.declaration().fields, &mut row);
        row.into()
    }

    #[test]
    fn names_become_structure() {
        for (pairs, expected) in [
            (
                vec![("paths[]", "/a"), ("paths[]", "/b")],
                json!({"paths": ["/a", "/b"]}),
            ),
            (
                vec![("paths[1]", "/a"), ("paths[2]", "/b")],
                json!({"paths": ["/a", "/b"]}),
            ),
            (
                vec![("paths", "/a"), ("paths", "/b")],
                json!({"paths": ["/a", "/b"]}),
            ),
            (vec![("paths", "/a")], json!({"paths": ["/a"]})),
            (
                vec![("headers.x-v[]", "1")],
                json!({"headers": {"x-v": ["1"]}}),
            ),
            (
                vec![("headers.x-v", "1")],
                json!({"headers": {"x-v": ["1"]}}),
            ),
            (vec![("service.id", "7")], json!({"service": {"id": "7"}})),
            (vec![("service.id", "")], json!({"service": {"id": null}})),
            (vec![("strip_path", "false")], json!({"strip_path": false})),
            (vec![("regex_priority", "7")], json!({"regex_priority": 7})),
            (vec![("name", "")], json!({"name": null})),
            (
                vec![("regex_priority", "x")],
                json!({"regex_priority": "x"}),
            ),
            (vec![("strip_path", "yes")], json!({"strip_path": "yes"})),
        ] {
            assert_eq!(decoded(Kind::Route, &pairs), expected);
        }
    }

    #[test]
    fn records_nest() {
        let pairs = [
            ("healthchecks.active.type", "tcp"),
            ("healthchecks.active.healthy.http_statuses[]", "201"),
            ("healthchecks.active.timeout", "0.5"),
        ];
        assert_eq!(
            decoded(Kind::Upstream, &pairs),
            json!({"healthchecks": {"active": {
                "type": "tcp", "healthy": {"http_statuses": [201]}, "timeout": 0.5,
            }}})
        );
    }

    proptest! {
        #[test]
        fn every_form_becomes_an_object(pairs in prop::collection::vec(("[a-z.\\[\\]0-9]{0,12}", ".{0,4}"), 0..6)) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
            prop_assert!(decoded(Kind::Route, &pairs).is_object());
        }
    }
}
