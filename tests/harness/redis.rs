//! A real Redis server for each test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{refusing_address, send_signal};

/// A Redis server without a file. Killed when dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// A server on a free port.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more arguments, on a free port.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        Self::start_as(refusing_address(), args)
    }

    /// A server on a given address.
    pub(crate) fn start_on(address: SocketAddr) -> Self {
        Self::start_as(address, &[])
    }

    fn start_as(address: SocketAddr, args: &[&str]) -> Self {
        let port = address.port().to_string();
        let (clear, tls) = match args.contains(&"--tls-cert-file") {
            false => (&*port, "0"),
            true => ("0", &*port),
        };
        let mut child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", clear, "--tls-port", tls])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server, which scripts/test installs: {error}"));
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = log.any(|line| line.unwrap().contains("Ready to accept connections"));
        // The server would block on a full pipe if its log were not read.
        std::thread::spawn(move || log.for_each(drop));
        assert!(ready, "redis-server did not start on {address}");
        Self { child, address }
    }

    /// The answer to a command, as the protocol has it.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").unwrap().to_owned()
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.id(), signal);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
