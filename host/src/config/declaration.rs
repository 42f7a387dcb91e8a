//! The parts of a setting's declaration, and the texts that are derived from it: the names of its
//! flag and its variable, its text in `--help`, and its row in README.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::listen::{Listen, Subsystem};
use super::value::{Content, Origin, Value};

/// The prefix of the variable of each setting.
pub(super) const PREFIX: &str = "POINTSMAN_";

/// Settings of one subject, with a heading in `--help` and in README.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) settings: &'static [Setting],
}

/// A setting, declared once.
pub(super) struct Setting {
    /// Its key in the file: words with underscores between them.
    pub(super) name: &'static str,
    /// What it is for, without a full stop. Markdown, with links as README has them.
    pub(super) about: &'static str,
    /// Which values are accepted, and the field of [`Config`] that they go to.
    pub(super) kind: Kind,
    /// The default.
    pub(super) default: DefaultValue,
}

/// Which values are accepted. Each kind ends with the function that puts a checked value into its
/// field.
pub(super) enum Kind {
    /// A whole number.
    Number(Unit, RangeInclusive<u32>, fn(&mut Config, u32)),
    /// A number of bytes, written as a number of units.
    Size(Unit, RangeInclusive<u32>, fn(&mut Config, usize)),
    /// A time, written as a number of units.
    Time(Unit, RangeInclusive<u32>, fn(&mut Config, Duration)),
    /// A path, and what `--help` calls it.
    Path(&'static str, fn(&mut Config, PathBuf)),
    /// Text of some form.
    Text {
        /// What `--help` calls it.
        value: &'static str,
        /// What is accepted, as it follows "expected".
        expected: &'static str,
        /// Returns none for text of another form.
        set: fn(&mut Config, &str) -> Option<()>,
    },
    /// Several texts of some form. They are separated by commas; in the file, they may also be an
    /// array.
    List {
        /// What `--help` calls it.
        value: &'static str,
        /// What is accepted, as it follows "expected".
        expected: &'static str,
        /// Returns the entries that are wrong.
        set: fn(&mut Config, &[&str]) -> Result<(), Vec<String>>,
    },
    /// Addresses to listen on, with flags.
    Listen(Subsystem, fn(&mut Config, Vec<Listen>)),
}

/// What a number counts.
pub(super) struct Unit {
    /// What `--help` calls a value.
    value: &'static str,
    /// The unit as it follows a number.
    plural: &'static str,
    /// Bytes in a unit of size, or microseconds in a unit of time.
    pub(super) factor: u32,
}

/// For numbers without a unit.
pub(super) const ONE: Unit = unit("N", "", 1);
pub(super) const BYTES: Unit = unit("BYTES", "bytes", 1);
pub(super) const BYTES_PER_SECOND: Unit = unit("BYTES", "bytes a second", 1);
pub(super) const KIB: Unit = unit("KIB", "KiB", 1 << 10);
pub(super) const MIB: Unit = unit("MIB", "MiB", 1 << 20);
pub(super) const MICROSECONDS: Unit = unit("MICROSECONDS", "microseconds", 1);
pub(super) const MILLISECONDS: Unit = unit("MILLISECONDS", "milliseconds", 1000);
pub(super) const SECONDS: Unit = unit("SECONDS", "seconds", 1_000_000);

const fn unit(value: &'static str, plural: &'static str, factor: u32) -> Unit {
    Unit {
        value,
        plural,
        factor,
    }
}

/// The value of a setting that is not written.
pub(super) enum DefaultValue {
    /// This text, read as if it were written.
    Written(&'static str),
    /// What the function returns, read as if it were written; described in words.
    Computed(&'static str, fn() -> String),
    /// The field stays empty; described by what the gateway does then.
    Unset(&'static str),
}

impl Setting {
    /// Its flag, without the dashes in front.
    pub(super) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its variable in the environment.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase())
    }

    /// The default as a value, unless the field stays empty.
    pub(super) fn default_value(&self) -> Option<Value> {
        let text = match self.default {
            DefaultValue::Written(text) => text.to_owned(),
            DefaultValue::Computed(_, text) => text(),
            DefaultValue::Unset(_) => return None,
        };
        Some(Value::new(Content::Plain(text.into()), Origin::Default))
    }

    /// What `--help` says.
    pub(super) fn help(&self) -> String {
        let about = without_markup(self.about);
        let accepted = self
            .kind
            .accepted()
            .map(|accepted| format!(" ({accepted})"));
        let default = without_markup(self.default.words());
        format!(
            "{about}{} [default: {default}]",
            accepted.unwrap_or_default()
        )
    }

    /// What `--help` calls its value.
    pub(super) fn value_name(&self) -> &'static str {
        match &self.kind {
            Kind::Number(unit, ..) | Kind::Size(unit, ..) | Kind::Time(unit, ..) => unit.value,
            Kind::Path(value, _) | Kind::Text { value, .. } | Kind::List { value, .. } => value,
            Kind::Listen(..) => "ADDRS",
        }
    }
}

impl Kind {
    /// Which values are accepted, if a few words can say it.
    pub(super) fn accepted(&self) -> Option<String> {
        match self {
            Self::Number(unit, range, _)
            | Self::Size(unit, range, _)
            | Self::Time(unit, range, _) => {
                let accepted = format!("{} to {} {}", range.start(), range.end(), unit.plural);
                Some(accepted.trim_end().to_owned())
            }
            Self::List { .. } | Self::Listen(..) => Some("separated by commas".to_owned()),
            Self::Path(..) | Self::Text { .. } => None,
        }
    }
}

impl DefaultValue {
    /// The default as shown to users.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Written(words) | Self::Computed(words, _) | Self::Unset(words) => words,
        }
    }
}

/// Markdown as text for a terminal: links and code without markup.
fn without_markup(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        let (words, after) = link.split_once("](").unwrap_or((link, ""));
        text.push_str(words);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::without_markup;

    #[test]
    fn help_has_no_markup() {
        for (markdown, text) in [
            ("plain", "plain"),
            ("`off` or `info`", "off or info"),
            (
                "web [pages](docs/a.md#pages) that may",
                "web pages that may",
            ),
            ("[a](b), [c](d)", "a, c"),
        ] {
            assert_eq!(without_markup(markdown), text);
        }
    }
}
