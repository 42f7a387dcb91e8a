//! Servers in processes of their own, to be stopped and killed as processes are.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::Backend;

/// Tells a process of this very test program to be a server.
const WHO: &str = "TEST_BACKEND";

/// What the server says once it listens.
const LISTENING: &str = "listening on ";

/// A [`Backend`] in a process of its own. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_on(name, "127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_on(name: &str, address: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness::process::a_server", "--nocapture"])
            .env(WHO, format!("{name} {address}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test runner has its own words before it.
        let said = lines.map_while(Result::ok);
        let address = said
            .filter_map(|line| Some(line.split_once(LISTENING)?.1.parse().unwrap()))
            .next();
        Self {
            address: address.unwrap(),
            child,
        }
    }

    /// See [`Backend::turn`].
    pub(crate) fn turn(&mut self, status: u64, delay: u64) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{status} {delay}").unwrap();
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing but where [`Process`] asks for a server, which then takes orders until its input ends.
#[test]
fn a_server() {
    let Ok(who) = std::env::var(WHO) else {
        return;
    };
    let (name, address) = who.split_once(' ').unwrap();
    let name: &'static str = name.to_owned().leak();
    let backend = Backend::start_on(name, address.parse().unwrap());
    println!("\n{LISTENING}{}", backend.address);
    for order in std::io::stdin().lines().map_while(Result::ok) {
        let (status, delay) = order.split_once(' ').unwrap();
        backend.turn(status.parse().unwrap(), delay.parse().unwrap());
    }
}
