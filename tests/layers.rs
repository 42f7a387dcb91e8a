//! The modules of the gateway use each other in one direction: from the layers of ARCHITECTURE.md
//! down, and in no circle among the children of one module.

mod scan;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use scan::{Arrow, Graph, Module};

fn host() -> Graph {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    scan::graph(&folder, "pointsman")
}

/// The layer of each top-level module, the lowest being 0: the table under `## Layers` of
/// ARCHITECTURE.md, whose first row is the highest.
fn layers(map: &str) -> BTreeMap<String, usize> {
    let section = map.split("\n## Layers\n").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    // Without the head of the table.
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows: Vec<&str> = rows.collect();
    let mut layers = BTreeMap::new();
    for (layer, row) in rows.iter().rev().enumerate() {
        let modules = row.split('|').nth(1).unwrap_or_default();
        for module in modules.split('`').skip(1).step_by(2) {
            let twice = layers.insert(module.to_owned(), layer);
            assert!(
                twice.is_none(),
                "`{module}` is in two layers of ARCHITECTURE.md"
            );
        }
    }
    layers
}

fn shown(arrow: &Arrow) -> String {
    let file = arrow.file.strip_prefix(env!("CARGO_MANIFEST_DIR"));
    let file = file.unwrap_or(&arrow.file).display();
    let (from, to) = (arrow.from.join("::"), arrow.to.join("::"));
    format!("host/{file}:{}: {from} -> {to}", arrow.line)
}

#[test]
fn arrows_point_to_lower_layers() {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let layers = layers(&std::fs::read_to_string(map).unwrap());
    let graph = host();
    let mut wrong = Vec::new();
    let top: BTreeSet<&String> = graph.modules.iter().filter_map(|m| m.first()).collect();
    for module in &top {
        if !layers.contains_key(*module) {
            wrong.push(format!(
                "`{module}` is in no layer: add it to the table \"Layers\" of ARCHITECTURE.md"
            ));
        }
    }
    for module in layers.keys().filter(|module| !top.contains(module)) {
        wrong.push(format!(
            "there is no module `{module}`: remove it from the table \"Layers\" of ARCHITECTURE.md"
        ));
    }
    for arrow in &graph.arrows {
        let (Some(from), Some(to)) = (arrow.from.first(), arrow.to.first()) else {
            continue;
        };
        let (Some(above), Some(below)) = (layers.get(from), layers.get(to)) else {
            continue;
        };
        if from == to || above > below {
            continue;
        }
        wrong.push(format!(
            "{}: `{to}` is not below `{from}` in the table \"Layers\" of ARCHITECTURE.md. Move what is used down, \
             or hand it in from above (as a value, or as a trait that is declared below)",
            shown(arrow)
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_children_of_a_module_form_no_circle() {
    let graph = host();
    let parents: BTreeSet<&[String]> = graph
        .modules
        .iter()
        .filter_map(|module| Some(module.split_last()?.1))
        .collect();
    let mut wrong = Vec::new();
    for parent in parents {
        let between = between_children(&graph, parent);
        let in_circle = circle(&between);
        if in_circle.is_empty() {
            continue;
        }
        let name = parent.join("::");
        let parent = if name.is_empty() { "the crate" } else { &name };
        wrong.push(format!(
            "the children of {parent} use each other in a circle. Move what two of them share to a file below both, or \
             to their parent:"
        ));
        wrong.extend(in_circle.iter().map(|arrow| format!("  {}", shown(arrow))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For each two children of a module of which one uses the other, one arrow that says so.
fn between_children<'a>(
    graph: &'a Graph,
    parent: &[String],
) -> BTreeMap<(&'a str, &'a str), &'a Arrow> {
    let child = |module: &'a Module| {
        let rest = module.strip_prefix(parent)?;
        Some(rest.first()?.as_str())
    };
    let mut between = BTreeMap::new();
    for arrow in &graph.arrows {
        if let (Some(from), Some(to)) = (child(&arrow.from), child(&arrow.to))
            && from != to
        {
            between.entry((from, to)).or_insert(arrow);
        }
    }
    between
}

/// The arrows that are a part of a circle: those whose end leads back to their start.
fn circle<'a>(between: &BTreeMap<(&'a str, &'a str), &'a Arrow>) -> Vec<&'a Arrow> {
    let leads = |from: &'a str, to: &'a str| {
        let (mut reached, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = open.pop() {
            let next = between.keys().filter(|(start, _)| *start == at);
            open.extend(next.map(|(_, end)| *end).filter(|end| reached.insert(*end)));
        }
        reached.contains(to)
    };
    let in_circle = between.iter().filter(|((from, to), _)| leads(to, from));
    in_circle.map(|(_, arrow)| *arrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &'static str, to: &'static str) -> ((&'static str, &'static str), Arrow) {
        let module = |name: &str| vec![name.to_owned()];
        let arrow = Arrow {
            from: module(from),
            to: module(to),
            file: "x.rs".into(),
            line: 1,
        };
        ((from, to), arrow)
    }

    #[test]
    fn only_what_leads_back_is_in_a_circle() {
        let arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")];
        let arrows = arrows.map(|(from, to)| arrow(from, to));
        let between = arrows.iter().map(|(pair, arrow)| (*pair, arrow)).collect();
        let found = circle(&between);
        let found: Vec<String> = found.into_iter().map(|arrow| arrow.to.concat()).collect();
        assert_eq!(found, ["b", "c", "a"]);
    }

    #[test]
    fn the_first_row_is_the_highest_layer() {
        let map = "# M\n\n## Layers\n\nText.\n\n| m | t |\n|---|---|\n| `a`, `b` | x `no` |\n| `c` | y |\n\n## N\n| `d` |\n";
        let expected = [("a", 1), ("b", 1), ("c", 0)];
        let expected = expected.map(|(name, layer)| (name.to_owned(), layer));
        assert_eq!(layers(map), BTreeMap::from(expected));
    }
}
