//! The file of settings: TOML. Every mistake is reported, and not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::settings;
use super::value::{Content, Origin, Value};

/// A name at least this similar to a setting counts as a misspelling of it; 1 is equal.
const ALIKE: f64 = 0.8;

/// The settings of a file.
#[derive(Debug, Default)]
pub(super) struct File {
    path: Option<Arc<Path>>,
    values: BTreeMap<String, Value>,
}

impl File {
    /// Reads a file. Mistakes are added to `mistakes`, and the rest is still read.
    pub(super) fn read(path: &Path, names: &[&str], mistakes: &mut Vec<String>) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text, names, mistakes),
            Err(error) => {
                mistakes.push(format!(
                    "cannot read the config file {}: {error}",
                    path.display()
                ));
                Self::default()
            }
        }
    }

    fn parse(path: &Path, text: &str, names: &[&str], mistakes: &mut Vec<String>) -> Self {
        let path: Arc<Path> = path.into();
        let (table, errors) = DeTable::parse_recoverable(text);
        let line_of = |position: usize| {
            let before = text.get(..position).unwrap_or(text);
            before.matches('\n').count() + 1
        };
        let mut values = BTreeMap::new();
        let mut broken = BTreeSet::new();
        for error in errors {
            let line = line_of(error.span().map_or(0, |span| span.start));
            // Only the first error of a line is reported: the others often follow from it.
            if !broken.insert(line) {
                continue;
            }
            let written = text.lines().nth(line - 1).and_then(bare_word);
            // If TOML accepts the value, the mistake is elsewhere in the line.
            let is_word = |word: &str| DeTable::parse(&format!("word = {word}")).is_err();
            match written.filter(|(name, word)| names.contains(name) && is_word(word)) {
                Some((name, word)) => {
                    let origin = Origin::Line(Arc::clone(&path), line);
                    let value = Value::new(Content::Bare(word.into()), origin);
                    values.insert(name.to_owned(), value);
                }
                None => {
                    let words: Vec<&str> = error.message().split_whitespace().collect();
                    mistakes.push(invalid(&path, line, &words.join(" ")));
                }
            }
        }
        for (key, value) in table.into_inner() {
            let line = line_of(key.span().start);
            if broken.contains(&line) {
                continue;
            }
            let origin = Origin::Line(Arc::clone(&path), line);
            let value = Value::new(content(value.get_ref()), origin);
            values.entry(key.into_inner().into_owned()).or_insert(value);
        }
        Self {
            path: Some(path),
            values,
        }
    }

    /// Removes and returns the value of a setting.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// Reports the keys that were not taken, since they are not settings.
    pub(super) fn finish(self, names: &[&str], mistakes: &mut Vec<String>) {
        let Some(path) = self.path else { return };
        for (key, value) in self.values {
            let Origin::Line(_, line) = value.origin() else {
                continue;
            };
            let advice = if key == settings::FILE.name {
                "it names this file, and can be a flag or a variable only".to_owned()
            } else {
                match similar(&key, names) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "`pointsman --help` lists the settings".to_owned(),
                }
            };
            mistakes.push(invalid(
                &path,
                *line,
                &format!("unknown field `{key}`; {advice}"),
            ));
        }
    }
}

fn invalid(path: &Path, line: usize, what: &str) -> String {
    format!(
        "the config file {}, line {line} is invalid: {what}",
        path.display()
    )
}

fn content(value: &DeValue<'_>) -> Content {
    match value {
        DeValue::String(text) => Content::Quoted(text.clone().into_owned()),
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            Content::Bare(number.map_or_else(|_| integer.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Float(float) => Content::Bare(float.as_str().to_owned()),
        DeValue::Boolean(value) => Content::Bare(value.to_string()),
        DeValue::Datetime(_) => Content::Other("a time"),
        DeValue::Array(values) => {
            let texts = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) => Some(text.trim().to_owned()),
                _ => None,
            });
            let texts: Option<Vec<String>> = texts.collect();
            texts.map_or(Content::Other("a list"), Content::List)
        }
        DeValue::Table(_) => Content::Other("a table"),
    }
}

/// The key and the value of a line such as `log = info`, which is not valid TOML.
fn bare_word(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once('=')?;
    let word = rest.split('#').next()?.trim();
    let starts_well = !word.is_empty() && !word.starts_with(['"', '\'', '[', '{']);
    starts_well.then_some((name.trim(), word))
}

/// The setting that a misspelt name probably means.
pub(super) fn similar<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let lower = written.to_lowercase().replace('-', "_");
    let bare = lower.strip_prefix("pointsman_").unwrap_or(&lower);
    let likeness = |name: &&str| strsim::jaro_winkler(bare, name);
    let best = names
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(*best)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["workers", "log", "max_header_size"];

    /// All mistakes in a file.
    fn said(text: &str) -> String {
        let mut mistakes = Vec::new();
        let mut file = File::parse(Path::new("x.toml"), text, NAMES, &mut mistakes);
        for name in NAMES {
            file.take(name);
        }
        file.finish(NAMES, &mut mistakes);
        mistakes.join("\n")
    }

    #[test]
    fn a_mistake_in_the_file_is_one_line_with_its_place() {
        for (text, line, word) in [
            (
                "# a word\nwokers = 7\n",
                2,
                "unknown field `wokers`; did you mean `workers`?",
            ),
            (
                "\nMax-Header-Size = 7\n",
                2,
                "did you mean `max_header_size`?",
            ),
            ("\n\ncolour = 7\n", 3, "`pointsman --help` lists"),
            ("config = 'y.toml'\n", 1, "a flag or a variable only"),
            ("workers = 1\nlog = [\n", 2, "array"),
            ("workers = 1\nworkers = 2\n", 2, "duplicate"),
        ] {
            let said = said(text);
            let start = format!("the config file x.toml, line {line} is invalid: ");
            assert!(said.starts_with(&start) && said.contains(word), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn every_wrong_line_is_reported() {
        let said = said("wokers = 1\n= 3\nlog = \"info\"\n[proxy]\nlisten = 1\n");
        assert_eq!(said.lines().count(), 3, "{said}");
    }

    #[test]
    fn a_word_without_quotes_is_kept_and_checked_with_its_setting() {
        let text = "log = info,pointsman=debug # all of it\nworkers = 0x10\n";
        let mut mistakes = Vec::new();
        let mut file = File::parse(Path::new("x.toml"), text, NAMES, &mut mistakes);
        let log = file.take("log").unwrap();
        assert_eq!(
            log.content(),
            &Content::Bare("info,pointsman=debug".to_owned())
        );
        assert_eq!(file.take("workers").unwrap().number(), Some(16_usize));
        assert!(mistakes.is_empty(), "{mistakes:?}");
    }
}
