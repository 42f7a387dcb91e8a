//! Conditional requests (RFC 9110, 13): a row's `ETag`, and `If-Match` and `If-None-Match`, so that
//! a client that reads a row, changes it and writes it back does not undo another client's change.
//! Kong has none of this; a request without these headers is answered as by Kong.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use uuid::Uuid;

use super::error::Error;
use super::{Admin, hooks};
use crate::entity::Kind;
use crate::store::{Revision, Stored};

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

    /// Checks a write of a row that has this tag now, or is absent.
    ///
    /// # Errors
    /// 412: a condition does not hold.
    pub(super) fn check(&self, current: Option<&EntityTag>) -> Result<(), Error> {
        let message = match (self.is_matched(current), self.is_known(current), current) {
            (true, false, _) => return Ok(()),
            (false, _, None) => "If-Match: there is no such entity".to_owned(),
            (false, _, Some(tag)) => {
                format!("If-Match: the entity has changed, and its ETag is {tag}")
            }
            (true, true, _) => "If-None-Match: the entity exists".to_owned(),
        };
        Err(Error::Plain(StatusCode::PRECONDITION_FAILED, message))
    }

    /// The answer that shows a row with this tag; 304 if the client has it already.
    ///
    /// # Errors
    /// 412: the row is not one that the client asks for.
    pub(super) fn answer(&self, tag: &EntityTag, row: Response) -> Result<Response, Error> {
        if !self.is_matched(Some(tag)) {
            self.check(Some(tag))?;
        }
        let answer = match self.is_known(Some(tag)) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => row,
        };
        Ok(tag.on(answer))
    }

    /// Whether `If-Match` holds. It compares strongly: a weak tag never matches.
    fn is_matched(&self, current: Option<&EntityTag>) -> bool {
        match (&self.matching, current) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(EntityTags::Any), Some(_)) => true,
            (Some(EntityTags::These { strong, .. }), Some(tag)) => strong.contains(&tag.0),
        }
    }

    /// Whether `If-None-Match` does not hold. It compares weakly.
    fn is_known(&self, current: Option<&EntityTag>) -> bool {
        match (&self.unmatched, current) {
            (None, _) | (_, None) => false,
            (Some(EntityTags::Any), Some(_)) => true,
            (Some(EntityTags::These { strong, weak }), Some(tag)) => {
                strong.contains(&tag.0) || weak.contains(&tag.0)
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
            // A tag may have bytes that are not text (RFC 9110, 8.8.3). No tag of the gateway has.
            let value = String::from_utf8_lossy(value.as_bytes());
            let mut rest = &*value;
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

/// The `ETag` of a row, with its quotes.
#[derive(Debug)]
pub(super) struct EntityTag(String);

impl EntityTag {
    /// The tag of a row at this revision. It changes with the row, and with the rows that the row
    /// is shown with.
    pub(super) fn of(
        admin: &Admin,
        kind: Kind,
        id: Uuid,
        revision: Revision,
    ) -> Result<Self, Error> {
        Ok(Self::new(revision, &(hooks(kind).parts)(admin, id)?))
    }

    /// The newest revision and the number of parts: a part that is new or changed has a new
    /// revision, and one that is deleted is missing from the number.
    fn new(revision: Revision, parts: &[Stored]) -> Self {
        let newest = parts
            .iter()
            .map(|part| part.revision)
            .fold(revision, Revision::max);
        Self(match parts.len() {
            0 => format!("\"{newest}\""),
            number => format!("\"{newest}-{number}\""),
        })
    }

    /// An answer about the row, with its tag.
    pub(super) fn on(&self, mut answer: Response) -> Response {
        if let Ok(tag) = HeaderValue::try_from(&*self.0) {
            answer.headers_mut().insert(ETAG, tag);
        }
        answer
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
            let holds = |current: Option<Revision>| {
                let tag = current.map(|revision| EntityTag::new(revision, &[]));
                conditions.check(tag.as_ref()).is_ok()
            };
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
            let answer = conditions(fields).answer(&EntityTag::new(7, &[]), row);
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
