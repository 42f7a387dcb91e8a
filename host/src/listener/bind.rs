//! Opens the sockets of listeners.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Type};

/// Connections that the kernel queues until the gateway accepts them.
const BACKLOG: i32 = 4096;

/// One listener for each worker, all on the same address.
#[derive(Debug)]
pub struct Listeners {
    /// The address; if port 0 was requested, with the port that the system chose.
    pub address: SocketAddr,
    /// The sockets, one for each worker.
    pub(crate) sockets: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// Listens with `workers` sockets. The kernel distributes new connections among them.
    ///
    /// # Errors
    /// The system's error, for example that the port is in use.
    pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Self> {
        // A first socket without SO_REUSEPORT checks that the address is free. With SO_REUSEPORT, a
        // second gateway of the same user would bind too and silently take half of the connections.
        drop(listen(address, false)?);
        let mut sockets = vec![listen(address, true)?];
        let address = sockets[0].local_addr()?;
        while sockets.len() < workers {
            sockets.push(listen(address, true)?);
        }
        Ok(Self { address, sockets })
    }
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
