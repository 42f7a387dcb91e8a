//! The `pointsman` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use pointsman::config::{Config, Written};
use pointsman::{balancer, run};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the gateway calls itself with to compile an uploaded component apart from itself. Not for
/// people, so not in the help.
const COMPILE_WORKER: &str = "compile-worker";

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == COMPILE_WORKER)
    {
        return balancer::compile_worker();
    }
    let config = match Config::load(Written::parse()) {
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
        Err(error) => fail(&error),
    }
}

/// Says what is wrong, a line each, where a person or a supervisor looks for it.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("pointsman: {line}");
    }
    ExitCode::FAILURE
}
