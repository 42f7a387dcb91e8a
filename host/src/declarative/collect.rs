//! The entities of a document: those of the lists at its top, and those inside other entities.

use serde_json::Value;
use uuid::Uuid;

use super::defaults::Info;
use super::item::{Item, kinds, named, nested, steps};
use super::mistakes::Mistakes;
use super::syntax::{Step, TextBudget};
use crate::entity::{Kind, Row, nearest_name};

/// What a document has besides its lists.
const TOP: [&str; 8] = [
    "_format_version",
    "_transform",
    "_comment",
    "_ignore",
    "_info",
    "_plugin_configs",
    "_workspace",
    "workspaces",
];

/// Takes the entities out of a document. An entity comes after the one around it.
pub(super) fn collect(document: Row, info: &Info, mistakes: &mut Mistakes) -> Vec<Item> {
    let mut collecting = Collecting {
        info,
        mistakes,
        items: Vec::new(),
        budget: TextBudget::of_text(),
    };
    for (name, value) in document {
        match named(&name) {
            Some(kind) => collecting.list(kind, value, &[], None),
            None => {
                let meant = || nearest_name(kinds().map(Kind::name).chain(TOP), &name);
                collecting.mistakes.unknown(&name, meant);
            }
        }
    }
    collecting.items
}

struct Collecting<'a> {
    info: &'a Info,
    mistakes: &'a mut Mistakes,
    items: Vec<Item>,
    /// What may still be added to the entities.
    budget: TextBudget,
}

impl Collecting<'_> {
    fn list(
        &mut self,
        kind: Kind,
        value: Value,
        around: &[(&'static str, usize)],
        parent: Option<(usize, &'static str)>,
    ) {
        let path = |index| [around, &[(kind.name(), index)]].concat();
        let list = match value {
            Value::Null => return,
            Value::Array(list) => list,
            // Lua has one type for both.
            Value::Object(fields) if fields.is_empty() => return,
            _ => {
                let mut steps = steps(around);
                steps.push(Step::Name(kind.name().into()));
                self.mistakes.at(steps, "expected an array");
                return;
            }
        };
        for (index, value) in list.into_iter().enumerate() {
            match value {
                Value::Object(input) => self.item(kind, input, path(index), parent),
                _ => self.mistakes.at(steps(&path(index)), "expected a record"),
            }
        }
    }

    fn item(
        &mut self,
        kind: Kind,
        mut input: Row,
        path: Vec<(&'static str, usize)>,
        parent: Option<(usize, &'static str)>,
    ) {
        input.shift_remove("_comment");
        input.shift_remove("_ignore");
        // The workspace of a row, of which there is only one.
        input.shift_remove("ws_id");
        let names: Vec<String> = input.keys().cloned().collect();
        let mut inside = Vec::new();
        for name in names {
            if let Some((kind, reference)) = nested(kind, &name)
                && let Some(value) = input.shift_remove(&name)
            {
                inside.push((kind, reference.field, value));
            }
        }
        let place = self.items.len();
        if let Err(message) = self.info.complete(kind, &mut input, &mut self.budget) {
            self.mistakes.at(steps(&path), message);
        }
        self.items.push(Item {
            kind,
            path: path.clone(),
            input,
            parent,
            id: Uuid::nil(),
        });
        for (kind, field, value) in inside {
            self.list(kind, value, &path, Some((place, field)));
        }
    }
}
