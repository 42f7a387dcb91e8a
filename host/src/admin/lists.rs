//! Lists of rows, a page at a time.

use axum::Json;
use axum::extract::Request;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::Error;
use super::page::Page;
use super::rows::{id_of, shown};
use super::{Admin, ApiResult, hooks};
use crate::entity::{Kind, ListOrder, Row};

/// The list that a path names: of all rows, or of those that refer to a parent by a field.
pub(super) fn list(
    admin: &Admin,
    kind: Kind,
    parent: Option<(&'static str, Uuid)>,
    request: &Request,
) -> ApiResult {
    let query = request.uri().query().unwrap_or_default();
    if parent.is_none()
        && let Some(rows) = (hooks(kind).find)(admin, query)?
    {
        return Ok(Json(json!({ "data": rows, "next": null })).into_response());
    }
    let list = match parent {
        Some((field, parent)) if kind.declaration().nested_order == ListOrder::NewestFirst => {
            newest_first(admin, kind, field, parent, request, Value::from)?
        }
        _ => by_id(admin, kind, parent, request)?,
    };
    Ok(Json(match (list, parent) {
        (Value::Object(mut list), Some((_, parent))) => {
            (hooks(kind).beside_list)(admin, parent, &mut list);
            list.into()
        }
        (list, _) => list,
    })
    .into_response())
}

/// A list in the order of ids: of all rows, or of those that refer to a parent by a field.
pub(super) fn by_id(
    admin: &Admin,
    kind: Kind,
    parent: Option<(&'static str, Uuid)>,
    request: &Request,
) -> Result<Value, Error> {
    let page = Page::of(request.uri().query())?;
    let first = page.first()?;
    let rows = match parent {
        Some((field, parent)) => {
            admin
                .store
                .list_referring(kind, field, parent, first, page.size + 1)?
        }
        None => {
            let filter = page.filter()?;
            admin.store.list(kind, first, page.size + 1, &*filter)?
        }
    };
    let show = |row| shown(admin, kind, row);
    page.answer(request.uri().path(), rows, parent.is_none(), show)
}

/// A list of the rows that refer to a parent by a field: newest first, its offset a number.
pub(super) fn newest_first(
    admin: &Admin,
    kind: Kind,
    field: &'static str,
    parent: Uuid,
    request: &Request,
    show: impl Fn(Row) -> Value,
) -> Result<Value, Error> {
    let page = Page::of(request.uri().query())?;
    let start: usize = match &page.offset {
        None => 0,
        Some(offset) => offset
            .parse()
            .map_err(|_| Error::offset(offset, "not a number"))?,
    };
    let mut rows = admin
        .store
        .list_referring(kind, field, parent, None, usize::MAX)?;
    let created = |row: &Row| row.get("created_at").and_then(Value::as_f64).unwrap_or(0.0);
    rows.sort_by(|a, b| {
        created(&b.row)
            .total_cmp(&created(&a.row))
            .then_with(|| id_of(&b.row).cmp(&id_of(&a.row)))
    });
    let end = start.saturating_add(page.size);
    let offset = (rows.len() > end).then(|| end.to_string());
    let rows = rows.into_iter().skip(start).take(page.size);
    let rows = rows.map(|stored| show(stored.row)).collect();
    Ok(page.list(request.uri().path(), rows, offset, false))
}
