//! `pointsman record`: writes the calls to a balancer of a running gateway, and its answers, to a
//! file.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::client::Gateway;

/// Records the picks of an upstream's balancer, for `pointsman replay`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name or id of the upstream
    upstream: String,

    /// File for the trace
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,

    /// How long, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,

    /// Largest trace, in bytes
    #[arg(long, default_value_t = 64 << 20, value_name = "N")]
    max_bytes: u64,

    /// Also records what the balancer reads of requests: paths, headers, addresses of clients,
    /// starts of bodies
    #[arg(long)]
    facts: bool,

    #[command(flatten)]
    gateway: Gateway,
}

/// Runs the command.
///
/// # Errors
/// One clear sentence.
pub fn record(arguments: &Arguments) -> anyhow::Result<()> {
    let upstream = utf8_percent_encode(&arguments.upstream, NON_ALPHANUMERIC);
    let (seconds, bytes) = (arguments.seconds, arguments.max_bytes);
    let facts = arguments.facts;
    let path =
        format!("/upstreams/{upstream}/record?seconds={seconds}&max_bytes={bytes}&facts={facts}");
    // The request is sent first, so that an error leaves no file behind.
    let mut trace = arguments.gateway.admin()?.stream(&path)?;
    let shown = arguments.out.display();
    let cannot = || format!("cannot write {shown}");
    let mut file = File::create(&arguments.out).with_context(cannot)?;
    let watched = std::io::stderr().is_terminal();
    let (mut piece, mut written) = (vec![0; 64 << 10], 0_u64);
    loop {
        let read = trace
            .read(&mut piece)
            .context("the gateway ended the recording early; what was received is complete")?;
        if read == 0 {
            break;
        }
        file.write_all(&piece[..read]).with_context(cannot)?;
        written += read as u64;
        if watched {
            eprint!("\rrecorded {} KiB", written >> 10);
        }
    }
    if watched {
        eprint!("\r\x1b[K");
    }
    file.sync_all().with_context(cannot)?;
    println!("{shown}: {written} bytes recorded");
    Ok(())
}
