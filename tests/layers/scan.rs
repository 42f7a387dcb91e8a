//! What the files of a crate name: a scanner of Rust that knows `use` lines and paths from `crate`,
//! `self` or `super`, and leaves tests out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::tokens::tokens;

/// A module by its path from the root of the crate, which is empty.
pub(super) type Module = Vec<String>;

/// That a module names something of another one.
#[derive(Debug, Clone)]
pub(super) struct Arrow {
    pub(super) from: Module,
    pub(super) to: Module,
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

/// The modules of a crate, and the arrows between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) modules: BTreeSet<Module>,
    pub(super) arrows: Vec<Arrow>,
}

/// A path that a file names.
#[derive(Debug, PartialEq)]
struct Named {
    /// The module in whose scope it stands.
    scope: Module,
    path: Vec<String>,
    line: usize,
    /// The name that it has there from now on, if it is imported.
    import: Option<String>,
}

/// What one file says.
#[derive(Debug, Default)]
struct Scan {
    named: Vec<Named>,
    /// Modules in files of their own that are for tests alone.
    tests: Vec<Module>,
}

/// Scans all files below a folder that has the `lib.rs` of a crate. `main.rs` beside it is a module
/// that calls the root by the name `krate`.
pub(super) fn graph(folder: &Path, krate: &str) -> Graph {
    let mut files = Vec::new();
    collect(folder, &mut files);
    let scans: Vec<(Module, PathBuf, Scan)> = files
        .into_iter()
        .map(|file| {
            let module = module_of(file.strip_prefix(folder).unwrap());
            let source = std::fs::read_to_string(&file).unwrap();
            let scan = scan(&source, &module, krate);
            (module, file, scan)
        })
        .collect();
    let tests: Vec<Module> = scans
        .iter()
        .flat_map(|(_, _, scan)| scan.tests.clone())
        .collect();
    let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
    let scans: Vec<_> = scans
        .into_iter()
        .filter(|(module, ..)| !is_test(module))
        .collect();

    let modules: BTreeSet<Module> = scans.iter().map(|(module, ..)| module.clone()).collect();
    let mut imports = BTreeMap::new();
    for named in scans.iter().flat_map(|(_, _, scan)| &scan.named) {
        if let (Some(name), Some(path)) = (&named.import, absolute(named, &modules)) {
            imports.insert((named.scope.clone(), name.clone()), path);
        }
    }
    let mut arrows = Vec::new();
    for (from, file, scan) in &scans {
        for named in &scan.named {
            let Some(path) = absolute(named, &modules) else {
                continue;
            };
            let to = target(path, from, &modules, &imports);
            if to != *from {
                let (from, file, line) = (from.clone(), file.clone(), named.line);
                arrows.push(Arrow {
                    from,
                    to,
                    file,
                    line,
                });
            }
        }
    }
    Graph { modules, arrows }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module of a file, by its path from the folder of `lib.rs`.
fn module_of(file: &Path) -> Module {
    let stem = file.with_extension("");
    let parts = stem.iter().map(|part| part.to_string_lossy().into_owned());
    let module: Module = parts.collect();
    match &*module {
        [one] if one == "lib" => Module::new(),
        _ => module,
    }
}

/// A path from the root of the crate; none if it is of another crate.
fn absolute(named: &Named, modules: &BTreeSet<Module>) -> Option<Vec<String>> {
    let mut start = named.scope.clone();
    let mut rest = &named.path[..];
    match rest.first()?.as_str() {
        "crate" => {
            start.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                start.pop();
                rest = &rest[1..];
            }
        }
        child => {
            start.push(child.to_owned());
            if !modules.contains(&start) {
                return None;
            }
            rest = &rest[1..];
        }
    }
    start.extend_from_slice(rest);
    Some(start)
}

/// The module that a path leads to, named in `from`. What a module above `from` only imports is not
/// its own: the path goes on to where it comes from.
fn target(
    mut path: Vec<String>,
    from: &Module,
    modules: &BTreeSet<Module>,
    imports: &BTreeMap<(Module, String), Vec<String>>,
) -> Module {
    let mut seen = BTreeSet::new();
    loop {
        let length = (0..=path.len())
            .rev()
            .find(|&length| modules.contains(&path[..length]))
            .unwrap_or(0);
        let module: Module = path[..length].to_vec();
        let Some(name) = path.get(length) else {
            return module;
        };
        let Some(origin) = imports.get(&(module.clone(), name.clone())) else {
            return module;
        };
        if !from.starts_with(&module) || !seen.insert(path.clone()) {
            return module;
        }
        path = [origin, &path[length + 1..]].concat();
    }
}

/// Finds what a file names.
fn scan(source: &str, module: &Module, krate: &str) -> Scan {
    let tokens = tokens(source);
    let text = |at: usize| tokens.get(at).map_or("", |(text, _)| text.as_str());
    let mut scan = Scan::default();
    let mut scope = module.clone();
    // How deep in braces each inline module of the scope begins.
    let mut inline = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let before = if at == 0 { ";" } else { text(at - 1) };
        match text(at) {
            "#" if text(at + 1) == "[" => {
                let end = matching(&tokens, at + 1);
                let attribute: Vec<&str> = (at + 2..end).map(text).collect();
                at = end + 1;
                if attribute == ["cfg", "(", "test", ")"] {
                    at = skip_item(&tokens, at, &scope, &mut scan.tests);
                }
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    scope.pop();
                }
            }
            "mod" if text(at + 2) == "{" => {
                scope.push(text(at + 1).to_owned());
                inline.push(depth);
                at += 2;
                continue;
            }
            "use" if matches!(before, ";" | "{" | "}" | "]" | ")" | "pub") => {
                let line = tokens[at].1;
                let (leaves, end) = tree(&tokens, at + 1);
                for (mut path, import) in leaves {
                    if path.first().is_some_and(|first| first == krate) {
                        path[0] = "crate".into();
                    }
                    let scope = scope.clone();
                    scan.named.push(Named {
                        scope,
                        path,
                        line,
                        import,
                    });
                }
                at = end;
                continue;
            }
            start
                if (matches!(start, "crate" | "self" | "super") || start == krate)
                    && text(at + 1) == "::"
                    && !matches!(before, "::" | "in") =>
            {
                let start = if start == krate { "crate" } else { start };
                let (mut path, line) = (vec![start.to_owned()], tokens[at].1);
                while text(at + 1) == "::" && is_word(text(at + 2)) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                let scope = scope.clone();
                let import = None;
                scan.named.push(Named {
                    scope,
                    path,
                    line,
                    import,
                });
            }
            _ => {}
        }
        at += 1;
    }
    scan
}

/// Skips the item at a place, which is for tests alone, and returns the place behind it.
fn skip_item(
    tokens: &[(String, usize)],
    mut at: usize,
    scope: &Module,
    tests: &mut Vec<Module>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |(text, _)| text.as_str());
    while text(at) == "#" {
        at = matching(tokens, at + 1) + 1;
    }
    if text(at) == "pub" {
        at += 1;
        if text(at) == "(" {
            at = matching(tokens, at) + 1;
        }
    }
    let first = text(at);
    if first == "mod" && text(at + 2) == ";" {
        tests.push([&scope[..], &[text(at + 1).to_owned()]].concat());
    }
    let is_item = [
        "fn", "mod", "use", "impl", "struct", "enum", "trait", "const", "static", "async",
    ];
    let ends_with_comma = !is_item.contains(&first);
    while at < tokens.len() {
        match text(at) {
            ";" => return at + 1,
            "," if ends_with_comma => return at + 1,
            // The end of what it is a part of.
            "}" => return at,
            "{" if first != "use" => return matching(tokens, at) + 1,
            "(" | "[" | "{" => at = matching(tokens, at),
            _ => {}
        }
        at += 1;
    }
    at
}

/// The place of the bracket that closes the one at a place.
fn matching(tokens: &[(String, usize)], open: usize) -> usize {
    let mut depth = 0;
    for (at, (text, _)) in tokens.iter().enumerate().skip(open) {
        match text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// A path that a `use` tree names, and the name that it gets.
type Leaf = (Vec<String>, Option<String>);

/// The leaves of a `use` tree that begins at a place, and the place behind it.
fn tree(tokens: &[(String, usize)], start: usize) -> (Vec<Leaf>, usize) {
    let text = |at: usize| tokens.get(at).map_or("", |(text, _)| text.as_str());
    let mut path: Vec<String> = Vec::new();
    let mut at = start;
    loop {
        match text(at) {
            "::" => at += 1,
            "{" => {
                let mut leaves = Vec::new();
                at += 1;
                while !matches!(text(at), "}" | "") {
                    let (inner, end) = tree(tokens, at);
                    leaves.extend(inner.into_iter().map(|(rest, name)| {
                        let whole = match &*rest {
                            [own] if own == "self" => path.clone(),
                            _ => [&path[..], &rest].concat(),
                        };
                        let name = name.map(|name| match (name.as_str(), path.last()) {
                            ("self", Some(last)) => last.clone(),
                            _ => name,
                        });
                        (whole, name)
                    }));
                    at = end + usize::from(text(end) == ",");
                }
                return (leaves, at + 1);
            }
            "as" => {
                let name = text(at + 1).to_owned();
                return (vec![(path, Some(name))], at + 2);
            }
            "*" => return (vec![(path, None)], at + 1),
            word if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            // "," or ";" or "}"
            _ => {
                let name = path.last().cloned();
                return (vec![(path, name)], at);
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

#[cfg(test)]
mod tests;
