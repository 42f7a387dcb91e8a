//! What the Admin API checks of a row beyond its declaration when it is written: whether policies
//! can be made of the settings of plugins, and whether there is room for the regular expressions of
//! routes.

use std::collections::HashMap;

use uuid::Uuid;

use super::configuration::is_selected;
use super::context::CheckContext;
use super::item::Item;
use super::mistakes::Mistakes;
use crate::entity::{Kind, Row};
use crate::policy;
use crate::router::{check_patterns, has_patterns};

/// The rows of a document, each with its place among the items.
pub(super) struct Checking<'a> {
    pub(super) items: &'a [Item],
    pub(super) rows: &'a [Option<Row>],
    pub(super) context: &'a dyn CheckContext,
    /// The tags of the entities that the document is about; with none it is about all.
    pub(super) select_tags: &'a [String],
    pub(super) mistakes: &'a mut Mistakes,
}

impl Checking<'_> {
    pub(super) fn check(&mut self) {
        let beside = self.routes_beside();
        self.plugins();
        self.patterns(&beside);
    }

    /// The rows of a kind that nothing is wrong with, with their places.
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (usize, Uuid, &Row)> {
        let rows = self.items.iter().zip(self.rows).enumerate();
        rows.filter(move |(_, (item, _))| item.kind == kind)
            .filter_map(|(place, (item, row))| Some((place, item.id, row.as_ref()?)))
    }

    /// The routes that are not in the document and stay as they are.
    fn routes_beside(&self) -> HashMap<Uuid, Row> {
        if self.select_tags.is_empty() {
            return HashMap::new();
        }
        let all = self.context.rows(Kind::Route).into_iter();
        let others = all.filter(|row| !is_selected(row, self.select_tags));
        let id = |row: &Row| row.get("id")?.as_str()?.parse().ok();
        let mut beside: HashMap<Uuid, Row> =
            others.filter_map(|row| Some((id(&row)?, row))).collect();
        for item in self.items {
            beside.remove(&item.id);
        }
        beside
    }

    /// That a plugin has a protocol in common with its route is not asked, as Kong does not ask it
    /// of documents: routes change after their plugins, and what was exported can be imported.
    fn plugins(&mut self) {
        let rows = self.of_kind(Kind::Plugin);
        let wrong: Vec<_> = rows
            .filter_map(|(place, _, row)| Some((place, policy::check_row(row).err()?)))
            .collect();
        for (place, why) in wrong {
            self.mistakes.field(self.items, place, "config", why.into());
        }
    }

    /// Compiles the regular expressions of the routes that are new or have others than before.
    fn patterns(&mut self, beside: &HashMap<Uuid, Row>) {
        let mut kept: Vec<Uuid> = beside.keys().copied().collect();
        let mut changed = Vec::new();
        let routes = self.of_kind(Kind::Route);
        for (place, id, row) in routes.filter(|(_, _, row)| has_patterns(row)) {
            let stored = self.context.row(Kind::Route, id);
            let is_kept = stored.is_some_and(|stored| {
                let fields = ["paths", "headers", "expression"];
                fields
                    .iter()
                    .all(|field| stored.get(*field) == row.get(*field))
            });
            if is_kept {
                kept.push(id);
            } else {
                changed.push((place, row));
            }
        }
        let mut room = self.context.pattern_memory(&kept);
        let mut wrong = Vec::new();
        for (place, row) in changed {
            match check_patterns(row, self.context.flavor(), room) {
                Ok(taken) => room = room.saturating_sub(taken),
                Err((field, why)) => wrong.push((place, field, why)),
            }
        }
        for (place, field, why) in wrong {
            self.mistakes.field(self.items, place, field, why.into());
        }
    }
}
