//! Lists a page at a time, and the filter by tags.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::Error;
use crate::entity::Row;
use crate::store::Stored;

/// Rows of a page unless `size` says otherwise, and the largest `size`. Source: Kong.
const SIZE: usize = 100;
const MAX_SIZE: usize = 1000;

/// All characters but those that never have to be escaped (RFC 3986, 2.3). Source: nginx,
/// `ngx.escape_uri`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Whether a row passes the filter of a request.
type Filter = Box<dyn Fn(&Row) -> bool + Send + Sync>;

/// Which page of a list a request asks for.
pub(super) struct Page {
    pub(super) size: usize,
    /// As the client sent it, for the link to the next page.
    size_text: Option<String>,
    pub(super) offset: Option<String>,
    tags: Option<String>,
}

impl Page {
    /// Reads the query of a request.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Error> {
        let mut page = Self {
            size: SIZE,
            size_text: None,
            offset: None,
            tags: None,
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "size" => page.size_text = Some(value.into_owned()),
                "offset" => page.offset = Some(value.into_owned()),
                "tags" => page.tags = Some(value.into_owned()),
                _ => {}
            }
        }
        if let Some(text) = &page.size_text {
            let size: f64 = text
                .parse()
                .map_err(|_| Error::size("size must be a number"))?;
            if size.fract() != 0.0 || !(1.0..=MAX_SIZE as f64).contains(&size) {
                let message = format!("size must be an integer between 1 and {MAX_SIZE}");
                return Err(Error::size(&message));
            }
            page.size = size as usize;
        }
        Ok(page)
    }

    /// The id of the first row.
    pub(super) fn first(&self) -> Result<Option<Uuid>, Error> {
        let Some(offset) = &self.offset else {
            return Ok(None);
        };
        let bytes = STANDARD_NO_PAD
            .decode(offset)
            .or_else(|_| STANDARD.decode(offset))
            .map_err(|_| Error::offset(offset, "bad base64 encoding"))?;
        let key: Vec<Uuid> = serde_json::from_slice(&bytes)
            .map_err(|_| Error::offset(offset, "bad json encoding"))?;
        Ok(key.first().copied())
    }

    /// The filter that `tags` describes: `a,b` all of them, `a/b` one of them.
    pub(super) fn filter(&self) -> Result<Filter, Error> {
        let Some(text) = &self.tags else {
            return Ok(Box::new(|_| true));
        };
        if text.is_empty() {
            return Err(Error::tags("cannot be null"));
        }
        let any = text.contains('/');
        if any && text.contains(',') {
            return Err(Error::tags("invalid filter syntax"));
        }
        let tags: Vec<String> = text.split([',', '/']).map(str::to_owned).collect();
        if tags.iter().any(String::is_empty) {
            return Err(Error::tags("invalid filter syntax"));
        }
        if tags.len() > 5 {
            return Err(Error::tags("cannot query more than 5 tags"));
        }
        Ok(Box::new(move |row| {
            let has = |tag: &String| {
                let tags = row.get("tags").and_then(Value::as_array);
                tags.is_some_and(|tags| tags.iter().any(|t| t == tag))
            };
            if any {
                tags.iter().any(has)
            } else {
                tags.iter().all(has)
            }
        }))
    }

    /// The answer for up to `size` + 1 rows: the last one only shows where the next page begins.
    pub(super) fn answer(
        &self,
        path: &str,
        mut rows: Vec<Stored>,
        top_level: bool,
        show: impl Fn(Row) -> Result<Option<Row>, Error>,
    ) -> Result<Value, Error> {
        let next = (rows.len() > self.size).then(|| rows.swap_remove(self.size));
        rows.truncate(self.size);
        let offset = next.map(|next| {
            let id = next.row.get("id").cloned().unwrap_or_default();
            STANDARD_NO_PAD.encode(json!([id]).to_string())
        });
        let mut all = Vec::with_capacity(rows.len());
        for stored in rows {
            all.extend(show(stored.row)?.map(Value::from));
        }
        Ok(self.list(path, all, offset, top_level))
    }

    /// The answer for these rows, with the place where the next page begins.
    pub(super) fn list(
        &self,
        path: &str,
        rows: Vec<Value>,
        offset: Option<String>,
        top_level: bool,
    ) -> Value {
        let Some(offset) = offset else {
            return json!({ "data": rows, "next": null });
        };
        let escape = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let mut next = format!("{path}?offset={}", escape(&offset));
        if top_level && let Some(tags) = &self.tags {
            next += &format!("&tags={}", escape(tags));
        }
        // For nested lists, Kong leaves the size out of this link, so the next pages have another
        // size. Here it is kept.
        if let Some(size) = &self.size_text {
            next += &format!("&size={}", escape(size));
        }
        json!({ "data": rows, "next": next, "offset": offset })
    }
}
