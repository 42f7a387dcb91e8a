//! Drives a connection, and finds out by PINGs whether the endpoint still answers.

use std::rc::Rc;

use bytes::Bytes;
use h2::Ping;
use h2::client::Connection;

use super::State;
use super::watched::WatchedStream;
use crate::snapshot::KeepAlive;

/// Reads and writes a connection until it ends. It ends as well if the endpoint does not answer a
/// PING in time.
pub(super) async fn drive(
    mut connection: Connection<WatchedStream, Bytes>,
    keepalive: Option<KeepAlive>,
    state: Rc<State>,
) {
    let pings = connection.ping_pong();
    // An error was passed to all streams of the connection.
    let (Some(keepalive), Some(mut pings)) = (keepalive, pings) else {
        let _ = connection.await;
        return;
    };
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = tokio::time::sleep(keepalive.interval) => {}
        }
        tokio::select! {
            biased;
            _ = &mut connection => return,
            answered = tokio::time::timeout(keepalive.timeout, pings.ping(Ping::opaque())) => {
                if answered.is_err() {
                    state.unresponsive.set(true);
                    return;
                }
            }
        }
    }
}
