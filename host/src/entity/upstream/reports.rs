//! Which figures of a target's own metrics are read, and how.

use std::collections::HashSet;

use serde_json::Value;

use crate::entity::check;
use crate::entity::field::{Check, Field, Preset, Shape};

/// Most metrics of a target that are read. An address has room for 128 values, those of other
/// sources included.
const MAX_METRICS: usize = 32;

/// Most labels of a metric: each is compared with those of each sample.
const MAX_LABELS: usize = 8;

/// Longest name of a metric, a label or a value, in bytes.
const MAX_NAME_BYTES: usize = 128;

const LABEL: Field = Field::element(Shape::String);

const METRIC: Field = Field::element(Shape::Record(&[
    Field::string("name")
        .required()
        .check(&[Check::Text(metric_name)]),
    Field::map("labels", &[Check::Text(label_name)], &LABEL),
    Field::string("as").check(&[Check::Text(report_name)]),
    Field::string("aggregation")
        .default(Preset::String("sum"))
        .check(&[Check::OneOf(&["sum", "min", "max", "avg"])]),
]));

pub(super) const FIELDS: &[Field] = &[
    Field::string("path")
        .default(Preset::String("/metrics"))
        .check(&[Check::Text(path)]),
    Field::integer("port").check(&[Check::Between(1, 65_535)]),
    Field::boolean("tls"),
    Field::number("interval")
        .default(Preset::Integer(5))
        .check(&[Check::Between(1, 3600)]),
    Field::number("timeout")
        .default(Preset::Integer(1))
        .check(&[Check::BetweenNumbers(0.01, 60.0)]),
    Field::array("metrics", &METRIC).check(&[Check::List(few_labels), Check::List(distinct_names)]),
];

/// The name of a value that targets report, as in the column `reported:NAME`.
///
/// # Errors
/// It is not 1 to 128 printable ASCII characters without spaces, commas, quotes and equals signs.
pub fn report_name(text: &str) -> Result<(), String> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'"' | b'=');
    match !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(is_fit) {
        true => Ok(()),
        false => Err(format!(
            "expected a name of 1 to {MAX_NAME_BYTES} printable ASCII characters without spaces, commas, quotes and \
             equals signs"
        )),
    }
}

/// A name in Prometheus' text format. Only that of a metric may have a colon.
fn is_name(text: &str, may_have_colons: bool) -> bool {
    let is_part = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b':' && may_have_colons)
    };
    let begins = text
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    begins && text.len() <= MAX_NAME_BYTES && text.bytes().all(is_part)
}

fn metric_name(text: &str) -> Result<(), String> {
    match is_name(text, true) {
        true => Ok(()),
        false => Err(format!(
            "invalid name '{text}': expected that of a metric in Prometheus' text format, such as \
             vllm:num_requests_waiting; labels are a field of their own"
        )),
    }
}

fn label_name(text: &str) -> Result<(), String> {
    match is_name(text, false) {
        true => Ok(()),
        false => Err(format!(
            "invalid name '{text}': expected that of a label in Prometheus' text format, such as model_name"
        )),
    }
}

/// A path that may have a query.
fn path(text: &str) -> Result<(), String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    check::path(path)?;
    match query
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        true => Ok(()),
        false => Err("expected a query of printable ASCII characters without spaces and #".into()),
    }
}

/// No two figures may become the same value.
fn distinct_names(metrics: &[Value]) -> Result<(), String> {
    if metrics.len() > MAX_METRICS {
        return Err(format!("expected at most {MAX_METRICS} metrics"));
    }
    let mut names = HashSet::new();
    for metric in metrics {
        let field = |name| metric.get(name).and_then(Value::as_str);
        if let Some(name) = field("as").or_else(|| field("name"))
            && !names.insert(name)
        {
            return Err(format!(
                "two metrics are read as '{name}': set another name in `as`"
            ));
        }
    }
    Ok(())
}

/// The labels of no metric may be too many.
fn few_labels(metrics: &[Value]) -> Result<(), String> {
    for metric in metrics {
        let labels = metric.get("labels").and_then(Value::as_object);
        if labels.is_some_and(|labels| labels.len() > MAX_LABELS) {
            let name = metric.get("name").and_then(Value::as_str);
            return Err(format!(
                "'{}' has too many labels: expected at most {MAX_LABELS}",
                name.unwrap_or_default()
            ));
        }
    }
    Ok(())
}
