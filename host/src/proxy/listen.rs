//! Workers: threads that serve connections, and drain at shutdown.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};

use super::accept::{Numbers, WorkerListener};
use super::client::{Client, ConnectionState, SEND_TIMEOUT, Stage};
use super::client_stream::ClientStream;
use super::connection_info::{ListenerInfo, Scheme};
use super::head_size::HeadLimit;
use super::policies::{Unread, record_unread};
use super::pool::{self, Pool};
use super::preface::Opening;
use super::request_id::RequestId;
use super::unserved::Unserved;
use super::{Counters, Seen, Worker, handle, http2};
use crate::access_log::AccessLog;
use crate::config;
use crate::connections::ConnectionLimits;
use crate::http1::BodyKind;
use crate::listener::{Acceptor, Listeners, ProxyProtocol, TlsServer, Transport};
use crate::request_log;
use crate::snapshot::Published;

/// Idle time after which a connection gives back the memory that only requests need.
const IDLE_BEFORE_RELEASE: Duration = Duration::from_secs(1);

/// Time between two checks of the connections, and so the precision of idle timeouts.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Time that an idle client of HTTP/2 has to close its connection, once it was told that it ends.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Stack size of a worker's thread, in bytes. Wasm guests run on it. A guest that overflows its own
/// stack limit uses 512 KiB at most, and must not overflow the thread's stack before that.
const STACK: usize = 4 * 1024 * 1024;

/// Number of header fields that hyper parses without an allocation. With a higher limit, it
/// allocates for each request.
const FREE_HEADERS: usize = 100;

/// Largest size of hyper's read buffer and of its write buffer for a client, in bytes, unless heads
/// may be larger. hyper reads bodies in pieces of at most this size. It is smaller than a piece of
/// a response, so that hyper holds one piece and not two.
const MIN_BUFFER: usize = 40 * 1024;

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stage: watch::Sender<Stage>,
    drained: mpsc::Receiver<()>,
    /// The counters of each worker.
    pub counters: Vec<Arc<Counters>>,
}

impl Workers {
    /// Starts the workers, each with its own sockets. `tls` makes handshakes for the listeners that
    /// need it. Requests are logged in `access_log`.
    ///
    /// # Errors
    /// The system's error when a thread or a runtime cannot be started.
    pub(crate) fn start(
        listeners: Listeners,
        published: &Arc<Published>,
        settings: &config::Proxy,
        limits: &Arc<ConnectionLimits>,
        tls: Option<TlsServer>,
        access_log: Option<&Arc<AccessLog>>,
    ) -> io::Result<Self> {
        let (stage, staged) = watch::channel(Stage::Serving);
        let (draining, drained) = mpsc::channel(1);
        let mut workers = Self {
            threads: Vec::new(),
            stage,
            drained,
            counters: Vec::new(),
        };
        let http2 = listeners.http2();
        let proxy_protocol = listeners.proxy_protocol(settings.client_header_timeout);
        let listens = Arc::new(listeners.listens);
        let shortage = Arc::<Notify>::default();
        let count = listeners.workers.len();
        for (number, sockets) in listeners.workers.into_iter().enumerate() {
            let numbers = Numbers::of_worker(number, count);
            let counters = Arc::<Counters>::default();
            workers.counters.push(Arc::clone(&counters));
            let published = Arc::clone(published);
            let settings = settings.clone();
            let shortage = Arc::clone(&shortage);
            let limits = Arc::clone(limits);
            let access_log = access_log.cloned();
            let listens = Arc::clone(&listens);
            let opening = (proxy_protocol.clone(), tls.clone());
            let staged = staged.clone();
            let draining = draining.clone();
            let body = move || {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .on_thread_unpark(pool::note_poll)
                    .build_local(LocalOptions::default());
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => return tracing::error!("a worker cannot start: {error}"),
                };
                runtime.block_on(async move {
                    let access_log = access_log.map(|log| Rc::new(log.writer()));
                    let listening = sockets.into_iter().map(|(number, socket)| {
                        let log = access_log.clone();
                        let headers = settings.headers;
                        let info = ListenerInfo::new(&listens[number], http2, log, headers);
                        Ok((Acceptor::new(socket)?, info))
                    });
                    let listening = match listening.collect::<io::Result<Vec<_>>>() {
                        Ok(listening) => listening,
                        Err(error) => return tracing::error!("a worker cannot listen: {error}"),
                    };
                    let (generation, snapshot) = published.current();
                    let worker = Rc::new(Worker {
                        snapshot: RefCell::new(Rc::new(Seen(snapshot))),
                        generation: Cell::new(generation),
                        published,
                        pool: Pool::new(&settings, shortage, Arc::clone(&limits), &counters),
                        limits,
                        counters,
                        settings,
                        clients: RefCell::default(),
                        unserved: Unserved::default(),
                        access_log,
                        numbers,
                        stage: Cell::new(Stage::Serving),
                        clock: Rc::new(Cell::new(Instant::now())),
                    });
                    worker.serve(listening, opening, staged).await;
                });
                drop(draining);
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .stack_size(STACK);
            workers.threads.push(thread.spawn(body)?);
        }
        Ok(workers)
    }

    /// Stops accepting, because another process does, and waits until each connection has ended
    /// after its next request, for `patience` at most. Clients lose no request by it: none is told
    /// that its connection ends, or finds it closed, when it may have sent one already.
    pub async fn leave(&mut self, patience: Duration) {
        self.stage.send_replace(Stage::Replaced);
        // What is left is waited for by `shut_down`.
        let _ = tokio::time::timeout(patience, self.drained.recv()).await;
    }

    /// Stops accepting and waits until all requests in flight are answered, for `patience` at most.
    /// Returns whether all of them were.
    pub async fn shut_down(mut self, patience: Duration) -> bool {
        self.stage.send_replace(Stage::Draining);
        // Each worker holds a sender and never sends, so the channel closes when the last worker
        // ends.
        let finished = tokio::time::timeout(patience, self.drained.recv())
            .await
            .is_ok();
        if finished {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a worker has panicked");
                }
            }
        }
        finished
    }
}

impl Worker {
    async fn serve(
        self: Rc<Self>,
        listening: Vec<(Acceptor, Rc<ListenerInfo>)>,
        (proxy_protocol, tls): (ProxyProtocol, Option<TlsServer>),
        mut staged: watch::Receiver<Stage>,
    ) {
        let server = Rc::new(self.server());
        let pool_sweeper = tokio::task::spawn_local(Rc::clone(&self.pool).tidy());
        let idle_reaper = tokio::task::spawn_local(Rc::clone(&self).close_idle());
        // Each connection holds a sender, so the channel closes when the last connection ends.
        let (open, mut closed) = mpsc::channel::<()>(1);
        let accepting = listening.into_iter().map(|(acceptor, accepted_on)| {
            let (worker, server) = (Rc::clone(&self), Rc::clone(&server));
            let proxy_protocol = accepted_on.proxy_protocol.then(|| proxy_protocol.clone());
            let listener = WorkerListener {
                proxy_protocol,
                tls: tls.clone().filter(|_| accepted_on.scheme == Scheme::Https),
                acceptor,
                accepted_on,
                server,
                open: open.clone(),
                stage: staged.clone(),
            };
            tokio::task::spawn_local(listener.accept(worker))
        });
        let accepting: Vec<_> = accepting.collect();
        drop(open);
        let _ = staged.wait_for(|stage| *stage != Stage::Serving).await;
        self.stage.set(*staged.borrow_and_update());
        for listener in accepting {
            if let Err(error) = listener.await {
                tracing::error!("a listener has stopped: {error}");
            }
        }
        self.end_connections();
        tokio::select! {
            _ = closed.recv() => {}
            _ = staged.wait_for(|stage| *stage == Stage::Draining) => {
                self.stage.set(Stage::Draining);
                self.end_connections();
                closed.recv().await;
            }
        }
        self.unserved.say(self.limits.max_clients);
        pool_sweeper.abort();
        idle_reaper.abort();
    }

    /// Has the connections end as the stage says.
    fn end_connections(&self) {
        for client in self.clients.borrow().values() {
            client.follow(self.stage.get());
        }
    }

    fn server(&self) -> http1::Builder {
        let mut server = http1::Builder::new();
        server
            .max_header_size(self.settings.max_header_size)
            // hyper buffers at most this and one piece of a request and its response.
            // `ResponseBody` bounds what hyper holds of a body: one piece, until the client has
            // read it.
            .max_buf_size(self.settings.max_header_size.max(MIN_BUFFER))
            // The worker itself times out slow heads, without a timer for each request.
            .header_read_timeout(None)
            // `ClientStream` copies small pieces into one. (`pipeline_flush` is not used: with it,
            // hyper reads a body as fast as it is received, however slow the client is.)
            .writev(true);
        if self.settings.max_headers > FREE_HEADERS {
            server.max_headers(self.settings.max_headers);
        }
        server
    }

    /// Serves a connection until it ends.
    pub(super) async fn connection(
        self: &Rc<Self>,
        server: &http1::Builder,
        transport: Transport,
        client: Rc<Client>,
    ) {
        // Without this, a client that does not read its response would hold the endpoint's
        // connection forever.
        transport.socket().prepare(SEND_TIMEOUT);
        let mut stream = ClientStream::new(
            transport,
            client.backlog().cloned().unwrap_or_default(),
            HeadLimit::new(&self.settings),
        );
        stream = stream.with_headers(self.settings.headers);
        if self.access_log.is_some() {
            stream = stream.keep_heads();
        }
        let mut is_new = client.info.listener.http2;
        loop {
            // An idle connection is kept without hyper: hyper's state and buffers take twenty times
            // as much memory as the rest of it.
            let waited = tokio::select! {
                biased;
                opening = next_request(&mut stream, is_new) => opening,
                state = client.state_after(ConnectionState::Serving) => match state {
                    // The client may have sent a request of which the runtime has not been notified
                    // yet.
                    ConnectionState::Draining if stream.has_bytes() => {
                        let readable = stream.readable().await;
                        let opening = next_request(&mut stream, is_new).now_or_never();
                        readable.and(opening.unwrap_or(Ok(Opening::Http1)))
                    }
                    _ => return,
                },
            };
            match waited {
                Ok(Opening::Http2) => return Box::pin(http2::serve(self, stream, &client)).await,
                Ok(_) => is_new = false,
                Err(_) => return,
            }
            // Not part of this future itself, which an idle connection keeps.
            match Box::pin(self.requests(server, stream, &client)).await {
                Some(idle) => stream = idle,
                None => return,
            }
        }
    }

    /// Serves the requests of a connection until it ends. If the connection is idle and gives back
    /// its memory, returns its stream.
    async fn requests(
        self: &Rc<Self>,
        server: &http1::Builder,
        stream: ClientStream,
        client: &Rc<Client>,
    ) -> Option<ClientStream> {
        let (worker, requester) = (Rc::clone(self), Rc::clone(client));
        let service = service_fn(move |request: Request<Incoming>| {
            // `begin` is called here and not when the request is first polled, because hyper reads
            // on before that.
            let body = match request.body() {
                body if body.is_end_stream() => BodyKind::Length(0),
                body => (body.size_hint().exact()).map_or(BodyKind::Chunked, BodyKind::Length),
            };
            handle(Rc::clone(&worker), requester.begin(body), request)
        });
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::new(connection.with_upgrades());
        let mut state = ConnectionState::Serving;
        let result = loop {
            tokio::select! {
                biased;
                result = Pin::new(&mut *connection) => break Some(result),
                new = client.state_after(state) => state = new,
            }
            match state {
                ConnectionState::Serving => {}
                ConnectionState::Resting => {
                    client.go_on();
                    state = ConnectionState::Serving;
                    // The next request may have been received in the meantime.
                    if client.is_fully_idle() {
                        let parts = connection.into_parts()?;
                        let mut stream = parts.io.into_inner();
                        stream.rewind(parts.read_buf);
                        return Some(stream);
                    }
                }
                ConnectionState::Draining => Pin::new(&mut *connection).graceful_shutdown(),
                ConnectionState::Closing => break None,
            }
        };
        let is_closed_here = result.is_none();
        if let Some(Err(error)) = result {
            // Clients disconnect at any time, so this is logged at debug level only.
            let _scope = request_log::enter(client.request_in_flight().map(|id| id.digits()));
            tracing::debug!("a client's connection ended: {error}");
        }
        // A connection that changed its protocol has none.
        if let Some(parts) = connection.into_parts() {
            let stream = parts.io.into_inner();
            self.record_unserved(&stream, &parts.read_buf, client, is_closed_here);
        }
        None
    }

    /// Records a request whose head was not read to its end, or was refused. `received` is what
    /// hyper has left of it; `is_late` is whether the worker has closed the connection.
    fn record_unserved(
        &self,
        stream: &ClientStream,
        received: &[u8],
        client: &Client,
        is_late: bool,
    ) {
        let (length, start) = stream.unserved_head();
        let refused = stream.refused();
        let is_idle = client.request_in_flight().is_none();
        // What a draining gateway does not wait for is not the client's fault.
        let is_draining = self.stage.get() == Stage::Draining;
        if refused.is_none() && (length == 0 || !is_idle || is_draining) {
            return;
        }
        let (id, status, reason, sent) = match refused {
            Some(refused) => (refused.id, refused.status, refused.reason, refused.length),
            // Source: nginx, whose log has these statuses although nothing was sent.
            None if is_late => (
                RequestId::new(),
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                0,
            ),
            None => (
                RequestId::new(),
                StatusCode::BAD_REQUEST,
                "incomplete_head",
                0,
            ),
        };
        let unread = Unread {
            id,
            head: if start.is_empty() { received } else { start },
            received: length.max(received.len()) as u64,
            status,
            sent: sent as u64,
            body: refused.map_or(0, |refused| refused.body) as u64,
            reason,
            number: client.requests() + 1,
        };
        record_unread(&unread, &client.info, &self.snapshot().0.policies);
    }

    /// Closes connections whose client sends no next request, or has disconnected in the middle of
    /// one. Has idle connections give back memory, and drops old snapshots. Runs until it is
    /// aborted.
    async fn close_idle(self: Rc<Self>) {
        let patience = self.settings.client_header_timeout;
        let half_closed = self.settings.client_half_close_timeout;
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = Instant::now();
            self.clock.set(now);
            // Without this, a worker that gets no requests would keep an old snapshot alive, with
            // entities that were deleted long ago.
            let _ = self.snapshot();
            for client in self.clients.borrow().values() {
                if let Some(streams) = client.streams() {
                    streams.traffic.refill(now);
                    streams.expire(now, SEND_TIMEOUT);
                    // A client of HTTP/2 is told first that the connection ends. hyper waits until
                    // the client has answered a PING, which it may never do.
                    if client.ignores_goaway(now, GOAWAY_TIMEOUT) {
                        client.enter(ConnectionState::Closing);
                    } else if client.is_overdue(now, patience) {
                        client.enter(ConnectionState::Draining);
                    }
                } else if client.is_overdue(now, patience) || client.is_gone(now, half_closed) {
                    client.enter(ConnectionState::Closing);
                } else if client.should_release(now, IDLE_BEFORE_RELEASE) {
                    client.enter(ConnectionState::Resting);
                }
            }
            self.unserved.note(now, self.limits.max_clients);
            if let Some(log) = &self.access_log {
                log.flush();
            }
        }
    }
}

/// Waits for the next request of a connection, and tells the protocol that a new connection begins
/// with.
async fn next_request(stream: &mut ClientStream, is_new: bool) -> io::Result<Opening> {
    match is_new {
        true => stream.opening().await,
        false => stream.readable().await.map(|()| Opening::Http1),
    }
}
