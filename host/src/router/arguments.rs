//! The arguments in the query of a URI, for expressions.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::urlencoded;

/// The arguments in the query of a URI. They are decoded once, for the first expression that asks
/// for one.
#[derive(Debug)]
pub struct Arguments<'a> {
    query: Option<&'a str>,
    decoded: OnceCell<Vec<Argument<'a>>>,
}

/// A name and its value.
type Argument<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Arguments<'a> {
    /// Those of this query, which has no `?` before it.
    pub fn new(query: Option<&'a str>) -> Self {
        Self {
            query,
            decoded: OnceCell::new(),
        }
    }

    /// The values of an argument, in their order. An argument without `=` has an empty one.
    pub(super) fn values<'s>(&'s self, name: &'s [u8]) -> impl Iterator<Item = &'s [u8]> {
        let decoded = self.decoded.get_or_init(|| {
            let query = self.query.unwrap_or_default();
            urlencoded::pairs(query.as_bytes()).collect()
        });
        let of_name = decoded.iter().filter(move |(known, _)| **known == *name);
        of_name.map(|(_, value)| &**value)
    }
}
