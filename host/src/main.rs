//! The `pointsman` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pointsman::config::{Config, Written};
use pointsman::{
    PluginCommand, Recording, Replay, Simulation, balancer, plugin, record, replay, run, simulate,
};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the gateway calls itself with to do what a component may make expensive apart from itself. Not
/// for people, so not in the help.
const COMPILE_WORKER: &str = "compile-worker";
const SCHEMA_WORKER: &str = "schema-worker";

#[derive(Debug, Parser)]
#[command(
    name = "pointsman",
    version,
    about = "An API gateway in which every load-balancing decision is made by a WebAssembly component",
    long_about = None,
    after_help = "Every setting can also be given in a TOML file (--config), under its name with underscores:\n\
                  proxy_listen = \"0.0.0.0:8000\". A flag wins over the environment, the environment over the file.",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Written,
}

/// What the program does instead of running the gateway.
#[derive(Debug, Subcommand)]
enum Command {
    Simulate(Simulation),
    Record(Recording),
    Replay(Replay),
    #[command(subcommand)]
    Plugin(PluginCommand),
}

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(first) if first == COMPILE_WORKER => return balancer::compile_worker(),
        Some(first) if first == SCHEMA_WORKER => return balancer::schema_worker(),
        _ => {}
    }
    let cli = Cli::parse();
    if let Some(command) = &cli.command {
        let done = match command {
            Command::Simulate(simulation) => simulate(simulation).map(|()| ExitCode::SUCCESS),
            Command::Record(recording) => record(recording).map(|()| ExitCode::SUCCESS),
            Command::Replay(trace) => replay(trace).map(|()| ExitCode::SUCCESS),
            Command::Plugin(command) => plugin(command),
        };
        return done.unwrap_or_else(|error| fail(&format!("{error:#}")));
    }
    let config = match Config::load(cli.settings) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    // Checked by `Config::load`.
    let filter: Targets = config.log.parse().unwrap_or_default();
    tracing_subscriber::registry()
        .with(filter)
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Says what is wrong, a line each, where a person or a supervisor looks for it.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("pointsman: {line}");
    }
    ExitCode::FAILURE
}
