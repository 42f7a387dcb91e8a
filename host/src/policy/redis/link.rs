//! The connection to a server: kept up as long as a policy uses the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::dns::Resolver;
use crate::entity::plugin::redis::Redis;
use crate::tls::{self, NO_PROTOCOL, Trust};

/// The time between two attempts to connect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(500);

/// The state of the connection to a server.
#[derive(Debug)]
pub(super) enum Link {
    /// It is being connected. Requests wait for that.
    Connecting,
    /// It is connected.
    Up {
        /// Counts the connections, from 1.
        number: u64,
        connection: MultiplexedConnection,
    },
    /// It could not be connected, or has stalled. Requests do not wait, while it is being connected
    /// again.
    Failed(Arc<str>),
}

/// Keeps the connection to a server up, until the last receiver of its state is dropped. `stalled`
/// has the number of a connection that did not answer in time.
pub(super) async fn keep(
    settings: Redis,
    resolver: Arc<Resolver>,
    link: watch::Sender<Link>,
    mut stalled: watch::Receiver<u64>,
) {
    let host = settings.host.as_deref().unwrap_or("localhost");
    let name = format!("{host}:{}", settings.port);
    let keeping = async {
        let mut number = 0;
        let mut has_failed = false;
        loop {
            let connected =
                tokio::time::timeout(super::timeout(&settings), connect(&settings, &resolver));
            let connected = connected.await.unwrap_or_else(|_| {
                let timeout = settings.timeout;
                Err(format!("it could not be connected within {timeout} ms"))
            });
            let reason = match connected {
                Ok((connection, driver)) => {
                    number += 1;
                    if has_failed {
                        tracing::info!("the Redis server {name} is connected again");
                        has_failed = false;
                    }
                    let connected = Instant::now();
                    link.send_replace(Link::Up { number, connection });
                    tokio::select! {
                        // A server may close an idle connection, which is not a failure.
                        () = driver => {
                            if connected.elapsed() > RECONNECT_INTERVAL {
                                link.send_replace(Link::Connecting);
                                continue;
                            }
                            "it has closed the connection".to_owned()
                        }
                        Ok(_) = stalled.wait_for(|stalled| *stalled >= number) => {
                            "it did not answer in time".to_owned()
                        }
                    }
                }
                Err(reason) => reason,
            };
            if !has_failed {
                tracing::warn!("the Redis server {name} cannot be used: {reason}");
                has_failed = true;
            }
            link.send_replace(Link::Failed(reason.into()));
            tokio::time::sleep(RECONNECT_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        () = link.closed() => {}
        () = keeping => {}
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to a server and authenticates. The connection works while the second part of the result
/// is polled.
async fn connect(
    settings: &Redis,
    resolver: &Arc<Resolver>,
) -> Result<(MultiplexedConnection, BoxFuture<'static, ()>), String> {
    let host = settings.host.as_deref().unwrap_or("localhost");
    let stream = resolver.connect(host, settings.port).await;
    let stream = stream.map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let stream: Box<dyn Stream> = match settings.ssl {
        false => Box::new(stream),
        true => {
            let name = settings.server_name.as_deref().unwrap_or(host);
            let name = tls::server_name(name).ok_or(format!("{name:?} is no name of a server"))?;
            let connector = Trust::System.if_verified(settings.ssl_verify);
            let connector = connector.connector(NO_PROTOCOL);
            let connector = connector.map_err(|error| error.to_string())?;
            let stream = connector.connect(name, stream).await;
            Box::new(stream.map_err(|error| error.to_string())?)
        }
    };
    let mut info = RedisConnectionInfo::default()
        .set_db(settings.database)
        .set_lib_name("pointsman", env!("CARGO_PKG_VERSION"));
    if let Some(username) = &settings.username {
        info = info.set_username(username);
    }
    if let Some(password) = settings.password.as_ref().filter(|text| !text.is_empty()) {
        info = info.set_password(password);
    }
    // Requests have a timeout of their own.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = connected.map_err(|error: RedisError| error.to_string())?;
    Ok((connection, driver.boxed()))
}
