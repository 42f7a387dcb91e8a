//! Redis servers that policies count in.
//!
//! All workers share one connection to a server. Redis runs one command at a time, so more
//! connections would not make it faster, and commands of several workers are sent together. A
//! server that fails is noticed once for all workers. The connection has a thread of its own: no
//! worker waits for it, and it does not wait for the control plane.

pub(super) mod counts;
mod link;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError, ScriptInvocation};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::dns::Resolver;
use crate::entity::plugin::redis::Redis;
use link::Link;

/// The servers that policies use.
#[derive(Debug)]
pub(super) struct Servers {
    runtime: OnceLock<Handle>,
    known: Mutex<HashMap<Redis, Weak<Server>>>,
    resolver: Arc<Resolver>,
}

/// A server, with the connection to it. The connection ends when the last policy drops the server.
#[derive(Debug)]
pub(super) struct Server {
    link: watch::Receiver<Link>,
    /// The number of the newest connection that did not answer in time.
    stalled: watch::Sender<u64>,
    timeout: Duration,
    runtime: Handle,
}

/// Why a server did not answer.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// There is no connection to it.
    #[error("{0}")]
    Unreachable(Arc<str>),
    /// It did not answer in time.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It answered with an error, or the connection broke off.
    #[error("{0}")]
    Command(#[from] RedisError),
}

impl Servers {
    /// No servers yet. Their names are looked up by `resolver`.
    pub(super) fn new(resolver: Arc<Resolver>) -> Self {
        Self {
            runtime: OnceLock::new(),
            known: Mutex::default(),
            resolver,
        }
    }

    /// The server with these settings.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(super) fn get(&self, settings: &Redis) -> Result<Arc<Server>, String> {
        let mut known = self.known.lock();
        if let Some(server) = known.get(settings).and_then(Weak::upgrade) {
            return Ok(server);
        }
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime.clone(),
            None => {
                let runtime = start_runtime();
                let runtime = runtime.map_err(|error| format!("cannot start a thread: {error}"))?;
                self.runtime.get_or_init(|| runtime).clone()
            }
        };
        // A server is not connected before a policy uses it.
        let (to_requests, link) = watch::channel(Link::Connecting);
        let (stalled, from_requests) = watch::channel(0);
        let resolver = Arc::clone(&self.resolver);
        runtime.spawn(link::keep(
            settings.clone(),
            resolver,
            to_requests,
            from_requests,
        ));
        let server = Arc::new(Server {
            link,
            stalled,
            timeout: timeout(settings),
            runtime,
        });
        known.retain(|_, server| server.strong_count() > 0);
        known.insert(settings.clone(), Arc::downgrade(&server));
        Ok(server)
    }
}

fn timeout(settings: &Redis) -> Duration {
    Duration::from_millis(u64::from(settings.timeout).max(1))
}

/// Starts the thread of the connections.
fn start_runtime() -> std::io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("redis".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

impl Server {
    /// Runs a script, within the timeout of the settings.
    ///
    /// # Errors
    /// The server has not run the script, or its answer was lost. While a server that has failed is
    /// being connected again, the error is returned at once.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Error> {
        let mut number = 0;
        let running = async {
            let mut link = self.link.clone();
            let (used, mut connection) = {
                let link = link
                    .wait_for(|link| !matches!(link, Link::Connecting))
                    .await;
                match link.as_deref() {
                    Ok(Link::Up { number, connection }) => (*number, connection.clone()),
                    Ok(Link::Failed(reason)) => return Err(Error::Unreachable(reason.clone())),
                    Ok(Link::Connecting) | Err(_) => {
                        return Err(Error::Unreachable("it is not connected".into()));
                    }
                }
            };
            number = used;
            Ok(script.invoke_async(&mut connection).await?)
        };
        let ended = tokio::time::timeout(self.timeout, running).await;
        ended.unwrap_or_else(|_| {
            self.stalled.send_if_modified(|stalled| {
                let is_newer = number > *stalled;
                *stalled = number.max(*stalled);
                is_newer
            });
            Err(Error::Timeout(self.timeout))
        })
    }

    /// Where tasks of this server run that belong to no request.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
