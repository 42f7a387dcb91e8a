//! Streams over UDP. The datagrams of a client to a listener are a session, which ends when none
//! has passed for a time, since UDP has no end. Source: nginx, `listen … udp`.
//!
//! Source addresses of datagrams can be spoofed. So sessions have a limit of their own
//! (`max_udp_sessions`), and never take what connections of clients and to endpoints may have.

mod sessions;
mod socket;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::figures::StreamStatus;
use super::matched::{self, Matched, canonical};
use super::place::{Placed, place};
use super::record::Recorder;
use super::{OPENING_GRACE, StopReason, Worker, connect};
use crate::endpoint::{ConnectionPermit, EndReason, Outcome};
use crate::endpoint_address::EndpointAddress;
use crate::relay::LastMove;
use crate::router::{StreamProtocol, StreamQuery};
use crate::snapshot::Service;
use sessions::{OpenSession, Sessions};
use socket::{ClientSocket, Ends};

/// Largest datagram, in bytes.
const LARGEST: usize = 65_535;

/// Datagrams of a client that wait until they are sent on. Further ones are dropped, as a network
/// does.
const WAITING: usize = 64;

/// A socket that clients send datagrams to, with their sessions.
struct Listener {
    worker: Rc<Worker>,
    socket: ClientSocket,
    sessions: RefCell<Sessions>,
    /// For the datagrams of endpoints, which are sent on as soon as they are received.
    buffer: RefCell<Box<[u8]>>,
}

/// What the task of a session is given.
struct NewSession {
    number: u64,
    ends: Ends,
    /// The datagrams of the client.
    datagrams: mpsc::Receiver<Bytes>,
    last_move: LastMove,
    /// Ends when the session has to give way to another one.
    displaced: oneshot::Receiver<()>,
}

/// Receives datagrams on a socket, in a task, until the worker stops and all sessions have ended.
pub(super) fn listen(
    worker: &Rc<Worker>,
    socket: std::net::UdpSocket,
) -> io::Result<JoinHandle<()>> {
    let listener = Rc::new(Listener {
        worker: Rc::clone(worker),
        socket: ClientSocket::new(socket)?,
        sessions: RefCell::default(),
        buffer: RefCell::new(vec![0; LARGEST].into()),
    });
    Ok(tokio::task::spawn_local(async move {
        let receiving = Rc::clone(&listener).receive();
        tokio::select! {
            () = receiving => {}
            () = listener.worker.stopping() => {}
        }
        if *listener.worker.stopped.borrow() == Some(StopReason::Replaced) {
            // Endpoints may still answer. The next datagram of a client begins a session there.
            return listener.ended().await;
        }
        // The datagrams of sessions in progress are still passed.
        let receiving = Rc::clone(&listener).receive();
        tokio::select! {
            () = receiving => {}
            () = listener.ended() => {}
        }
    }))
}

impl Listener {
    /// Gives each datagram to the session of its client.
    async fn receive(self: Rc<Self>) {
        let mut buffer = vec![0; LARGEST];
        loop {
            match self.socket.receive(&mut buffer).await {
                Ok((length, ends)) => {
                    let datagram = Bytes::copy_from_slice(&buffer[..length]);
                    self.deliver(ends, datagram);
                }
                // An error of an earlier datagram to a client.
                Err(error) => tracing::debug!("no datagram was received: {error}"),
            }
        }
    }

    fn deliver(self: &Rc<Self>, ends: Ends, datagram: Bytes) {
        let mut sessions = self.sessions.borrow_mut();
        if let Some(session) = sessions.of(&ends) {
            // If too many wait already, this one is dropped.
            let _ = session.try_send(datagram);
            return;
        }
        if self.worker.stopped.borrow().is_some() {
            return;
        }
        let figures = &self.worker.figures;
        let permit = match self.worker.limits.udp_session() {
            Some(permit) => permit,
            None => match sessions.displace_idle() {
                Some(permit) => {
                    figures.displace_session();
                    permit
                }
                None => return figures.refuse_session(),
            },
        };
        let (sender, datagrams) = mpsc::channel(WAITING);
        let _ = sender.try_send(datagram);
        let (held, displaced) = oneshot::channel();
        let last_move = LastMove::now();
        let number = sessions.insert(
            ends,
            OpenSession {
                datagrams: sender,
                last_move: last_move.clone(),
                permit,
                _held: held,
            },
        );
        let session = NewSession {
            number,
            ends,
            datagrams,
            last_move,
            displaced,
        };
        tokio::task::spawn_local(Rc::clone(self).serve(session));
    }

    /// Waits until all sessions have ended. They are looked at from time to time.
    async fn ended(&self) {
        while !self.sessions.borrow().is_empty() {
            tokio::time::sleep(OPENING_GRACE / 20).await;
        }
    }

    async fn serve(self: Rc<Self>, session: NewSession) {
        let NewSession {
            number,
            ends,
            datagrams,
            last_move,
            mut displaced,
        } = session;
        let _open = self.worker.open.clone();
        let mut stream = self.worker.figures.open();
        let mut record = Recorder::new(
            canonical(ends.client),
            canonical(ends.local),
            true,
            self.worker.access_log.is_some(),
        );
        let mut why = EndReason::Complete;
        let mut opened = tokio::select! {
            opened = self.open(&mut record) => opened,
            _ = &mut displaced => Err(StreamStatus::Unavailable),
        };
        let ready = opened.as_ref().map_err(|status| *status);
        let ready = ready.and_then(|(matched, placed)| Ok((matched.service()?, placed)));
        stream.status = match ready {
            Err(status) => status,
            Ok((service, placed)) => {
                let session = Session {
                    listener: &self,
                    ends,
                    placed,
                    last_move,
                    received: Cell::new(0),
                    sent: Cell::new(0),
                };
                let passed = tokio::select! {
                    passed = session.pass(service, datagrams) => passed,
                    _ = displaced => Ok(EndReason::Complete),
                };
                (record.from_client, record.to_client) =
                    (session.received.get(), session.sent.get());
                // Datagrams are passed as they are.
                (record.to_endpoint, record.from_endpoint) = (record.from_client, record.to_client);
                why = passed.as_ref().map_or(EndReason::Broken, |why| *why);
                session.report(service, passed.map(|_| ()))
            }
        };
        if let Ok((_, placed)) = &mut opened {
            placed.in_flight.note_passed(record.from_endpoint);
            placed.in_flight.end_now(why);
        }
        record.finish(stream.status, self.worker.access_log.as_ref());
        self.sessions.borrow_mut().remove(&ends, number);
    }

    /// Finds the endpoint of a session. No answer shows whether it is there.
    async fn open(
        &self,
        record: &mut Recorder,
    ) -> Result<(Matched, Placed<(UdpSocket, ConnectionPermit)>), StreamStatus> {
        let query = StreamQuery {
            protocols: &[StreamProtocol::Udp],
            source: record.source,
            destination: record.destination,
            server_name: None,
        };
        let matched = matched::find(&self.worker, &query, record)?;
        let service = matched.service()?;
        let placed = place(service, record, async |in_flight| {
            // The session has a permit for the descriptor already.
            let permit = connect::permit(service, None, in_flight).await?;
            let EndpointAddress::Inet(address) = &in_flight.endpoint().address else {
                let error = "a Unix socket takes no datagrams";
                return Err(io::Error::new(io::ErrorKind::Unsupported, error).into());
            };
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            // Until the runtime has looked at the socket, it takes it for one without room.
            socket.writable().await?;
            Ok((socket, permit))
        })
        .await?;
        Ok((matched, placed))
    }
}

/// A session in progress.
struct Session<'a> {
    listener: &'a Listener,
    ends: Ends,
    placed: &'a Placed<(UdpSocket, ConnectionPermit)>,
    last_move: LastMove,
    /// Bytes from the client.
    received: Cell<u64>,
    /// Bytes to the client.
    sent: Cell<u64>,
}

impl Session<'_> {
    /// Passes datagrams both ways until none was passed for the service's `read_timeout`, or for a
    /// shorter time once the worker stops. Returns why it has ended.
    ///
    /// # Errors
    /// The error of an endpoint that has sent nothing before.
    async fn pass(
        &self,
        service: &Service,
        mut datagrams: mpsc::Receiver<Bytes>,
    ) -> io::Result<EndReason> {
        let (endpoint, _) = &self.placed.connection;
        let in_flight = &self.placed.in_flight;
        let worker = &*self.listener.worker;
        let drains = service.upstream.drains() && !in_flight.endpoint().is_leaving();
        let drained = async {
            match drains {
                true => in_flight.endpoint().drained().await,
                false => std::future::pending().await,
            }
        };
        let mut drained = std::pin::pin!(drained);
        let last_move = &self.last_move;
        let idle = async {
            tokio::select! {
                () = last_move.is_past(service.read_timeout) => {}
                () = async {
                    worker.stopping().await;
                    last_move.is_past(OPENING_GRACE.min(service.read_timeout)).await;
                } => {}
            }
        };
        let mut idle = std::pin::pin!(idle);
        let mut is_answered = false;
        loop {
            let moved = tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => self.send(&datagram),
                    None => Ok(()),
                },
                ready = endpoint.ready(Interest::READABLE | Interest::ERROR) => {
                    ready.and_then(|ready| self.answer(ready, &mut is_answered))
                }
                // Datagrams have no other end.
                () = &mut idle => return Ok(EndReason::Complete),
                () = &mut drained => return Ok(EndReason::Drained),
            };
            last_move.note();
            if !is_answered {
                moved?;
            }
        }
    }

    /// Reports the outcome to the health checks and to the balancer.
    fn report(&self, service: &Service, passed: io::Result<()>) -> StreamStatus {
        let Err(error) = passed else {
            let outcome = Outcome::Answered(200);
            self.placed
                .report(service, outcome, "the session has ended");
            return StreamStatus::Ok;
        };
        let detail = error.to_string();
        self.placed.report(service, Outcome::Broken, &detail);
        let address = &self.placed.in_flight.endpoint().address;
        tracing::warn!(
            service = &*service.name, %address,
            "the endpoint of a stream refuses datagrams: {detail}"
        );
        StreamStatus::BadGateway
    }

    /// Sends a datagram of the client on.
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let (endpoint, _) = &self.placed.connection;
        let length = datagram.len() as u64;
        self.received.set(self.received.get() + length);
        self.listener.worker.figures.pass(length, 0);
        unless_full(endpoint.try_send(datagram))
    }

    /// Sends the datagrams that the endpoint has sent on to the client.
    fn answer(&self, ready: Ready, is_answered: &mut bool) -> io::Result<()> {
        let (endpoint, _) = &self.placed.connection;
        if ready.is_error() {
            let error = endpoint.take_error();
            // Has the runtime wait for the next error.
            let _ = endpoint.try_io(Interest::ERROR, || {
                io::Result::<()>::Err(io::ErrorKind::WouldBlock.into())
            });
            if let Some(error) = error? {
                return Err(error);
            }
        }
        let mut buffer = self.listener.buffer.borrow_mut();
        // Not without end, so that other sessions have their turn.
        for _ in 0..WAITING {
            match endpoint.try_recv(&mut buffer) {
                Ok(length) => {
                    *is_answered = true;
                    self.sent.set(self.sent.get() + length as u64);
                    self.listener.worker.figures.pass(0, length as u64);
                    // That the client cannot be reached is no fault of the endpoint.
                    let _ = (self.listener.socket).try_send(&buffer[..length], self.ends);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A datagram that cannot be sent now is dropped, as a network does.
fn unless_full(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}
