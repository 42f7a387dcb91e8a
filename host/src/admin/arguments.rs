//! Pairs of names and values, as a query or the body of a form has them.

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode;
use serde::de::DeserializeOwned;

use super::bounds::{ARGUMENTS, too_many_arguments};
use super::error::Error;
use crate::urlencoded;

/// The pairs of a query or of a form.
///
/// # Errors
/// There are too many, or one is not UTF-8.
pub(super) fn pairs(input: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    for (name, value) in urlencoded::pairs(input) {
        if pairs.len() == ARGUMENTS {
            return Err(too_many_arguments());
        }
        let name = utf8(&String::from_utf8_lossy(&name), name.to_vec())?;
        let value = utf8(&name, value.into_owned())?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Checks the query of a request.
///
/// # Errors
/// There are too many arguments, or one is not UTF-8. The filter by tags has an error of its own.
/// Source: Kong.
pub(super) fn check_query(query: &[u8]) -> Result<(), Error> {
    let mut arguments = urlencoded::pairs(query);
    if arguments.any(|(name, value)| *name == *b"tags" && std::str::from_utf8(&value).is_err()) {
        return Err(Error::tags("invalid filter syntax"));
    }
    pairs(query).map(drop)
}

/// The text of an argument. It is stored unchanged, or refused.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| Error::field(name, not_utf8(&error.utf8_error())))
}

/// Source: Kong.
fn not_utf8(error: &std::str::Utf8Error) -> String {
    let position = error.valid_up_to() + 1;
    format!("invalid utf-8 character sequence detected at position {position}")
}

/// The parameters of a route's path, like axum's; but one that is not UTF-8 is an error in Kong's
/// form.
pub(super) struct Path<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(segments)) => Ok(Self(segments)),
            Err(_) => Err(unreadable(parts.uri.path())),
        }
    }
}

/// Reports which segment of a path is not UTF-8, as an error of the field that names rows in that
/// place.
fn unreadable(path: &str) -> Error {
    let mut collection = "";
    for segment in path.split('/') {
        let decoded: Vec<u8> = percent_decode(segment.as_bytes()).collect();
        if let Err(error) = std::str::from_utf8(&decoded) {
            let field = if collection == "targets" {
                "target"
            } else {
                "name"
            };
            return Error::unique_key(field, not_utf8(&error));
        }
        collection = segment;
    }
    Error::not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_unescaped_and_empty_ones_are_none() {
        let read = pairs(b"a=1&&b=c+d%20e%3D&f&=g&h=i=j&").unwrap_or_default();
        let pairs: Vec<(&str, &str)> = read.iter().map(|(n, v)| (&**n, &**v)).collect();
        let expected = [
            ("a", "1"),
            ("b", "c d e="),
            ("f", ""),
            ("", "g"),
            ("h", "i=j"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn there_are_at_most_as_many_pairs_as_kong_accepts() {
        assert!(pairs("a=1&".repeat(ARGUMENTS).as_bytes()).is_ok());
        assert!(pairs("a=1&".repeat(ARGUMENTS + 1).as_bytes()).is_err());
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_position() {
        for (input, expected) in [
            (
                "a=b%ff",
                "a: invalid utf-8 character sequence detected at position 2",
            ),
            (
                "%ff=b",
                "\u{fffd}: invalid utf-8 character sequence detected at position 1",
            ),
        ] {
            let error = pairs(input.as_bytes()).err().map(|error| error.message());
            assert_eq!(error, Some(format!("schema violation ({expected})")));
        }
    }
}
