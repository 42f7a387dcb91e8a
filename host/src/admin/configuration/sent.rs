//! What `POST /config` was sent.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

use super::super::error::Error;
use super::super::{arguments, decode};
use super::text;
use crate::entity::Row;

/// What `POST /config` is asked to do besides loading.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) check_hash: bool,
    pub(super) flatten_errors: bool,
}

impl Flags {
    /// Takes note of an argument. Returns whether it is one of them.
    pub(super) fn read(&mut self, name: &str, value: &str) -> bool {
        let is_true = ["true", "1", "on", "yes"];
        match name {
            "check_hash" => self.check_hash = value == "1",
            "flatten_errors" => {
                self.flatten_errors = is_true.contains(&value.to_ascii_lowercase().as_str());
            }
            _ => return false,
        }
        true
    }

    /// Takes them out of the fields of a body.
    fn take(&mut self, fields: &mut Row) {
        for name in ["check_hash", "flatten_errors"] {
            if let Some(value) = fields.shift_remove(name) {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                self.read(name, &value);
            }
        }
    }
}

/// What the body of `POST /config` holds.
pub(super) enum Sent {
    Text(String),
    Value(Value),
}

/// Reads a body, and the arguments in it.
///
/// # Errors
/// It has no configuration.
pub(super) async fn sent(
    headers: &HeaderMap,
    body: &Bytes,
    flags: &mut Flags,
) -> Result<Sent, Error> {
    let missing = || Error::bad_request("expected a declarative configuration");
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = String::from_utf8_lossy(content_type.unwrap_or_default()).into_owned();
    let lower = content_type.to_ascii_lowercase();
    let begins = |name: &str| lower.starts_with(name);
    if begins("application/json") {
        let value = serde_json::from_slice(body);
        let Ok(Value::Object(mut fields)) = value else {
            return Err(Error::bad_request("Cannot parse JSON body"));
        };
        flags.take(&mut fields);
        if fields.contains_key("_format_version") {
            return Ok(Sent::Value(fields.into()));
        }
        return match fields.shift_remove("config") {
            Some(Value::String(text)) => Ok(Sent::Text(text)),
            _ => Err(missing()),
        };
    }
    let mut pairs = Vec::new();
    if begins("application/x-www-form-urlencoded") {
        pairs = arguments::pairs(body)?;
    } else if begins("multipart/form-data") {
        for part in decode::parts(&content_type, body.clone()).await? {
            let value = arguments::utf8(&part.name, part.content.into())?;
            pairs.push((part.name, value));
        }
    } else if !lower.is_empty() && !begins("application/yaml") && !begins("text/yaml") {
        return Err(Error::Bare(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    } else if body.is_empty() {
        return Err(missing());
    } else {
        return Ok(Sent::Text(text(body)?.to_owned()));
    }
    let mut config = None;
    for (name, value) in pairs {
        if name == "config" {
            config = Some(value);
        } else {
            flags.read(&name, &value);
        }
    }
    config.map(Sent::Text).ok_or_else(missing)
}
