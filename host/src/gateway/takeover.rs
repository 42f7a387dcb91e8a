//! Replaces a running gateway by a new process, without a lost request.
//!
//! Both processes meet at a Unix socket in the data folder. The old one (`successors.rs`) closes
//! its store, of which it keeps a copy, and sends the descriptors of its listening sockets and of
//! the folder's lock, which both processes hold until the take-over ends. The new one
//! (`predecessor.rs`) opens the store and accepts from the same queues of the kernel, so no
//! connection that waits in them is reset. Once it serves the proxy, it says so (`Ready`). From
//! the answer (`Replaced`) on, the gateway is the new process: it serves the Admin API and starts
//! the work of the control plane, and the old one ends when its clients have left. If the new
//! process ends before the answer, the old one restores the store from its copy and goes on. That
//! discards what the new process has written, none of which was acknowledged to a client.

mod predecessor;
mod successors;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use socket2::Socket;

pub(super) use predecessor::Predecessor;
pub(super) use successors::{HandOver, Shared, Successors};

/// The socket at which the processes meet, in the data folder.
const SOCKET: &str = "take-over.sock";

/// How long the start of a new process may take. Meanwhile the old one refuses changes.
const START: Duration = Duration::from_secs(300);

/// Longest wait of the new process for an answer of the old one, which has to finish the commit
/// that it is making and to copy its store. The store gives up a commit after ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most descriptors in a message. The kernel's limit is 253 (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 250;

/// Longest message that is received, in bytes. Only the reason of a refusal could be longer.
const LONGEST: usize = 4096;

/// What the processes say to each other. A message is a packet of the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Message {
    /// The new process asks for the listeners and the data folder.
    TakeOver { version: String },
    /// Sockets of an address, whose descriptors come with the message.
    Sockets {
        setting: String,
        address: String,
        /// Whether the file of a Unix socket belongs to the supervisor, and not to the gateway.
        #[serde(default)]
        is_supervised: bool,
    },
    /// All sockets were sent, and the store is closed. The lock of the data folder comes with the
    /// message.
    Released,
    /// The old process does not hand over, or takes back what it has handed over, and goes on.
    Refused { reason: String },
    /// The new process serves the proxy, and asks to become the gateway.
    Ready,
    /// The answer to `Ready`: the new process is the gateway from now on.
    Replaced,
}

/// The connection of two processes.
#[derive(Debug)]
struct Channel(Socket);

impl Channel {
    fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = [IoSlice::new(&text)];
        retry_on_intr(|| sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// The next message, for which this waits for `patience`; none if the other process has closed
    /// the connection.
    fn receive(&self, patience: Duration) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        self.0.set_read_timeout(Some(patience))?;
        let mut bytes = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut receive = || {
            // SIGCONT after SIGSTOP interrupts the call.
            retry_on_intr(|| recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))
        };
        // If the other process has closed its end with messages unread, the kernel reports
        // ECONNRESET once, and then delivers what that process had sent.
        let received = receive().or_else(|error| match error {
            Errno::CONNRESET => receive(),
            error => Err(error),
        })?;
        let descriptors = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let descriptors = descriptors.collect();
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other(
                "a message, or its descriptors, did not arrive whole: is the limit of open files too low?",
            ));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let text = bytes.get(..received.bytes).unwrap_or_default();
        Ok(Some((serde_json::from_slice(text)?, descriptors)))
    }
}

/// Whether the time to receive a message has run out.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
