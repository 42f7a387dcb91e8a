//! Where an endpoint is reached: an address with a port, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// What the text of a Unix socket begins with, also in the settings of listeners.
pub(crate) const UNIX: &str = "unix:";

/// Longest path of a Unix socket, in bytes. Source: `sun_path` of Linux, less its NUL.
pub(crate) const LONGEST_PATH: usize = 107;

/// Where an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    /// An address and a port.
    Inet(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl EndpointAddress {
    /// The IP address; none of a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The port; none of a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Inet(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// The IP address as text, or the Unix socket, which has its place in logs and in the Admin
    /// API.
    pub fn without_port(&self) -> String {
        match self {
            Self::Inet(address) => address.ip().to_string(),
            Self::Unix(_) => self.to_string(),
        }
    }
}

/// The path of the Unix socket that a setting names. It has to be absolute, and no longer than the
/// system allows.
pub fn unix_path(text: &str) -> Option<&Path> {
    let path = text.strip_prefix(UNIX)?;
    let is_valid = path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains('\0');
    is_valid.then(|| Path::new(path))
}

impl From<SocketAddr> for EndpointAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for EndpointAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_written_as_it_is_read() {
        let text = "unix:/run/app.sock";
        let address = unix_path(text).map(|path| EndpointAddress::Unix(path.into()));
        let address = address.map(|address| (address.to_string(), address.without_port()));
        assert_eq!(address, Some((text.to_owned(), text.to_owned())));
        let inet = EndpointAddress::from(SocketAddr::from(([10, 0, 0, 1], 80)));
        assert_eq!(inet.to_string(), "10.0.0.1:80");
        assert_eq!(inet.without_port(), "10.0.0.1");
    }

    #[test]
    fn a_path_is_absolute_and_fits() {
        let longest = format!("unix:/{}", "x".repeat(LONGEST_PATH - 1));
        assert!(unix_path(&longest).is_some());
        for wrong in [
            "a:80",
            "unix:",
            "unix:80",
            "unix:run/a",
            "unix:/a\0",
            &(longest + "x"),
        ] {
            assert_eq!(unix_path(wrong), None, "{wrong}");
        }
    }
}
