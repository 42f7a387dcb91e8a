//! `response-transformer`: changes responses before the client sees them. Source: Kong 3.9,
//! `response-transformer`.
//!
//! Headers are changed in every response. The body is changed if it is a complete JSON object of at
//! most [`BODY_LIMIT`]; any other body passes as it is.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Map, Number, Value};

use super::response::{BodyFilter, Response};
use super::transform::Steps;
use super::{DryRun, Policy};
use crate::entity::plugin::pair::Pair;
use crate::entity::plugin::response_transformer::{Config, JsonType, Values};

/// Largest body that is changed, in bytes. It is held in memory as a whole.
const BODY_LIMIT: usize = 8 << 20;

/// Changes responses.
#[derive(Debug)]
pub(super) struct ResponseTransformer {
    headers: Steps<String>,
    json: Arc<Steps<Value>>,
}

impl ResponseTransformer {
    pub(super) fn new(config: Config) -> Self {
        // A value after the name of a header that is removed has no effect. Source: Kong.
        let remove = config.remove.headers.into_iter().map(|pair| pair.name);
        let pairs = |pairs: &[Pair]| -> Vec<(String, String)> {
            let pairs = pairs.iter().filter(|pair| !pair.value.is_empty());
            pairs
                .map(|pair| (pair.name.clone(), pair.value.clone()))
                .collect()
        };
        Self {
            headers: Steps {
                remove: remove.collect(),
                rename: pairs(&config.rename.headers),
                replace: pairs(&config.replace.headers),
                add: pairs(&config.add.headers),
                append: pairs(&config.append.headers),
            },
            json: Arc::new(Steps {
                remove: config.remove.json,
                rename: pairs(&config.rename.json),
                replace: typed(&config.replace),
                add: typed(&config.add),
                append: typed(&config.append),
            }),
        }
    }
}

/// The values for members of JSON, in their types. One that has no value of its type is left out.
fn typed(values: &Values) -> Vec<(String, Value)> {
    let pairs = values.json.iter().enumerate();
    let pairs = pairs.filter_map(|(at, pair)| {
        let value = match values.json_types.get(at) {
            None | Some(JsonType::String) => pair.value.as_str().into(),
            Some(JsonType::Boolean) => (pair.value == "true").into(),
            Some(JsonType::Number) => {
                let number = serde_json::from_str::<Number>(pair.value.trim());
                Value::Number(number.ok()?)
            }
        };
        Some((pair.name.clone(), value))
    });
    pairs.collect()
}

impl Policy for ResponseTransformer {
    fn dry_run(&self) -> DryRun {
        DryRun::Idle
    }

    fn response(&self, response: &mut Response<'_>) {
        if !self.headers.is_empty() {
            let original = response.head.headers.clone();
            let headers = &mut response.head.headers;
            self.headers.apply_as_of(headers, &original);
        }
    }

    fn body(&self, response: &mut Response<'_>) -> Option<Box<dyn BodyFilter>> {
        let headers = &response.head.headers;
        // Clients ignore parameters that they do not know, whatever bytes these have.
        let content_type = String::from_utf8_lossy(headers.get(CONTENT_TYPE)?.as_bytes());
        let media_type = content_type.split(';').next().unwrap_or_default();
        let is_json = media_type.trim().eq_ignore_ascii_case("application/json");
        let is_part = response.head.status == StatusCode::PARTIAL_CONTENT;
        let is_readable = !headers.contains_key(CONTENT_ENCODING) && !is_part;
        (is_json && is_readable && !self.json.is_empty()).then(|| {
            Box::new(Body {
                steps: Arc::clone(&self.json),
                kept: Some(BytesMut::new()),
            }) as _
        })
    }
}

/// Keeps a body to its end, to change it as a whole.
struct Body {
    steps: Arc<Steps<Value>>,
    /// What has passed so far; `None` once the body is too long.
    kept: Option<BytesMut>,
}

impl BodyFilter for Body {
    fn data(&mut self, piece: Bytes) -> Bytes {
        let Some(kept) = &mut self.kept else {
            return piece;
        };
        kept.extend_from_slice(&piece);
        if kept.len() <= BODY_LIMIT {
            return Bytes::new();
        }
        tracing::warn!("a JSON body of more than {BODY_LIMIT} bytes is not changed");
        self.kept.take().unwrap_or_default().freeze()
    }

    fn end(&mut self) -> Bytes {
        let body = self.kept.take().unwrap_or_default().freeze();
        if body.is_empty() {
            return body;
        }
        match serde_json::from_slice::<Map<String, Value>>(&body) {
            Ok(mut members) => {
                self.steps.apply(&mut members);
                Value::Object(members).to_string().into()
            }
            Err(error) => {
                tracing::warn!("a body that is no JSON object is not changed: {error}");
                body
            }
        }
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn transformer(config: Value) -> ResponseTransformer {
        let none = json!({ "json": [], "headers": [], "json_types": [] });
        let mut whole = serde_json::Map::new();
        for step in ["remove", "rename", "replace", "add", "append"] {
            let mut lists = none.clone();
            for (name, list) in config[step].as_object().into_iter().flatten() {
                lists[name] = list.clone();
            }
            whole.insert(step.into(), lists);
        }
        ResponseTransformer::new(serde_json::from_value(whole.into()).unwrap())
    }

    fn passed(steps: &Arc<Steps<Value>>, pieces: &[&[u8]]) -> Vec<u8> {
        let mut body = Body {
            steps: Arc::clone(steps),
            kept: Some(BytesMut::new()),
        };
        let mut sent = Vec::new();
        for piece in pieces {
            sent.extend_from_slice(&body.data(Bytes::copy_from_slice(piece)));
        }
        sent.extend_from_slice(&body.end());
        sent
    }

    #[test]
    fn the_members_of_an_object_are_changed_in_the_types_of_the_settings() {
        let json = transformer(json!({
            "remove": { "json": ["gone"] },
            "rename": { "json": ["old:new"] },
            "replace": { "json": ["a:2", "absent:1"], "json_types": ["number"] },
            "add": { "json": ["b:true", "c:x", "d:x"], "json_types": ["boolean", "string", "number"] },
            "append": { "json": ["e:1", "e:2"], "json_types": ["number", "string"] },
        }))
        .json;
        let sent = br#"{"gone":1,"old":2,"a":"x"}"#;
        let expected = r#"{"a":2,"new":2,"b":true,"c":"x","e":[1,"2"]}"#;
        assert_eq!(passed(&json, &[sent]), expected.as_bytes());
    }

    #[test]
    fn a_body_that_is_no_object_or_too_long_passes_as_it_is() {
        let json = transformer(json!({ "add": { "json": ["a:1"] } })).json;
        for body in [&b"[1]"[..], b"{", b"x", b""] {
            assert_eq!(passed(&json, &[body]), body);
        }
        let long = format!("\"{}\"", "x".repeat(BODY_LIMIT));
        let long = format!("{{\"a\":{long}}}");
        let pieces: Vec<&[u8]> = long.as_bytes().chunks(1 << 16).collect();
        assert_eq!(passed(&json, &pieces), long.as_bytes());
    }

    #[test]
    fn a_header_is_removed_whatever_value_is_named() {
        let policy = transformer(json!({ "remove": { "headers": ["x-a", "x-b:1"] } }));
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-b", "1"), ("x-b", "2"), ("x-c", "1")] {
            headers.append(name, value.parse().unwrap());
        }
        policy.headers.apply(&mut headers);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        assert_eq!(left, [("x-c", &HeaderValue::from_static("1"))]);
    }

    #[test]
    fn each_step_asks_the_headers_as_they_came() {
        let changed = |config: Value| {
            let policy = transformer(config);
            let original = HeaderMap::from_iter([(
                HeaderName::from_static("x-a"),
                HeaderValue::from_static("1"),
            )]);
            let mut headers = original.clone();
            policy.headers.apply_as_of(&mut headers, &original);
            let mut shown: Vec<_> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            shown.sort();
            shown.join(", ")
        };
        let headers = |name: &str| json!({ "headers": [name] });
        let (remove, rename) = (headers("x-a"), headers("x-a:x-b"));
        for (config, expected) in [
            (json!({ "remove": remove, "add": headers("x-a:new") }), ""),
            (
                json!({ "remove": remove, "replace": headers("x-a:new") }),
                "x-a: new",
            ),
            (
                json!({ "rename": rename, "replace": headers("x-b:new") }),
                "x-b: 1",
            ),
            (
                json!({ "rename": rename, "add": headers("x-a:new") }),
                "x-b: 1",
            ),
            (
                json!({ "rename": rename, "add": headers("x-b:zz") }),
                "x-b: zz",
            ),
        ] {
            assert_eq!(changed(config.clone()), expected, "{config}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_body_is_divided(
            sizes in proptest::collection::vec(1_usize..9, 0..9),
        ) {
            let json = transformer(json!({ "add": { "json": ["z:1"] } })).json;
            let body = br#"{"a":[1,2.5,null],"b":{"c":"d"}}"#;
            let (mut pieces, mut rest) = (Vec::new(), &body[..]);
            for size in sizes {
                let (piece, left) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces.push(rest);
            let expected = br#"{"a":[1,2.5,null],"b":{"c":"d"},"z":"1"}"#;
            prop_assert_eq!(passed(&json, &pieces), expected.to_vec());
        }
    }
}
