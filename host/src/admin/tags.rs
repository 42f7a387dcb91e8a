//! `/tags` and `/tags/{tag}`: which rows have which tags. Source: Kong 3.9, `kong.api.routes.tags`.
//!
//! The list is in the order of entities, ids and tags. An offset is a cursor in that order, so that
//! no entry is lost or repeated when rows before it come or go.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::arguments::Path;
use super::error::Error;
use super::page::Page;
use super::rows::id_of;
use super::{Admin, ApiEndpoint, ApiResult};
use crate::entity::{Kind, Row, check_tag};
use crate::store::Stored;

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    let all =
        get(async |State(admin): State<Admin>, request: Request| list(&admin, None, &request));
    let one = get(
        async |State(admin): State<Admin>, Path(tag): Path<String>, request: Request| {
            check_tag(&tag).map_err(|message| Error::unique_key("tag", message))?;
            list(&admin, Some(&tag), &request)
        },
    );
    [
        ("/tags".into(), all, "GET, HEAD, OPTIONS"),
        ("/tags/{key}".into(), one, "GET, HEAD, OPTIONS"),
    ]
}

/// Where a page of the list begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    kind: Kind,
    id: Uuid,
    tag: String,
}

fn list(admin: &Admin, wanted: Option<&str>, request: &Request) -> ApiResult {
    let page = Page::of(request.uri().query())?;
    let first = page.offset.as_deref().map(Cursor::read).transpose()?;
    let mut entries = Vec::new();
    for kind in from(first.as_ref().map(|first| first.kind)) {
        let in_first = first.as_ref().filter(|first| first.kind == kind);
        let most = page.size + 1 - entries.len();
        let declaration = kind.declaration();
        let has_tags = |row: &Row| {
            // One that has expired may not have been removed yet.
            tags_of(row, wanted).next().is_some() && !declaration.is_expired(row)
        };
        let rows = admin
            .store
            .list(kind, in_first.map(|first| first.id), most + 1, &has_tags)?;
        for Stored { row, .. } in rows {
            let id = id_of(&row);
            let mut tags: Vec<&str> = tags_of(&row, wanted).collect();
            tags.sort_unstable();
            // The tags of the first row that are on the page before this one.
            let before = in_first.filter(|first| first.id == id);
            tags.retain(|tag| before.is_none_or(|first| *tag >= first.tag.as_str()));
            entries.extend(tags.into_iter().map(|tag| Cursor {
                kind,
                id,
                tag: tag.to_owned(),
            }));
        }
        if entries.len() > page.size {
            break;
        }
    }
    let next = entries.get(page.size).map(Cursor::offset);
    entries.truncate(page.size);
    let shown = entries.iter().map(Cursor::shown).collect();
    let answer = page.list(request.uri().path(), shown, next, false);
    Ok(Json(answer).into_response())
}

/// The kinds of rows from one on, in the order of their names.
fn from(first: Option<Kind>) -> Vec<Kind> {
    let mut kinds = Kind::ALL.to_vec();
    kinds.sort_by_key(|kind| kind.name());
    kinds.retain(|kind| first.is_none_or(|first| kind.name() >= first.name()));
    kinds
}

/// The tags of a row: all of them, or the one that is looked for.
fn tags_of<'a>(row: &'a Row, wanted: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let tags = row.get("tags").and_then(Value::as_array);
    let tags = tags.into_iter().flatten().filter_map(Value::as_str);
    tags.filter(move |tag| wanted.is_none_or(|wanted| wanted == *tag))
}

impl Cursor {
    fn shown(&self) -> Value {
        json!({ "tag": self.tag, "entity_name": self.kind.name(), "entity_id": self.id })
    }

    fn offset(&self) -> String {
        STANDARD_NO_PAD.encode(json!([self.kind.name(), self.id, self.tag]).to_string())
    }

    fn read(offset: &str) -> Result<Self, Error> {
        let bytes = STANDARD_NO_PAD
            .decode(offset)
            .map_err(|_| Error::offset(offset, "bad base64 encoding"))?;
        let cursor: Option<(String, Uuid, String)> = serde_json::from_slice(&bytes).ok();
        let cursor = cursor.and_then(|(name, id, tag)| {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
            Some(Self { kind, id, tag })
        });
        cursor.ok_or_else(|| Error::offset(offset, "bad json encoding"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_read_as_it_was_written() {
        let cursor = Cursor {
            kind: Kind::Route,
            id: Uuid::new_v4(),
            tag: "a b".into(),
        };
        assert_eq!(Cursor::read(&cursor.offset()).ok(), Some(cursor));
        for wrong in ["*", "W10", "WyJ4IiwxLDJd"] {
            assert!(Cursor::read(wrong).is_err(), "{wrong}");
        }
    }
}
