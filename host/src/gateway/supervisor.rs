//! What a supervisor such as systemd is told of the gateway (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells the supervisor the state of this process; nothing if it did not ask for it, by
/// `NOTIFY_SOCKET`.
pub(super) fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    // A name that begins with @ is not a path, but of Linux' abstract namespace.
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::debug!("the supervisor cannot be told {state:?}: {error}");
    }
}

/// The state of a process that reads its settings again, with the time that systemd asks for.
pub(super) fn notify_reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}

/// Tells the supervisor that the control plane runs, as often as it asks for it (`WATCHDOG_USEC`).
pub(super) async fn keep_alive() {
    let asked = std::env::var("WATCHDOG_USEC").ok();
    let Some(limit) = asked
        .and_then(|limit| limit.parse().ok())
        .filter(|limit| *limit > 0)
    else {
        return;
    };
    // Twice within the limit, as sd_watchdog_enabled(3) advises.
    let mut ticks = tokio::time::interval(Duration::from_micros(limit) / 2);
    loop {
        ticks.tick().await;
        notify("WATCHDOG=1");
    }
}
