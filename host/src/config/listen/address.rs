//! The address of an entry: an IP address with a port, or the path of a Unix socket.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::is_digits;
use crate::endpoint_address::{LONGEST_PATH, UNIX, unix_path};

/// Where connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port; port 0 stands for any free one.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Parses an address and a port, or `unix:` and a path. A name is looked up, and `*` stands for
    /// all IPv4 addresses.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match unix_path(text) {
                Some(path) => Ok(Self::Unix(path.to_owned())),
                None if path.is_empty() => Err("there is no path after unix:".into()),
                None => Err(format!(
                    "the path of a Unix socket is absolute and has {LONGEST_PATH} bytes at most"
                )),
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let port = Some(port).filter(|port| is_digits(port));
        let port: Option<u16> = port.and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| format!("{text:?} does not end in a port"))?;
        if host == "*" {
            return Ok(Self::Ip((Ipv4Addr::UNSPECIFIED, port).into()));
        }
        let is_name = !host.contains(':') && host.bytes().any(|byte| byte.is_ascii_alphabetic());
        let found = match is_name {
            true => text
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next()),
            false => text.parse().ok(),
        };
        let found = found.ok_or_else(|| format!("{host:?} is not an address"))?;
        Ok(Self::Ip(found))
    }

    /// The address and the port, unless it is a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|address| address.ip().is_loopback())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
