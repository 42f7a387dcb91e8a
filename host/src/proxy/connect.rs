//! New connections to endpoints, within their limits and those of the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::pool::{Pool, Turn};
use super::wire::{Destination, Exchange, Opened, Protocol, Secure};
use crate::connect::{self, ConnectError, EndpointStream, Handshake};
use crate::endpoint::Endpoint;
use crate::tls::{H2, HTTP_1_1};

/// A connection that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) destination: &'a Destination,
    pub(super) endpoint: &'a Arc<Endpoint>,
    /// Most connections that the endpoint may have; 0 means no limit.
    pub(super) limit: u32,
    /// Asked to close an idle connection if the limit is reached, and given connections over
    /// HTTP/2.
    pub(super) pool: &'a Pool,
    /// Longest time until it is open.
    pub(super) timeout: Duration,
    /// Largest head of a response, in bytes.
    pub(super) max_header_size: usize,
}

/// Starts an exchange on a new connection. Over HTTP/2, one request opens a connection, and others
/// that come meanwhile share it.
pub(super) async fn connect(wanted: Wanted<'_>) -> Result<Exchange, ConnectError> {
    let end = tokio::time::Instant::now() + wanted.timeout;
    let Wanted {
        destination, pool, ..
    } = wanted;
    // Without a pool, no connection is shared, so no request waits for that of another one.
    if destination.http2.is_none() || !pool.keeps_connections() {
        return wanted.open(end, None).await?.ok_or(ConnectError::Full);
    }
    loop {
        if let Some(exchange) = pool.take_stream(destination) {
            return Ok(exchange);
        }
        let turn = tokio::time::timeout_at(end, pool.turn(destination));
        let opened = match turn.await.map_err(|_| ConnectError::Timeout)? {
            Turn::Look => None,
            Turn::OpenOwn => wanted.open(end, Some(pool.freed())).await?,
            Turn::Open(opener) => {
                let opened = wanted.open(end, Some(pool.freed())).await;
                let is_private = |opened: &Option<Exchange>| {
                    (opened.as_ref()).is_some_and(|exchange| !exchange.is_shared())
                };
                if opened.as_ref().map_or(true, is_private) {
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
    /// Opens a connection before `end`. Waits until the endpoint has fewer than `limit`
    /// connections; returns `None` if `freed` is notified before.
    async fn open(
        &self,
        end: tokio::time::Instant,
        freed: Option<&Notify>,
    ) -> Result<Option<Exchange>, ConnectError> {
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
            () = tokio::time::sleep_until(end) => return Err(ConnectError::Full),
        };
        let descriptor = tokio::time::timeout_at(end, pool.descriptor()).await;
        permit.keep(descriptor.ok().flatten().ok_or(ConnectError::Full)?);
        let opening = async {
            let stream = open(destination).await?;
            let (destination, endpoint) = (destination.clone(), Arc::clone(self.endpoint));
            let max_head = self.max_header_size;
            let freed = pool.freed();
            match Opened::over(stream, destination, endpoint, permit, max_head, freed).await? {
                Opened::Exclusive(connection) => Ok(connection.into_exchange()),
                Opened::Shared(connection) => {
                    pool.share(&connection);
                    Ok(connection.exchange())
                }
            }
        };
        let opened = tokio::time::timeout_at(end, opening).await;
        let opened = opened.map_err(|_| ConnectError::Timeout).flatten();
        pool.figures().note_opened(opened.is_ok());
        opened.map(Some)
    }
}

/// Opens a stream to a destination. Returns it with what is to be spoken.
async fn open(destination: &Destination) -> Result<(EndpointStream, Protocol), ConnectError> {
    let http2 = destination.http2;
    let handshake = destination
        .tls
        .as_ref()
        .map(|Secure { name, client }| Handshake {
            client,
            name: name.clone(),
            protocols: match http2 {
                None => &[HTTP_1_1],
                Some(http2) if http2.or_http1 => &[H2, HTTP_1_1],
                Some(_) => &[H2],
            },
        });
    let is_secure = handshake.is_some();
    let proxied = destination.proxied.as_deref();
    let stream = connect::connect(&destination.address, proxied, handshake).await?;
    let is_http2 = http2.is_some_and(|http2| {
        // A server without ALPN is assumed to speak HTTP/2 where the service allows nothing else.
        !is_secure || !http2.or_http1 || stream.protocol() == Some(H2)
    });
    let protocol = match is_http2 {
        true => Protocol::Http2,
        false => Protocol::Http1,
    };
    Ok((stream, protocol))
}
