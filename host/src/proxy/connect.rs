//! New connections to endpoints, in clear text or over TLS.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::pool::{Pool, Turn};
use super::wire::http2;
use super::wire::{Connection, Destination, Exchange, Secure, Stream};
use crate::endpoint::Endpoint;
use crate::tls::{H2, HTTP_1_1, Protocols};

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
    /// The connection broke off before HTTP/2 was spoken on it.
    #[error("HTTP/2 cannot be spoken: {0}")]
    Http2(io::Error),
    /// The TLS configuration could not be created.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// A connection that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) destination: &'a Destination,
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Most connections that the endpoint may have; 0 means no limit.
    pub(super) limit: u32,
    /// Asked to close an idle connection if the limit is reached, and given connections over HTTP/2.
    pub(super) pool: &'a Pool,
    /// Longest time until it is open.
    pub(super) timeout: Duration,
    /// Largest head of a response, in bytes.
    pub(super) max_header_size: usize,
}

/// Starts an exchange on a new connection. Over HTTP/2, one request opens a connection, and others
/// that come meanwhile share it.
pub(super) async fn connect(wanted: Wanted<'_>) -> Result<Exchange, Error> {
    let end = tokio::time::Instant::now() + wanted.timeout;
    let Wanted {
        destination, pool, ..
    } = wanted;
    // Without a pool, no connection is shared, so no request waits for that of another one.
    if destination.http2.is_none() || !pool.keeps_connections() {
        return wanted.open(end, None).await?.ok_or(Error::Full);
    }
    loop {
        if let Some(exchange) = pool.take_stream(destination) {
            return Ok(exchange);
        }
        let turn = tokio::time::timeout_at(end, pool.turn(destination));
        let opened = match turn.await.map_err(|_| Error::Timeout)? {
            Turn::Look => None,
            Turn::OpenOwn => wanted.open(end, Some(pool.freed())).await?,
            Turn::Open(opener) => {
                let opened = wanted.open(end, Some(pool.freed())).await;
                if matches!(opened, Err(_) | Ok(Some(Exchange::Http1(_)))) {
                    opener.fail();
                }
                opened?
            }
        };
        if let Some(exchange) = opened {
            return Ok(exchange);
        }
    }
}

impl Wanted<'_> {
    /// Opens a connection before `end`. Waits until the endpoint has fewer than `limit` connections;
    /// returns `None` if `freed` is notified before.
    async fn open(
        &self,
        end: tokio::time::Instant,
        freed: Option<&Notify>,
    ) -> Result<Option<Exchange>, Error> {
        let Self {
            destination, pool, ..
        } = *self;
        let permit = self.endpoint.permit(self.limit, || pool.reclaim());
        let freed = async {
            match freed {
                Some(freed) => freed.notified().await,
                None => std::future::pending().await,
            }
        };
        let mut permit = tokio::select! {
            biased;
            permit = permit => permit,
            () = freed => return Ok(None),
            () = tokio::time::sleep_until(end) => return Err(Error::Full),
        };
        let descriptor = tokio::time::timeout_at(end, pool.descriptor()).await;
        permit.keep(descriptor.ok().flatten().ok_or(Error::Full)?);
        let opening = async {
            let (stream, is_http2) = open(destination).await?;
            let (destination, endpoint) = (destination.clone(), Arc::clone(self.endpoint));
            let max_head = self.max_header_size;
            if !is_http2 {
                let connection = Connection::http1(stream, destination, endpoint, permit, max_head);
                return Ok(connection.into_exchange());
            }
            let freed = Rc::clone(pool.freed());
            let connection =
                http2::Connection::open(stream, destination, endpoint, permit, max_head, freed);
            let connection = connection.await.map_err(Error::Http2)?;
            pool.share(&connection);
            Ok(Exchange::Http2(Box::new(connection.stream())))
        };
        let opened = tokio::time::timeout_at(end, opening).await;
        opened.map_err(|_| Error::Timeout)?.map(Some)
    }
}

/// Opens a stream to a destination. Returns it with whether HTTP/2 is to be spoken.
async fn open(destination: &Destination) -> Result<(Stream, bool), Error> {
    let stream = TcpStream::connect(destination.address)
        .await
        .map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    let Some(Secure { name, client }) = &destination.tls else {
        return Ok((Stream::Plain(stream), destination.http2.is_some()));
    };
    let protocols: Protocols = match destination.http2 {
        None => &[HTTP_1_1],
        Some(http2) if http2.or_http1 => &[H2, HTTP_1_1],
        Some(_) => &[H2],
    };
    let connector = client.connector(protocols).map_err(Error::Setup)?;
    let stream = connector.connect(name.clone(), stream).await;
    let stream = stream.map_err(Error::Tls)?;
    let is_http2 = destination.http2.is_some_and(|http2| {
        // A server that knows no ALPN is taken at its word where only HTTP/2 is possible.
        !http2.or_http1 || stream.get_ref().1.alpn_protocol() == Some(H2)
    });
    Ok((Stream::Tls(Box::new(stream)), is_http2))
}
