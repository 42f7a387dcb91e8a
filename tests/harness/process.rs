//! Backends in processes of their own, which a test can stop, resume and kill by signals.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{Backend, refusing_address, send_signal};

/// The environment variable by which this test program is asked to be a backend: name and address.
const BACKEND_VARIABLE: &str = "TEST_BACKEND";

/// What the backend prints once it listens, before its address.
const LISTENING: &str = "listening on ";

/// What it prints once it responds as it was told.
const DONE: &str = "responds so from now on";

/// A [`Backend`] in a process of its own. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_on(name, refusing_address())
    }

    pub(crate) fn start_on(name: &str, address: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "harness::process::is_a_backend_if_the_environment_asks_for_one",
                "--nocapture",
            ])
            .env(BACKEND_VARIABLE, format!("{name} {address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test runner prints lines of its own before it.
        let address =
            printed.find_map(|line| Some(line.ok()?.split_once(LISTENING)?.1.parse().unwrap()));
        Self {
            address: address.unwrap(),
            child,
            printed,
        }
    }

    /// See [`Backend::respond_with`].
    pub(crate) fn respond_with(&mut self, status: u16, delay_ms: u64) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{status} {delay_ms}").unwrap();
        let mut printed = self.printed.by_ref().map_while(Result::ok);
        assert!(printed.any(|line| line == DONE));
    }

    /// See [`Backend::respond_normally`].
    pub(crate) fn respond_normally(&mut self) {
        self.respond_with(0, 0);
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The main function of the processes that [`Process`] starts: a backend that reads from its
/// standard input how it has to respond, until that ends. Elsewhere it does nothing.
#[test]
fn is_a_backend_if_the_environment_asks_for_one() {
    let Ok(requested) = std::env::var(BACKEND_VARIABLE) else {
        return;
    };
    let (name, address) = requested.split_once(' ').unwrap();
    let name: &'static str = name.to_owned().leak();
    let backend = Backend::start_on(name, address.parse().unwrap());
    println!("\n{LISTENING}{}", backend.address);
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (status, delay_ms) = line.split_once(' ').unwrap();
        backend.respond_with(status.parse().unwrap(), delay_ms.parse().unwrap());
        println!("{DONE}");
    }
}
