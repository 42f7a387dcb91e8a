//! A log daemon that gets each line of the access log as a message. Source: nginx, `syslog:`; the
//! form is that of RFC 3164, in UTC.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::output::Next;
use crate::config::{SyslogServer, SyslogTarget};
use crate::node;

/// How often a message is tried again that the daemon's socket has no room for.
const MOST_WAITS: u32 = 50;

/// A log daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    target: SyslogTarget,
    server: SyslogServer,
    hostname: String,
    /// Connected to the daemon, until a message cannot be sent.
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    /// `local` is the local socket of the system's log.
    pub(super) fn new(target: SyslogTarget, local: &Path) -> Self {
        let server = target.server.clone();
        Self {
            server: server.unwrap_or_else(|| SyslogServer::Unix(PathBuf::from(local))),
            hostname: match target.has_hostname {
                true => node::hostname(),
                false => String::new(),
            },
            target,
            socket: None,
        }
    }

    /// Has the socket be made again.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    /// Sends lines. While the daemon's socket has no room, `wait` is called, and says whether to try
    /// again. Returns how many were sent, and why the first of the others was not.
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
                Err(error) => {
                    self.socket = None;
                    result = result.and(Err(error));
                }
            }
        }
        (sent, result)
    }

    fn send(&mut self, message: &[u8], wait: &mut dyn FnMut() -> Next) -> io::Result<()> {
        let mut waits = 0;
        let mut is_new = false;
        loop {
            let socket = match self.socket.take() {
                Some(socket) => socket,
                None => {
                    is_new = true;
                    Socket::connect(&self.server)?
                }
            };
            let sent = match &socket {
                Socket::Udp(socket) => socket.send(message),
                Socket::Unix(socket) => socket.send(message),
            };
            let error = match sent {
                Ok(_) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock if waits < MOST_WAITS => {
                    waits += 1;
                    match wait() {
                        Next::Again => self.socket = Some(socket),
                        Next::Reopen => {}
                        Next::GiveUp => return Err(error),
                    }
                }
                // The daemon may have made its socket anew since the last message, and the answer to
                // an earlier datagram is an error of this one.
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
                | io::ErrorKind::NotFound
                    if !is_new => {}
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
    fn connect(server: &SyslogServer) -> io::Result<Self> {
        match server {
            SyslogServer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
            SyslogServer::Udp(server) => {
                let address = server.to_socket_addrs()?.next();
                let address = address.ok_or(io::ErrorKind::NotFound)?;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::time::Duration;

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
        let mut syslog = Syslog::new(target(server), Path::new("/dev/log"));
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
        );
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(syslog.head(now), "<190>Nov  6 08:49:37 edge: ");
        syslog.hostname = "host".into();
        assert_eq!(syslog.head(now), "<190>Nov  6 08:49:37 host edge: ");
        let (sent, result) = syslog.write(b"one\n", &mut || Next::GiveUp);
        assert!(sent == 0 && result.is_err());
    }
}
