//! The body of a request, in whatever form it comes, as the fields of an entity.

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use http_body_util::BodyExt;
use serde_json::Value;

use super::form;
use super::paced::TooSlow;
use crate::entity::{Field, Row};
use crate::error::Error;

/// Most arguments of a form. Source: Kong.
const ARGUMENTS: usize = 1000;

/// The fields that a request carries.
pub(super) async fn fields(fields: &[Field], request: Request, limit: usize) -> Result<Row, Error> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return if has_body(&headers) {
            Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE))
        } else {
            Ok(Row::new())
        };
    };
    let content_type = content_type.to_str().unwrap_or_default();
    let lower = content_type.to_ascii_lowercase();
    if lower.starts_with("application/json") {
        let body = read(body, limit).await?;
        let unreadable = || Error::bad_request("Cannot parse JSON body");
        let value: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        return match value {
            Value::Object(row) if row.len() > ARGUMENTS => Err(too_many()),
            Value::Object(row) => Ok(row),
            _ => Err(unreadable()),
        };
    }
    let pairs: Vec<(String, Value)> = if lower.starts_with("application/x-www-form-urlencoded") {
        let body = read(body, limit).await?;
        form_urlencoded::parse(&body)
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect()
    } else if lower.starts_with("multipart/form-data") {
        multipart(content_type, read(body, limit).await?).await?
    } else {
        return Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    };
    if pairs.len() > ARGUMENTS {
        return Err(too_many());
    }
    let mut row = form::structure(pairs);
    form::infer(fields, &mut row);
    Ok(row)
}

fn too_many() -> Error {
    Error::bad_request("Too many arguments")
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

/// Most that is read, and thrown away, of a body that is too large. A client that is cut off while it
/// sends would not see the answer.
const LINGER: usize = 64 << 20;

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
        if length > LINGER {
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

/// What the client is told when its body breaks off.
fn unread(error: axum::Error) -> Error {
    let cause = error.into_inner();
    if cause.is::<TooSlow>() {
        return Error::Plain(StatusCode::REQUEST_TIMEOUT, "Request timeout".into());
    }
    Error::bad_request(format!("cannot read the body: {cause}"))
}

/// The parts of a multipart form with their names; a part of type JSON is decoded.
async fn multipart(content_type: &str, body: Bytes) -> Result<Vec<(String, Value)>, Error> {
    let mut pairs = Vec::new();
    for part in parts(content_type, body).await? {
        let json = part.content_type.as_deref() == Some("application/json");
        let value = if json {
            serde_json::from_slice(&part.content)
                .map_err(|_| Error::bad_request("Cannot parse JSON body"))?
        } else {
            String::from_utf8_lossy(&part.content).into_owned().into()
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

pub(super) async fn parts(content_type: &str, body: Bytes) -> Result<Vec<Part>, Error> {
    let malformed = |error: multer::Error| Error::bad_request(format!("malformed form: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(malformed)?;
    let stream = futures_util::stream::once(async move { Ok::<_, std::io::Error>(body) });
    let mut form = multer::Multipart::new(stream, boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        parts.push(Part {
            name: field.name().unwrap_or_default().to_owned(),
            content_type: field.content_type().map(|t| t.essence_str().to_owned()),
            content: field.bytes().await.map_err(malformed)?,
        });
    }
    Ok(parts)
}
