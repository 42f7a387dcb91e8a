//! A log daemon that gets each line of the access log as a message. Source: nginx, `syslog:`; the
//! form is that of RFC 3164, in UTC.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tokio::runtime::{Builder, Runtime};

use super::output::Next;
use crate::config::{Dns, SyslogServer, SyslogTarget};
use crate::dns::Resolver;
use crate::node;

/// How often a message is tried again that the daemon's socket has no room for.
const MOST_WAITS: u32 = 50;

/// How long the daemon's name may be looked up. Lines wait in memory meanwhile.
const LOOK_UP: Duration = Duration::from_secs(5);

/// A log daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    target: SyslogTarget,
    server: SyslogServer,
    hostname: String,
    names: Names,
    /// Connected to the daemon, until a message cannot be sent.
    socket: Option<Socket>,
}

/// Looks up the name of the daemon. The thread of the log has a runtime of its own for that, so
/// that neither a look-up nor the thread waits for another one.
#[derive(Debug)]
struct Names {
    settings: Dns,
    /// Made when a name is looked up first.
    started: Option<(Runtime, Arc<Resolver>)>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    /// `local` is the local socket of the system's log, and `dns` says how names are looked up.
    pub(super) fn new(target: SyslogTarget, local: &Path, dns: &Dns) -> Self {
        let server = target.server.clone();
        Self {
            server: server.unwrap_or_else(|| SyslogServer::Unix(PathBuf::from(local))),
            hostname: match target.has_hostname {
                true => node::hostname(),
                false => String::new(),
            },
            target,
            names: Names {
                settings: dns.clone(),
                started: None,
            },
            socket: None,
        }
    }

    /// Closes the socket, which is made again for the next message.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    /// Sends lines. While the daemon's socket has no room, `wait` is called, and says whether to
    /// try again. After a line that could not be sent, the others are given up as well, since each
    /// would wait as long as that one; only a line that is too long for a message is left out.
    /// Returns how many were sent, and why the first of the others was not.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        wait: &mut dyn FnMut() -> Next,
    ) -> (u64, io::Result<()>) {
        let head = self.head(SystemTime::now());
        let (mut sent, mut result) = (0, Ok(()));
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let message = [head.as_bytes(), line].concat();
            match self.send(&message, wait) {
                Ok(()) => sent += 1,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    result = result.and(Err(error));
                }
                Err(error) => {
                    self.socket = None;
                    return (sent, result.and(Err(error)));
                }
            }
        }
        (sent, result)
    }

    fn send(&mut self, message: &[u8], wait: &mut dyn FnMut() -> Next) -> io::Result<()> {
        let mut waits = 0;
        let mut is_new = false;
        loop {
            let socket = match &self.socket {
                Some(socket) => socket,
                None => {
                    is_new = true;
                    let socket = Socket::connect(&self.server, &mut self.names)?;
                    self.socket.insert(socket)
                }
            };
            let sent = match socket {
                Socket::Udp(socket) => socket.send(message),
                Socket::Unix(socket) => socket.send(message),
            };
            let Err(error) = sent else {
                return Ok(());
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if waits < MOST_WAITS => {
                    waits += 1;
                    match wait() {
                        Next::Again => {}
                        Next::Reopen => self.socket = None,
                        Next::GiveUp => return Err(error),
                    }
                }
                // The daemon may have made its socket anew since the last message, and the answer
                // to an earlier datagram is an error of this one.
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
                | io::ErrorKind::NotFound
                    if !is_new =>
                {
                    self.socket = None;
                }
                _ => return Err(error),
            }
        }
    }

    /// What a message begins with.
    fn head(&self, now: SystemTime) -> String {
        let SyslogTarget {
            facility,
            severity,
            tag,
            ..
        } = &self.target;
        let priority = facility * 8 + severity;
        // As in "Sun, 06 Nov 1994 08:49:37 GMT".
        let date = httpdate::fmt_http_date(now);
        let part = |range| date.get(range).unwrap_or_default();
        let day = part(5..7).trim_start_matches('0');
        let (month, time) = (part(8..11), part(17..25));
        let space = if self.hostname.is_empty() { "" } else { " " };
        let hostname = &self.hostname;
        format!("<{priority}>{month} {day:>2} {time}{space}{hostname} {tag}: ")
    }
}

impl Socket {
    fn connect(server: &SyslogServer, names: &mut Names) -> io::Result<Self> {
        match server {
            SyslogServer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
            SyslogServer::Udp(server) => {
                let address = names.address(server)?;
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket))
            }
        }
    }
}

impl Names {
    /// The address of a server, which is a host with a port.
    fn address(&mut self, server: &str) -> io::Result<SocketAddr> {
        if let Ok(address) = server.parse() {
            return Ok(address);
        }
        let parts = server.rsplit_once(':');
        let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or(io::ErrorKind::InvalidInput)?;
        let (runtime, resolver) = match &self.started {
            Some(started) => started,
            None => {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let resolver = Arc::new(Resolver::new(&self.settings));
                self.started.insert((runtime, resolver))
            }
        };
        let looked_up = runtime.block_on(async {
            tokio::time::timeout(LOOK_UP, resolver.addresses(host, port)).await
        });
        let addresses = looked_up.map_err(|_| {
            let told = format!("the name '{host}' was not looked up in {LOOK_UP:?}");
            io::Error::new(io::ErrorKind::TimedOut, told)
        })??;
        addresses
            .first()
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn target(server: SyslogServer) -> SyslogTarget {
        SyslogTarget {
            server: Some(server),
            facility: 23,
            severity: 6,
            tag: "edge".into(),
            has_hostname: false,
        }
    }

    #[test]
    fn each_line_is_a_message() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = SyslogServer::Udp(daemon.local_addr().unwrap().to_string());
        let mut syslog = Syslog::new(target(server), Path::new("/dev/log"), &Dns::default());
        let (sent, result) = syslog.write(b"one\ntwo\n", &mut || Next::GiveUp);
        assert!(sent == 2 && result.is_ok());
        for line in ["one", "two"] {
            let mut message = [0; 200];
            let length = daemon.recv(&mut message).unwrap();
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            assert!(message.starts_with("<190>"), "{message}");
            assert!(message.ends_with(&format!(" edge: {line}")), "{message}");
        }
    }

    #[test]
    fn the_head_has_priority_time_and_tag() {
        let mut syslog = Syslog::new(
            target(SyslogServer::Unix("/none".into())),
            Path::new("/dev/log"),
            &Dns::default(),
        );
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(syslog.head(now), "<190>Nov  6 08:49:37 edge: ");
        syslog.hostname = "host".into();
        assert_eq!(syslog.head(now), "<190>Nov  6 08:49:37 host edge: ");
        let (sent, result) = syslog.write(b"one\n", &mut || Next::GiveUp);
        assert!(sent == 0 && result.is_err());
    }

    #[test]
    fn a_daemon_that_takes_nothing_is_waited_for_once_in_a_batch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::new(
            target(SyslogServer::Unix(path)),
            Path::new("/dev/log"),
            &Dns::default(),
        );
        // More than the socket has room for.
        let lines = format!("{}\n", "x".repeat(999)).repeat(5000);
        let mut waits = 0;
        let (sent, result) = syslog.write(lines.as_bytes(), &mut || {
            waits += 1;
            Next::Again
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(waits, MOST_WAITS);
        daemon.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| daemon.recv(&mut [0; 2000]).ok()).count();
        assert_eq!(received as u64, sent);
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = SyslogServer::Udp(daemon.local_addr().unwrap().to_string());
        let mut syslog = Syslog::new(target(server), Path::new("/dev/log"), &Dns::default());
        let lines = format!("one\n{}\nthree\n", "2".repeat(70_000));
        let (sent, result) = syslog.write(lines.as_bytes(), &mut || Next::GiveUp);
        let too_long = Errno::from_io_error(&result.unwrap_err());
        assert_eq!((sent, too_long), (2, Some(Errno::MSGSIZE)));
        assert!(syslog.socket.is_some());
    }

    #[test]
    fn the_name_of_a_daemon_is_looked_up_as_the_settings_say() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = daemon.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let hosts_file = folder.path().join("hosts");
        std::fs::write(&hosts_file, "127.0.0.1 logs.test\n").unwrap();
        let dns = Dns {
            // A server that never answers.
            resolvers: vec![([127, 0, 0, 1], 9).into()],
            hosts_file,
            ..Dns::default()
        };
        let server = SyslogServer::Udp(format!("logs.test:{port}"));
        let mut syslog = Syslog::new(target(server), Path::new("/dev/log"), &dns);
        let (sent, result) = syslog.write(b"one\n", &mut || Next::GiveUp);
        result.unwrap();
        assert_eq!(sent, 1);
        let mut message = [0; 200];
        let length = daemon.recv(&mut message).unwrap();
        assert!(message[..length].ends_with(b" edge: one"));
    }
}
