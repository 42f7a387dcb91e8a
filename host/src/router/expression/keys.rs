//! Where the index of the router finds the route of an expression: by hosts, and prefixes of paths,
//! of which each request that the expression matches has one.
//!
//! The index has to find every route that may match, and as few others as it can: the expressions
//! of those that it finds are evaluated.

use crate::expression::{Expression, Field, Predicate, Test, TextOperator};
use crate::pattern::Pattern;
use crate::router::criteria::{HostPattern, PathPattern};

/// Most keys of one route. An expression that would need more has fewer and wider ones.
const MAX_KEYS: usize = 1024;

/// A key of a route: requests have this host, and a path with this prefix.
#[derive(Debug)]
pub(in crate::router) struct Key {
    /// None for any host.
    pub(in crate::router) host: Option<HostPattern>,
    /// None for any path.
    pub(in crate::router) path: Option<PathPattern>,
}

/// What requests have in common.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    host: Option<HostPattern>,
    prefix: Option<Box<[u8]>>,
}

impl Condition {
    const NONE: Self = Self {
        host: None,
        prefix: None,
    };

    fn is_none(&self) -> bool {
        self.host.is_none() && self.prefix.is_none()
    }

    /// A condition of all requests that satisfy both: of the hosts the one that fewer requests
    /// have, and of the prefixes the longer one.
    fn and(&self, other: &Self) -> Self {
        let host = match (&self.host, &other.host) {
            (Some(one), Some(two)) if one.closeness() < two.closeness() => Some(two),
            (one, two) => one.as_ref().or(two.as_ref()),
        };
        let length = |prefix: &Option<Box<[u8]>>| prefix.as_ref().map(|prefix| prefix.len());
        let prefix = match length(&self.prefix) < length(&other.prefix) {
            true => &other.prefix,
            false => &self.prefix,
        };
        Self {
            host: host.cloned(),
            prefix: prefix.clone(),
        }
    }
}

/// The keys of an expression.
pub(super) fn of(expression: &Expression<Pattern>) -> Vec<Key> {
    let conditions = conditions(expression).into_iter();
    let keys = conditions.map(|condition| Key {
        host: condition.host,
        path: condition.prefix.map(PathPattern::Prefix),
    });
    keys.collect()
}

/// Conditions of which each request satisfies one that the expression matches. None has an empty
/// list.
fn conditions(expression: &Expression<Pattern>) -> Vec<Condition> {
    match expression {
        Expression::All(parts) => {
            let parts = parts.iter().map(conditions);
            parts.fold(vec![Condition::NONE], both)
        }
        Expression::Any(parts) => {
            let parts = parts.iter().flat_map(conditions);
            distinct(parts).unwrap_or_else(|| vec![Condition::NONE])
        }
        Expression::Not(_) => vec![Condition::NONE],
        Expression::Predicate(predicate) => vec![Condition {
            host: host(predicate),
            prefix: prefix(predicate),
        }],
    }
}

/// The conditions, each once; none if one of them is satisfied by all requests, or if there are too
/// many.
fn distinct(conditions: impl Iterator<Item = Condition>) -> Option<Vec<Condition>> {
    let mut kept = Vec::new();
    for condition in conditions {
        if condition.is_none() || kept.len() == MAX_KEYS {
            return None;
        }
        if !kept.contains(&condition) {
            kept.push(condition);
        }
    }
    Some(kept)
}

/// The conditions of requests that satisfy one of each list.
fn both(one: Vec<Condition>, two: Vec<Condition>) -> Vec<Condition> {
    let is_none = |list: &[Condition]| list.iter().any(Condition::is_none);
    if is_none(&two) {
        return one;
    }
    if is_none(&one) {
        return two;
    }
    let pairs = one
        .iter()
        .flat_map(|one| two.iter().map(move |two| one.and(two)));
    match distinct(pairs) {
        Some(pairs) => pairs,
        None if two.len() < one.len() => two,
        None => one,
    }
}

/// The host that requests have for which the predicate holds, as far as the index knows hosts: a
/// name, and what is before or after a dot of it.
fn host(predicate: &Predicate<Pattern>) -> Option<HostPattern> {
    let Predicate {
        field: Field::Host,
        test: Test::Text(operator, text),
        ..
    } = predicate
    else {
        return None;
    };
    match operator {
        TextOperator::Equal => Some(HostPattern::Exact(text.clone(), None)),
        TextOperator::Suffix => {
            let suffix = text.get(text.find('.')?..)?;
            Some(HostPattern::Suffix(suffix.into(), None))
        }
        TextOperator::Prefix => {
            let prefix = text.get(..=text.rfind('.')?)?;
            Some(HostPattern::Prefix(prefix.into(), None))
        }
        TextOperator::NotEqual | TextOperator::Contains => None,
    }
}

/// The prefix that the paths of requests have for which the predicate holds.
fn prefix(predicate: &Predicate<Pattern>) -> Option<Box<[u8]>> {
    let Test::Text(TextOperator::Equal | TextOperator::Prefix, text) = &predicate.test else {
        return None;
    };
    if predicate.lower || text.is_empty() {
        return None;
    }
    match predicate.field {
        Field::Path => Some(text.as_bytes().into()),
        Field::Segments(0, _) => Some(format!("/{text}").into_bytes().into()),
        _ => None,
    }
}
