//! Ports that belong to one test.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

thread_local! {
    /// The sockets that hold the ports of a test, which runs on a thread of its own.
    static HELD: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
}

/// An address with a free port. Until the test ends, the system gives this port to no other test
/// and no other process, even while no server of the test listens on it: then it refuses
/// connections.
///
/// A socket holds it that does not listen. Beside it one can listen that asks for the port, by
/// `SO_REUSEADDR`, as servers do.
pub(crate) fn reserve(address: IpAddr) -> SocketAddr {
    let any = SocketAddr::from((address, 0));
    let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&any.into()).unwrap();
    let reserved = socket.local_addr().unwrap().as_socket().unwrap();
    HELD.with_borrow_mut(|held| held.push(socket));
    reserved
}

/// An address that refuses connections, unless the test starts a server on it.
pub(crate) fn refusing_address() -> SocketAddr {
    reserve(Ipv4Addr::LOCALHOST.into())
}
