//! The body of a request, in any supported format, as the fields of an entity.

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use http_body_util::BodyExt;
use serde_json::Value;

use super::bounds::{ARGUMENTS, InputBudget, too_many_arguments};
use super::error::Error;
use super::paced::TooSlow;
use super::{arguments, form};
use crate::entity::{Field, Kind, Row};

/// The fields that a request carries, within the bounds of what is built from input.
pub(super) async fn fields(fields: &[Field], request: Request, limit: usize) -> Result<Row, Error> {
    decoded(request, limit, |row| form::infer(fields, row)).await
}

/// As [`fields`], for an entity; `old` is the row that the request changes, if any.
pub(super) async fn entity(
    kind: Kind,
    old: Option<&Row>,
    request: Request,
    limit: usize,
) -> Result<Row, Error> {
    let infer = |row: &mut Row| form::infer(&kind.declaration().fields_of(row, old), row);
    decoded(request, limit, infer).await
}

/// Decodes the body of a request. `infer` converts the texts of a form to the types of their
/// fields.
async fn decoded(
    request: Request,
    limit: usize,
    infer: impl FnOnce(&mut Row),
) -> Result<Row, Error> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return if has_body(&headers) {
            Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE))
        } else {
            Ok(Row::new())
        };
    };
    // No parameter that is looked for contains bytes that this would replace.
    let content_type = &*String::from_utf8_lossy(content_type.as_bytes());
    let lower = content_type.to_ascii_lowercase();
    let mut budget = InputBudget::new();
    if lower.starts_with("application/json") {
        let body = read(body, limit).await?;
        return match budget.json(&body)? {
            Value::Object(row) if row.len() > ARGUMENTS => Err(too_many_arguments()),
            Value::Object(row) => Ok(row),
            _ => Err(Error::bad_request("Cannot parse JSON body")),
        };
    }
    let pairs: Vec<(String, Value)> = if lower.starts_with("application/x-www-form-urlencoded") {
        let body = read(body, limit).await?;
        let pairs = arguments::pairs(&body)?.into_iter();
        pairs.map(|(name, value)| (name, value.into())).collect()
    } else if lower.starts_with("multipart/form-data") {
        multipart(content_type, read(body, limit).await?, &mut budget).await?
    } else {
        return Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    };
    let mut row = form::structure(pairs, &mut budget)?;
    infer(&mut row);
    Ok(row)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

/// How much of a body that is too large is read and discarded. A client whose connection is closed
/// while it still sends would not see the answer.
const MAX_DISCARDED: usize = 64 << 20;

/// The whole body, if it is not larger than `limit`.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, Error> {
    let mut content = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(unread)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > MAX_DISCARDED {
            break;
        }
        if length <= limit {
            content.extend_from_slice(&data);
        } else {
            content = BytesMut::new();
        }
    }
    if length <= limit {
        return Ok(content.freeze());
    }
    Err(Error::Plain(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {limit} bytes"),
    ))
}

/// The error for a client whose body breaks off.
fn unread(error: axum::Error) -> Error {
    let cause = error.into_inner();
    if cause.is::<TooSlow>() {
        return Error::Plain(StatusCode::REQUEST_TIMEOUT, "Request timeout".into());
    }
    Error::bad_request(format!("cannot read the body: {cause}"))
}

/// The parts of a multipart form with their names; a part of type JSON is decoded.
async fn multipart(
    content_type: &str,
    body: Bytes,
    budget: &mut InputBudget,
) -> Result<Vec<(String, Value)>, Error> {
    let mut pairs = Vec::new();
    for part in parts(content_type, body).await? {
        let json = part.content_type.as_deref() == Some("application/json");
        let value = if json {
            budget.json(&part.content)?
        } else {
            arguments::utf8(&part.name, part.content.into())?.into()
        };
        pairs.push((part.name, value));
    }
    Ok(pairs)
}

/// A part of a multipart form.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

/// The parts of a multipart form. An empty body has none; Kong accepts it as well.
pub(super) async fn parts(content_type: &str, body: Bytes) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    if body.is_empty() {
        return Ok(parts);
    }
    let malformed = |error: multer::Error| Error::bad_request(format!("malformed form: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(malformed)?;
    let stream = futures_util::stream::once(async move { Ok::<_, std::io::Error>(body) });
    let mut form = multer::Multipart::new(stream, boundary);
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        if parts.len() == ARGUMENTS {
            return Err(too_many_arguments());
        }
        parts.push(Part {
            name: field.name().unwrap_or_default().to_owned(),
            content_type: field.content_type().map(|t| t.essence_str().to_owned()),
            content: field.bytes().await.map_err(malformed)?,
        });
    }
    Ok(parts)
}
