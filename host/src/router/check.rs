//! Whether there is room for the regular expressions of a route, for those who write rows.

use serde_json::Value;

use super::{Route, StreamRoute};
use crate::config::RouterFlavor;
use crate::entity::{Kind, Row, view};

/// Whether a route, as a row, has regular expressions. Compiling those may take up to a second.
pub(crate) fn has_patterns(row: &Row) -> bool {
    let paths = row.get("paths").and_then(Value::as_array);
    let mut paths = paths.into_iter().flatten();
    let headers = row.get("headers").and_then(Value::as_object);
    let mut headers = headers.into_iter().flat_map(|headers| headers.values());
    let is_pattern =
        |value: &Value, mark: &str| value.as_str().is_some_and(|text| text.starts_with(mark));
    let expression = row.get("expression").and_then(Value::as_str);
    expression.is_some_and(|text| text.contains('~'))
        || paths.any(|path| is_pattern(path, "~"))
        || headers.any(|values| {
            let values = values.as_array();
            values.is_some_and(|values| values.iter().any(|value| is_pattern(value, "~*")))
        })
}

/// Compiles the regular expressions of a route, as a row, in the memory that others leave. Returns
/// the memory that they take, in bytes.
///
/// # Errors
/// The field at fault, and the message for it.
pub(crate) fn check_patterns(
    row: &Row,
    flavor: RouterFlavor,
    room: usize,
) -> Result<usize, (&'static str, String)> {
    let route = view(Kind::Route, row.clone()).map_err(|error| ("paths", error.to_string()))?;
    let stream = StreamRoute::compile(&route, room);
    let compiled = stream.and_then(|stream| {
        let of_stream = stream.map_or(0, |stream| stream.pattern_memory);
        Ok(of_stream + Route::compile(route, flavor, room)?.pattern_memory)
    });
    compiled.map_err(|error| (error.field, error.to_string()))
}
