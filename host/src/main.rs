//! The `pointsman` program: arguments in, exit code out.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ContextKind;
use clap::{Parser, Subcommand};
use pointsman::config::{Config, Written, misspelt_variables};
use pointsman::{
    AdminTokenArguments, ConfigCommand, LogFields, LogLevel, NodesArguments, PluginCommand,
    Recording, Replay, RolloutCommand, Simulation, TopArguments, admin_token, check, component,
    config_command, nodes, plugin, record, replay, rollout, run, simulate, top,
};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Arguments with which the gateway starts itself as a separate process, for work that a component
/// may make expensive. They are internal, so they are not in the help.
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

    /// Checks the settings, their certificates and the declarative configuration, and starts
    /// nothing
    #[arg(short = 't', long)]
    check: bool,
}

/// What the program does instead of running the gateway.
#[derive(Debug, Subcommand)]
enum Command {
    Simulate(Simulation),
    Record(Recording),
    Replay(Replay),
    #[command(subcommand)]
    Plugin(PluginCommand),
    #[command(subcommand)]
    Config(ConfigCommand),
    AdminToken(AdminTokenArguments),
    Nodes(NodesArguments),
    Top(TopArguments),
    #[command(subcommand)]
    Rollout(RolloutCommand),
}

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(first) if first == COMPILE_WORKER => return component::compile_worker(),
        Some(first) if first == SCHEMA_WORKER => return component::schema_worker(),
        _ => {}
    }
    let (cli, mut mistakes) = match parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    if let Some(command) = &cli.command {
        let done = match command {
            Command::Simulate(simulation) => simulate(simulation).map(|()| ExitCode::SUCCESS),
            Command::Record(recording) => record(recording).map(|()| ExitCode::SUCCESS),
            Command::Replay(trace) => replay(trace).map(|()| ExitCode::SUCCESS),
            Command::Plugin(command) => plugin(command),
            Command::Config(command) => config_command(command, &cli.settings),
            Command::Nodes(arguments) => nodes(arguments).map(|()| ExitCode::SUCCESS),
            Command::Top(arguments) => top(arguments).map(|()| ExitCode::SUCCESS),
            Command::Rollout(command) => rollout(command),
            Command::AdminToken(token) => admin_token(token).map(|()| ExitCode::SUCCESS),
        };
        return done.unwrap_or_else(|error| fail(&format!("{error:#}")));
    }
    mistakes.extend(misspelt_variables(
        std::env::vars_os().map(|(name, _)| name),
    ));
    let settings = cli.settings.clone();
    let config = match Config::load_with(cli.settings, mistakes) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if cli.check {
        let mistakes = check(&config);
        if !mistakes.is_empty() {
            return fail(&mistakes.join("\n"));
        }
        // A failed write is no error: the exit code says the same.
        let _ = writeln!(std::io::stdout(), "the settings are valid");
        return ExitCode::SUCCESS;
    }
    // Files and pipes get plain text, and so does a terminal if `NO_COLOR` is set (no-color.org).
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(LogFields::default())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain);
    let (log_level, filter) = LogLevel::new(config.log.clone());
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .init();
    let reload = move || Config::load(settings.clone());
    match run(config, log_level, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Reads the command line. clap stops at the first invalid flag. For the gateway's own flags, that
/// flag is removed, its error is kept, and the rest is parsed again, so that all mistakes are
/// reported at once.
fn parse(mut args: Vec<OsString>) -> Result<(Cli, Vec<String>), clap::Error> {
    let mut first = None;
    let mut mistakes = Vec::new();
    loop {
        match Cli::try_parse_from(&args) {
            // For a command, clap's own error is returned, with its usage.
            Ok(cli) => match first {
                Some(error) if cli.command.is_some() => return Err(error),
                _ => return Ok((cli, mistakes)),
            },
            Err(error) => match without_refused(&args, &error) {
                Some((rest, mistake)) => {
                    args = rest;
                    mistakes.push(mistake);
                    first.get_or_insert(error);
                }
                None => return Err(first.unwrap_or(error)),
            },
        }
    }
}

/// The arguments without the flag that clap refuses, and the reason; `None` if it is not a flag.
fn without_refused(args: &[OsString], error: &clap::Error) -> Option<(Vec<OsString>, String)> {
    let refused = error.get(ContextKind::InvalidArg)?.to_string();
    // clap may add the name of the value: `--workers <N>`.
    let flag = refused.split([' ', '=']).next()?;
    if !flag.starts_with('-') {
        return None;
    }
    let is_refused = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg.split('=').next() == Some(flag)
    };
    let position = args.iter().rposition(is_refused)?;
    let has_value = !args[position].to_string_lossy().contains('=')
        && args
            .get(position + 1)
            .is_some_and(|next| !next.to_string_lossy().starts_with('-'));
    let end = position + 1 + usize::from(has_value);
    let rest = args[..position].iter().chain(&args[end..]);
    let mut mistake = error.to_string();
    mistake.truncate(mistake.find('\n').unwrap_or(mistake.len()));
    let mut mistake = mistake.trim_start_matches("error: ").to_owned();
    if let Some(similar) = error.get(ContextKind::SuggestedArg) {
        mistake.push_str(&format!("; did you mean {similar}?"));
    }
    Some((rest.cloned().collect(), mistake))
}

/// Prints what clap has to say: the help that was asked for, or what is wrong with the command
/// line. The exit code of the latter is `EX_USAGE` of sysexits(3), because 2 has a meaning of its
/// own for `config diff`.
fn usage(error: &clap::Error) -> ExitCode {
    // The reader may have closed the pipe.
    let _ = error.print();
    match error.use_stderr() {
        true => ExitCode::from(64),
        false => ExitCode::SUCCESS,
    }
}

/// Writes an error to standard error, where people and supervisors look for it.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("pointsman: {line}");
    }
    ExitCode::FAILURE
}
