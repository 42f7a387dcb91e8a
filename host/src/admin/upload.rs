//! What an upload carries: a component, and what is said beside it.

use axum::extract::Request;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::{Admin, decode};
use crate::error::Error;

/// Room for the frame of a multipart form around a component.
const FRAME: usize = 64 << 10;

/// A component with the fields that came with it.
pub(super) struct Upload {
    pub(super) name: Option<String>,
    pub(super) tags: Value,
    pub(super) component: Bytes,
}

/// Reads an upload.
pub(super) async fn read(admin: &Admin, request: Request) -> Result<Upload, Error> {
    let limit = admin.config.balancer.upload;
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let mut upload = Upload {
        name: None,
        tags: Value::Null,
        component: Bytes::new(),
    };
    let mut tags = Vec::new();
    let query = request.uri().query().unwrap_or_default().to_owned();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "name" => upload.name = Some(value.into_owned()),
            "tags" => tags.extend(value.split(',').map(Value::from)),
            _ => {}
        }
    }
    let too_large = |error: Error| match error {
        // A component that is too large is not right, like one that is wrong in another way.
        Error::Plain(StatusCode::PAYLOAD_TOO_LARGE, _) => Error::field(
            "component",
            format!(
                "the component is larger than the {limit} bytes that this gateway takes (setting balancer_upload)"
            ),
        ),
        other => other,
    };
    if content_type.starts_with("application/wasm") {
        let body = decode::read(request.into_body(), limit).await;
        upload.component = body.map_err(too_large)?;
    } else if content_type.starts_with("multipart/form-data") {
        let body = decode::read(request.into_body(), limit + FRAME).await;
        let body = body.map_err(too_large)?;
        for part in decode::parts(&content_type, body).await? {
            let text = || String::from_utf8_lossy(&part.content).into_owned();
            match part.name.as_str() {
                "name" => upload.name = Some(text()),
                "tags" | "tags[]" => tags.push(text().into()),
                "component" => upload.component = part.content,
                other => return Err(Error::field(other, "unknown field")),
            }
        }
    } else {
        return Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if !tags.is_empty() {
        upload.tags = tags.into();
    }
    Ok(upload)
}
