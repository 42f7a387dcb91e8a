//! The running gateway: hands over to a new process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Channel, MOST_DESCRIPTORS, Message, PATIENCE, SOCKET, START, is_timeout};
use crate::acme::Acme;
use crate::gateway::listeners::AllListeners;
use crate::listener::SocketFile;
use crate::store::{FolderLock, Store};
use crate::upstream::Memory;

/// How long a new process may take to say what it wants.
const SOON: Duration = Duration::from_secs(5);

/// The socket of [`SOCKET`] until it is in place.
const NEW_SOCKET: &str = "take-over.new";

/// Sockets with the setting and the address that they are for.
struct SharedSockets {
    setting: &'static str,
    address: String,
    is_supervised: bool,
    descriptors: Vec<OwnedFd>,
}

/// The listening sockets and the lock that a running gateway hands over to its successor.
#[derive(Clone, Default)]
pub(in crate::gateway) struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Empty once the gateway shuts down for another reason: a copy of a descriptor would keep a
    /// socket open that no process accepts from.
    sockets: Vec<Arc<SharedSockets>>,
    /// Whether a process that has got them may be, or become, the gateway.
    are_lent: bool,
    /// The lock of the data folder; none once another process is the gateway, which then has it.
    lock: Option<FolderLock>,
}

impl Shared {
    /// Copies the descriptors of all listeners, and keeps the lock of the data folder.
    pub(in crate::gateway) fn new(listeners: &AllListeners, lock: FolderLock) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (setting, listeners) in listeners.by_setting() {
            let shared = listeners.share()?.into_iter();
            sockets.extend(shared.map(|shared| {
                Arc::new(SharedSockets {
                    setting,
                    address: shared.address,
                    is_supervised: shared.is_supervised,
                    descriptors: shared.descriptors,
                })
            }));
        }
        Ok(Self(Arc::new(Mutex::new(State {
            sockets,
            are_lent: false,
            lock: Some(lock),
        }))))
    }

    /// Closes the copies: no further process gets them.
    pub(in crate::gateway) fn close(&self) {
        self.0.lock().sockets.clear();
    }

    /// Whether another process has got the sockets and may be, or become, the gateway. Then the
    /// files of Unix sockets are its own.
    pub(in crate::gateway) fn are_lent(&self) -> bool {
        self.0.lock().are_lent
    }

    fn is_closed(&self) -> bool {
        self.0.lock().sockets.is_empty()
    }

    /// The sockets for a process; none if they are closed.
    fn lend(&self) -> Vec<Arc<SharedSockets>> {
        let mut state = self.0.lock();
        state.are_lent = !state.sockets.is_empty();
        state.sockets.clone()
    }

    /// Notes that the process that had got them is not going to be the gateway.
    fn take_back(&self) {
        self.0.lock().are_lent = false;
    }
}

/// Waits for the process that is to replace this one.
pub(in crate::gateway) struct Successors {
    listener: Socket,
    file: SocketFile,
}

impl Successors {
    /// Opens the socket in the data folder, in place of one that another process has left, or that
    /// belongs to the process that this one has replaced: there is no moment without a socket.
    pub(in crate::gateway) fn listen(data_dir: &Path) -> io::Result<Self> {
        let (new, path) = (data_dir.join(NEW_SOCKET), data_dir.join(SOCKET));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        listener.bind(&SockAddr::unix(&new)?)?;
        listener.listen(8)?;
        std::fs::rename(&new, &path)?;
        let file = SocketFile::new(&path)?;
        Ok(Self { listener, file })
    }

    /// Hands over to each process that asks, one after the other, on a thread of its own, until one
    /// of them is the gateway. Its process id is then received, if it is known.
    pub(in crate::gateway) fn serve(
        self,
        hand_over: HandOver,
    ) -> io::Result<oneshot::Receiver<Option<i32>>> {
        let (replaced, successor) = oneshot::channel();
        std::thread::Builder::new()
            .name("take-over".into())
            .spawn(move || {
                let Self { listener, file } = self;
                let (channel, pid) = loop {
                    match listener.accept() {
                        Ok((socket, _)) => {
                            let (pid, channel) = (peer(&socket), Channel(socket));
                            if hand_over.to(&channel, pid) {
                                break (channel, pid);
                            }
                        }
                        Err(error) => {
                            tracing::warn!("cannot accept a successor: {error}");
                            std::thread::sleep(Duration::from_secs(1));
                        }
                    }
                };
                // The successor has its own socket in this place.
                file.leave();
                // The gateway may be ending for another reason.
                let _ = replaced.send(pid);
                // Until it has, further processes wait here, and then turn to it.
                let _ = channel.receive(PATIENCE);
                drop(listener);
            })?;
        Ok(successor)
    }
}

/// Whether the process at the other end is this user's, or root's. Others must not get the sockets,
/// whatever the rights of the file are.
fn is_trusted(socket: &Socket) -> bool {
    let own = rustix::process::geteuid();
    let peer = rustix::net::sockopt::socket_peercred(socket);
    peer.is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// The process at the other end, if it can be seen from here.
fn peer(socket: &Socket) -> Option<i32> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// What is handed over.
pub(in crate::gateway) struct HandOver {
    pub(in crate::gateway) shared: Shared,
    pub(in crate::gateway) store: Arc<dyn Store>,
    pub(in crate::gateway) memory: Arc<Memory>,
    pub(in crate::gateway) acme: Arc<Acme>,
    pub(in crate::gateway) runtime: Handle,
}

impl HandOver {
    /// Hands over to a process. Returns whether it is the gateway from now on.
    fn to(&self, channel: &Channel, pid: Option<i32>) -> bool {
        let name = pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
        let refuse = |reason: String| drop(channel.send(&Message::Refused { reason }, &[]));
        if !is_trusted(&channel.0) {
            tracing::warn!("{name} of another user asked for the sockets");
            refuse("it runs as another user".into());
            return false;
        }
        // A process that says nothing must not keep others away.
        let version = match channel.receive(SOON) {
            Ok(Some((Message::TakeOver { version }, _))) => version,
            Ok(None) => return false,
            asked => {
                tracing::warn!("{name} has not asked for what can be handed over: {asked:?}");
                refuse(format!(
                    "it has not asked to take over within {} s",
                    SOON.as_secs()
                ));
                return false;
            }
        };
        tracing::info!("{name}, of version {version}, takes over");
        let reason = format!("{name} takes over this gateway; try again in a moment");
        let offered = self.offer(channel, &reason);
        let failed = match offered {
            Ok(()) => match channel.receive(START) {
                Ok(Some((Message::Ready, _))) => {
                    // If it has ended since, this process must go on.
                    match channel.send(&Message::Replaced, &[]) {
                        Ok(()) => {
                            self.shared.0.lock().lock = None;
                            return true;
                        }
                        Err(error) => format!("it ended as it was ready: {error}"),
                    }
                }
                Ok(None) => "it ended before it was ready".into(),
                Ok(Some((message, _))) => format!("it says {message:?}"),
                Err(error) if is_timeout(&error) => {
                    format!("it was not ready within {} s", START.as_secs())
                }
                Err(error) => format!("it cannot be understood: {error}"),
            },
            Err(reason) => reason,
        };
        tracing::warn!("{name} has not taken over, and this process goes on: {failed}");
        refuse(failed);
        self.shared.take_back();
        self.store.resume();
        self.acme.resume();
        false
    }

    /// Closes the store and sends the sockets.
    ///
    /// # Errors
    /// Why not, as a sentence without its full stop.
    fn offer(&self, channel: &Channel, reason: &str) -> Result<(), String> {
        let closed = || "the running gateway is shutting down, or listens on no address".to_owned();
        if self.shared.is_closed() {
            return Err(closed());
        }
        // Certificates that are being requested could not be stored.
        self.acme.pause();
        let released = self.runtime.block_on(self.store.release(reason));
        released.map_err(|error| error.to_string())?;
        if let Err(error) = self.memory.save() {
            tracing::warn!("cannot write the health of targets: {error}");
        }
        let sockets = self.shared.lend();
        if sockets.is_empty() {
            return Err(closed());
        }
        let sent = self.send(channel, &sockets);
        sent.map_err(|error| format!("its sockets cannot be sent: {error}"))
    }

    fn send(&self, channel: &Channel, sockets: &[Arc<SharedSockets>]) -> io::Result<()> {
        for shared in sockets {
            for part in shared.descriptors.chunks(MOST_DESCRIPTORS) {
                let message = Message::Sockets {
                    setting: shared.setting.to_owned(),
                    address: shared.address.clone(),
                    is_supervised: shared.is_supervised,
                };
                let part: Vec<BorrowedFd<'_>> = part.iter().map(AsFd::as_fd).collect();
                channel.send(&message, &part)?;
            }
        }
        let lock = self.shared.0.lock().lock.clone();
        let lock = lock.as_ref().and_then(FolderLock::descriptor);
        channel.send(&Message::Released, lock.as_slice())
    }
}
