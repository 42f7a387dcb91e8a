//! `pointsman rollout`: tries a configuration at the gateways of the channel `canary`, before all
//! have it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::{Admin, Gateway};
use crate::columns::aligned;
use crate::standard_output::print;

/// Tries a configuration at the gateways of the channel canary before all have it
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Has a configuration take effect at the gateways of the channel
    Start(Start),
    /// Shows the rollout and its figures, or how the last one has ended; the exit code is 2 if it
    /// broke a bound
    Status(GatewayArguments),
    /// Has the rollout take effect at all gateways
    Promote(GatewayArguments),
    /// Has the gateways of the channel return to what the others have
    FallBack(GatewayArguments),
}

/// Starts a rollout
#[derive(Debug, Args)]
pub struct Start {
    /// Declarative configuration in YAML or JSON; - for standard input
    file: PathBuf,

    #[command(flatten)]
    bounds: Bounds,

    /// Promotes the rollout once it has passed
    #[arg(long, requires = "duration")]
    promote: bool,

    #[command(flatten)]
    gateway: Gateway,
}

/// When the channel falls back by itself. Without a bound and a duration, it does not.
#[derive(Debug, Args)]
struct Bounds {
    /// Highest share of 5xx among the channel's requests, in percent
    #[arg(long, value_name = "PERCENT")]
    max_error_percent: Option<f64>,

    /// Highest share of 5xx, as a multiple of the other gateways'
    #[arg(long, value_name = "TIMES")]
    max_error_ratio: Option<f64>,

    /// Longest p99 of the time until the head of the response, in milliseconds
    #[arg(long, value_name = "MS")]
    max_p99_ms: Option<f64>,

    /// Longest p99, as a multiple of the other gateways'
    #[arg(long, value_name = "TIMES")]
    max_p99_ratio: Option<f64>,

    /// Requests of the channel before it is judged, and of the others if it is compared
    /// [default: 100]
    #[arg(long, value_name = "COUNT")]
    min_requests: Option<u64>,

    /// Seconds without a broken bound after which it has passed
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
}

/// Which gateway is asked
#[derive(Debug, Args)]
pub struct GatewayArguments {
    #[command(flatten)]
    gateway: Gateway,
}

/// Where the Admin API has the rollout.
const PATH: &str = "/pointsman/rollout";

/// The exit code of `status` if the rollout broke a bound, so that scripts need not read the lines.
const RETURNED: u8 = 2;

/// Runs the command. Returns the exit code.
///
/// # Errors
/// One clear sentence, or the mistakes of the file, one a line.
pub fn rollout(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments {
        Arguments::Start(start) => {
            let admin = start.gateway.admin()?;
            let path = format!("/pointsman/config?{}", query(start));
            let text = text_of(&start.file)?;
            let answer = admin.put_document(&path, &text, &[]);
            let answer = answer.map_err(|error| {
                let shown = start.file.display();
                let told = error.to_string();
                let told = told.lines().map(|told| format!("{shown}: {told}"));
                anyhow!(told.collect::<Vec<_>>().join("\n"))
            })?;
            match listed(&answer.body) {
                (0, _) => print("no rollout: all gateways have this configuration\n")?,
                (changes, lines) => {
                    print(&format!("rollout started: {}\n{lines}", counted(changes)))?
                }
            }
        }
        Arguments::Status(asked) => {
            let admin = asked.gateway.admin()?;
            let rollout = last(&admin)?;
            print(&status(&rollout))?;
            if rollout
                .get("state")
                .is_some_and(|state| state == "returned")
            {
                return Ok(ExitCode::from(RETURNED));
            }
        }
        Arguments::Promote(asked) => {
            let answer = asked.gateway.admin()?.post(&format!("{PATH}/promote"))?;
            let changes = answer.body.get("changes").and_then(Value::as_u64);
            let changes = usize::try_from(changes.unwrap_or_default()).unwrap_or(usize::MAX);
            print(&format!("rollout promoted: {}\n", counted(changes)))?;
        }
        Arguments::FallBack(asked) => {
            asked.gateway.admin()?.delete(PATH)?;
            print("rollout ended: the channel returns to what the other gateways have\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What is given, as a query.
fn query(start: &Start) -> String {
    let bounds = &start.bounds;
    let given = [
        (
            "max_error_percent",
            bounds.max_error_percent.map(Value::from),
        ),
        ("max_error_ratio", bounds.max_error_ratio.map(Value::from)),
        ("max_p99_ms", bounds.max_p99_ms.map(Value::from)),
        ("max_p99_ratio", bounds.max_p99_ratio.map(Value::from)),
        ("min_requests", bounds.min_requests.map(Value::from)),
        ("duration", bounds.duration.map(Value::from)),
        ("promote", start.promote.then(|| true.into())),
    ];
    let mut query = "channel=canary".to_owned();
    for (name, value) in given {
        if let Some(value) = value {
            let value = value.to_string();
            query += &format!("&{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC));
        }
    }
    query
}

/// The rollout, or the one that was the last.
fn last(admin: &Admin) -> anyhow::Result<Value> {
    match admin.find(PATH)? {
        Some(rollout) => Ok(rollout),
        None => bail!("there has been no rollout: pointsman rollout start begins one"),
    }
}

/// The heads of the columns.
const HEADS: [&str; 6] = [
    "CHANNEL", "GATEWAYS", "REQUESTS", "ERRORS", "ERROR %", "P99 MS",
];

/// The rollout as lines.
fn status(rollout: &Value) -> String {
    let text = |name: &str| rollout.get(name).and_then(Value::as_str);
    let state = text("state").unwrap_or_default();
    let mut shown = match text("reason") {
        Some(reason) => format!("{state}: {reason}\n"),
        None => format!("{state}\n"),
    };
    shown += &listed(rollout).1;
    let mut lines = vec![HEADS.map(str::to_owned)];
    for channel in ["main", "canary"] {
        let Some(figures) = rollout.pointer(&format!("/figures/{channel}")) else {
            continue;
        };
        let number = |name: &str| figures.get(name).and_then(Value::as_f64);
        let whole = |name: &str| number(name).map_or("-".into(), |number| format!("{number:.0}"));
        let precise = |name: &str| number(name).map_or("-".into(), |number| format!("{number:.2}"));
        lines.push([
            channel.to_owned(),
            whole("gateways"),
            whole("requests"),
            whole("errors"),
            precise("error_percent"),
            precise("p99_ms"),
        ]);
    }
    if lines.len() > 1 {
        shown += &aligned(&lines);
    }
    let gateways = rollout.pointer("/figures/canary/gateways");
    if ["running", "passed"].contains(&state) && gateways == Some(&0.into()) {
        shown += "no gateway of the channel has reported figures yet: if none is alive, start one with \
                  --channel canary, or end it with pointsman rollout fall-back\n";
    }
    shown
}

/// The number of changes in an answer of the Admin API, and a line for each.
fn listed(rollout: &Value) -> (usize, String) {
    let changes = rollout.get("changes").and_then(Value::as_array);
    let (mut number, mut lines) = (0, String::new());
    for change in changes.into_iter().flatten() {
        let field = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
        let overtaken = match change.get("overtaken") == Some(&true.into()) {
            true => ": changed since by others, roll out again",
            false => "",
        };
        let (done, entity, id) = (field("change"), field("entity"), field("id"));
        let name = change.get("name").and_then(Value::as_str);
        let name = name.map(|name| format!(" {name:?}")).unwrap_or_default();
        lines += &format!("{done} {entity}{name} ({id}){overtaken}\n");
        number += 1;
    }
    (number, lines)
}

fn counted(changes: usize) -> String {
    let unit = if changes == 1 { "change" } else { "changes" };
    format!("{changes} {unit}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("rollout").chain(line.split_whitespace());
        let parsed = Command::try_parse_from(words);
        let parsed = parsed.map_err(|error| error.to_string())?;
        Ok(parsed.arguments)
    }

    #[test]
    fn only_given_bounds_are_sent() {
        for (line, expected) in [
            ("start kong.yml", "channel=canary"),
            (
                "start - --max-error-ratio 1.5 --min-requests 20 --duration 60 --promote",
                "channel=canary&max_error_ratio=1%2E5&min_requests=20&duration=60%2E0&promote=true",
            ),
        ] {
            let Arguments::Start(start) = parsed(line).unwrap() else {
                panic!("{line}");
            };
            assert_eq!(query(&start), expected);
        }
        assert!(parsed("start kong.yml --promote").is_err());
        assert!(matches!(parsed("fall-back"), Ok(Arguments::FallBack(_))));
    }

    #[test]
    fn the_outcome_comes_first_and_then_changes_and_figures() {
        let shown = status(&json!({
            "state": "returned",
            "reason": "50.00 % of its last 10 requests failed, more than 9 %",
            "changes": [
                {"change": "update", "entity": "services", "id": "1", "name": "a", "overtaken": true},
                {"change": "delete", "entity": "plugins", "id": "2", "name": null, "overtaken": false},
            ],
            "figures": {
                "main": {"gateways": 2, "requests": 1000, "errors": 1, "error_percent": 0.1,
                         "p99_ms": 2.5},
                "canary": {"gateways": 1, "requests": 10, "errors": 5, "error_percent": 50.0,
                           "p99_ms": null},
            },
        }));
        assert_eq!(
            shown,
            "returned: 50.00 % of its last 10 requests failed, more than 9 %\n\
             update services \"a\" (1): changed since by others, roll out again\n\
             delete plugins (2)\n\
             CHANNEL  GATEWAYS  REQUESTS  ERRORS  ERROR %  P99 MS\n\
             main     2         1000      1       0.10     2.50\n\
             canary   1         10        5       50.00    -\n"
        );
        assert_eq!(
            status(&json!({"state": "running", "reason": null})),
            "running\n"
        );
        let alone = json!({"state": "running", "figures": {"canary": {"gateways": 0}}});
        let shown = status(&alone);
        assert!(
            shown.ends_with("or end it with pointsman rollout fall-back\n"),
            "{shown}"
        );
    }
}
