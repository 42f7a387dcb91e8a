//! Accepts connections of clients, or refuses them where the limit is reached.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use hyper::server::conn::http1;
use tokio::sync::{mpsc, watch};

use super::client::{Client, ConnectionState};
use super::client_address::Trust;
use super::connection_info::{ConnectionInfo, ListenerInfo};
use super::{Worker, page};
use crate::connections::{self, DescriptorPermit};
use crate::listener::{Acceptor, Refused, Socket, TlsServer, Transport};

/// Pause after a failed accept. The usual reason is that no file descriptor is left, and
/// descriptors become free only when connections are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long handshakes may go on when the gateway shuts down.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// Connections accepted so far by all workers, which numbers them.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// A listening socket of a worker.
pub(super) struct WorkerListener {
    pub(super) acceptor: Acceptor,
    pub(super) accepted_on: Rc<ListenerInfo>,
    pub(super) server: Rc<http1::Builder>,
    /// Makes the handshakes, if clients have to speak TLS.
    pub(super) tls: Option<TlsServer>,
    /// A copy is held by each connection.
    pub(super) open: mpsc::Sender<()>,
    /// Says when no more connections are accepted.
    pub(super) stopped: watch::Receiver<bool>,
}

impl WorkerListener {
    /// Accepts connections until `stopped` says so.
    pub(super) async fn accept(self, worker: Rc<Worker>) {
        let mut stopped = self.stopped.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.acceptor.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((socket, address)) => self.admit(&worker, socket, address),
                Err(error) => {
                    worker.unserved.fail(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Clients in the kernel's queue may have sent a request already, so these connections are
        // accepted.
        while let Some(Ok((socket, address))) = self.acceptor.accept().now_or_never() {
            self.admit(&worker, socket, address);
        }
    }

    fn admit(&self, worker: &Rc<Worker>, socket: Socket, address: SocketAddr) {
        worker.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(permit) = worker.limits.client() else {
            return self.refuse(worker, socket);
        };
        worker.counters.active.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted {
            worker: Rc::clone(worker),
            accepted_on: Rc::clone(&self.accepted_on),
            server: Rc::clone(&self.server),
            open: self.open.clone(),
            permit,
            address,
        };
        match &self.tls {
            None => tokio::task::spawn_local(admitted.serve(Transport::Plain(socket))),
            Some(tls) => {
                let tls = (tls.clone(), self.stopped.clone());
                tokio::task::spawn_local(admitted.serve_over_tls(socket, tls))
            }
        };
    }

    /// Refuses a client because the limit of connections is reached: answers it, if a permit for
    /// that is left and it needs no handshake, and closes its connection.
    fn refuse(&self, worker: &Worker, socket: Socket) {
        worker.counters.refused.fetch_add(1, Ordering::Relaxed);
        worker.unserved.refuse();
        if self.tls.is_none()
            && let Some(permit) = worker.limits.refusal()
        {
            let open = self.open.clone();
            tokio::task::spawn_local(async move {
                let _held = (permit, open);
                let page = page::refusal(StatusCode::SERVICE_UNAVAILABLE);
                connections::refuse(socket, &page).await;
            });
        }
    }
}

/// An accepted connection that may be served.
struct Admitted {
    worker: Rc<Worker>,
    accepted_on: Rc<ListenerInfo>,
    server: Rc<http1::Builder>,
    open: mpsc::Sender<()>,
    permit: DescriptorPermit,
    /// The address of the client.
    address: SocketAddr,
}

impl Admitted {
    /// Serves the connection until it ends.
    async fn serve(self, transport: Transport) {
        let Self { worker, server, .. } = self;
        let mut info = ConnectionInfo::new(self.address, self.accepted_on);
        info.number = ACCEPTED.fetch_add(1, Ordering::Relaxed) + 1;
        info.server_name = transport.server_name();
        let is_unix = matches!(transport.socket(), Socket::Unix(_));
        let real_ip = &worker.settings.real_ip;
        info.trust = Trust::of(real_ip, (!is_unix).then_some(info.peer.address.ip()));
        if let Some(local) = transport.socket().local_ip() {
            info.local = local;
        }
        let clock = Rc::clone(&worker.clock);
        let max_requests = worker.settings.http_keepalive_requests;
        let client = Client::new(info, clock, self.open, Some(self.permit), max_requests);
        if worker.draining.get() {
            client.enter(ConnectionState::Draining);
        }
        let number = worker.next_client.get();
        worker.next_client.set(number + 1);
        let known = Rc::clone(&client);
        worker.clients.borrow_mut().insert(number, known);
        worker.connection(&server, transport, client).await;
        worker.clients.borrow_mut().remove(&number);
        worker.counters.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the handshake, then serves the connection. `stopped` is when the worker accepts no
    /// more connections.
    async fn serve_over_tls(
        self,
        socket: Socket,
        (tls, mut stopped): (TlsServer, watch::Receiver<bool>),
    ) {
        let late = async {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(LAST_HANDSHAKES).await;
        };
        // Boxed, so that only connections in a handshake have the memory for it.
        let handshake = Box::pin(async {
            tokio::select! {
                made = tls.handshake(socket) => Some(made),
                () = late => None,
            }
        });
        match handshake.await {
            Some(Ok(transport)) => return self.serve(transport).await,
            Some(Err(Refused::NotTls(socket))) => {
                connections::refuse(socket, &page::plain_on_tls()).await;
            }
            Some(Err(Refused::Failed)) | None => {}
        }
        let counters = &self.worker.counters;
        counters.active.fetch_sub(1, Ordering::Relaxed);
    }
}
