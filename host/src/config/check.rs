//! Checks a value against the declaration of its setting, and reports what is wrong with it.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Config;
use super::declaration::{Kind, Setting};
use super::listen::Listen;
use super::value::{Content, Value};

/// A value, or a part of it, that is refused.
struct Wrong {
    /// The part, as a message shows it.
    shown: String,
    /// What is wrong with it.
    reason: String,
}

impl Setting {
    /// Puts a value into the field of this setting, or adds to `mistakes` what is wrong with it and
    /// where it is written.
    pub(super) fn read(&self, value: &Value, config: &mut Config, mistakes: &mut Vec<String>) {
        let wrong = self.put(value, config).err().unwrap_or_default();
        mistakes.extend(wrong.into_iter().map(|Wrong { shown, reason }| {
            format!("{} = {shown}: {reason} ({})", self.name, value.origin())
        }));
    }

    fn put(&self, value: &Value, config: &mut Config) -> Result<(), Vec<Wrong>> {
        match &self.kind {
            Kind::Number(_, range, set) => set(config, number(value, range)?),
            Kind::Size(unit, range, set) => {
                let bytes = number(value, range)? as usize * unit.factor as usize;
                set(config, bytes);
            }
            Kind::Time(unit, range, set) => {
                let micros = u64::from(number(value, range)?) * u64::from(unit.factor);
                set(config, Duration::from_micros(micros));
            }
            Kind::Path(_, set) => {
                let path = self.text(value)?;
                if path.is_empty() {
                    return Err(wrong(value, "expected a path"));
                }
                set(config, path.into());
            }
            Kind::Text { expected, set, .. } => {
                let text = match (*expected, value.content()) {
                    (SWITCH, _) => self.switch(value)?,
                    (_, Content::Bare(word)) if self.takes_numbers() && is_number(word) => word,
                    _ => utf8(value, self.text(value)?)?,
                };
                let taken = set(config, text);
                taken.ok_or_else(|| wrong(value, format!("expected {expected}")))?;
            }
            Kind::Listen(subsystem, set) => {
                let entries = self.entries(value)?;
                let listens = Listen::parse_list(&entries, *subsystem).map_err(|wrong| {
                    let wrong = wrong.into_iter().map(|(entry, reason)| Wrong {
                        shown: format!("{entry:?}"),
                        reason: format!("{reason}; {}", subsystem.form()),
                    });
                    wrong.collect::<Vec<_>>()
                })?;
                set(config, listens);
            }
            Kind::List { expected, set, .. } => {
                let entries = self.entries(value)?;
                let wrong = set(config, &entries).err().unwrap_or_default();
                if !wrong.is_empty() {
                    let wrong = wrong.into_iter().map(|entry| Wrong {
                        shown: format!("{entry:?}"),
                        reason: format!("expected {expected}"),
                    });
                    return Err(wrong.collect());
                }
            }
        }
        Ok(())
    }

    /// The entries of a list.
    fn entries<'a>(&self, value: &'a Value) -> Result<Vec<&'a str>, Vec<Wrong>> {
        match value.list() {
            Some(entries) => Ok(entries.iter().map(String::as_str).collect()),
            None => Ok(split(utf8(value, self.text(value)?)?)),
        }
    }

    /// The value of a switch: text, or a boolean of TOML.
    fn switch<'a>(&self, value: &'a Value) -> Result<&'a str, Vec<Wrong>> {
        match value.content() {
            Content::Bare(word) if word == "true" || word == "false" => Ok(word),
            Content::Bare(word) => {
                let meant = word.to_ascii_lowercase();
                Err(match meant.as_str() {
                    "on" | "off" => wrong(
                        value,
                        format!("text needs quotes, as in {} = {meant:?}", self.name),
                    ),
                    _ => wrong(value, format!("expected {SWITCH}")),
                })
            }
            _ => utf8(value, self.text(value)?),
        }
    }

    /// Whether this text may be a number, as its default is: with a fraction, or with a unit.
    fn takes_numbers(&self) -> bool {
        self.default
            .words()
            .starts_with(|first: char| first.is_ascii_digit())
    }

    /// The value as text. A value that a file has without quotes is not text.
    fn text<'a>(&self, value: &'a Value) -> Result<&'a OsStr, Vec<Wrong>> {
        value.text().ok_or_else(|| match value.content() {
            Content::Bare(word) => wrong(
                value,
                format!("text needs quotes, as in {} = {word:?}", self.name),
            ),
            _ => wrong(value, "expected text in quotes"),
        })
    }
}

/// What is expected of a switch.
const SWITCH: &str = "on or off";

/// Whether a word of a file is a number.
fn is_number(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}

/// The entries of a list in one text.
fn split(text: &str) -> Vec<&str> {
    let entries = text.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).collect()
}

fn utf8<'a>(value: &Value, text: &'a OsStr) -> Result<&'a str, Vec<Wrong>> {
    text.to_str()
        .ok_or_else(|| wrong(value, "expected text in UTF-8"))
}

fn number(value: &Value, range: &RangeInclusive<u32>) -> Result<u32, Vec<Wrong>> {
    let number = value.number().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let without_quotes = match value.content() {
            Content::Quoted(_) => ", without quotes",
            _ => "",
        };
        let (least, most) = (range.start(), range.end());
        wrong(
            value,
            format!("expected a number from {least} to {most}{without_quotes}"),
        )
    })
}

/// The whole value is wrong.
fn wrong(value: &Value, reason: impl Into<String>) -> Vec<Wrong> {
    let shown = match value.content() {
        // Only a file distinguishes text from numbers.
        Content::Plain(text) if value.number::<f64>().is_none() => {
            format!("\"{}\"", text.display())
        }
        _ => value.to_string(),
    };
    vec![Wrong {
        shown,
        reason: reason.into(),
    }]
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn an_entry_of_a_list_may_have_several_words() {
        let listeners = "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl ,";
        assert_eq!(
            split(listeners),
            [
                "0.0.0.0:8000 reuseport backlog=16384",
                "0.0.0.0:8443 http2 ssl"
            ]
        );
    }
}
