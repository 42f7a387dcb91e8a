//! `pointsman plugin`: the commands for an author of a balancer, from an empty folder to a balancer
//! that chooses.

mod build;
mod canary;
mod check;
mod new;
mod oci;
mod push;
mod sdk;

use std::process::ExitCode;

use clap::Subcommand;

/// Makes, checks and uploads balancers of your own
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Makes a project for a balancer of your own
    New(new::Arguments),
    /// Builds the component of a project
    Build(build::Arguments),
    /// Checks a component: what it is, how it behaves, and what a pick costs
    Check(check::Arguments),
    /// Uploads a component as a balancer, or as a new version of one
    Push(push::Push),
    /// Lists the balancers of a gateway
    List(push::List),
    /// Rolls a balancer back to the version that was active before
    Rollback(push::Rollback),
    /// Starts a canary, in which a version takes a share of the picks, or ends it
    Canary(canary::Arguments),
    /// Fetches a component from an OCI registry
    Pull(oci::Pull),
    /// Publishes a component to an OCI registry
    Publish(oci::Publish),
}

/// Runs the command.
///
/// # Errors
/// What failed, in one sentence.
pub fn plugin(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match arguments {
        Arguments::New(arguments) => new::new(arguments)?,
        Arguments::Build(arguments) => build::build(arguments)?,
        Arguments::Check(arguments) => return check::check(arguments),
        Arguments::Push(arguments) => push::push(arguments)?,
        Arguments::List(arguments) => push::list(arguments)?,
        Arguments::Rollback(arguments) => push::rollback(arguments)?,
        Arguments::Canary(arguments) => canary::canary(arguments)?,
        Arguments::Pull(arguments) => oci::pull(arguments)?,
        Arguments::Publish(arguments) => oci::publish(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
