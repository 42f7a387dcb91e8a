//! YAML as a tree of values that know their lines. Aliases share their values.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, Span};
use serde_json::{Map, Value};

use super::budget::TextBudget;
use super::scalar::scalar;
use super::{DEPTH, VALUES, at, too_deep, too_large};

/// A value of YAML. Aliases share their values.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Rc<Node>>),
    Object(Vec<Field>),
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) value: Rc<Node>,
}

/// The value of a node, with aliases written out.
///
/// # Errors
/// It is more than the budget allows.
pub(super) fn written_out(node: &Node, budget: &mut TextBudget) -> Result<Value, String> {
    budget.take(1, 0)?;
    Ok(match &node.content {
        Content::Scalar(value) => {
            budget.take(0, value.as_str().map_or(0, str::len))?;
            value.clone()
        }
        Content::List(list) => {
            let values = list.iter().map(|inner| written_out(inner, budget));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Content::Object(fields) => {
            let mut object = Map::new();
            for field in fields {
                budget.take(0, field.name.len())?;
                object.insert(field.name.clone(), written_out(&field.value, budget)?);
            }
            Value::Object(object)
        }
    })
}

/// The document of a YAML text.
///
/// # Errors
/// What is wrong with the text; or that it has another document, which Kong leaves out: an import
/// would delete what that one has.
pub(super) fn nodes(text: &str) -> Result<Rc<Node>, String> {
    let mut roots = roots(text)?.into_iter();
    let first = roots.next();
    let is_empty = |root: &Rc<Node>| matches!(root.content, Content::Scalar(Value::Null));
    if let Some(second) = roots.find(|root| !is_empty(root)) {
        let why = "another document begins here: put all entities into one";
        return Err(at(second.line, 1, why));
    }
    Ok(first.unwrap_or_else(|| {
        Rc::new(Node {
            line: 1,
            content: Content::Scalar(Value::Null),
        })
    }))
}

/// The documents of a YAML text.
pub(super) fn roots(text: &str) -> Result<Vec<Rc<Node>>, String> {
    let mut roots = Vec::new();
    let mut building = Building::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            at(line, column, error.info())
        })?;
        let here = |why: String| at(span.start.line(), span.start.col() + 1, &why);
        if let Some(root) = building.event(event, &span).map_err(here)? {
            roots.push(root);
            building = Building::default();
        }
    }
    Ok(roots)
}

/// The lists and objects that are open, from the outermost inwards.
#[derive(Default)]
struct Building {
    open: Vec<Open>,
    /// The values with an anchor, with how deep they are.
    anchors: HashMap<usize, (Rc<Node>, usize)>,
    /// How many fields merges have copied.
    merged: usize,
}

struct Open {
    line: usize,
    anchor: usize,
    /// Levels of lists and objects inside.
    height: usize,
    content: Content,
    /// The name of the field whose value comes next.
    name: Option<(String, usize)>,
    names: HashSet<String>,
    merges: Vec<Rc<Node>>,
}

/// The name of the field whose value is merged into the object around it.
const MERGE: &str = "<<";

impl Building {
    /// Takes an event of the parser. Returns the whole value once it is there.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Rc<Node>>, String> {
        let line = span.start.line();
        match event {
            Event::Alias(anchor) => {
                let found = self.anchors.get(&anchor).cloned();
                let (node, height) = found.ok_or("an alias stands inside its own anchor")?;
                self.add(node, height)
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(open) = self.open.last_mut()
                    && matches!(open.content, Content::Object(_))
                    && open.name.is_none()
                {
                    open.begin_field(&text, line)?;
                    return Ok(None);
                }
                let content = Content::Scalar(scalar(&text, style, tag.as_deref()));
                let node = Rc::new(Node { line, content });
                self.remember(anchor, &node, 0);
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, Content::Object(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(None),
        }
    }

    fn begin(
        &mut self,
        line: usize,
        anchor: usize,
        content: Content,
    ) -> Result<Option<Rc<Node>>, String> {
        let awaits_name = self
            .open
            .last()
            .is_some_and(|open| matches!(open.content, Content::Object(_)) && open.name.is_none());
        if awaits_name {
            return Err("the name of a field must be a text".into());
        }
        if self.open.len() >= DEPTH {
            return Err(too_deep());
        }
        self.open.push(Open {
            line,
            anchor,
            height: 0,
            content,
            name: None,
            names: HashSet::new(),
            merges: Vec::new(),
        });
        Ok(None)
    }

    fn end(&mut self) -> Result<Option<Rc<Node>>, String> {
        let Some(mut open) = self.open.pop() else {
            return Ok(None);
        };
        self.merged += open.merge()?;
        if self.merged > VALUES {
            return Err(too_large());
        }
        let node = Rc::new(Node {
            line: open.line,
            content: open.content,
        });
        let height = open.height + 1;
        self.remember(open.anchor, &node, height);
        self.add(node, height)
    }

    fn remember(&mut self, anchor: usize, node: &Rc<Node>, height: usize) {
        // Anchors count from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, (Rc::clone(node), height));
        }
    }

    /// Adds a value to the list or object that is open, or returns it if none is.
    fn add(&mut self, value: Rc<Node>, height: usize) -> Result<Option<Rc<Node>>, String> {
        let depth = self.open.len();
        let Some(open) = self.open.last_mut() else {
            return Ok(Some(value));
        };
        if depth + height > DEPTH {
            return Err(too_deep());
        }
        open.height = open.height.max(height);
        match (&mut open.content, open.name.take()) {
            (Content::Object(_), Some((name, _))) if name == MERGE => open.merges.push(value),
            (Content::Object(fields), Some((name, line))) => {
                fields.push(Field { name, line, value });
            }
            (Content::Object(_), None) => return Err("the name of a field is an alias".into()),
            (Content::List(list), _) => list.push(value),
            (Content::Scalar(_), _) => {}
        }
        Ok(None)
    }
}

impl Open {
    fn begin_field(&mut self, name: &str, line: usize) -> Result<(), String> {
        if name != MERGE && !self.names.insert(name.to_owned()) {
            return Err(format!("the field '{name}' is there twice"));
        }
        self.name = Some((name.to_owned(), line));
        Ok(())
    }

    /// Adds the fields of the merged objects that the object does not have itself; of several
    /// objects the first one wins. Returns how many there were.
    fn merge(&mut self) -> Result<usize, String> {
        let mut copied = 0;
        let Content::Object(fields) = &mut self.content else {
            return Ok(copied);
        };
        for merged in std::mem::take(&mut self.merges) {
            let objects = match &merged.content {
                Content::List(list) => list.clone(),
                _ => vec![Rc::clone(&merged)],
            };
            for object in objects {
                let Content::Object(of_object) = &object.content else {
                    return Err("only objects can be merged by '<<'".into());
                };
                copied += of_object.len();
                if copied > VALUES {
                    return Ok(copied);
                }
                for field in of_object {
                    if self.names.insert(field.name.clone()) {
                        fields.push(field.clone());
                    }
                }
            }
        }
        Ok(copied)
    }
}
