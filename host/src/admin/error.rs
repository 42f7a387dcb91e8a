//! The error format of the Admin API: Kong's.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::entity::{Kind, Row, Violation, Violations};
use crate::store;

/// An error of the Admin API.
#[derive(Debug)]
pub(super) enum Error {
    /// A status with a message, for an error that is not about an entity.
    Plain(StatusCode, String),
    /// A status alone.
    Bare(StatusCode),
    /// An entity's error, with Kong's code and name.
    Coded(Box<Coded>),
}

/// The content of an entity's error.
#[derive(Debug)]
pub(super) struct Coded {
    status: StatusCode,
    code: u8,
    name: String,
    message: String,
    /// `fields`, or `options` for an error about options.
    details: Option<(&'static str, Value)>,
}

impl Error {
    /// The path does not exist.
    pub(super) fn not_found() -> Self {
        Self::Plain(StatusCode::NOT_FOUND, "Not found".into())
    }

    /// What a path or a command names does not exist. For Kong's entities the message is Kong's
    /// "Not found".
    pub(super) fn missing(what: &str, key: &str) -> Self {
        let message = format!("no {what} has the name or id {key:?}");
        Self::Plain(StatusCode::NOT_FOUND, message)
    }

    /// The request is invalid, for the reason given.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::Plain(StatusCode::BAD_REQUEST, message.into())
    }

    /// Fields of an entity are wrong, or name something of Kong that does not exist here: then it
    /// is a 501, so that it is not taken for a typing error.
    pub(super) fn schema(violations: &Violations) -> Self {
        let status = match violations.is_absent() {
            true => StatusCode::NOT_IMPLEMENTED,
            false => StatusCode::BAD_REQUEST,
        };
        Self::coded(
            status,
            2,
            "schema violation",
            violations.message(),
            Some(("fields", violations.fields())),
        )
    }

    /// One field of an entity is wrong.
    pub(super) fn field(name: &str, message: impl Into<Value>) -> Self {
        let mut violations = Violations::default();
        violations.field(name, message);
        Self::schema(&violations)
    }

    /// The row to change does not exist; `key` is what it was looked up by.
    pub(super) fn no_row(key: &Row) -> Self {
        let shown = lua(key);
        let message = if key.contains_key("id") {
            format!("could not find the entity with primary key '{shown}'")
        } else {
            format!("could not find the entity with '{shown}'")
        };
        let details = Some(("fields", key.clone().into()));
        Self::coded(StatusCode::NOT_FOUND, 6, "not found", message, details)
    }

    /// A reference by name does not resolve.
    pub(super) fn unresolved(field: &str, to: &str, key: &str, name: &str) -> Self {
        let inner = format!(
            "the foreign key cannot be resolved with '{{{key}=\"{name}\"}}' for an existing '{to}' entity"
        );
        Self::coded(
            StatusCode::BAD_REQUEST,
            13,
            "foreign keys unresolved",
            format!("foreign key unresolved ({field}.{key}: {inner})"),
            Some(("fields", json!({ field: { key: inner } }))),
        )
    }

    /// A path names a row by a value that this field can never have; `message` says why.
    pub(super) fn unique_key(field: &str, message: impl Into<String>) -> Self {
        Self::coded(
            StatusCode::BAD_REQUEST,
            10,
            &format!("invalid unique {field}"),
            message.into(),
            None,
        )
    }

    /// A path names a row of an entity without a name, by a text that is not an id.
    pub(super) fn primary_key_form(text: &str) -> Self {
        let key = Row::from_iter([("id".to_owned(), text.into())]);
        Self::coded(
            StatusCode::BAD_REQUEST,
            1,
            "invalid primary key",
            format!("invalid primary key: '{}'", lua(&key)),
            Some(("fields", json!({ "id": "expected a valid UUID" }))),
        )
    }

    /// The offset of a page is invalid.
    pub(super) fn offset(offset: &str, reason: &str) -> Self {
        let message = format!("'{offset}' is not a valid offset: {reason}");
        Self::coded(StatusCode::BAD_REQUEST, 7, "invalid offset", message, None)
    }

    /// The size of a page is invalid.
    pub(super) fn size(message: &str) -> Self {
        Self::coded(
            StatusCode::BAD_REQUEST,
            9,
            "invalid size",
            message.into(),
            None,
        )
    }

    /// The filter by tags is invalid.
    pub(super) fn tags(reason: &str) -> Self {
        Self::option("tags", reason)
    }

    /// An argument that is not about the content of a row is invalid.
    fn option(name: &str, reason: &str) -> Self {
        Self::coded(
            StatusCode::BAD_REQUEST,
            11,
            "invalid options",
            format!("invalid option ({name}: {reason})"),
            Some(("options", json!({ name: reason }))),
        )
    }

    /// What is wrong with the fields of an entity, by field; none for another error.
    pub(super) fn fields(&self) -> Option<&Row> {
        let of_fields = [StatusCode::BAD_REQUEST, StatusCode::NOT_IMPLEMENTED];
        match self {
            Self::Coded(coded) if of_fields.contains(&coded.status) => match &coded.details {
                Some(("fields", Value::Object(fields))) => Some(fields),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error in the answer to whether an entity is valid: 400 in place of 501, because Kong's
    /// clients read every other status as a failure of the question.
    pub(super) fn into_verdict(mut self) -> Self {
        if let Self::Coded(coded) = &mut self
            && coded.status == StatusCode::NOT_IMPLEMENTED
        {
            coded.status = StatusCode::BAD_REQUEST;
        }
        self
    }

    /// Whether the store cannot be written or read now, so that another try may succeed.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Plain(StatusCode::SERVICE_UNAVAILABLE, _))
    }

    /// The error as a sentence.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Plain(_, message) => message.clone(),
            Self::Bare(status) => status.to_string(),
            Self::Coded(coded) => coded.message.clone(),
        }
    }

    fn foreign_key(field: &str, to: &str, key: Value) -> Self {
        let shown = key.as_object().map(lua).unwrap_or_default();
        Self::coded(
            StatusCode::BAD_REQUEST,
            4,
            "foreign key violation",
            format!("the foreign key '{shown}' does not reference an existing '{to}' entity."),
            Some(("fields", json!({ field: key }))),
        )
    }

    /// Other rows refer to the row that was to be deleted.
    pub(super) fn referenced(kind: Kind, by: Kind) -> Self {
        let (kind, by) = (kind.name(), by.name());
        Self::coded(
            StatusCode::BAD_REQUEST,
            4,
            "foreign key violation",
            format!("an existing '{by}' entity references this '{kind}' entity"),
            Some(("fields", json!({ "@referenced_by": by }))),
        )
    }

    /// A row of `by` refers to the CA certificate that was to be deleted.
    fn ca_referenced(id: Uuid, by: Kind, referrer: Uuid) -> Self {
        let by = by.name();
        Self::coded(
            StatusCode::BAD_REQUEST,
            19,
            "referenced by others",
            format!("ca certificate {id} is still referenced by {by} (id = {referrer})"),
            None,
        )
    }

    /// Without a database, a request cannot change entities; `key` is the field that its path names
    /// one by.
    pub(super) fn no_database(verb: &str, kind: Kind, key: Option<&str>) -> Self {
        let kind = kind.name();
        let by = key.map(|key| format!(" by '{key}'")).unwrap_or_default();
        Self::coded(
            StatusCode::METHOD_NOT_ALLOWED,
            12,
            "operation unsupported",
            format!("cannot {verb} '{kind}' entities{by} when not using a database"),
            None,
        )
    }

    /// Another row has these values of a unique key. A secret among them is not told: it may be
    /// another client's.
    pub(super) fn unique(kind: Kind, mut values: Row) -> Self {
        for (field, value) in &mut values {
            if kind.declaration().is_secret(field) {
                *value = "<secret>".into();
            }
        }
        Self::coded(
            StatusCode::CONFLICT,
            5,
            "unique constraint violation",
            format!("UNIQUE violation detected on '{}'", lua(&values)),
            Some(("fields", values.into())),
        )
    }

    fn primary_key(id: Uuid) -> Self {
        Self::coded(
            StatusCode::BAD_REQUEST,
            3,
            "primary key violation",
            format!("primary key violation on key '{{id=\"{id}\"}}'"),
            Some(("fields", json!({ "id": id }))),
        )
    }

    fn coded(
        status: StatusCode,
        code: u8,
        name: &str,
        message: String,
        details: Option<(&'static str, Value)>,
    ) -> Self {
        Self::Coded(Box::new(Coded {
            status,
            code,
            name: name.into(),
            message,
            details,
        }))
    }
}

/// A key as Kong's messages show it: names sorted, strings quoted, references in braces.
fn lua(key: &Row) -> String {
    let mut names: Vec<&String> = key.keys().collect();
    names.sort();
    let shown: Vec<String> = names
        .into_iter()
        .map(|name| match &key[name] {
            Value::Object(inner) => format!("{name}={}", lua(inner)),
            value => format!("{name}={value}"),
        })
        .collect();
    format!("{{{}}}", shown.join(","))
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Schema(violations) => Self::schema(&violations),
            Violation::Option { name, message } => Self::option(name, &message),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::PrimaryKeyTaken { id, .. } => Self::primary_key(id),
            store::Error::UniqueKeyTaken { kind, values, .. } => Self::unique(kind, values),
            store::Error::ReferenceMissing {
                field, to, value, ..
            } => {
                let key = match value {
                    id @ Value::String(_) => json!({ "id": id }),
                    key => key,
                };
                Self::foreign_key(field, to.name(), key)
            }
            store::Error::StillReferenced {
                kind: Kind::CaCertificate,
                id,
                by,
                referrer,
            } => Self::ca_referenced(id, by, referrer),
            store::Error::StillReferenced { kind, by, .. } => Self::referenced(kind, by),
            store::Error::Changed { .. } => Self::Plain(
                StatusCode::CONFLICT,
                "the entity was changed by others at the same time: try again".into(),
            ),
            store::Error::Unreadable { reason, .. } => {
                Self::bad_request(format!("the entity cannot be stored: {reason}"))
            }
            store::Error::SetAside { kind, id, reason } => Self::Plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "the stored row {id} of {} is set aside: {reason}; DELETE removes it",
                    kind.name()
                ),
            ),
            store::Error::Unavailable(reason) => {
                Self::Plain(StatusCode::SERVICE_UNAVAILABLE, reason)
            }
            store::Error::Backend(cause) => {
                tracing::error!("{cause}");
                Self::Plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "An unexpected error occurred".into(),
                )
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            Self::Plain(status, message) => {
                let mut response = (status, Json(json!({ "message": message }))).into_response();
                if status == StatusCode::UNAUTHORIZED {
                    let headers = response.headers_mut();
                    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                let unread = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT];
                if unread.contains(&status) {
                    // The rest of the body is not read, so no request can follow on the connection.
                    let headers = response.headers_mut();
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
            Self::Bare(status) => status.into_response(),
            Self::Coded(coded) => {
                let mut body = json!({
                    "code": coded.code,
                    "name": coded.name,
                    "message": coded.message,
                });
                if let Some((name, details)) = coded.details {
                    body[name] = details;
                }
                (coded.status, Json(body)).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_sorted_and_nested() {
        let key = json!({"upstream": {"id": "1"}, "target": "a:1"});
        let shown = key.as_object().map(lua);
        assert_eq!(
            shown.as_deref(),
            Some(r#"{target="a:1",upstream={id="1"}}"#)
        );
    }
}
