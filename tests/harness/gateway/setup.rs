//! How a gateway is started: its settings, its data folder, and what starts the process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::Gateway;
use crate::harness::compiled;
use crate::harness::log::Log;

/// A gateway to be started.
pub(crate) struct Setup {
    data_dir: PathBuf,
    args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    ulimit: Option<String>,
    /// A command that becomes the gateway, such as one that enters a namespace; empty for none.
    launcher: Vec<String>,
    /// Where the program is started from.
    program: PathBuf,
    owned: Option<TempDir>,
    compiled: bool,
    /// Whether the page is where it is by default; otherwise it is off unless an argument says
    /// where.
    default_page: bool,
}

impl Setup {
    /// With an empty data folder.
    pub(crate) fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        Self {
            data_dir: owned.path().join("data"),
            args: Vec::new(),
            environment: Vec::new(),
            ulimit: None,
            launcher: Vec::new(),
            program: env!("CARGO_BIN_EXE_pointsman").into(),
            owned: Some(owned),
            compiled: true,
            default_page: false,
        }
    }

    /// With the data folder of another gateway.
    pub(crate) fn with_data(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            args: Vec::new(),
            environment: Vec::new(),
            ulimit: None,
            launcher: Vec::new(),
            program: env!("CARGO_BIN_EXE_pointsman").into(),
            owned: None,
            compiled: true,
            default_page: false,
        }
    }

    pub(crate) fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.extend([name.to_owned(), value.to_string()]);
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// With an address space of this many KiB at most.
    pub(crate) fn address_space(self, kibibytes: u64) -> Self {
        self.ulimit(&format!("-v {kibibytes}"))
    }

    /// With a limit that the shell's `ulimit` sets.
    pub(crate) fn ulimit(mut self, limit: &str) -> Self {
        self.ulimit = Some(limit.to_owned());
        self
    }

    /// With another data folder.
    pub(crate) fn data_dir(mut self, data_dir: &Path) -> Self {
        self.data_dir = data_dir.to_owned();
        self
    }

    /// With the page at its default address.
    pub(crate) fn default_page(mut self) -> Self {
        self.default_page = true;
        self
    }

    /// With the shipped components still to be compiled, as on a new machine.
    pub(crate) fn uncompiled(mut self) -> Self {
        self.compiled = false;
        self
    }

    /// Started by another command, which becomes the gateway.
    pub(crate) fn launcher(mut self, command: Vec<String>) -> Self {
        self.launcher = command;
        self
    }

    /// Started from another path of the program.
    pub(crate) fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    pub(crate) fn command(&self) -> Command {
        let program = &self.program;
        let mut command = match &self.ulimit {
            None if !self.launcher.is_empty() => {
                let mut command = Command::new(&self.launcher[0]);
                command.args(&self.launcher[1..]).arg(program);
                command
            }
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", r#"ulimit $0 && exec "$@""#, limit]);
                shell.arg(program);
                shell
            }
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POINTSMAN_")) {
            command.env_remove(name);
        }
        command.arg("--data-dir").arg(&self.data_dir);
        let named = |name: &str| self.args.iter().any(|arg| arg == name);
        if !named("--proxy-listen") {
            command.args(["--proxy-listen", "127.0.0.1:0 http2"]);
        }
        if !named("--admin-listen") {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        if !named("--admin-gui-listen") && !self.default_page {
            command.args(["--admin-gui-listen", "off"]);
        }
        if !named("--status-listen") {
            command.args(["--status-listen", "off"]);
        }
        let in_environment = |name| self.environment.iter().any(|(set, _)| *set == name);
        if !named("--workers") && !in_environment("POINTSMAN_WORKERS") {
            command.args(["--workers", "2"]);
        }
        if !named("--balancer-pick-timeout") {
            // On a busy machine a pick may overrun a shorter timeout, and the host chooses then.
            command.args(["--balancer-pick-timeout", "1000"]);
        }
        if !named("--balancer-pick-cost") {
            command.args(["--balancer-pick-cost", "1000000"]);
        }
        // How long and how often DNS is asked, whatever the machine's /etc/resolv.conf says.
        command.env("RES_OPTIONS", "timeout:5 attempts:2");
        command.args(&self.args);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts the gateway, and waits until it prints that it is ready.
    pub(crate) fn start(self) -> Gateway {
        if self.compiled {
            compiled::provide(&self.data_dir);
        }
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::read(child.stderr.take().unwrap());
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!("not ready: {line:?}; log: {}", log.to_end());
        };
        // Without a listener, or with a Unix socket only, there is none.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = |name: &str| {
            let address = ready[name].as_str().unwrap_or_default();
            address.parse().unwrap_or(nowhere)
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Tests with a timeout of a second for clients would at times send a request on a
            // connection that the gateway is about to close.
            .max_idle_age(Duration::from_millis(500))
            .build()
            .new_agent();
        Gateway {
            proxy: address("proxy"),
            admin: address("admin"),
            listeners: ready["listeners"].clone(),
            child,
            data_dir: self.data_dir,
            log,
            agent,
            writes: AtomicUsize::new(0),
            _owned: self.owned,
        }
    }

    /// Runs a gateway that is expected to exit at its start: its exit status and its log.
    pub(crate) fn fail(self) -> (ExitStatus, String) {
        let output = self.command().output().unwrap();
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}
