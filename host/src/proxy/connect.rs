//! New connections to endpoints, in clear text or over TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;

use super::pool::Pool;
use super::wire::{Connection, Destination, Exchange, Secure, Stream};
use crate::endpoint::Endpoint;
use crate::tls;

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// The limit of connections to the endpoint was reached, and none of them was closed in time.
    #[error("no connection was free in time")]
    Full,
    /// No connection was made within `connect_timeout`.
    #[error("no connection in time")]
    Timeout,
    /// An error of the system.
    #[error("cannot connect: {0}")]
    Io(io::Error),
    /// The TCP connection was made, but the TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The TLS configuration could not be created.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Connects to an endpoint within `timeout`. Waits until the endpoint has fewer than `limit`
/// connections; 0 means no limit. If the limit is reached, `pool` is asked to close an idle
/// connection.
pub(super) async fn connect(
    destination: Destination,
    endpoint: Arc<Endpoint>,
    limit: u32,
    pool: &Pool,
    timeout: Duration,
    max_header_size: usize,
) -> Result<Exchange, Error> {
    let end = tokio::time::Instant::now() + timeout;
    let permit = endpoint.permit(limit, || pool.reclaim());
    let mut permit = tokio::time::timeout_at(end, permit)
        .await
        .map_err(|_| Error::Full)?;
    let descriptor = tokio::time::timeout_at(end, pool.descriptor()).await;
    permit.keep(descriptor.ok().flatten().ok_or(Error::Full)?);
    let stream = tokio::time::timeout_at(end, open(&destination))
        .await
        .map_err(|_| Error::Timeout)??;
    let connection = Connection::http1(stream, destination, endpoint, permit, max_header_size);
    Ok(connection.into_exchange())
}

async fn open(destination: &Destination) -> Result<Stream, Error> {
    let stream = TcpStream::connect(destination.address)
        .await
        .map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    let Some(Secure { name, client }) = &destination.tls else {
        return Ok(Stream::Plain(stream));
    };
    let connector = client.connector(tls::HTTP_1_1).map_err(Error::Setup)?;
    let stream = connector.connect(name.clone(), stream).await;
    Ok(Stream::Tls(Box::new(stream.map_err(Error::Tls)?)))
}
