//! Which requests a rule of a route is for, as fields of routes.

use serde_json::{Value, json};

use super::{At, Left};
use crate::declarative::nginx::escaped;
use crate::entity::Row;
use crate::pattern::is_pattern;

/// `regex_priority` of exact paths, which come before all others. That of a prefix is its length.
const EXACT: u64 = 1_000_000;

/// The fields of a route for a match.
pub(super) struct Matched {
    pub(super) fields: Row,
    /// Whether it matches a prefix of paths.
    pub(super) is_prefix: bool,
    /// Whether it matches more requests than the manifest says.
    pub(super) is_wider: bool,
}

impl Matched {
    /// All requests.
    pub(super) fn everything() -> Self {
        Self {
            fields: Row::from_iter([("paths".to_owned(), json!(["/"]))]),
            is_prefix: true,
            is_wider: false,
        }
    }

    fn pattern(path: &str, priority: u64) -> Self {
        let mut fields = Row::from_iter([("paths".to_owned(), json!([format!("~{path}")]))]);
        if priority > 0 {
            fields.insert("regex_priority".into(), priority.into());
        }
        Self {
            fields,
            is_prefix: false,
            is_wider: false,
        }
    }

    /// A prefix as text: `/a` is one of `/ab` as well.
    fn prefix_as_text(path: &str) -> Self {
        Self {
            fields: Row::from_iter([("paths".to_owned(), json!([path]))]),
            is_prefix: true,
            is_wider: false,
        }
    }

    /// A prefix of whole segments: `/a` is one of `/a/b` and not of `/ab`.
    fn prefix(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Self::everything();
        }
        let paths = json!([format!("~{}$", escaped(path)), format!("{path}/")]);
        let fields = [
            ("paths".to_owned(), paths),
            ("regex_priority".to_owned(), path.len().into()),
        ];
        Self {
            fields: Row::from_iter(fields),
            is_prefix: true,
            is_wider: false,
        }
    }
}

/// A match of a rule of an HTTPRoute.
pub(super) fn of_http(at: &At<'_>, left: &mut Left) -> Matched {
    let mut is_wider = !left.others(at, &["path", "headers", "method", "queryParams"]);
    if let Some(query) = at.get("queryParams") {
        left.add(
            &query,
            "only routes with expressions (router_flavor = expressions) compare arguments",
        );
        is_wider = true;
    }
    let mut matched = Matched::everything();
    if let Some(path) = at.get("path") {
        let value = path.text("value").unwrap_or("/");
        match path.text("type").unwrap_or("PathPrefix") {
            "PathPrefix" => matched = Matched::prefix(value),
            "Exact" => matched = Matched::pattern(&format!("{}$", escaped(value)), EXACT),
            "RegularExpression" if !is_regex(&path, "value", left) => {
                is_wider = true;
                matched = Matched::prefix_as_text(begin(value));
            }
            "RegularExpression" => {
                let value = value.strip_prefix('^').unwrap_or(value);
                matched = match value.starts_with('/') {
                    true => Matched::pattern(value, 0),
                    // A path of a route begins with a slash; here it stands for nothing.
                    false => Matched::pattern(&format!("/{{0}}(?:{value})"), 0),
                };
            }
            _ => {
                left.add(&path, "there is no such type of paths");
                is_wider = true;
            }
        }
    }
    if let Some(method) = at.text("method") {
        matched.fields.insert("methods".into(), json!([method]));
    }
    is_wider |= !headers(at, left, &mut matched.fields);
    Matched {
        is_wider,
        ..matched
    }
}

/// A match of a rule of a GRPCRoute.
pub(super) fn of_grpc(at: &At<'_>, left: &mut Left) -> Matched {
    let mut is_wider = !left.others(at, &["method", "headers"]);
    let mut matched = Matched::everything();
    if let Some(method) = at.get("method") {
        let is_pattern = method.text("type") == Some("RegularExpression");
        let mut part = |name| {
            let text = method.text(name)?;
            if is_pattern && !is_regex(&method, name, left) {
                is_wider = true;
                return None;
            }
            Some(match is_pattern {
                // A group, since the text may have alternatives.
                true => format!("(?:{text})"),
                false => escaped(text),
            })
        };
        let any = || "[^/]+".to_owned();
        matched = match (part("service"), part("method")) {
            (None, None) => matched,
            (Some(service), None) => Matched::pattern(&format!("/{service}/"), 1),
            (service, Some(name)) => {
                let priority = if service.is_some() { EXACT } else { 0 };
                let service = service.unwrap_or_else(any);
                Matched::pattern(&format!("/{service}/{name}$"), priority)
            }
        };
    }
    is_wider |= !headers(at, left, &mut matched.fields);
    Matched {
        is_wider,
        ..matched
    }
}

/// Whether a field is a regular expression that routes can have. If not, the reason is listed.
fn is_regex(at: &At<'_>, field: &str, left: &mut Left) -> bool {
    let Some(at) = at.get(field) else {
        return true;
    };
    let checked = at.value.as_str().map_or(Ok(()), is_pattern);
    if let Err(error) = &checked {
        left.add(&at, &error.to_string());
    }
    checked.is_ok()
}

/// The text that every path begins with that a regular expression matches, even one that cannot be
/// parsed. At least a slash.
fn begin(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    // Each side of an alternative may begin in another way.
    if regex.contains('|') || !regex.starts_with('/') {
        return "/";
    }
    let is_mark = |letter: char| "\\.+*?()[]{}^$".contains(letter);
    let end = regex.find(is_mark).unwrap_or(regex.len());
    let plain = &regex[..end];
    // What is before one of these may be missing.
    let optional = regex[end..].starts_with(['*', '?', '{']);
    let last = plain.char_indices().next_back().filter(|_| optional);
    let plain = &plain[..last.map_or(end, |(at, _)| at)];
    if plain.is_empty() { "/" } else { plain }
}

/// Adds the headers of a match. Returns whether all of them are expressed.
fn headers(at: &At<'_>, left: &mut Left, fields: &mut Row) -> bool {
    let mut all = Row::new();
    let mut is_whole = true;
    for header in at.list("headers") {
        let value = match header.text("type") {
            Some("RegularExpression") if !is_regex(&header, "value", left) => {
                is_whole = false;
                continue;
            }
            Some("RegularExpression") => header.text("value").map(|value| format!("~*{value}")),
            None | Some("Exact") => header.text("value").map(str::to_owned),
            Some(_) => None,
        };
        let (Some(name), Some(value)) = (header.text("name"), value) else {
            left.add(&header, "not converted");
            is_whole = false;
            continue;
        };
        // Of several headers with one name, only the first counts. Source: the Gateway API.
        let is_known = all.keys().any(|known| known.eq_ignore_ascii_case(name));
        if !is_known {
            all.insert(name.to_owned(), json!([value]));
        }
    }
    if !all.is_empty() {
        fields.insert("headers".into(), Value::Object(all));
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use super::begin;

    #[test]
    fn the_text_before_the_first_mark_begins_every_path() {
        for (regex, text) in [
            ("/api/(?!internal).*", "/api/"),
            ("^/a/b$", "/a/b"),
            ("/ab?(?=c)", "/a"),
            ("/é*(?=c)", "/"),
            ("/?(?=c)", "/"),
            ("/a(?=b)|/c", "/"),
            ("(?=/a)/a", "/"),
            ("", "/"),
        ] {
            assert_eq!(begin(regex), text, "{regex}");
        }
    }
}
