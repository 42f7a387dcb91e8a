//! Properties that hold for every route and every request; see `crate::fuzzing`.

#![expect(clippy::expect_used, reason = "a law that does not hold ends the run")]

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Arguments, Query, Route, Router};
use crate::config::RouterFlavor;
use crate::entity::{self, Kind, view};
use crate::path;
use crate::pattern::PATTERN_MEMORY;

/// The first line is a route: its fields as an object of JSON, or its expression. The second one is
/// a request: method, host, path and server name with spaces between them; the others are its
/// headers. The index finds a route with an expression if and only if the expression holds, and a
/// route that was removed is not found.
pub fn router(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.split('\n');
    let Some((row, flavor)) = lines.next().and_then(route) else {
        return;
    };
    let compiled = match Route::compile(row, flavor, PATTERN_MEMORY) {
        Ok(route) => Arc::new(route),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(compiled.pattern_memory <= PATTERN_MEMORY);
    let mut router: Router = [&compiled].into_iter().collect();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default();
    let method = Method::from_bytes(word().as_bytes()).unwrap_or_default();
    let (host, target) = (word(), word());
    let (target, query) = target.split_once('?').unwrap_or((target, ""));
    let target = format!("/{target}");
    let path = path::normalize(target.as_bytes());
    let server_name = words.next();
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_str(value.trim())
        {
            headers.append(name, value);
        }
    }
    let query = Query {
        method: &method,
        host,
        port: 8000,
        path: &path,
        headers: &headers,
        server_name,
        arguments: Arguments::new(Some(query)),
        client: Some(([192, 0, 2, 7], 4711).into()),
        local: Some([10, 0, 0, 1].into()),
    };
    let found = router.route(&query);
    if let Some(found) = &found {
        assert!(found.matched <= path.len());
    }
    if let Some(expression) = compiled.expression() {
        let holds = expression.find(&query).is_some();
        assert_eq!(found.is_some(), holds, "index and expression differ");
    }
    router.remove(&compiled);
    assert!(router.route(&query).is_none());
}

/// A route of the fields that the line has, as a client of the Admin API could store it.
fn route(line: &str) -> Option<(entity::route::Route, RouterFlavor)> {
    if !line.starts_with('{') {
        let mut row = json!({
            "id": Uuid::nil(), "name": null, "protocols": ["http", "https"],
            "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": true,
            "preserve_host": false, "request_buffering": true, "service": null, "priority": 1,
        });
        row["expression"] = line.into();
        let row = serde_json::from_value(row).expect("a whole row");
        return Some((row, RouterFlavor::Expressions));
    }
    let Value::Object(fields) = serde_json::from_str(line).ok()? else {
        return None;
    };
    let row = Kind::Route.declaration().create(Uuid::nil(), fields).ok()?;
    let row = view(Kind::Route, row).expect("the data plane can read it");
    Some((row, RouterFlavor::default()))
}
