//! `pointsman plugin canary`: a version takes a share of the picks before it is made active.

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::push::{path_of, text};
use crate::client::{Admin, Gateway};
use crate::standard_output::print;

/// Which version takes a share, and when it goes back by itself.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the balancer
    name: String,

    /// The version: its id, its digest, or the first 8 digits of that or more
    version: String,

    #[command(flatten)]
    bounds: Bounds,

    /// Promotes it once it has passed
    #[arg(long, requires = "duration")]
    promote: bool,

    /// Ends the canary
    #[arg(long, conflicts_with_all = ["Bounds", "promote"])]
    end: bool,

    #[command(flatten)]
    gateway: Gateway,
}

/// What is left out has the gateway's default.
#[derive(Debug, Args)]
struct Bounds {
    /// Share of the picks, above 0 up to 100 [default: 5]
    #[arg(long, value_name = "PERCENT")]
    share_percent: Option<f64>,

    /// Faults that it may have [default: 0]
    #[arg(long, value_name = "COUNT")]
    max_faults: Option<u64>,

    /// Highest share of failures among the requests that it places, in percent
    #[arg(long, value_name = "PERCENT")]
    max_error_percent: Option<f64>,

    /// Highest share of failures, as a multiple of the active version's
    #[arg(long, value_name = "TIMES")]
    max_error_ratio: Option<f64>,

    /// Longest p99 of the time until the head of the response, in milliseconds
    #[arg(long, value_name = "MS")]
    max_p99_ms: Option<f64>,

    /// Longest p99, as a multiple of the active version's
    #[arg(long, value_name = "TIMES")]
    max_p99_ratio: Option<f64>,

    /// Requests of each side before anything but faults is judged [default: 100]
    #[arg(long, value_name = "COUNT")]
    min_requests: Option<u64>,

    /// Seconds without a broken bound after which it has passed
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
}

pub(super) fn canary(arguments: &Arguments) -> anyhow::Result<()> {
    print(&done(arguments, &arguments.gateway.admin()?)?)
}

/// Starts or ends the canary, and returns the message about it.
fn done(arguments: &Arguments, admin: &Admin) -> anyhow::Result<String> {
    let (name, version) = (&*arguments.name, &*arguments.version);
    let key = utf8_percent_encode(version, NON_ALPHANUMERIC);
    let path = format!("{}/versions/{key}/canary", path_of(name));
    if arguments.end {
        admin.delete(&path)?;
        return Ok(format!("{name}: canary {version} ended\n"));
    }
    let made = admin.post_fields(&path, &fields(arguments))?.body;
    let share = made.get("share_percent").cloned().unwrap_or_default();
    let digest = text(&made, "version");
    Ok(format!(
        "{name}: {share} % of the picks go to sha256 {digest}\n"
    ))
}

/// The fields for which the author gave a value.
fn fields(arguments: &Arguments) -> Value {
    let bounds = &arguments.bounds;
    let given: [(&str, Option<Value>); 9] = [
        ("share_percent", bounds.share_percent.map(Value::from)),
        ("max_faults", bounds.max_faults.map(Value::from)),
        (
            "max_error_percent",
            bounds.max_error_percent.map(Value::from),
        ),
        ("max_error_ratio", bounds.max_error_ratio.map(Value::from)),
        ("max_p99_ms", bounds.max_p99_ms.map(Value::from)),
        ("max_p99_ratio", bounds.max_p99_ratio.map(Value::from)),
        ("min_requests", bounds.min_requests.map(Value::from)),
        ("duration", bounds.duration.map(Value::from)),
        ("promote", arguments.promote.then(|| true.into())),
    ];
    let given = given.into_iter();
    let fields = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Result<Arguments, String> {
        let words = ["canary", "mine", "0123456789abcdef"].into_iter();
        let parsed = Command::try_parse_from(words.chain(line.split_whitespace()));
        parsed
            .map(|command| command.arguments)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_given_fields_are_sent() {
        assert_eq!(fields(&parsed("").unwrap()), json!({}));
        let given = parsed("--share-percent 0.5 --max-faults 2 --duration 60 --promote").unwrap();
        assert_eq!(
            fields(&given),
            json!({"share_percent": 0.5, "max_faults": 2, "duration": 60.0, "promote": true})
        );
    }

    #[test]
    fn contradictory_arguments_are_refused() {
        assert!(parsed("--promote").is_err());
        assert!(parsed("--end --max-p99-ms 5").is_err());
        assert!(parsed("--end").is_ok());
    }
}
