//! Streams: TCP, TLS and UDP, passed to endpoints as bytes. Source: Kong 3.9 and nginx, stream
//! modules.
//!
//! A stream takes a route by its addresses and its server name (`matched.rs`). Each connection, and
//! each session of datagrams, is one pick of its upstream's balancer (`place.rs`), from the same
//! endpoints, with the same health and limits, as requests. `connections.rs` serves connections and
//! `datagrams.rs` datagrams; `record.rs` tells the logs how a stream has ended. No code
//! here runs for an HTTP request.

mod connect;
mod connections;
mod datagrams;
mod figures;
mod matched;
mod place;
mod record;

use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::access_log::{StreamLog, StreamWriter};
use crate::config::{Listen, Proxy, RealIp};
use crate::connections::{AddressPermit, ConnectionLimits};
use crate::listener::{BoundSocket, Listeners, ProxyProtocol, Socket, SocketFile, TlsServer};
use crate::snapshot::Published;
pub use figures::StreamFigures;

/// Stack size of a worker's thread, in bytes. Wasm guests run on it, as on the workers of the
/// proxy.
const STACK: usize = 4 * 1024 * 1024;

/// How long a stream may still take to open once the gateway shuts down: to read a header of the
/// PROXY protocol, to make a TLS handshake, to reach an endpoint.
const OPENING_GRACE: Duration = Duration::from_secs(1);

/// Time between two tries to hand over log lines that the log had no room for.
const FLUSH: Duration = Duration::from_secs(1);

/// The running workers of streams.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<Option<StopReason>>,
    drained: mpsc::Receiver<()>,
    /// What has happened to streams.
    pub figures: Arc<StreamFigures>,
    /// The files of the Unix sockets that they listen on.
    _files: Vec<SocketFile>,
}

/// What the streams of a worker share.
struct Worker {
    published: Arc<Published>,
    limits: Arc<ConnectionLimits>,
    figures: Arc<StreamFigures>,
    real_ip: RealIp,
    /// Most connections of an address that is not trusted; none sets no limit.
    max_of_address: Option<u32>,
    /// Where its streams are logged, if they are.
    access_log: Option<StreamWriter>,
    proxy_protocol: ProxyProtocol,
    /// Makes the handshakes, if there is a listener over TLS.
    tls: Option<TlsServer>,
    /// Says when no more streams are accepted.
    stopped: watch::Receiver<Option<StopReason>>,
    /// Cloned by each stream. The worker's thread ends when the last clone is dropped.
    open: mpsc::Sender<()>,
}

/// Why a worker accepts no more streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    /// The gateway shuts down.
    Stopped,
    /// Another process accepts them, from the same sockets.
    Replaced,
}

/// The sockets of a worker, and what is needed to serve them.
struct Sockets {
    listens: Arc<Vec<Listen>>,
    /// Each with the number of its address in `listens`.
    connections: Vec<(usize, BoundSocket)>,
    datagrams: Vec<(usize, std::net::UdpSocket)>,
}

impl Workers {
    /// Starts the workers, each with its own sockets; none if there is no address.
    ///
    /// # Errors
    /// The system's error when a thread cannot be started.
    pub(crate) fn start(
        listeners: Listeners,
        published: &Arc<Published>,
        settings: &Proxy,
        limits: &Arc<ConnectionLimits>,
        tls: Option<TlsServer>,
        access_log: Option<&Arc<StreamLog>>,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(None);
        let (open, drained) = mpsc::channel(1);
        let proxy_protocol = listeners.proxy_protocol(settings.client_header_timeout);
        let mut workers = Self {
            threads: Vec::new(),
            stop,
            drained,
            figures: Arc::default(),
            _files: listeners.files,
        };
        if listeners.listens.is_empty() {
            return Ok(workers);
        }
        let listens = Arc::new(listeners.listens);
        let sockets = listeners.workers.into_iter().zip(listeners.datagrams);
        for (number, (connections, datagrams)) in sockets.enumerate() {
            let worker = Worker {
                published: Arc::clone(published),
                limits: Arc::clone(limits),
                figures: Arc::clone(&workers.figures),
                real_ip: settings.real_ip.clone(),
                max_of_address: settings.max_connections_per_address,
                proxy_protocol: proxy_protocol.clone(),
                tls: tls.clone(),
                stopped: stopped.clone(),
                open: open.clone(),
                access_log: access_log.map(StreamLog::writer),
            };
            let sockets = Sockets {
                listens: Arc::clone(&listens),
                connections,
                datagrams,
            };
            let thread = std::thread::Builder::new()
                .name(format!("stream-{number}"))
                .stack_size(STACK);
            workers.threads.push(thread.spawn(|| run(worker, sockets))?);
        }
        Ok(workers)
    }

    /// Stops accepting and waits until all streams have ended, for `patience` at most. Returns
    /// whether all of them have. If the gateway is replaced, datagrams are left to the new process:
    /// it has the same sockets.
    pub async fn shut_down(mut self, patience: Duration, is_replaced: bool) -> bool {
        self.stop.send_replace(Some(match is_replaced {
            true => StopReason::Replaced,
            false => StopReason::Stopped,
        }));
        // Each worker holds a sender, on which it never sends, until its last stream has ended.
        let finished = tokio::time::timeout(patience, self.drained.recv()).await;
        if finished.is_ok() {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a worker of streams has panicked");
                }
            }
        }
        finished.is_ok()
    }
}

/// Serves the sockets until no more streams are accepted and all have ended.
fn run(mut worker: Worker, sockets: Sockets) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!("a worker of streams cannot start: {error}"),
    };
    // The streams of this worker hold a sender of its own, since its runtime ends with it.
    let (open, mut closed) = mpsc::channel(1);
    let _held = std::mem::replace(&mut worker.open, open);
    runtime.block_on(async move {
        let worker = Rc::new(worker);
        let mut listening = Vec::new();
        for (number, socket) in sockets.connections {
            let listen = sockets.listens[number].clone();
            listening.push(connections::listen(&worker, socket, listen));
        }
        for (_, socket) in sockets.datagrams {
            listening.push(datagrams::listen(&worker, socket));
        }
        if worker.access_log.is_some() {
            // It must not keep the worker from ending.
            tokio::task::spawn_local(flush(Rc::downgrade(&worker)));
        }
        drop(worker);
        for listener in listening {
            match listener {
                Ok(listener) => {
                    if let Err(error) = listener.await {
                        tracing::error!("a listener of streams has stopped: {error}");
                    }
                }
                Err(error) => tracing::error!("a worker cannot listen for streams: {error}"),
            }
        }
        closed.recv().await;
    });
}

/// Hands over log lines that could not be handed over before, until the worker has ended.
async fn flush(worker: Weak<Worker>) {
    loop {
        tokio::time::sleep(FLUSH).await;
        let Some(worker) = worker.upgrade() else {
            return;
        };
        if let Some(log) = &worker.access_log {
            log.flush();
        }
    }
}

impl Worker {
    /// Ready [`OPENING_GRACE`] after the worker has stopped accepting streams.
    async fn opening_expired(&self) {
        self.stopping().await;
        tokio::time::sleep(OPENING_GRACE).await;
    }

    /// Counts a connection among those of its address, if these are limited.
    ///
    /// # Errors
    /// The address has as many as it may have.
    fn address_permit(
        &self,
        socket: &Socket,
        peer: SocketAddr,
    ) -> Result<Option<AddressPermit>, ()> {
        let (most, trusted) = (self.max_of_address, &self.real_ip.trusted);
        socket.address_permit(peer, most, trusted, &self.limits.of_addresses)
    }

    /// Ready when the worker stops accepting streams.
    async fn stopping(&self) {
        let mut stopped = self.stopped.clone();
        let _ = stopped.wait_for(Option::is_some).await;
    }
}
