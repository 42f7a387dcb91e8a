//! Opens the sockets of listeners.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use super::proxy_protocol::ProxyProtocol;
use crate::config::{Listen, ListenAddress, ListenKeepalive};

/// Connections that the kernel queues until the gateway accepts them, unless `backlog` says how
/// many. The kernel has a limit of its own (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// The sockets of a list of addresses: for each worker, one for each address.
#[derive(Debug)]
pub struct Listeners {
    /// The addresses with their flags; where port 0 was requested, with the port that the system
    /// chose.
    pub listens: Vec<Listen>,
    /// For each worker, its sockets in the order of the addresses.
    pub(crate) workers: Vec<Vec<BoundSocket>>,
    /// The files of Unix sockets.
    pub(crate) files: Vec<SocketFile>,
    /// Number of connections that had to begin with a header of the PROXY protocol and did not.
    pub(crate) headerless: Arc<AtomicU64>,
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// The file of a Unix socket, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Which file it is.
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // An operator may have removed it, and another gateway may listen on the same path since.
        if identity(&self.path).is_ok_and(|present| present == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The device and the inode of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Listeners {
    /// Listens on each address, with a socket for each of `workers`. The kernel distributes new
    /// connections among the sockets of an address. `user` says in errors what listens there.
    ///
    /// # Errors
    /// The system's error, for example that a port is in use.
    pub fn bind(listens: &[Listen], workers: usize, user: &str) -> anyhow::Result<Self> {
        let mut listeners = Self {
            listens: Vec::new(),
            workers: Vec::new(),
            files: Vec::new(),
            headerless: Arc::default(),
        };
        listeners.workers.resize_with(workers, Vec::new);
        for listen in listens {
            let bound = listeners.add(listen);
            bound.with_context(|| format!("cannot listen on {} for {user}", listen.address))?;
        }
        Ok(listeners)
    }

    fn add(&mut self, listen: &Listen) -> io::Result<()> {
        let mut listen = listen.clone();
        let (address, sockets) = match &listen.address {
            ListenAddress::Ip(address) => {
                let sockets = tcp(&listen, *address, self.workers.len())?;
                let address = match sockets.first() {
                    Some(first) => first.local_addr()?,
                    None => *address,
                };
                let sockets = sockets.into_iter().map(BoundSocket::Tcp);
                (ListenAddress::Ip(address), sockets.collect())
            }
            ListenAddress::Unix(path) => {
                let socket = unix(&listen, path)?;
                self.files.push(SocketFile::new(path)?);
                let sockets = self.workers.iter().map(|_| socket.try_clone());
                let sockets = sockets.map(|socket| socket.map(BoundSocket::Unix));
                (
                    ListenAddress::Unix(path.clone()),
                    sockets.collect::<io::Result<Vec<_>>>()?,
                )
            }
        };
        listen.address = address;
        self.listens.push(listen);
        for (worker, socket) in self.workers.iter_mut().zip(sockets) {
            worker.push(socket);
        }
        Ok(())
    }

    /// Reads the headers of the PROXY protocol, each within `patience`, on the addresses that have
    /// the flag.
    pub(crate) fn proxy_protocol(&self, patience: Duration) -> ProxyProtocol {
        ProxyProtocol::new(patience, Arc::clone(&self.headerless))
    }

    /// Whether clients may speak HTTP/2: on all addresses if one has the flag. Source: Kong.
    pub(crate) fn http2(&self) -> bool {
        self.listens.iter().any(|listen| listen.http2)
    }
}

/// The sockets of an address with a port.
fn tcp(
    listen: &Listen,
    address: std::net::SocketAddr,
    count: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    if count <= 1 {
        return Ok(vec![tcp_socket(listen, address, false)?]);
    }
    // A first socket without SO_REUSEPORT checks that the address is free. With SO_REUSEPORT, a
    // second gateway of the same user would bind too and silently take half of the connections.
    drop(tcp_socket(listen, address, false)?);
    let mut sockets = vec![tcp_socket(listen, address, true)?];
    let address = sockets[0].local_addr()?;
    while sockets.len() < count {
        sockets.push(tcp_socket(listen, address, true)?);
    }
    Ok(sockets)
}

fn tcp_socket(
    listen: &Listen,
    address: std::net::SocketAddr,
    shared: bool,
) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // As nginx: an address of IPv4 with the same port is an entry of its own.
        socket.set_only_v6(listen.ipv6only.unwrap_or(true))?;
    }
    if let Some(keepalive) = listen.keepalive {
        set_keepalive(&SockRef::from(&socket), keepalive)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(listen))?;
    Ok(socket.into())
}

/// The kernel gives accepted connections the keep-alive of the socket that accepts them.
fn set_keepalive(socket: &SockRef<'_>, keepalive: ListenKeepalive) -> io::Result<()> {
    match keepalive {
        ListenKeepalive::On => socket.set_keepalive(true),
        ListenKeepalive::Off => socket.set_keepalive(false),
        ListenKeepalive::Times {
            idle,
            interval,
            probes,
        } => {
            let mut times = TcpKeepalive::new();
            if let Some(idle) = idle {
                times = times.with_time(idle);
            }
            if let Some(interval) = interval {
                times = times.with_interval(interval);
            }
            if let Some(probes) = probes {
                times = times.with_retries(probes);
            }
            socket.set_tcp_keepalive(&times)
        }
    }
}

/// A Unix socket. All workers accept from it, because the kernel knows no SO_REUSEPORT for it.
fn unix(listen: &Listen, path: &Path) -> io::Result<UnixListener> {
    if is_left_over(path) {
        std::fs::remove_file(path)?;
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(backlog(listen))?;
    Ok(socket.into())
}

/// Whether a path is a Unix socket that no process accepts connections on: a process that was
/// killed has left it.
fn is_left_over(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn backlog(listen: &Listen) -> i32 {
    i32::try_from(listen.backlog.unwrap_or(BACKLOG)).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_is_removed_unless_another_one_has_taken_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let _first = UnixListener::bind(&path).unwrap();
        let first = SocketFile::new(&path).unwrap();
        std::fs::rename(&path, folder.path().join("old.sock")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        let second = SocketFile::new(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
