//! The bytes of a client's connection: over TCP or a Unix socket, in clear text or over TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::byte_stream::delegate_stream;
use crate::config::TrustedIps;
use crate::connections::{AddressConnections, AddressPermit};
use crate::tls::NegotiatedTls;

/// A connection as the system has it.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection as the gateway reads and writes it.
#[derive(Debug)]
pub(crate) enum Transport {
    /// In clear text.
    Plain(Socket),
    /// Over TLS, after the handshake. Boxed, because it is several hundred bytes.
    Tls(Box<TlsStream<Socket>>),
}

impl Socket {
    /// Sets what the connection of a client needs: no delay of small writes, and a limit of how
    /// long sent data may remain unacknowledged. Errors are ignored: they mean that the client has
    /// disconnected, which the first read reports.
    pub(crate) fn prepare(&self, send_timeout: Duration) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(send_timeout));
        }
    }

    /// Counts a connection among those of its peer's address, of which there may be `most`: not for
    /// a Unix socket, which has none, and not for a trusted peer, which has many clients.
    ///
    /// # Errors
    /// The address has as many as it may have.
    pub(crate) fn address_permit(
        &self,
        peer: SocketAddr,
        most: Option<u32>,
        trusted: &TrustedIps,
        counted: &Arc<AddressConnections>,
    ) -> Result<Option<AddressPermit>, ()> {
        let Some(most) = most else {
            return Ok(None);
        };
        let address = peer.ip();
        if matches!(self, Self::Unix(_)) || trusted.contain(address.to_canonical()) {
            return Ok(None);
        }
        counted.permit(address, most).map(Some).ok_or(())
    }

    /// The address that the client is connected to; none for a Unix socket.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => Some(stream.local_addr().ok()?.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Waits until there are bytes to read, or the client has closed its sending side. Copies the
    /// first bytes to `bytes`, without taking them, and returns their number.
    pub(crate) async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            // Not `readable`: the runtime takes a new socket for readable until a read has failed.
            Self::Tcp(stream) => stream.peek(bytes).await,
            Self::Unix(stream) => {
                let peek = || peek_now(stream, bytes);
                stream.async_io(Interest::READABLE, peek).await
            }
        }
    }

    /// Waits until more than `seen` bytes can be read. Copies the first bytes to `bytes`, without
    /// taking them, and returns their number.
    ///
    /// # Errors
    /// The client has closed its sending side, and there are no more bytes.
    pub(crate) async fn peek_beyond(&self, seen: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut peek = || {
            // Asked before the bytes are read: the client may send the last ones in between.
            let closed = self.is_closed_by_peer();
            let read = match self {
                Self::Tcp(stream) => peek_now(stream, bytes),
                Self::Unix(stream) => peek_now(stream, bytes),
            };
            match read {
                // To the runtime such a connection stays readable, so it would ask at once, again
                // and again.
                Ok(read) if read <= seen && closed => Err(io::ErrorKind::UnexpectedEof.into()),
                // The runtime then waits for the next bytes.
                Ok(read) if read <= seen => Err(io::ErrorKind::WouldBlock.into()),
                read => read,
            }
        };
        match self {
            Self::Tcp(stream) => stream.async_io(Interest::READABLE, &mut peek).await,
            Self::Unix(stream) => stream.async_io(Interest::READABLE, &mut peek).await,
        }
    }

    /// Whether there are bytes to read. This asks the system, because the runtime may not have been
    /// notified yet.
    fn has_bytes(&self) -> bool {
        let read = match self {
            Self::Tcp(stream) => peek_now(stream, &mut [0]),
            Self::Unix(stream) => peek_now(stream, &mut [0]),
        };
        read.is_ok_and(|read| read > 0)
    }

    /// Whether the peer has closed its sending side, even if bytes from before are still to be
    /// read.
    pub(crate) fn is_closed_by_peer(&self) -> bool {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(Interest::READABLE).now_or_never(),
            Self::Unix(stream) => stream.ready(Interest::READABLE).now_or_never(),
        };
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    /// The error of the connection that the system has not reported yet.
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }
}

/// Copies the bytes that can be read now, without taking them.
fn peek_now(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    let (read, _) = rustix::net::recv(socket, bytes, RecvFlags::PEEK)?;
    Ok(read)
}

impl Transport {
    /// The connection below TLS.
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The application protocol that client and gateway have agreed on in the handshake (RFC 7301).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// What client and gateway have agreed on in the handshake. None in clear text.
    pub(crate) fn negotiated(&self) -> Option<NegotiatedTls> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(NegotiatedTls::of(stream.get_ref().1)),
        }
    }

    /// The server name that the client has asked for in its handshake, in lower case; empty if it
    /// has asked for none. None in clear text.
    pub(crate) fn server_name(&self) -> Option<Box<str>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => {
                let name = stream.get_ref().1.server_name().unwrap_or_default();
                Some(name.to_ascii_lowercase().into())
            }
        }
    }

    /// Waits until there are bytes to read, or the client has closed its sending side.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        if !self.has_decrypted() {
            self.socket().peek(&mut [0]).await?;
        }
        Ok(())
    }

    /// Whether there are bytes to read, or bytes of which some may be to be read after decryption.
    pub(crate) fn has_bytes(&mut self) -> bool {
        self.has_decrypted() || self.socket().has_bytes()
    }

    /// Whether TLS has decrypted bytes that were not read yet.
    fn has_decrypted(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => {
                let state = stream.get_mut().1.process_new_packets();
                // The next read reports an error.
                state.map_or(true, |state| state.plaintext_bytes_to_read() > 0)
            }
        }
    }

    /// Whether TLS holds bytes for the client that its socket does not accept yet.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
        }
    }

    /// The error of the connection that the system has not reported yet.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }
}

delegate_stream!(Socket { Tcp, Unix });
delegate_stream!(Transport { Plain, Tls });
