//! Streams over connections: TCP, TLS that is terminated here, and TLS that is passed through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::Worker;
use super::connect::{self, Wanted};
use super::figures::StreamStatus;
use super::matched::{self, canonical};
use super::place::{Placed, place};
use super::record::Recorder;
use crate::config::Listen;
use crate::connect::EndpointStream;
use crate::connections::ClientPermit;
use crate::endpoint::{ConnectionPermit, EndReason, Outcome};
use crate::listener::{Acceptor, BoundSocket, NoHeader, Refused, Socket, Transport};
use crate::relay::{LastMove, Side};
use crate::router::{StreamProtocol, StreamQuery};

/// Pause after a failed accept, as for the connections of the proxy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest time that bytes may be unacknowledged by a client, and that a client may read nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a stream holds in each direction. Source: nginx, `proxy_buffer_size` of streams.
const BUFFER: usize = 16 << 10;

/// Accepts connections on a socket, in a task, until the worker stops.
pub(super) fn listen(
    worker: &Rc<Worker>,
    socket: BoundSocket,
    listen: Listen,
) -> io::Result<JoinHandle<()>> {
    let acceptor = Acceptor::new(socket)?;
    let worker = Rc::clone(worker);
    let listen = Rc::new(listen);
    Ok(tokio::task::spawn_local(async move {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = worker.stopping() => break,
            };
            match accepted {
                Ok((socket, peer)) => admit(&worker, socket, peer, &listen),
                Err(error) => {
                    tracing::debug!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those in the kernel's queue were accepted for their clients.
        while let Some(Ok((socket, peer))) = acceptor.accept().now_or_never() {
            admit(&worker, socket, peer, &listen);
        }
    }))
}

/// Serves a connection in a task of its own, or closes it if there are too many.
fn admit(worker: &Rc<Worker>, socket: Socket, peer: SocketAddr, listen: &Rc<Listen>) {
    let Ok(of_address) = worker.address_permit(&socket, peer) else {
        return worker.figures.refuse_of_address();
    };
    let Some(permit) = worker.limits.client() else {
        return worker.figures.refuse();
    };
    let permit = (permit, of_address);
    let (worker, listen) = (Rc::clone(worker), Rc::clone(listen));
    tokio::task::spawn_local(serve(worker, socket, peer, listen, permit));
}

async fn serve(
    worker: Rc<Worker>,
    socket: Socket,
    peer: SocketAddr,
    listen: Rc<Listen>,
    permit: ClientPermit,
) {
    let _held = (permit, worker.open.clone());
    let mut stream = worker.figures.open();
    socket.prepare(SEND_TIMEOUT);
    let local = socket
        .local_ip()
        .unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST));
    let destination = SocketAddr::new(local, listen.port());
    let mut record = Recorder::new(
        canonical(peer),
        destination,
        false,
        worker.access_log.is_some(),
    );
    // Boxed: what a connection begins with needs more memory than the rest of it.
    let opening = Box::pin(open(&worker, socket, peer, &listen, &mut record));
    let opened = tokio::select! {
        opened = opening => opened,
        () = worker.opening_expired() => Err(StreamStatus::Unavailable),
    };
    match opened {
        Ok(opened) => {
            stream.status = StreamStatus::Ok;
            relay(&worker, opened, &mut record).await;
        }
        Err(status) => stream.status = status,
    }
    record.finish(stream.status, worker.access_log.as_ref());
}

/// A stream whose two connections are open.
struct Opened {
    client: Transport,
    endpoint: Placed<(EndpointStream, ConnectionPermit)>,
    drained: Option<std::pin::Pin<Box<dyn Future<Output = ()>>>>,
    read_timeout: Duration,
    write_timeout: Duration,
}

/// Reads what the connection begins with, and connects to an endpoint.
async fn open(
    worker: &Worker,
    mut socket: Socket,
    peer: SocketAddr,
    listen: &Listen,
    record: &mut Recorder,
) -> Result<Opened, StreamStatus> {
    record.source = client_of(worker, &mut socket, peer, listen).await?;
    let (source, destination) = (record.source, record.destination);
    let server_name = match listen.ssl {
        true => asked_name(worker, &socket).await?,
        false => None,
    };
    record.details.server_name = server_name.clone();
    let query = StreamQuery {
        protocols: match listen.ssl {
            true => &[StreamProtocol::Tls, StreamProtocol::TlsPassthrough],
            false => &[StreamProtocol::Tcp],
        },
        source,
        destination,
        server_name: server_name.as_deref(),
    };
    let matched = matched::find(worker, &query, record)?;
    let service = matched.service()?;
    let client = match (&worker.tls, matched.protocol) {
        (Some(tls), StreamProtocol::Tls) => match tls.handshake(socket).await {
            Ok(transport) => transport,
            Err(Refused::NotTls(_) | Refused::Failed) => return Err(StreamStatus::BadRequest),
        },
        _ => Transport::Plain(socket),
    };
    record.tls = client.negotiated();
    let wanted = Wanted {
        service,
        source,
        destination,
        preserved: server_name
            .as_deref()
            .filter(|_| matched.route.preserve_host),
        // What is passed through is TLS already.
        may_use_tls: matched.protocol != StreamProtocol::TlsPassthrough,
    };
    let endpoint = connect(worker, &wanted, record).await?;
    endpoint.report(service, Outcome::Answered(200), "connected");
    let leaves = endpoint.in_flight.endpoint().is_leaving();
    let drains = service.upstream.drains() && !leaves;
    Ok(Opened {
        drained: drains.then(|| Box::pin(endpoint.in_flight.endpoint().drained()) as _),
        client,
        endpoint,
        read_timeout: service.read_timeout,
        write_timeout: service.write_timeout,
    })
}

/// The client's address: the peer's, or the one that a trusted peer names by the PROXY protocol.
async fn client_of(
    worker: &Worker,
    socket: &mut Socket,
    peer: SocketAddr,
    listen: &Listen,
) -> Result<SocketAddr, StreamStatus> {
    let mut client = peer;
    if listen.proxy_protocol {
        let named = worker.proxy_protocol.read(socket).await;
        let named = named.map_err(|NoHeader| StreamStatus::BadRequest)?;
        let trusted = &worker.real_ip.trusted;
        let is_trusted = match socket {
            Socket::Tcp(_) => trusted.contain(peer.ip().to_canonical()),
            Socket::Unix(_) => trusted.contain_unix(),
        };
        client = named.filter(|_| is_trusted).unwrap_or(peer);
    }
    Ok(canonical(client))
}

/// The server name that the client asks for in the handshake that it begins with.
async fn asked_name(worker: &Worker, socket: &Socket) -> Result<Option<Box<str>>, StreamStatus> {
    let Some(tls) = &worker.tls else {
        return Err(StreamStatus::BadRequest);
    };
    let name = tls.server_name(socket).await;
    name.map_err(|_| StreamStatus::BadRequest)
}

async fn connect(
    worker: &Worker,
    wanted: &Wanted<'_>,
    record: &mut Recorder,
) -> Result<Placed<(EndpointStream, ConnectionPermit)>, StreamStatus> {
    place(wanted.service, record, async |in_flight| {
        let permit = connect::permit(wanted.service, Some(&worker.limits), in_flight).await?;
        let stream = connect::connect(wanted, in_flight).await?;
        Ok((stream, permit))
    })
    .await
}

/// Passes bytes both ways until both sides have ended, one of them is broken, or none was passed
/// for the service's `read_timeout`. The end of one side is passed on to the other, which may go on
/// to send.
async fn relay(worker: &Worker, opened: Opened, record: &mut Recorder) {
    let Opened {
        client,
        endpoint,
        drained,
        read_timeout,
        write_timeout,
    } = opened;
    let Placed {
        mut in_flight,
        connection: (endpoint, permit),
        ..
    } = endpoint;
    let _held = permit;
    let last_move = LastMove::now();
    let mut client = Side::new(client, &last_move, SEND_TIMEOUT);
    let mut endpoint = Side::new(endpoint, &last_move, write_timeout);
    let drained = async {
        match drained {
            Some(drained) => drained.await,
            None => std::future::pending().await,
        }
    };
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER);
    let cut_off = tokio::select! {
        // A broken connection is an ordinary end of a stream, but the balancer may learn from it.
        _ = copied => None,
        () = last_move.is_past(read_timeout) => Some(EndReason::Timeout),
        () = drained => Some(EndReason::Drained),
    };
    let ended = || EndReason::of_tunnel(endpoint.failure(), client.failure());
    in_flight.note_passed(endpoint.read());
    in_flight.end_now(cut_off.unwrap_or_else(ended));
    worker.figures.pass(client.read(), client.written());
    (record.from_client, record.to_client) = (client.read(), client.written());
    (record.from_endpoint, record.to_endpoint) = (endpoint.read(), endpoint.written());
}
