//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;

use super::wire::Connection;

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// Not within `connect_timeout`.
    #[error("no connection in time")]
    Timeout,
    /// The system's word for it.
    #[error("cannot connect: {0}")]
    Io(io::Error),
}

/// Connects to an endpoint within `timeout`.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    max_header_size: usize,
) -> Result<Box<Connection>, Error> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| Error::Timeout)?
        .map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    Ok(Box::new(Connection::new(stream, address, max_header_size)))
}
