//! Expressions of routes: whether they hold for a request, and what of its path they match.

mod keys;

use std::net::IpAddr;

use super::error::RouteError;
use super::{PathMatch, Query};
use crate::expression::{
    Expression, ExpressionError, Family, Field, Predicate, Test, TextOperator,
};
use crate::pattern::{Pattern, PatternError};
pub(super) use keys::Key;

/// The expression of a route.
#[derive(Debug)]
pub(super) struct RouteExpression {
    expression: Expression<Pattern>,
    /// Where the index finds the route. A request for which the expression holds has one of these.
    pub(super) keys: Vec<Key>,
}

impl RouteExpression {
    /// Reads the expression of a route. Its regular expressions may take `room` bytes of memory,
    /// from which what they take is subtracted.
    pub(super) fn compile(text: &str, room: &mut usize) -> Result<Self, RouteError> {
        let expression = parse(text, Family::Http, room)?;
        Ok(Self {
            keys: keys::of(&expression),
            expression,
        })
    }

    /// What the expression matches of the path of a request; none if it does not hold.
    pub(super) fn find(&self, query: &Query<'_>) -> Option<PathMatch<'_>> {
        find(&self.expression, query)
    }
}

/// Reads an expression about what a family has. Its regular expressions may take `room` bytes of
/// memory, from which what they take is subtracted.
pub(super) fn parse(
    text: &str,
    family: Family,
    room: &mut usize,
) -> Result<Expression<Pattern>, RouteError> {
    let regex = |regex: &str| Pattern::new(regex, "", room);
    Expression::parse(text, family, regex).map_err(|error| match error {
        // Room may be found later, so the router has to know this one.
        ExpressionError::Regex {
            error: error @ PatternError::NoRoom { .. },
            ..
        } => RouteError::new("expression", error),
        error => RouteError {
            field: "expression",
            cause: error.to_string().into(),
        },
    })
}

/// The match of the last predicate about the path that holds. Source: Kong 3.9.
fn find<'e>(expression: &'e Expression<Pattern>, query: &Query<'_>) -> Option<PathMatch<'e>> {
    match expression {
        Expression::All(parts) => parts.iter().try_fold(PathMatch::NONE, |found, part| {
            let next = find(part, query)?;
            Some(if next.is_none() { found } else { next })
        }),
        Expression::Any(parts) => parts.iter().find_map(|part| find(part, query)),
        Expression::Not(part) => match find(part, query) {
            Some(_) => None,
            None => Some(PathMatch::NONE),
        },
        Expression::Predicate(predicate) => match predicate.field {
            Field::Path => of_path(predicate, query.path),
            _ => holds(predicate, query).then_some(PathMatch::NONE),
        },
    }
}

/// What a predicate about the path matches of it.
fn of_path<'e>(predicate: &'e Predicate<Pattern>, path: &[u8]) -> Option<PathMatch<'e>> {
    if let Test::Regex(regex) = &predicate.test {
        let found = match predicate.lower {
            true => regex.find(&path.to_ascii_lowercase()),
            false => regex.find(path),
        }?;
        return Some(PathMatch {
            // A match in the middle of the path is no prefix that could be removed.
            length: if found.start == 0 { found.end } else { 0 },
            // The groups are looked up in the path as it is.
            regex: (!predicate.lower).then_some(regex),
        });
    }
    let length = match &predicate.test {
        Test::Text(TextOperator::Equal | TextOperator::Prefix, text) => text.len(),
        _ => 0,
    };
    passes(&predicate.test, predicate.lower, path).then_some(PathMatch {
        length,
        regex: None,
    })
}

/// Whether the values of a field pass the test. A field without a value passes none, not even that
/// it differs from something. Source: Kong 3.9.
fn holds(predicate: &Predicate<Pattern>, query: &Query<'_>) -> bool {
    let Predicate {
        field,
        lower,
        any,
        test,
    } = predicate;
    let text = |text: &[u8]| passes(test, *lower, text);
    match field {
        Field::Protocol => text(match query.server_name {
            Some(_) => b"https",
            None => b"http",
        }),
        Field::ServerName => {
            let name = query.server_name.filter(|name| !name.is_empty());
            name.is_some_and(|name| text(name.as_bytes()))
        }
        Field::Method => text(query.method.as_str().as_bytes()),
        Field::Host => text(query.host.as_bytes()),
        Field::Path => text(query.path),
        Field::Segments(first, last) => segments(query.path, *first, *last).is_some_and(text),
        Field::SegmentCount => number(test, segment_count(query.path)),
        Field::Header(name) => {
            let values = name.values(query.headers);
            all_or_any(*any, values, text)
        }
        Field::Argument(name) => {
            let values = query.arguments.values(name.as_bytes());
            all_or_any(*any, values, text)
        }
        Field::SourceIp => address(test, query.client.map(|client| client.ip())),
        Field::SourcePort => {
            // A proxy that names its client need not know the port.
            let port = query.client.map(|client| client.port());
            number(test, port.filter(|port| *port != 0).map(i64::from))
        }
        Field::DestinationIp => address(test, query.local),
        Field::DestinationPort => number(test, Some(query.port.into())),
    }
}

/// Whether there are values, and all of them pass, or one does.
fn all_or_any<T>(
    any: bool,
    mut values: impl Iterator<Item = T>,
    mut passes: impl FnMut(T) -> bool,
) -> bool {
    match any {
        true => values.any(passes),
        false => values.next().is_some_and(&mut passes) && values.all(passes),
    }
}

/// Whether a text passes a test.
pub(super) fn passes(test: &Test<Pattern>, lower: bool, value: &[u8]) -> bool {
    let (operator, text) = match test {
        Test::Regex(regex) if lower => return regex.find(&value.to_ascii_lowercase()).is_some(),
        Test::Regex(regex) => return regex.find(value).is_some(),
        Test::Text(operator, text) => (*operator, text.as_bytes()),
        Test::Number(..) | Test::Address(..) | Test::Network(..) => return false,
    };
    let is_text = |part: &[u8]| match lower {
        true => {
            let lower = part.iter().map(u8::to_ascii_lowercase);
            part.len() == text.len() && lower.eq(text.iter().copied())
        }
        false => part == text,
    };
    match operator {
        TextOperator::Equal => is_text(value),
        TextOperator::NotEqual => !is_text(value),
        TextOperator::Prefix => value.get(..text.len()).is_some_and(is_text),
        TextOperator::Suffix => {
            let start = value.len().checked_sub(text.len());
            start.is_some_and(|start| is_text(&value[start..]))
        }
        TextOperator::Contains => text.is_empty() || value.windows(text.len()).any(is_text),
    }
}

pub(super) fn number(test: &Test<Pattern>, value: Option<i64>) -> bool {
    match (test, value) {
        (Test::Number(operator, number), Some(value)) => operator.holds(value, *number),
        _ => false,
    }
}

pub(super) fn address(test: &Test<Pattern>, value: Option<IpAddr>) -> bool {
    match (test, value) {
        (Test::Address(is, address), Some(value)) => (value == *address) == *is,
        (Test::Network(is_in, network), Some(value)) => network.contains(&value) == *is_in,
        _ => false,
    }
}

/// The segments of a path from `first` to `last`, with the slashes between them; none if the path
/// has fewer. A slash at the end is followed by an empty segment. Source: Kong 3.9.
fn segments(path: &[u8], first: usize, last: usize) -> Option<&[u8]> {
    let path = path.strip_prefix(b"/").filter(|path| !path.is_empty())?;
    let mut slashes = (0..path.len()).filter(|&at| path[at] == b'/');
    let start = match first {
        0 => 0,
        _ => slashes.nth(first - 1)? + 1,
    };
    let end = match slashes.nth(last - first) {
        Some(end) => end,
        None => {
            let count = path.iter().filter(|byte| **byte == b'/').count() + 1;
            (last < count).then_some(path.len())?
        }
    };
    path.get(start..end)
}

fn segment_count(path: &[u8]) -> Option<i64> {
    let slashes = path.iter().filter(|byte| **byte == b'/').count();
    i64::try_from(if path == b"/" { 0 } else { slashes }).ok()
}

#[cfg(test)]
mod tests;
