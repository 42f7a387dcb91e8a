//! One setting as written: its value, and where it was written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// A setting as written. It is checked only once all settings are read, so that one report names
/// every mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    content: Content,
    origin: Origin,
}

/// The written value. Only TOML distinguishes text from numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// From a flag or a variable: text or a number, depending on the setting.
    Plain(OsString),
    /// Text in quotes, from a file.
    Quoted(String),
    /// A number from a file, or a word without quotes, which is not valid TOML.
    Bare(String),
    /// An array of texts, from a file.
    List(Vec<String>),
    /// A table, a time or another array from a file. No setting accepts one.
    Other(&'static str),
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The flag, with its dashes.
    Flag(String),
    Variable(String),
    /// Lines count from 1.
    Line(Arc<Path>, usize),
    /// Not written: the default of the declaration.
    Default,
}

impl Value {
    pub(super) fn new(content: Content, origin: Origin) -> Self {
        Self { content, origin }
    }

    /// The value as a number, if it is a number of this type.
    pub(super) fn number<T: FromStr>(&self) -> Option<T> {
        match &self.content {
            Content::Plain(text) => text.to_str()?.parse().ok(),
            Content::Bare(text) => text.parse().ok(),
            Content::Quoted(_) | Content::List(_) | Content::Other(_) => None,
        }
    }

    /// The value as text. A number or a word without quotes from a file is not text.
    pub(super) fn text(&self) -> Option<&OsStr> {
        match &self.content {
            Content::Plain(text) => Some(text),
            Content::Quoted(text) => Some(OsStr::new(text)),
            Content::Bare(_) | Content::List(_) | Content::Other(_) => None,
        }
    }

    /// The value as a list of texts, if it is an array.
    pub(super) fn list(&self) -> Option<&[String]> {
        match &self.content {
            Content::List(texts) => Some(texts),
            _ => None,
        }
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// The value as it was written.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Plain(text) => f.write_str(&text.to_string_lossy()),
            Content::Quoted(text) => write!(f, "{text:?}"),
            Content::Bare(text) => f.write_str(text),
            Content::List(_) => f.write_str("a list"),
            Content::Other(kind) => f.write_str(kind),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => write!(f, "set by {name}"),
            Self::Line(path, line) => write!(f, "set in {}, line {line}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}
