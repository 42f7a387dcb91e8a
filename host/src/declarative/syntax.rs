//! YAML and JSON as JSON values, with the line of each value.
//!
//! An alias of YAML shares the value of its anchor, so a few lines can stand for billions of
//! values. What they stand for is counted while it is written out, and the count is bounded.

mod budget;
mod scalar;
mod yaml;

use std::rc::Rc;

use serde_json::Value;

use yaml::{Content, Node, nodes, roots, written_out};

pub(super) use budget::TextBudget;

/// Largest text, in bytes.
pub(crate) const LONGEST: usize = 64 << 20;

/// Most values, with aliases written out; lists and objects count as one each. 10,000 entities have
/// some 200,000.
const VALUES: usize = 2_000_000;

/// Most bytes of all texts together, with aliases written out.
const TEXTS: usize = 128 << 20;

/// Most levels of lists and objects. Rows have 64 at most, and a document a few around them.
const DEPTH: usize = 72;

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Json,
    Yaml,
    /// JSON, and if it is not, YAML.
    Either,
}

impl Syntax {
    /// The syntax of a file, by the end of its name. Source: Kong.
    ///
    /// # Errors
    /// The name has another end.
    pub(crate) fn of_file(name: &str) -> Result<Self, String> {
        let end = name.rsplit('.').next().unwrap_or_default();
        match end {
            _ if name.ends_with("json") => Ok(Self::Json),
            "yaml" | "yml" => Ok(Self::Yaml),
            other => Err(format!(
                "unknown file type: {other}. (Accepted types: json, yaml)"
            )),
        }
    }
}

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Text {
    pub(super) value: Value,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Json(String),
    Yaml(Rc<Node>),
    /// The value came without a text.
    None,
}

/// Where the values of a text are.
pub(crate) struct Lines(Option<Rc<Node>>);

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

impl Text {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub(crate) fn read(text: &str, syntax: Syntax) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        if syntax != Syntax::Yaml {
            match json(text) {
                Ok(value) => {
                    let source = Source::Json(text.to_owned());
                    return Ok(Self { value, source });
                }
                Err(error) if syntax == Syntax::Json => return Err(error),
                Err(_) => {}
            }
        }
        let root = nodes(text)?;
        let mut budget = TextBudget::of_text();
        let value = written_out(&root, &mut budget)?;
        let source = Source::Yaml(root);
        Ok(Self { value, source })
    }

    /// A value without lines.
    pub(crate) fn of_value(value: Value) -> Self {
        let source = Source::None;
        Self { value, source }
    }

    /// Where the values are.
    pub(crate) fn lines(&self) -> Lines {
        Lines(match &self.source {
            // JSON is YAML too, but for a few escapes.
            Source::Json(text) => nodes(text).ok(),
            Source::Yaml(root) => Some(Rc::clone(root)),
            Source::None => None,
        })
    }
}

impl Lines {
    /// The line of a value, or of the innermost value around it that the text has. Lines count from
    /// 1.
    pub(super) fn of(&self, path: &[Step]) -> Option<usize> {
        let mut node = self.0.as_ref()?;
        let mut line = node.line;
        for step in path {
            let inner = match (step, &node.content) {
                (Step::Name(name), Content::Object(fields)) => fields
                    .iter()
                    .find(|field| field.name == *name)
                    .map(|field| (field.line, &field.value)),
                (Step::Index(index), Content::List(list)) => {
                    list.get(*index).map(|inner| (inner.line, inner))
                }
                _ => None,
            };
            let Some((inner_line, inner)) = inner else {
                break;
            };
            (line, node) = (inner_line, inner);
        }
        Some(line)
    }
}

/// Reads JSON, if it has no more values than are allowed.
fn json(text: &str) -> Result<Value, String> {
    // Each value follows a comma or an opening bracket, so this counts at least all of them.
    let counted = text
        .bytes()
        .filter(|byte| matches!(byte, b',' | b'[' | b'{'));
    if counted.count() > VALUES {
        return Err(too_large());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let (told, line, column) = (error.to_string(), error.line(), error.column());
        let place = format!(" at line {line} column {column}");
        at(line, column, told.strip_suffix(&place).unwrap_or(&told))
    })?;
    if is_deeper(&value, DEPTH) {
        return Err(too_deep());
    }
    Ok(value)
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let deeper = |value| levels == 0 || is_deeper(value, levels - 1);
    match value {
        Value::Array(list) => list.iter().any(deeper),
        Value::Object(fields) => fields.values().any(deeper),
        _ => false,
    }
}

/// What is wrong at a place of a text.
fn at(line: usize, column: usize, why: &str) -> String {
    format!("line {line}, column {column}: {why}")
}

fn too_large() -> String {
    format!("it has more than {VALUES} values, with aliases and defaults written out")
}

fn too_deep() -> String {
    format!("it is nested deeper than {DEPTH} levels")
}

/// All documents of a YAML text, each with the lines of its values.
///
/// # Errors
/// What is wrong with the text, with the line.
pub(super) fn documents(text: &str) -> Result<Vec<(Value, Lines)>, String> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut budget = TextBudget::of_text();
    let roots = roots(text)?.into_iter();
    roots
        .map(|root| Ok((written_out(&root, &mut budget)?, Lines(Some(root)))))
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Result<Value, String> {
        Text::read(text, Syntax::Yaml).map(|text| text.value)
    }

    #[test]
    fn merged_fields_give_way_to_those_of_the_object() {
        let text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 5\nw: *x\n";
        let value = yaml(text).unwrap();
        assert_eq!(value["z"], json!({ "a": 5, "b": 2, "c": 4 }));
        assert_eq!(value["w"], json!({ "a": 1, "b": 2 }));
    }

    #[test]
    fn a_second_document_is_refused_unless_it_is_empty() {
        for text in [
            "a: 1\n---\n",
            "--- \na: 1\n...\n",
            "a: 1\n---\n# none\n---\n",
        ] {
            assert_eq!(yaml(text).unwrap(), json!({ "a": 1 }), "{text}");
        }
        let refused = yaml("a: 1\n---\n---\n\nb: 2\n").unwrap_err();
        assert_eq!(
            refused,
            "line 5, column 1: another document begins here: put all entities into one"
        );
    }

    #[test]
    fn aliases_cannot_stand_for_more_than_is_allowed() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        assert!(
            yaml(&bomb)
                .unwrap_err()
                .contains("more than 2000000 values")
        );
        let deep = format!("{}1{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert!(yaml(&deep).unwrap_err().contains("deeper than 72"));
        assert!(
            Text::read(&deep, Syntax::Json)
                .unwrap_err()
                .contains("deeper")
        );
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..=DEPTH {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(yaml(&chain).unwrap_err().contains("deeper than 72"));
        assert!(yaml("a: &a [*a]").is_err());
    }

    #[test]
    fn errors_and_values_have_lines() {
        let error = yaml("a: 1\nb: [\n").unwrap_err();
        let is_there = |line: &str| error.starts_with(&format!("line {line}, column "));
        assert!(is_there("2") || is_there("3"), "{error}");
        assert_eq!(
            yaml("a: 1\na: 2").unwrap_err(),
            "line 2, column 1: the field 'a' is there twice"
        );
        let error = Text::read("{\n\"a\": x}", Syntax::Json).unwrap_err();
        assert_eq!(error, "line 2, column 6: expected value");
        let text = Text::read("a:\n- b: 1\n- b: 2\n  c: 3\n", Syntax::Yaml).unwrap();
        let name = |name: &str| Step::Name(name.to_owned());
        let path = [name("a"), Step::Index(1), name("c")];
        assert_eq!(text.lines().of(&path), Some(4));
        let path = [name("a"), Step::Index(1), name("missing")];
        assert_eq!(text.lines().of(&path), Some(3));
        let json = Text::read("{\n\"a\": [\n{\"b\": 1}]}", Syntax::Either).unwrap();
        assert_eq!(json.lines().of(&[name("a"), Step::Index(0)]), Some(3));
    }
}
