//! `pointsman simulate`: the same requests for several balancers, on a simulated fleet.
//!
//! The balancers are the real components, run by the gateway's own code; only time, targets and
//! clients are simulated. The same scenario, seed and components give the same outcome, byte for
//! byte.

mod batch;
mod cache;
mod fleet;
mod outcome;
mod plot;
mod prompts;
mod quota;
mod random;
mod replay;
mod report;
mod run;
mod scenario;
mod source;
mod targets;
mod ticket;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::balancer::{Engine, LoadedBalancer, SHIPPED, Settings, try_settings};
use crate::component::Schema;
use crate::json::exact;
use crate::named::{self, Named};
use crate::standard_output::print;
pub use replay::{Arguments as ReplayArguments, replay};

use outcome::{SAMPLES, SimulationResult};
use scenario::{Group, Scenario};

/// Never reached: the limit of a balancer is counted in instructions, so that it is the same in
/// each run.
const PICK_TIMEOUT: Duration = Duration::from_secs(3600);

/// Limits of an instance's memory and state: the defaults of a gateway.
const MEMORY: usize = 16 << 20;
const STATE: usize = 1 << 20;

/// Compares balancers on a simulated fleet
#[derive(Debug, Args)]
pub struct Arguments {
    /// A scenario file (.toml), or the name of one that ships (see --list)
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,

    /// A balancer: the name of one that ships or a component (.wasm), with its settings if it needs
    /// any, as in 'prequal={"probes":3}'; may be given several times. Components alone are compared
    /// with all that ship [default: all that ship]
    #[arg(short, long = "balancer", value_name = "NAME|FILE[=JSON]")]
    balancers: Vec<String>,

    /// Random seed: the same seed gives the same outcome
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// What is written to standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Folder for outcome.json, latency.svg and load.svg; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Lists the scenarios that ship
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What a request's affinity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Affinity {
    /// The hash of its key.
    Key,
    /// The endpoint of the key's earlier requests.
    Session,
}

/// A balancer that is compared.
struct Contender {
    /// The name as given, with settings.
    name: String,
    plugin: Arc<LoadedBalancer>,
    config: String,
    affinity: Affinity,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn simulate(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(name) = &arguments.scenario else {
        return list();
    };
    let scenario = Scenario::load(name)?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let engine = engine()?;
    let names = contenders(&arguments.balancers);
    let start = Instant::now();
    let progress = Progress::new(names.len());
    let outcomes = progress.watch(|| {
        each(&names, |index, name| -> anyhow::Result<_> {
            let contender = Contender::load(&engine, name, scenario.named().flatten())
                .with_context(|| (*name).to_owned())?;
            let start = Instant::now();
            let outcome = run::run(
                &engine,
                &contender,
                &scenario,
                arguments.seed,
                &progress.samples[index],
            );
            let outcome = outcome.map_err(|fault| anyhow!("{name} failed: {fault}"))?;
            Ok((outcome, start.elapsed()))
        })
    });
    let outcomes: Vec<(SimulationResult, Duration)> =
        outcomes.into_iter().collect::<Result<_, _>>()?;
    print_speed(&outcomes, start.elapsed());
    let outcomes: Vec<SimulationResult> =
        outcomes.into_iter().map(|(outcome, _)| outcome).collect();

    let document = json!({
        "scenario": name,
        "description": scenario.description,
        "seed": exact(arguments.seed),
        "version": env!("CARGO_PKG_VERSION"),
        "outcomes": outcomes,
    });
    let wanted = Show {
        format: arguments.format,
        out: arguments.out.as_deref(),
        title: title(name, &scenario),
    };
    let heading = scenario.description.trim();
    show(&wanted, &scenario, &outcomes, &document, heading)
}

/// The scenarios that ship, by name, each with its text.
pub(crate) fn shipped_scenarios() -> impl Iterator<Item = (&'static str, &'static str)> {
    scenario::SHIPPED.iter().copied()
}

/// The endpoints that a scenario names.
pub(crate) fn named_endpoints(scenario: &str) -> anyhow::Result<Vec<Named>> {
    let scenario = Scenario::load(scenario)?;
    Ok(scenario.named().flatten().cloned().collect())
}

/// The labels of each target of a scenario; none if no target has any.
pub(crate) fn labels(scenario: &str) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
    let scenario = Scenario::load(scenario)?;
    let each = |group: &Group| std::iter::repeat_n(group.labels.clone(), group.count);
    let labels: Vec<_> = scenario.targets.iter().flat_map(each).collect();
    let has_any = labels.iter().any(|labels| !labels.is_empty());
    Ok(if has_any { labels } else { Vec::new() })
}

/// The format of outcomes, and where they are written.
struct Show<'a> {
    format: Format,
    out: Option<&'a Path>,
    /// The title of the plots: what was simulated, and under which load.
    title: String,
}

/// The balancers to compare. If only components are named, they are compared with all that ship.
fn contenders(named: &[String]) -> Vec<&str> {
    let is_shipped = |name: &&str| {
        let component = component_of(name).0;
        SHIPPED.iter().any(|shipped| shipped.name == component)
    };
    let mut names: Vec<&str> = named.iter().map(String::as_str).collect();
    if !names.iter().any(is_shipped) {
        names.extend(SHIPPED.iter().map(|shipped| shipped.name));
    }
    names
}

/// The name of a scenario, and its load.
fn title(scenario: &str, of: &Scenario) -> String {
    let name = Path::new(scenario).file_stem();
    let name = name.map_or(scenario.into(), |name| name.to_string_lossy());
    let percent = |phase: &scenario::Phase| (phase.level * 100.0).round();
    let levels = || of.load.iter().map(percent);
    let (least, most) = (
        levels().fold(f64::MAX, f64::min),
        levels().fold(0.0, f64::max),
    );
    match least == most {
        true => format!("{name}, load {most} %"),
        false => format!("{name}, load {least} to {most} %"),
    }
}

/// Writes outcomes, for users and for programs.
fn show(
    wanted: &Show<'_>,
    scenario: &Scenario,
    outcomes: &[SimulationResult],
    document: &Value,
    heading: &str,
) -> anyhow::Result<()> {
    let document = || -> anyhow::Result<String> { Ok(serde_json::to_string(document)? + "\n") };
    if let Some(folder) = wanted.out {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        write(folder, "outcome.json", &document()?)?;
        let plotted = |error: Box<dyn std::error::Error>| anyhow!("cannot plot: {error}");
        let latencies = plot::latencies(&wanted.title, outcomes).map_err(plotted)?;
        write(folder, "latency.svg", &latencies)?;
        let loads = plot::loads(&wanted.title, scenario, outcomes).map_err(plotted)?;
        write(folder, "load.svg", &loads)?;
    }
    print(&match wanted.format {
        Format::Table => format!("{heading}\n\n{}", report::tables(scenario, outcomes)),
        Format::Json => document()?,
    })
}

/// The component host for commands, which are not a gateway.
fn engine() -> anyhow::Result<Arc<Engine>> {
    Ok(Engine::metered(Settings {
        pick_timeout: PICK_TIMEOUT,
        // CPU time is not limited here.
        pick_cost: Duration::MAX,
        memory: MEMORY,
        state: STATE,
        upload: usize::MAX,
        compile_timeout: Duration::MAX,
        cache_dir: None,
        compiler: PathBuf::new(),
    })?)
}

fn write(folder: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn list() -> anyhow::Result<()> {
    let mut text = String::new();
    for (name, _) in scenario::SHIPPED {
        let description = Scenario::load(name)?.description;
        text.push_str(&format!(
            "{name}\n    {}\n",
            description.trim().replace('\n', "\n    ")
        ));
    }
    print(&text)
}

/// Prints the speed of the simulation. It is not part of the outcome, because it differs from run
/// to run.
fn print_speed(outcomes: &[(SimulationResult, Duration)], took: Duration) {
    let mut sum = 0;
    for (outcome, took) in outcomes {
        sum += outcome.total.requests;
        let rate = outcome.total.requests as f64 / took.as_secs_f64();
        eprintln!(
            "{}: simulated at {:.1} M requests/s",
            outcome.balancer,
            rate / 1e6
        );
    }
    eprintln!(
        "{:.1} M requests simulated in {:.1} s",
        sum as f64 / 1e6,
        took.as_secs_f64()
    );
}

/// The component and the settings in the name of a balancer.
fn component_of(name: &str) -> (&str, &str) {
    name.split_once('=').unwrap_or((name, "{}"))
}

impl Contender {
    /// Loads a balancer. Labels of endpoints in its settings are replaced with their ids.
    fn load<'a>(
        engine: &Arc<Engine>,
        name: &str,
        endpoints: impl Iterator<Item = &'a Named>,
    ) -> anyhow::Result<Self> {
        let (component, settings) = component_of(name);
        let settings =
            &named::resolve(settings, endpoints).map_err(|sentence| anyhow!(sentence))?;
        let shipped = SHIPPED.iter().find(|shipped| shipped.name == component);
        let plugin = match shipped {
            Some(shipped) => engine.load_trusted(shipped.component)?,
            None if component.contains(['/', '.']) => {
                let bytes =
                    std::fs::read(component).with_context(|| format!("cannot read {component}"))?;
                engine.load_trusted(&bytes)?
            }
            None => {
                let known: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
                bail!(
                    "no balancer {component:?} ships: name a .wasm file, or one of {}",
                    known.join(", ")
                );
            }
        };
        let settings: Value = serde_json::from_str(settings)
            .with_context(|| format!("its settings are not JSON: {settings}"))?;
        let schema = Schema::compile(&plugin.config_schema)
            .map_err(|error| anyhow!("its config-schema is not a JSON Schema: {error}"))?;
        if let Some(wrong) = schema.violations(&settings) {
            bail!("its settings are refused: {wrong}");
        }
        let config = settings.to_string();
        try_settings(engine, &plugin, &config).map_err(|sentence| anyhow!(sentence))?;
        let affinity = match plugin.name.as_str() {
            "sticky-sessions" => Affinity::Session,
            _ => Affinity::Key,
        };
        Ok(Self {
            name: name.to_owned(),
            plugin,
            config,
            affinity,
        })
    }
}

/// Calls a function with each item, on as many threads as there are processors. The results are in
/// the order of the items.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match items.get(index) {
                Some(item) => done.push((index, work(index, item))),
                None => return done,
            }
        }
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(items.len()))
            .map(|_| scope.spawn(take))
            .collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The progress of the simulations, shown on a terminal.
struct Progress {
    /// For each balancer, up to [`SAMPLES`].
    samples: Vec<AtomicU64>,
}

impl Progress {
    fn new(count: usize) -> Self {
        Self {
            samples: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Shows progress while `work` runs.
    fn watch<R>(&self, work: impl FnOnce() -> R) -> R {
        if !std::io::stderr().is_terminal() {
            return work();
        }
        let (done, over) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while over.recv_timeout(Duration::from_millis(200)).is_err() {
                    let samples = self.samples.iter().map(|s| s.load(Ordering::Relaxed));
                    let part: u64 = samples.sum::<u64>() * 100;
                    let percent = part / (SAMPLES * self.samples.len() as u64).max(1);
                    eprint!("\rsimulating {} balancers: {percent} %", self.samples.len());
                }
                eprint!("\r\x1b[K");
            });
            let result = work();
            // The other thread waits for this message, so the send does not fail.
            let _ = done.send(());
            result
        })
    }
}
