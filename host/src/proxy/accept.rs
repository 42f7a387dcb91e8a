//! Accepts connections of clients, or refuses them where the limit is reached.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use hyper::server::conn::http1;
use tokio::sync::{mpsc, watch};

use super::client::{Client, Stage};
use super::client_address::{ClientAddress, Trust};
use super::connection_info::{ConnectionInfo, ListenerInfo};
use super::policies::{Unread, record_unread};
use super::respond::Reject;
use super::{Worker, page};
use crate::connections::{self, ClientPermit};
use crate::listener::{Acceptor, NoHeader, ProxyProtocol, Refused, Socket, TlsServer, Transport};
use crate::tls::ACME_TLS;

/// Pause after a failed accept. The usual reason is that no file descriptor is left, and
/// descriptors become free only when connections are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long headers of the PROXY protocol and handshakes may go on when the gateway shuts down.
const OPENING_GRACE: Duration = Duration::from_secs(1);

/// Allocates the numbers of a worker's connections: its index + 1, then steps of the number of
/// workers. So they are unique in the process, and workers share no counter.
#[derive(Debug)]
pub(super) struct Numbers {
    next: Cell<u64>,
    /// Number of workers.
    step: u64,
}

impl Numbers {
    /// For one of `count` workers, which begin at 0.
    pub(super) fn of_worker(worker: usize, count: usize) -> Self {
        Self {
            // The first connection is 1, as in nginx.
            next: Cell::new(worker as u64 + 1),
            step: count as u64,
        }
    }

    /// The number of another connection.
    fn next(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + self.step);
        number
    }
}

/// A listening socket of a worker.
pub(super) struct WorkerListener {
    pub(super) acceptor: Acceptor,
    pub(super) accepted_on: Rc<ListenerInfo>,
    pub(super) server: Rc<http1::Builder>,
    /// Reads the headers of the PROXY protocol, if connections begin with one.
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// Makes the handshakes, if clients have to speak TLS.
    pub(super) tls: Option<TlsServer>,
    /// A copy is held by each connection.
    pub(super) open: mpsc::Sender<()>,
    /// Says when no more connections are accepted.
    pub(super) stage: watch::Receiver<Stage>,
}

impl WorkerListener {
    /// Accepts connections until the stage is no longer [`Stage::Serving`].
    pub(super) async fn accept(self, worker: Rc<Worker>) {
        let mut stage = self.stage.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.acceptor.accept() => accepted,
                _ = stage.wait_for(|stage| *stage != Stage::Serving) => break,
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
        let settings = &worker.settings;
        let of_address = socket.address_permit(
            address,
            settings.max_connections_per_address,
            &settings.real_ip.trusted,
            &worker.limits.of_addresses,
        );
        let Ok(of_address) = of_address else {
            // Closed without an answer, since a client that exceeds this limit may do so often.
            worker
                .counters
                .refused_of_address
                .fetch_add(1, Ordering::Relaxed);
            return worker.unserved.refuse_of_address();
        };
        let Some(permit) = worker.limits.client() else {
            return self.refuse(worker, socket);
        };
        let admitted = Admitted {
            active: Active::count(worker),
            accepted_on: Rc::clone(&self.accepted_on),
            server: Rc::clone(&self.server),
            open: self.open.clone(),
            permit: (permit, of_address),
            address,
            named: None,
        };
        match (&self.proxy_protocol, &self.tls) {
            (None, None) => tokio::task::spawn_local(admitted.serve(Transport::Plain(socket))),
            (proxy_protocol, tls) => {
                let opening = Opening {
                    proxy_protocol: proxy_protocol.clone(),
                    tls: tls.clone(),
                    stage: self.stage.clone(),
                };
                tokio::task::spawn_local(admitted.open(socket, opening))
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
            let (open, headers) = (self.open.clone(), self.accepted_on.headers);
            tokio::task::spawn_local(async move {
                let _held = (permit, open);
                let reject = Reject::HttpServer(StatusCode::SERVICE_UNAVAILABLE);
                let page = page::refusal(&reject, headers);
                connections::refuse(socket, &page.bytes).await;
            });
        }
    }
}

/// The worker of a connection, which counts it among those that are open, and forgets it even if
/// its task panics.
struct Active {
    worker: Rc<Worker>,
    /// The number by which the worker knows it, once it is served.
    number: Option<u64>,
}

impl Active {
    fn count(worker: &Rc<Worker>) -> Self {
        worker.counters.active.fetch_add(1, Ordering::Relaxed);
        Self {
            worker: Rc::clone(worker),
            number: None,
        }
    }

    fn serve(&mut self, number: u64, client: &Rc<Client>) {
        self.number = Some(number);
        let mut known = self.worker.clients.borrow_mut();
        known.insert(number, Rc::clone(client));
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.worker.clients.borrow_mut().remove(&number);
        }
        self.worker.counters.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An accepted connection that may be served.
struct Admitted {
    active: Active,
    accepted_on: Rc<ListenerInfo>,
    server: Rc<http1::Builder>,
    open: mpsc::Sender<()>,
    permit: ClientPermit,
    /// The address of the peer.
    address: SocketAddr,
    /// The client that the peer has named by the PROXY protocol.
    named: Option<Box<ClientAddress>>,
}

/// What a connection begins with before its first request.
struct Opening {
    proxy_protocol: Option<ProxyProtocol>,
    tls: Option<TlsServer>,
    /// Says when the worker accepts no more connections.
    stage: watch::Receiver<Stage>,
}

impl Opening {
    /// Reads the header and makes the handshake. Returns the client that the header names as well.
    async fn pass(
        &self,
        mut socket: Socket,
    ) -> Result<(Transport, Option<Box<ClientAddress>>), Refused> {
        let mut named = None;
        if let Some(proxy_protocol) = &self.proxy_protocol {
            let read = proxy_protocol.read(&mut socket).await;
            let client = read.map_err(|NoHeader| Refused::Failed)?;
            named = client.map(|client| Box::new(ClientAddress::new(client)));
        }
        let transport = match &self.tls {
            None => Transport::Plain(socket),
            Some(tls) => tls.handshake(socket).await?,
        };
        Ok((transport, named))
    }

    /// Ends some time after the worker has begun to drain.
    async fn late(mut stage: watch::Receiver<Stage>) {
        let _ = stage.wait_for(|stage| *stage == Stage::Draining).await;
        tokio::time::sleep(OPENING_GRACE).await;
    }
}

impl Admitted {
    /// Serves the connection until it ends.
    async fn serve(self, transport: Transport) {
        let Self {
            mut active, server, ..
        } = self;
        let worker = Rc::clone(&active.worker);
        let mut info = ConnectionInfo::new(self.address, self.accepted_on);
        info.number = worker.numbers.next();
        let number = info.number;
        info.server_name = transport.server_name();
        info.tls = transport.negotiated();
        let is_unix = matches!(transport.socket(), Socket::Unix(_));
        let real_ip = &worker.settings.real_ip;
        info.trust = Trust::of(real_ip, (!is_unix).then_some(info.peer.address.ip()));
        info.named = self.named.filter(|_| info.trust.names_by_proxy_protocol);
        if let Some(local) = transport.socket().local_ip() {
            info.local = local;
        }
        let clock = Rc::clone(&worker.clock);
        let max_requests = worker.settings.http_keepalive_requests;
        let client = Client::new(info, clock, self.open, Some(self.permit), max_requests);
        client.follow(worker.stage.get());
        active.serve(number, &client);
        worker.connection(&server, transport, client).await;
    }

    /// Answers a client that speaks no TLS on a port for it, and records that.
    async fn refuse_plain(&self, socket: Socket) {
        let mut info = ConnectionInfo::new(self.address, Rc::clone(&self.accepted_on));
        info.number = self.active.worker.numbers.next();
        if let Some(local) = socket.local_ip() {
            info.local = local;
        }
        let page = page::plain_on_tls(self.accepted_on.headers);
        connections::refuse(socket, &page.bytes).await;
        let unread = Unread {
            id: page.id,
            head: &[],
            received: 0,
            status: page.status,
            sent: page.bytes.len() as u64,
            body: page.body as u64,
            reason: page.reason,
            number: 1,
        };
        record_unread(&unread, &info, &self.active.worker.snapshot().0.policies);
    }

    /// Passes what the connection begins with, then serves it.
    async fn open(mut self, socket: Socket, opening: Opening) {
        // Boxed, so that only connections that are not served yet have the memory for it.
        let opened = Box::pin(async {
            tokio::select! {
                opened = opening.pass(socket) => Some(opened),
                () = Opening::late(opening.stage.clone()) => None,
            }
        });
        match opened.await {
            // An authority closes the connection after this handshake (RFC 8737, 3).
            Some(Ok((transport, _))) if transport.protocol() == Some(ACME_TLS) => {}
            Some(Ok((transport, named))) => {
                drop(opening);
                self.named = named;
                self.serve(transport).await;
            }
            Some(Err(Refused::NotTls(socket))) => {
                self.refuse_plain(socket).await;
            }
            Some(Err(Refused::Failed)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Numbers;

    #[test]
    fn no_two_connections_of_a_process_have_the_same_number() {
        let workers = [0, 1, 2].map(|worker| Numbers::of_worker(worker, 3));
        // The workers accept different numbers of connections.
        let counts = [5, 100, 1];
        let numbers = workers.iter().zip(counts);
        let numbers = numbers.flat_map(|(worker, count)| (0..count).map(|_| worker.next()));
        let numbers: Vec<u64> = numbers.collect();
        assert!(!numbers.contains(&0));
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 106);
    }
}
