//! What a record has beyond Kong's.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::policy::record::{Record, Try};

/// The gateway's own part of a record. What is not known is left out.
pub(super) fn details(record: &Record) -> Value {
    let mut object = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    add("reason", record.reason.map(Value::from));
    add("policy", record.policy.map(Value::from));
    add("upstream", record.upstream.as_deref().map(Value::from));
    add("protocol", Some(format!("{:?}", record.version).into()));
    let line = record.unread_line.as_deref();
    let line = line.map(|line| String::from_utf8_lossy(line).into());
    add("unread_line", line);
    let stages = [
        ("match", record.stages.matched),
        ("access", record.stages.access),
        ("body", record.stages.body),
        (
            "pick",
            (!record.tries.is_empty()).then(|| record.tries.iter().map(|one| one.balancer).sum()),
        ),
        ("first_byte", record.latencies.upstream),
        ("total", Some(record.latencies.total)),
    ];
    let stages = stages
        .into_iter()
        .filter_map(|(name, time)| Some((name.to_owned(), micros(time?).into())));
    add("stages_us", Some(Value::Object(stages.collect())));
    Value::Object(object)
}

/// Adds to a try how its endpoint was chosen, how long it took and why it failed.
pub(super) fn add_pick(shown: &mut Value, one: &Try) {
    shown["latency_ns"] = json!(one.took.as_nanos() as u64);
    if let Some(failure) = one.failure {
        shown["failure"] = failure.into();
    }
    let Some(pick) = &one.pick else {
        return;
    };
    let (by, reason) = pick.by.parts();
    shown["chosen_by"] = by.into();
    if let Some(reason) = reason {
        shown["chosen_because"] = reason.into();
    }
    if let Some(version) = &pick.version {
        shown["balancer"] = json!({
            "name": version.name, "version": version.version, "digest": version.digest,
        });
    }
}

/// Whole microseconds.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
