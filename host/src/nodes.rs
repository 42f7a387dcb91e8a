//! `pointsman nodes`: shows the gateways that share a configuration, and what each of them has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::client::Gateway;
use crate::columns::aligned;
use crate::standard_output::print;

/// Shows the gateways that share a configuration, and which revision of it each of them has
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
}

/// The heads of the columns.
const HEADS: [&str; 6] = ["ID", "HOST", "VERSION", "REVISION", "HASH", "AGE"];

/// Runs the command.
///
/// # Errors
/// One clear sentence.
pub fn nodes(arguments: &Arguments) -> anyhow::Result<()> {
    let admin = arguments.gateway.admin()?;
    const PATH: &str = "/clustering/data-planes";
    let listed = admin.find(PATH)?;
    let listed = listed.context(
        "this gateway shares its configuration with no other one: its store is not etcd",
    )?;
    let nodes = listed.get("data").and_then(Value::as_array);
    let nodes = nodes.ok_or_else(|| admin.foreign(PATH))?;
    let trouble = admin.find("/status/ready").err();
    if nodes.is_empty() {
        bail!(match trouble {
            Some(trouble) => format!("etcd lists no gateway, not even this one: {trouble}"),
            None =>
                "etcd lists no gateway, not even this one: its keys below etcd_prefix were lost; each \
                 gateway lists itself again within a minute"
                    .to_owned(),
        });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    print(&table(nodes, now.unwrap_or_default()))?;
    if let Some(trouble) = trouble {
        eprintln!("this gateway: {trouble}");
    }
    Ok(())
}

/// The gateways as lines, under a line with the heads, in the order of their names.
fn table(nodes: &[Value], now: Duration) -> String {
    let text = |node: &Value, field: &str| {
        let text = node.pointer(field).and_then(Value::as_str);
        text.unwrap_or("-").to_owned()
    };
    let number = |node: &Value, field: &str| node.pointer(field).and_then(Value::as_u64);
    let mut lines: Vec<[String; 6]> = nodes
        .iter()
        .map(|node| {
            let revision = number(node, "/pointsman/revision");
            let since = number(node, "/updated_at");
            [
                text(node, "/id"),
                text(node, "/hostname"),
                text(node, "/version"),
                revision.map_or("-".into(), |revision| revision.to_string()),
                text(node, "/config_hash"),
                // The clock of its machine may be ahead of this one.
                since.map_or("-".into(), |since| {
                    age(now.saturating_sub(Duration::from_secs(since)))
                }),
            ]
        })
        .collect();
    lines.sort_by(|one, other| (&one[1], &one[0]).cmp(&(&other[1], &other[0])));
    lines.insert(0, HEADS.map(str::to_owned));
    aligned(&lines)
}

/// How long its configuration has been in effect, in the largest unit that is not zero.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_gateway_is_a_line_and_the_columns_are_aligned() {
        let node = |id: &str, hostname: &str, revision: u64, updated_at: u64| {
            json!({
                "id": id,
                "hostname": hostname,
                "version": "0.1.0",
                "config_hash": "abcd",
                "updated_at": updated_at,
                "pointsman": { "revision": revision },
            })
        };
        let nodes = [
            node("22", "b", 9, 990),
            node("1", "a.example", 12345, 2000),
            json!({}),
        ];
        assert_eq!(
            table(&nodes, Duration::from_secs(1000)),
            "ID  HOST       VERSION  REVISION  HASH  AGE\n\
             -   -          -        -         -     -\n\
             1   a.example  0.1.0    12345     abcd  0s\n\
             22  b          0.1.0    9         abcd  10s\n"
        );
    }

    #[test]
    fn an_age_is_in_its_largest_unit() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7199, "1h"),
            (90_000, "1d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
    }
}
