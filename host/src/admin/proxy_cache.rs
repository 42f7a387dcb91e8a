//! The responses that `proxy-cache` stores: read and removed by their keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{delete, get};
use http::StatusCode;
use serde_json::{Value, json};

use super::arguments::Path;
use super::error::Error;
use super::rows::find;
use super::{Admin, ApiEndpoint, ApiResult, changes};
use crate::clock;
use crate::entity::Kind;
use crate::policy::proxy_cache::{Key, Stored};

const METHODS: &str = "DELETE, GET, HEAD, OPTIONS";

pub(super) fn endpoints() -> [ApiEndpoint; 3] {
    [
        ("/proxy-cache".into(), delete(clear), "DELETE, OPTIONS"),
        (
            "/proxy-cache/{key}".into(),
            get(show).delete(remove),
            METHODS,
        ),
        (
            "/proxy-cache/{key}/caches/{nested}".into(),
            get(show_of).delete(remove_of),
            METHODS,
        ),
    ]
}

async fn clear(State(admin): State<Admin>) -> StatusCode {
    admin.resources.proxy_cache.clear();
    changes::log_text("all responses of proxy-cache removed");
    StatusCode::NO_CONTENT
}

async fn show(State(admin): State<Admin>, Path(key): Path<String>) -> ApiResult {
    let stored = Key::parse(&key).map(|key| admin.resources.proxy_cache.responses(&key));
    match stored.unwrap_or_default().as_slice() {
        [] => Err(Error::not_found()),
        [newest, others @ ..] => {
            let mut shown = describe(newest, &key);
            if !others.is_empty() {
                let others: Vec<Value> = others.iter().map(|other| describe(other, &key)).collect();
                shown["variants"] = others.into();
            }
            Ok(Json(shown).into_response())
        }
    }
}

async fn remove(State(admin): State<Admin>, Path(key): Path<String>) -> ApiResult {
    match Key::parse(&key) {
        Some(parsed) if admin.resources.proxy_cache.remove(&parsed) => {
            changes::log_text(&format!(
                "responses of proxy-cache with the key {key:?} removed"
            ));
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Error::not_found()),
    }
}

async fn show_of(admin: State<Admin>, Path((plugin, key)): Path<(String, String)>) -> ApiResult {
    check(&admin, &plugin)?;
    show(admin, Path(key)).await
}

async fn remove_of(admin: State<Admin>, Path((plugin, key)): Path<(String, String)>) -> ApiResult {
    check(&admin, &plugin)?;
    remove(admin, Path(key)).await
}

/// Checks that a plugin is one of this kind. All of them share one memory.
fn check(admin: &Admin, plugin: &str) -> Result<(), Error> {
    let found = find(admin, Kind::Plugin, plugin)?;
    let name = found.as_ref().and_then(|found| found.row.get("name"));
    match name.and_then(Value::as_str) {
        Some("proxy-cache") => Ok(()),
        _ => Err(Error::not_found()),
    }
}

/// A response in the form of Kong, where its key is one of its headers.
fn describe(stored: &Arc<Stored>, key: &str) -> Value {
    let mut headers = serde_json::Map::new();
    headers.insert("X-Cache-Key".into(), key.into());
    for name in stored.headers.keys() {
        let values = stored.headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut values: Vec<Value> = values.map(Value::from).collect();
        let value = match values.len() {
            1 => values.remove(0),
            _ => values.into(),
        };
        headers.insert(name.to_string(), value);
    }
    json!({
        "status": stored.status.as_u16(),
        "headers": headers,
        "body": String::from_utf8_lossy(&stored.body),
        "body_len": stored.body.len(),
        "timestamp": clock::since_1970(stored.stored).as_secs(),
        "ttl": stored.ttl.as_secs(),
        "version": 1,
    })
}
