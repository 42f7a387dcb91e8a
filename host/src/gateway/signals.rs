//! The signals that the gateway handles. Without a handler, each of them would end the process at
//! once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
pub(super) enum SignalAction {
    /// To end; with the name of the signal.
    End(&'static str),
    /// To read the settings again.
    Reload,
    /// To open the files of the access logs again.
    Reopen,
    /// To start the program again, as nginx does on SIGUSR2.
    Replace,
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    first: Signal,
    second: Signal,
    _too_large: Signal,
}

impl Signals {
    pub(super) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // Kong and nginx shut down gracefully on this signal.
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            first: signal(SignalKind::user_defined1())?,
            second: signal(SignalKind::user_defined2())?,
            // With a handler for SIGXFSZ, a write past the limit of the file size is an error,
            // which is reported, and does not end the process.
            _too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            end = end(&mut self.terminate, &mut self.interrupt, &mut self.quit) => {
                SignalAction::End(end)
            }
            _ = self.hangup.recv() => SignalAction::Reload,
            _ = self.first.recv() => SignalAction::Reopen,
            _ = self.second.recv() => SignalAction::Replace,
        }
    }

    /// Waits for a signal that ends the gateway, during its start. The others are handled after it.
    pub(super) async fn end(&mut self) -> &'static str {
        end(&mut self.terminate, &mut self.interrupt, &mut self.quit).await
    }
}

async fn end(terminate: &mut Signal, interrupt: &mut Signal, quit: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = quit.recv() => "SIGQUIT",
    }
}
