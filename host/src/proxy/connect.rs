//! New connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use super::pool::Connection;

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// Not within `connect_timeout`.
    #[error("no connection in time")]
    Timeout,
    /// The system's word for it.
    #[error("cannot connect: {0}")]
    Io(io::Error),
    /// hyper's word for it.
    #[error("the connection ended before it was used: {0}")]
    Http(hyper::Error),
}

/// Connects to an endpoint within `timeout`.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    max_header_size: usize,
) -> Result<Connection, Error> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| Error::Timeout)?
        .map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    let (sender, connection) = http1::Builder::new()
        .max_header_size(max_header_size)
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Error::Http)?;
    // Ends when the sender is dropped or the endpoint closes; whoever waits for a response on it
    // hears of an error there.
    tokio::task::spawn_local(connection.with_upgrades());
    Ok(Connection::new(address, sender))
}
