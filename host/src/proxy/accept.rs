//! Accepts connections of clients, or refuses them where the limit is reached.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use hyper::server::conn::http1;
use tokio::sync::{mpsc, watch};

use super::client::Client;
use super::connection_info::{ConnectionInfo, ListenerInfo};
use super::{Worker, page};
use crate::connections;
use crate::listener::{Acceptor, Socket, Transport};

/// Pause after a failed accept. The usual reason is that no file descriptor is left, and
/// descriptors become free only when connections are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections accepted so far by all workers, which numbers them.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// A listening socket of a worker.
pub(super) struct WorkerListener {
    pub(super) acceptor: Acceptor,
    pub(super) accepted_on: Rc<ListenerInfo>,
    pub(super) server: Rc<http1::Builder>,
    /// A copy is held by each connection.
    pub(super) open: mpsc::Sender<()>,
}

impl WorkerListener {
    /// Accepts connections until `stopped` says so.
    pub(super) async fn accept(self, worker: Rc<Worker>, mut stopped: watch::Receiver<bool>) {
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
        let clock = Rc::clone(&worker.clock);
        let mut info = ConnectionInfo::new(address, Rc::clone(&self.accepted_on));
        info.number = ACCEPTED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(local) = socket.local_ip() {
            info.local = local;
        }
        let client = Client::new(info, clock, self.open.clone(), Some(permit));
        let number = worker.next_client.get();
        worker.next_client.set(number + 1);
        worker
            .clients
            .borrow_mut()
            .insert(number, Rc::clone(&client));
        let (worker, server) = (Rc::clone(worker), Rc::clone(&self.server));
        tokio::task::spawn_local(async move {
            worker.counters.active.fetch_add(1, Ordering::Relaxed);
            worker
                .connection(&server, Transport::Plain(socket), client)
                .await;
            worker.counters.active.fetch_sub(1, Ordering::Relaxed);
            worker.clients.borrow_mut().remove(&number);
        });
    }

    /// Refuses a client because the limit of connections is reached: answers it, if a permit for
    /// that is left, and closes its connection.
    fn refuse(&self, worker: &Worker, socket: Socket) {
        worker.counters.refused.fetch_add(1, Ordering::Relaxed);
        worker.unserved.refuse();
        if let Some(permit) = worker.limits.refusal() {
            let open = self.open.clone();
            tokio::task::spawn_local(async move {
                let _held = (permit, open);
                let page = page::refusal(StatusCode::SERVICE_UNAVAILABLE);
                connections::refuse(socket, &page).await;
            });
        }
    }
}
