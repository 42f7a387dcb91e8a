//! Sockets that clients send datagrams to. A socket for all addresses of the machine has to learn
//! at which of them a datagram has arrived, and to answer from there: a client takes an answer from
//! another address for one of a stranger. Source: nginx, which does the same (`IP_PKTINFO`).
//!
//! The messages that accompany a datagram are written and read here as bytes, since no library of
//! this project knows them. Their form is that of the Linux kernel (`cmsghdr`): the length in the
//! size of a pointer, the level and the type, and then the content.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use rustix::net::{RecvAncillaryBuffer, RecvFlags};
use socket2::{MsgHdr, SockAddr, SockRef};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Bytes of a message before its content.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Bytes of `in_pktinfo`: an interface, the local address, and the address in the datagram.
const CONTENT_V4: usize = 12;

/// Bytes of `in6_pktinfo`: the local address, and an interface.
const CONTENT_V6: usize = 20;

/// Room for the message of a datagram: the longer one, to the next word.
const ROOM: usize = (HEADER + CONTENT_V6).next_multiple_of(size_of::<usize>());

/// The two ends of what a client and this machine exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// The address that the client sends to, which is never one for all addresses.
    pub(super) local: SocketAddr,
}

/// A socket that clients send datagrams to.
pub(super) struct ClientSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

/// The message of a datagram. The kernel reads and writes it in words.
#[repr(C, align(8))]
struct Message([MaybeUninit<u8>; ROOM]);

impl ClientSocket {
    /// A socket that is bound and does not block.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        if local.ip().is_unspecified() {
            ask_for_addresses(&socket, local.is_ipv6())?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            local,
        })
    }

    /// Waits for a datagram. Returns its length and its ends.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
        let local = self.local;
        if !local.ip().is_unspecified() {
            let (length, client) = self.socket.recv_from(buffer).await?;
            return Ok((length, Ends { client, local }));
        }
        let receive = || receive(&self.socket, buffer);
        let (length, client, address) = self.socket.async_io(Interest::READABLE, receive).await?;
        let local = SocketAddr::new(address.unwrap_or(local.ip()), local.port());
        Ok((length, Ends { client, local }))
    }

    /// Sends a datagram to a client, from the address that it has sent to.
    pub(super) fn try_send(&self, datagram: &[u8], ends: Ends) -> io::Result<()> {
        let Ends { client, local } = ends;
        if !self.local.ip().is_unspecified() || local.ip().is_unspecified() {
            return self.socket.try_send_to(datagram, client).map(drop);
        }
        let send = || {
            let (address, content) = (SockAddr::from(client), from_address(local.ip()));
            let datagram = [IoSlice::new(datagram)];
            let message = MsgHdr::new()
                .with_addr(&address)
                .with_buffers(&datagram)
                .with_control(&content);
            SockRef::from(&self.socket).sendmsg(&message, 0)
        };
        self.socket.try_io(Interest::WRITABLE, send).map(drop)
    }
}

/// Has the kernel say at which address each datagram arrives.
#[expect(unsafe_code, reason = "no library of this project sets these options")]
fn ask_for_addresses(socket: &std::net::UdpSocket, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is an integer of the size that is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives a datagram: its length, its client, and the address at which it has arrived.
#[expect(
    unsafe_code,
    reason = "the kernel writes the message into memory of this function"
)]
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut message = Message([MaybeUninit::new(0); ROOM]);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut RecvAncillaryBuffer::new(&mut message.0),
        RecvFlags::DONTWAIT,
    )?;
    let client = received.address.and_then(|address| address.try_into().ok());
    let client: SocketAddr = client.ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: all bytes were initialised above, and the kernel only replaces them.
    let message = unsafe { message.0.assume_init_ref() };
    Ok((received.bytes, client, arrived_at(message)))
}

/// The address in the message of a datagram.
fn arrived_at(message: &[u8]) -> Option<IpAddr> {
    let integer = |at: usize| -> Option<i32> {
        Some(i32::from_ne_bytes(
            message.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    let level = integer(size_of::<usize>())?;
    let kind = integer(size_of::<usize>() + size_of::<i32>())?;
    let content = message.get(HEADER..)?;
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let address: [u8; 4] = content.get(4..8)?.try_into().ok()?;
            Some(Ipv4Addr::from(address).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let address: [u8; 16] = content.get(..16)?.try_into().ok()?;
            Some(Ipv6Addr::from(address).into())
        }
        _ => None,
    }
}

/// The message of a datagram that is to be sent from an address.
fn from_address(address: IpAddr) -> Vec<u8> {
    let (level, kind, content) = match address {
        IpAddr::V4(address) => {
            let mut content = vec![0; CONTENT_V4];
            content[4..8].copy_from_slice(&address.octets());
            (libc::IPPROTO_IP, libc::IP_PKTINFO, content)
        }
        IpAddr::V6(address) => {
            let mut content = vec![0; CONTENT_V6];
            content[..16].copy_from_slice(&address.octets());
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, content)
        }
    };
    let mut message = (HEADER + content.len()).to_ne_bytes().to_vec();
    message.extend(level.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(content);
    message.resize(message.len().next_multiple_of(size_of::<usize>()), 0);
    message
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_message_is_read_as_it_was_written() {
        for address in ["127.0.0.2", "::1", "2001:db8::7", "::ffff:10.0.0.1"] {
            let address: IpAddr = address.parse().unwrap();
            let message = from_address(address);
            assert!(message.len() <= ROOM);
            // What is sent has the local address where what is received has it.
            assert_eq!(arrived_at(&message), Some(address));
        }
        assert_eq!(arrived_at(&[0; ROOM]), None);
        assert_eq!(arrived_at(&[]), None);
    }

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        for (all, addresses) in [
            ("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"]),
            ("[::]:0", ["::1", "::1"]),
        ] {
            let socket = std::net::UdpSocket::bind(all).unwrap();
            socket.set_nonblocking(true).unwrap();
            let socket = ClientSocket::new(socket).unwrap();
            let port = socket.local.port();
            for address in addresses {
                let to = SocketAddr::new(address.parse().unwrap(), port);
                let client = UdpSocket::bind((address, 0)).await.unwrap();
                client.connect(to).await.unwrap();
                client.send(b"question").await.unwrap();
                let mut buffer = [0; 16];
                let (length, ends) = socket.receive(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..length], b"question");
                assert_eq!(ends.client, client.local_addr().unwrap());
                assert_eq!(ends.local, to);
                socket.try_send(b"answer", ends).unwrap();
                // A connected socket receives from its peer alone.
                let length = client.recv(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..length], b"answer");
            }
        }
    }
}
