//! `pointsman admin-token`: makes a token for the Admin API.

use std::io::Write;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

use crate::config::AdminToken;

/// Random bytes of a token.
const LENGTH: usize = 32;

/// Makes a token for the Admin API, and the entry of it for the setting admin_tokens
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the token, which the log has with each change: letters, digits, '.', '-', '_'
    name: String,

    /// The token may read, but change nothing
    #[arg(long)]
    read_only: bool,
}

/// Runs the command.
///
/// # Errors
/// What failed, in one sentence.
pub fn admin_token(arguments: &Arguments) -> anyhow::Result<()> {
    if !AdminToken::is_name(&arguments.name) {
        bail!(
            "{:?} is not a name: use letters, digits, '.', '-' and '_'",
            arguments.name
        );
    }
    let mut bytes = [0; LENGTH];
    let random = SystemRandom::new().fill(&mut bytes);
    random.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let entry = AdminToken::new(&arguments.name, !arguments.read_only, token.as_bytes());
    let text = format!("token: {token}\nadmin_tokens entry: {entry}\n");
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.context("cannot write to standard output")
}
