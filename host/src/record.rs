//! `pointsman record`: writes the calls to a balancer of a running gateway, and its answers, to a
//! file.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::client::Gateway;
use crate::standard_output::print;

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
    let admin = arguments.gateway.admin()?;
    let shown = arguments.out.display();
    let cannot = || format!("cannot write {shown}");
    // A recording has the balancer start from nothing, so it begins only when its file is open.
    let (mut file, is_new) = open(&arguments.out).with_context(cannot)?;
    let mut trace = admin.stream(&path).inspect_err(|_| {
        if is_new {
            // The error of the recording is the one that matters.
            let _ = std::fs::remove_file(&arguments.out);
        }
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        file.set_len(0).with_context(cannot)?;
    }
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
    // Not every file has a disk, such as a pipe.
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        file.sync_all().with_context(cannot)?;
    }
    print(&format!("{shown}: {written} bytes recorded\n"))
}

/// Opens a file for the trace, and returns whether it was made for it. What a file has is left
/// there until there is a trace.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match File::create_new(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((OpenOptions::new().write(true).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}
