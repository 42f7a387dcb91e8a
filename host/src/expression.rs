//! Kong's expression language, in which operators write which requests a route matches:
//! `http.path ^= "/v1" && http.headers.x_tenant == "a"`. Described in `docs/expressions.md`.
//!
//! This module has the syntax and the types; `router/expression.rs` evaluates expressions. Source:
//! Kong 3.9, its schemas of fields; atc-router 1.6, its grammar.

mod error;
mod field;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod header_name;
mod literal;
mod never;
mod parse;

use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) use error::ExpressionError;
pub(crate) use field::{Family, Field};
pub(crate) use header_name::SentName;
pub(crate) use never::Kind;

/// An expression whose regular expressions are compiled to `R`.
///
/// Its depth is bounded by the parser, so it may be walked by recursion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression<R> {
    /// All of these hold.
    All(Vec<Expression<R>>),
    /// One of these holds.
    Any(Vec<Expression<R>>),
    /// This does not hold.
    Not(Box<Expression<R>>),
    /// A field has such a value.
    Predicate(Predicate<R>),
}

/// A field, and the test that its values must pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Predicate<R> {
    /// The field.
    pub(crate) field: Field,
    /// Whether its values are tested in lower case.
    pub(crate) lower: bool,
    /// Whether it is enough that one of several values passes.
    pub(crate) any: bool,
    /// The test.
    pub(crate) test: Test<R>,
}

/// The test of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test<R> {
    /// A text compared with this one.
    Text(TextOperator, Box<str>),
    /// A text that this regular expression matches somewhere.
    Regex(R),
    /// A number compared with this one.
    Number(NumberOperator, i64),
    /// Whether an address is this one; `false` for any other.
    Address(bool, IpAddr),
    /// Whether an address is in this network; `false` for outside.
    Network(bool, IpNet),
}

/// How texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextOperator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `^=`
    Prefix,
    /// `=^`
    Suffix,
    /// `contains`
    Contains,
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberOperator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl NumberOperator {
    /// Whether `value` compares so with `other`.
    pub(crate) fn holds(self, value: i64, other: i64) -> bool {
        match self {
            Self::Equal => value == other,
            Self::NotEqual => value != other,
            Self::Greater => value > other,
            Self::GreaterOrEqual => value >= other,
            Self::Less => value < other,
            Self::LessOrEqual => value <= other,
        }
    }
}

#[cfg(test)]
mod tests;
