//! `pointsman plugin check`: calls a component as the gateway does, and reports what would go
//! wrong.

mod asked;
mod component;
mod cost;
mod output;
mod progress;
mod report;
mod run;
mod suite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::balancer::{Engine, LoadedBalancer, Settings};
use crate::config::{Config, Written};
use crate::named::{self, Named};
use crate::simulate;
use crate::standard_output::print;

/// What is to be checked, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The component (.wasm)
    file: PathBuf,

    /// Settings to check it with, as an upstream would have them
    #[arg(long, value_name = "JSON", default_value = "{}")]
    config: String,

    /// An endpoint to try it with, by its address or by its id, as the Admin API shows it; may be
    /// given several times. With a label, ${LABEL} in the settings stands for the id
    #[arg(
        long = "endpoint",
        value_name = "[LABEL=]HOST:PORT|ID",
        conflicts_with = "scenario"
    )]
    endpoints: Vec<Named>,

    /// A label of every endpoint that it is tried with; may be given several times
    #[arg(
        long = "label",
        value_name = "KEY=VALUE",
        value_parser = label,
        conflicts_with = "scenario"
    )]
    labels: Vec<(String, String)>,

    /// A scenario of `pointsman simulate` (.toml) whose named endpoints, and labels of targets, it
    /// is tried with
    #[arg(long, value_name = "FILE")]
    scenario: Option<String>,

    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    /// Worth a look: the author may intend it.
    Warn,
    /// A gateway would refuse the component, or would choose in its place.
    Fail,
}

/// One check and its outcome.
#[derive(Debug, Serialize)]
struct Finding {
    /// Names the check, for programs.
    id: &'static str,
    verdict: Verdict,
    /// One sentence for people.
    sentence: String,
}

impl Finding {
    fn pass(id: &'static str, sentence: impl Into<String>) -> Self {
        let (verdict, sentence) = (Verdict::Pass, sentence.into());
        Self {
            id,
            verdict,
            sentence,
        }
    }

    fn warn(id: &'static str, sentence: impl Into<String>) -> Self {
        let (verdict, sentence) = (Verdict::Warn, sentence.into());
        Self {
            id,
            verdict,
            sentence,
        }
    }

    fn fail(id: &'static str, sentence: impl Into<String>) -> Self {
        let (verdict, sentence) = (Verdict::Fail, sentence.into());
        Self {
            id,
            verdict,
            sentence,
        }
    }
}

/// A component that has loaded, with settings that it has accepted.
struct Subject {
    engine: Arc<Engine>,
    plugin: Arc<LoadedBalancer>,
    config: String,
    /// The endpoints that the author has named, if any: each table starts with them.
    named: Vec<Named>,
    /// The labels of the endpoints, in turn; none for no labels.
    labels: Vec<BTreeMap<String, String>>,
}

/// The endpoints that a component is tried with, as far as the author has described them.
#[derive(Default)]
struct Endpoints {
    named: Vec<Named>,
    labels: Vec<BTreeMap<String, String>>,
}

/// Reads a label from an argument.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as zone=a".into()),
    }
}

/// All results for a component.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    #[serde(flatten)]
    component: Option<component::ComponentFacts>,
    verdict: Verdict,
    checks: Vec<Finding>,
    cost: Option<cost::Cost>,
}

/// Runs the command.
pub(super) fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let shown = arguments.file.display().to_string();
    let bytes = std::fs::read(&arguments.file).with_context(|| format!("cannot read {shown}"))?;
    let named = match &arguments.scenario {
        Some(scenario) => simulate::named_endpoints(scenario)?,
        None => arguments.endpoints.clone(),
    };
    named::ids(named.iter()).map_err(|sentence| anyhow!(sentence))?;
    let config = named::resolve(&arguments.config, named.iter());
    let config = config.map_err(|sentence| anyhow!(sentence))?;
    let engine = engine()?;
    let labels = match &arguments.scenario {
        Some(scenario) => simulate::labels(scenario)?,
        None if arguments.labels.is_empty() => Vec::new(),
        None => vec![arguments.labels.iter().cloned().collect()],
    };
    let endpoints = Endpoints { named, labels };
    let report = output::capture(|| report(&engine, shown, &bytes, &config, endpoints));
    print(&match arguments.format {
        Format::Table => report::table(&report),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    Ok(match report.verdict {
        Verdict::Fail => ExitCode::FAILURE,
        Verdict::Pass | Verdict::Warn => ExitCode::SUCCESS,
    })
}

/// The component host of a gateway with default settings, without a cache: the result must not
/// depend on the machine.
fn engine() -> anyhow::Result<Arc<Engine>> {
    let bounds = Config::load(Written::default())?.balancer;
    Engine::new(Settings {
        pick_timeout: bounds.pick_timeout,
        // The cost of a pick is measured and reported, however large it is.
        pick_cost: Duration::MAX,
        memory: bounds.memory,
        state: bounds.state,
        upload: bounds.upload,
        compile_timeout: bounds.compile_timeout,
        cache_dir: None,
        // Never run: this process compiles the component itself.
        compiler: PathBuf::new(),
    })
    .map_err(|error| anyhow!(error))
}

fn report(
    engine: &Arc<Engine>,
    file: String,
    bytes: &[u8],
    config: &str,
    endpoints: Endpoints,
) -> Report {
    let mut checks = Vec::new();
    let mut facts = None;
    let mut measured = None;
    if let Some(plugin) = component::load(engine, bytes, &mut checks) {
        facts = Some(component::ComponentFacts::of(&plugin));
        if component::settings(engine, &plugin, config, &mut checks) {
            let subject = Subject {
                engine: Arc::clone(engine),
                plugin,
                config: config.to_owned(),
                named: endpoints.named,
                labels: endpoints.labels,
            };
            checks.extend(suite::run(&subject));
            measured = cost::measure(&subject, &mut checks);
        }
    }
    let verdict = checks.iter().map(|finding| finding.verdict).max();
    Report {
        file,
        component: facts,
        verdict: verdict.unwrap_or(Verdict::Pass),
        checks,
        cost: measured,
    }
}

#[cfg(test)]
mod tests;
