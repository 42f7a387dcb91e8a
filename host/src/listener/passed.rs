//! Sockets that a supervisor such as systemd has opened and passes to the process that it starts
//! (sd_listen_fds(3)).

use std::env;
use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use rustix::io::FdFlags;
use socket2::{Socket, Type};

use crate::config::{Listen, ListenAddress};

/// The process that the sockets are for, their number, and their names.
const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";

/// The first descriptor that is passed; the others follow it (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Names that say which setting a socket is for. Other names say nothing.
const SETTINGS: [&str; 5] = [
    "proxy_listen",
    "admin_listen",
    "admin_gui_listen",
    "status_listen",
    "stream_listen",
];

/// A socket of the supervisor.
#[derive(Debug)]
pub(super) struct PassedSocket {
    /// Its name (`FileDescriptorName=`); by default that of the unit.
    name: String,
    socket: Socket,
    /// Whether it is for datagrams.
    is_datagram: bool,
}

/// The sockets that this process was passed. They can be taken once.
///
/// # Errors
/// What is passed is no socket, or none that accepts connections.
pub(super) fn sockets() -> anyhow::Result<Vec<PassedSocket>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // The variables may be those of the process that has started this one.
    let is_own = env::var(PID).is_ok_and(|pid| pid == std::process::id().to_string());
    if !is_own || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = env::var(COUNT).ok().and_then(|count| count.parse().ok());
    let count: RawFd = count.with_context(|| format!("{COUNT} is not a number"))?;
    let names = env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in FIRST..FIRST.saturating_add(count) {
        let name = names.next().unwrap_or_default().to_owned();
        let socket = take(number).with_context(|| format!("descriptor {number} ({name:?})"))?;
        let is_datagram = socket.r#type()? == Type::DGRAM;
        if !is_datagram && !socket.is_listener()? {
            bail!("the socket {name:?} does not listen: Accept= of its unit must be no");
        }
        passed.push(PassedSocket {
            name,
            socket,
            is_datagram,
        });
    }
    Ok(passed)
}

/// Takes a descriptor that was open when this process was started.
#[expect(
    unsafe_code,
    reason = "what a supervisor passes is known by its number only"
)]
fn take(number: RawFd) -> anyhow::Result<Socket> {
    let open = std::fs::read_link(format!("/proc/self/fd/{number}"));
    let open = open.with_context(|| format!("{COUNT} counts it, but it is not open"))?;
    if !open.as_os_str().as_encoded_bytes().starts_with(b"socket:") {
        bail!("it is no socket, but {}", open.display());
    }
    // SAFETY: the descriptor is open, and by the protocol it is this process's to use. No other
    // part of the program knows of it: those that the program itself has opened have other numbers,
    // since this one was taken before it ran, and `sockets` takes each number once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    Ok(descriptor.into())
}

impl PassedSocket {
    /// Whether it is for this entry of a setting: it has its address, and no name of another
    /// setting.
    pub(super) fn is_for(&self, setting: &str, listen: &Listen) -> bool {
        let is_other = self.name != setting && SETTINGS.contains(&&*self.name);
        let Ok(address) = self.socket.local_addr() else {
            return false;
        };
        let is_at = match &listen.address {
            ListenAddress::Ip(ip) => address.as_socket() == Some(*ip),
            ListenAddress::Unix(path) => address.as_pathname() == Some(path),
        };
        is_at && !is_other && self.is_datagram == listen.udp
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.socket.into()
    }
}

impl fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.socket.local_addr().ok();
        let ip = address.as_ref().and_then(|address| address.as_socket());
        let path = address.as_ref().and_then(|address| address.as_pathname());
        match (ip, path.map(Path::display)) {
            (Some(ip), _) => write!(f, "{ip}")?,
            (None, Some(path)) => write!(f, "unix:{path}")?,
            (None, None) => f.write_str("a socket of another kind")?,
        }
        let kind = if self.is_datagram { " (UDP)" } else { "" };
        write!(f, "{kind}, named {:?}", self.name)
    }
}
