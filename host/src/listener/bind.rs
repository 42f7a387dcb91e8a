//! Opens the sockets of listeners.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use super::inherited::{Inherited, Taken};
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
    /// For each worker, its sockets, each with the number of its address in `listens`.
    pub(crate) workers: Vec<Vec<(usize, BoundSocket)>>,
    /// For each worker, its sockets for datagrams, of the addresses with the flag `udp`.
    pub(crate) datagrams: Vec<Vec<(usize, std::net::UdpSocket)>>,
    /// The files of Unix sockets.
    pub(crate) files: Vec<SocketFile>,
    /// What each entry of the setting is called, for a process that takes over, and whether a
    /// supervisor has opened its sockets.
    asked: Vec<(String, bool)>,
    /// Number of connections that had to begin with a header of the PROXY protocol and did not.
    pub(crate) headerless: Arc<AtomicU64>,
}

/// What listens on a list of addresses.
#[derive(Debug, Clone, Copy)]
pub struct ListenerUser {
    /// Its name, for errors.
    pub name: &'static str,
    /// The setting with the addresses.
    pub setting: &'static str,
}

/// The sockets of an address, for a process that takes over.
#[derive(Debug)]
pub(crate) struct SharedAddress {
    /// The address, as the setting writes it.
    pub(crate) address: String,
    /// Whether a supervisor has opened the sockets.
    pub(crate) is_supervised: bool,
    /// Copies of the descriptors.
    pub(crate) descriptors: Vec<OwnedFd>,
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
    /// Whether another process still listens on it, so that it stays.
    is_shared: bool,
}

impl SocketFile {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
            is_shared: false,
        })
    }

    /// Takes the file over from the process that has made it.
    pub(crate) fn own(&mut self) {
        self.is_shared = false;
    }

    /// Leaves the file to another process that listens on it.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl BoundSocket {
    /// A second descriptor of the same socket.
    fn share(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // An operator may have removed it, and another gateway may listen on the same path since.
        if !self.is_shared && identity(&self.path).is_ok_and(|present| present == self.identity) {
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
    /// connections among the sockets of an address. Of an address that has `inherited` sockets,
    /// none is opened, because the kernel would reset the connections that wait in those.
    ///
    /// # Errors
    /// The system's error, for example that a port is in use.
    pub fn bind(
        listens: &[Listen],
        workers: usize,
        user: ListenerUser,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Self> {
        let mut listeners = Self {
            listens: Vec::new(),
            workers: Vec::new(),
            datagrams: Vec::new(),
            files: Vec::new(),
            asked: Vec::new(),
            headerless: Arc::default(),
        };
        listeners.workers.resize_with(workers, Vec::new);
        listeners.datagrams.resize_with(workers, Vec::new);
        for listen in listens {
            let taken = inherited.take(user.setting, &asked(listen), listen);
            let bound = listeners.add(listen, taken);
            bound.with_context(|| {
                let ListenerUser { name, setting } = user;
                let address = &listen.address;
                format!("cannot listen on {address} for {name} (setting {setting})")
            })?;
        }
        Ok(listeners)
    }

    fn add(&mut self, listen: &Listen, taken: Taken) -> io::Result<()> {
        let Taken {
            sockets: inherited,
            is_supervised,
        } = taken;
        self.asked.push((asked(listen), is_supervised));
        if listen.udp {
            return self.add_datagrams(listen, inherited);
        }
        let mut listen = listen.clone();
        let (address, sockets) = match &listen.address {
            ListenAddress::Ip(address) => {
                let sockets = match inherited.is_empty() {
                    true => tcp(&listen, *address, self.workers.len())?,
                    false => take_tcp(&listen, inherited)?,
                };
                let address = match sockets.first() {
                    Some(first) => first.local_addr()?,
                    None => *address,
                };
                let sockets = sockets.into_iter().map(BoundSocket::Tcp);
                (ListenAddress::Ip(address), sockets.collect::<Vec<_>>())
            }
            ListenAddress::Unix(path) => {
                let inherited = inherited.into_iter().next();
                let is_shared = inherited.is_some();
                let socket = match inherited {
                    None => unix(&listen, path)?,
                    Some(socket) => take(&listen, socket)?.into(),
                };
                if !is_supervised {
                    let mut file = SocketFile::new(path)?;
                    file.is_shared = is_shared;
                    self.files.push(file);
                }
                let socket = BoundSocket::Unix(socket);
                (ListenAddress::Unix(path.clone()), vec![socket])
            }
        };
        listen.address = address;
        let number = self.listens.len();
        self.listens.push(listen);
        self.distribute(number, sockets)
    }

    /// Gives each worker a socket of an address, and each socket a worker: the process that opened
    /// the sockets may have had another number of workers.
    fn distribute(&mut self, number: usize, sockets: Vec<BoundSocket>) -> io::Result<()> {
        let (count, workers) = (sockets.len(), self.workers.len());
        for further in count..workers {
            let socket = sockets[further % count].share()?;
            self.workers[further].push((number, socket));
        }
        for (position, socket) in sockets.into_iter().enumerate() {
            self.workers[position % workers].push((number, socket));
        }
        Ok(())
    }

    /// The sockets of each address, for a process that takes over.
    pub(crate) fn share(&self) -> io::Result<Vec<SharedAddress>> {
        let entries = self.asked.iter().zip(&self.listens).enumerate();
        let shared = entries.map(|(number, ((asked, is_supervised), listen))| {
            let shared = |descriptors| SharedAddress {
                address: asked.clone(),
                is_supervised: *is_supervised,
                descriptors,
            };
            if listen.udp {
                let sockets = self.datagrams.iter().flatten();
                let sockets = sockets.filter(|(of, _)| *of == number);
                let copies = sockets.map(|(_, socket)| Ok(socket.try_clone()?.into()));
                return copies.collect::<io::Result<_>>().map(shared);
            }
            let sockets = self.workers.iter().flatten();
            let sockets = sockets.filter(|(of, _)| *of == number);
            // Of a Unix socket, all workers have a descriptor of the same one.
            let sockets = sockets.take(match listen.address {
                ListenAddress::Ip(_) => usize::MAX,
                ListenAddress::Unix(_) => 1,
            });
            let copies = sockets.map(|(_, socket)| match socket.share()? {
                BoundSocket::Tcp(socket) => Ok(socket.into()),
                BoundSocket::Unix(socket) => Ok(socket.into()),
            });
            copies.collect::<io::Result<_>>().map(shared)
        });
        shared.collect()
    }

    fn add_datagrams(&mut self, listen: &Listen, inherited: Vec<OwnedFd>) -> io::Result<()> {
        let Some(mut address) = listen.address.ip() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let sockets = match inherited.is_empty() {
            true => udp(listen, address, self.datagrams.len())?,
            false => take_udp(inherited)?,
        };
        if let Some(first) = sockets.first() {
            address = first.local_addr()?;
        }
        let number = self.listens.len();
        self.listens.push(Listen {
            address: ListenAddress::Ip(address),
            ..listen.clone()
        });
        // A worker without a socket of its own shares none: the datagrams of a client have to come
        // to one worker.
        let workers = self.datagrams.len();
        for (position, socket) in sockets.into_iter().enumerate() {
            self.datagrams[position % workers].push((number, socket));
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

/// What an entry of a setting is called: its address as it is written, and whether it is for
/// datagrams.
fn asked(listen: &Listen) -> String {
    match listen.udp {
        true => format!("{} udp", listen.address),
        false => listen.address.to_string(),
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

/// The sockets of an address with a port that another process has opened.
fn take_tcp(listen: &Listen, sockets: Vec<OwnedFd>) -> io::Result<Vec<std::net::TcpListener>> {
    let taken = sockets.into_iter().map(|socket| {
        let socket = take(listen, socket)?;
        if let Some(keepalive) = listen.keepalive {
            set_keepalive(&SockRef::from(&socket), keepalive)?;
        }
        Ok(socket.into())
    });
    taken.collect()
}

/// A socket that another process has opened, with the flags of the settings.
fn take(listen: &Listen, socket: OwnedFd) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::from(socket);
    socket.set_nonblocking(true)?;
    // This changes the length of the queue, and keeps the connections in it.
    socket.listen(backlog(listen))?;
    Ok(socket)
}

/// The sockets for datagrams that another process has opened.
fn take_udp(sockets: Vec<OwnedFd>) -> io::Result<Vec<std::net::UdpSocket>> {
    let taken = sockets.into_iter().map(|socket| {
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    taken.collect()
}

/// The sockets for datagrams to an address. The kernel gives all datagrams of a client to the same
/// one.
fn udp(
    listen: &Listen,
    address: std::net::SocketAddr,
    count: usize,
) -> io::Result<Vec<std::net::UdpSocket>> {
    let open = |address: std::net::SocketAddr, shared| {
        let protocol = Some(Protocol::UDP);
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, protocol)?;
        socket.set_reuse_port(shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(listen.ipv6only.unwrap_or(true))?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        io::Result::Ok(std::net::UdpSocket::from(socket))
    };
    // Without SO_REUSEPORT, to check that the address is free, as for connections.
    drop(open(address, false)?);
    let mut sockets = vec![open(address, true)?];
    let address = sockets[0].local_addr()?;
    while sockets.len() < count {
        sockets.push(open(address, true)?);
    }
    Ok(sockets)
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
