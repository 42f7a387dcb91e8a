//! Conditional requests (RFC 9110, 13): a row's `ETag`, and `If-Match` and `If-None-Match`, so that
//! a client that reads a row, changes it and writes it back does not undo another client's change.
//! Kong has none of this; a request without these headers is answered as by Kong.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderName, StatusCode};

use super::error::Error;
use crate::store::Revision;

/// The conditions of a request.
#[derive(Debug, Default, Clone)]
pub(super) struct Conditions {
    /// The row must be one of these.
    matching: Option<EntityTags>,
    /// The row must be none of these.
    unmatched: Option<EntityTags>,
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EntityTags {
    /// `*`: any row at all.
    Any,
    /// Strong and weak tags, in quotes.
    These {
        strong: Vec<String>,
        weak: Vec<String>,
    },
}

impl Conditions {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            matching: EntityTags::of(headers, IF_MATCH),
            unmatched: EntityTags::of(headers, IF_NONE_MATCH),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.matching.is_none() && self.unmatched.is_none()
    }

    /// Checks a write of a row that is at this revision now, or is absent.
    ///
    /// # Errors
    /// 412: a condition does not hold.
    pub(super) fn check(&self, current: Option<Revision>) -> Result<(), Error> {
        let message = match (self.is_matched(current), self.is_known(current), current) {
            (true, false, _) => return Ok(()),
            (false, _, None) => "If-Match: there is no such entity".to_owned(),
            (false, _, Some(revision)) => {
                format!(
                    "If-Match: the entity has changed, and its ETag is {}",
                    tag(revision)
                )
            }
            (true, true, _) => "If-None-Match: the entity exists".to_owned(),
        };
        Err(Error::Plain(StatusCode::PRECONDITION_FAILED, message))
    }

    /// The answer that shows a row at this revision; 304 if the client has it already.
    ///
    /// # Errors
    /// 412: the row is not one that the client asks for.
    pub(super) fn answer(&self, revision: Revision, row: Response) -> Result<Response, Error> {
        if !self.is_matched(Some(revision)) {
            self.check(Some(revision))?;
        }
        let answer = match self.is_known(Some(revision)) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => row,
        };
        Ok(tagged(revision, answer))
    }

    /// Whether `If-Match` holds. It compares strongly: a weak tag never matches.
    fn is_matched(&self, current: Option<Revision>) -> bool {
        match (&self.matching, current) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(EntityTags::Any), Some(_)) => true,
            (Some(EntityTags::These { strong, .. }), Some(revision)) => {
                strong.contains(&tag(revision))
            }
        }
    }

    /// Whether `If-None-Match` does not hold. It compares weakly.
    fn is_known(&self, current: Option<Revision>) -> bool {
        match (&self.unmatched, current) {
            (None, _) | (_, None) => false,
            (Some(EntityTags::Any), Some(_)) => true,
            (Some(EntityTags::These { strong, weak }), Some(revision)) => {
                let tag = tag(revision);
                strong.contains(&tag) || weak.contains(&tag)
            }
        }
    }
}

impl EntityTags {
    fn of(headers: &HeaderMap, name: HeaderName) -> Option<Self> {
        let (mut strong, mut weak) = (Vec::new(), Vec::new());
        let mut is_present = false;
        for value in headers.get_all(name) {
            is_present = true;
            let Ok(mut rest) = value.to_str() else {
                continue;
            };
            // What is not a list of tags matches nothing.
            loop {
                rest = rest.trim_start_matches([' ', '\t', ',']);
                if rest.starts_with('*') {
                    return Some(Self::Any);
                }
                let opaque = rest.strip_prefix("W/");
                let tags = match opaque {
                    Some(_) => &mut weak,
                    None => &mut strong,
                };
                let Some(opened) = opaque.unwrap_or(rest).strip_prefix('"') else {
                    break;
                };
                let Some((text, after)) = opened.split_once('"') else {
                    break;
                };
                tags.push(format!("\"{text}\""));
                rest = after;
            }
        }
        is_present.then_some(Self::These { strong, weak })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The `ETag` of a row: the revision of the store that wrote it.
fn tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// An answer about a row, with its `ETag`.
pub(super) fn tagged(revision: Revision, mut answer: Response) -> Response {
    if let Ok(tag) = HeaderValue::try_from(tag(revision)) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(fields: &[(&'static str, &'static str)]) -> Conditions {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        Conditions::of(&fields.collect())
    }

    #[test]
    fn a_write_goes_through_only_if_its_conditions_hold() {
        for (name, value, absent, at_seven) in [
            ("x", "", true, true),
            ("if-match", "*", false, true),
            ("if-match", "\"7\"", false, true),
            ("if-match", "\"6\", \"7\"", false, true),
            ("if-match", "\"6\",W/\"7\"", false, false),
            ("if-match", "7", false, false),
            ("if-match", "\"7", false, false),
            ("if-none-match", "*", true, false),
            ("if-none-match", "\"7\"", true, false),
            ("if-none-match", "W/\"7\"", true, false),
            ("if-none-match", "\"6\"", true, true),
        ] {
            let conditions = conditions(&[(name, value)]);
            let holds = |current| conditions.check(current).is_ok();
            assert_eq!(
                (holds(None), holds(Some(7))),
                (absent, at_seven),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_row_that_the_client_has_is_not_sent_again() {
        let answer = |fields| {
            let row = "row".into_response();
            let answer = conditions(fields).answer(7, row);
            answer.map_or_else(IntoResponse::into_response, |answer| {
                assert_eq!(answer.headers()[ETAG], "\"7\"");
                answer
            })
        };
        for (fields, status) in [
            (&[][..], 200),
            (&[("if-none-match", "\"7\"")], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"8\"")], 200),
            (&[("if-match", "\"7\"")], 200),
            (&[("if-match", "\"8\"")], 412),
            (&[("if-match", "\"8\""), ("if-none-match", "\"7\"")], 412),
        ] {
            assert_eq!(answer(fields).status().as_u16(), status, "{fields:?}");
        }
    }
}
