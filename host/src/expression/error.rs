//! What is wrong with an expression, and where.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use thiserror::Error;

/// What is wrong with an expression. `E` is the error of a regular expression in it.
#[derive(Debug, Error)]
pub(crate) enum ExpressionError<E> {
    /// It cannot be read, or compares what cannot be compared.
    #[error("{0}")]
    Invalid(Box<Invalid>),
    /// A regular expression in it cannot be used.
    #[error("{span}{error}")]
    Regex {
        /// Where it is.
        span: Box<Span>,
        /// Why it cannot be used.
        error: E,
    },
}

/// A mistake in an expression.
#[derive(Debug)]
pub(crate) struct Invalid {
    /// Kong's sentence for a mistake of types. Kong shows no span for such a mistake; here the
    /// span follows the sentence.
    pub(super) sentence: Option<&'static str>,
    /// Where it is.
    pub(super) span: Span,
    /// What should be there instead.
    pub(super) remedy: String,
}

/// A part of an expression, shown as its line with marks below it. Source: the errors of pest, the
/// parser of Kong's expressions.
#[derive(Debug)]
pub(crate) struct Span {
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// The line.
    text: String,
    /// How many characters are marked; 0 marks a position.
    marked: usize,
}

impl Span {
    /// The span of these bytes of an expression, or of a position if there are none.
    pub(super) fn new(expression: &str, bytes: Range<usize>) -> Self {
        let before = expression.get(..bytes.start).unwrap_or(expression);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = expression.get(line_start..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default();
        let end = bytes.end.min(line_start + line.len());
        let marked = expression.get(bytes.start..end).unwrap_or_default();
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
            text: line.to_owned(),
            marked: marked.chars().count(),
        }
    }
}

/// The lines up to the message about the span, which follows.
impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            line, column, text, ..
        } = self;
        let margin = " ".repeat(line.to_string().len());
        let marks = match self.marked {
            0 => "^---".to_owned(),
            1 => "^".to_owned(),
            more => format!("^{}^", "-".repeat(more - 2)),
        };
        // A tab before the span keeps its width.
        let before = text.chars().take(column - 1);
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, "{margin}--> {line}:{column}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{line} | {text}")?;
        writeln!(f, "{margin} | {indent}{marks}")?;
        writeln!(f, "{margin} |")?;
        write!(f, "{margin} = ")
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(sentence) = self.sentence {
            writeln!(f, "{sentence}")?;
        }
        write!(f, "{}{}", self.span, self.remedy)
    }
}
