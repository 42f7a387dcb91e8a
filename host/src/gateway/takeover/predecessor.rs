//! The new process: takes over from the gateway that runs on its data folder.

use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Channel, Message, PATIENCE, SOCKET, START, is_timeout};
use crate::listener::Inherited;
use crate::store::FolderLock;

/// How often the running gateway may be another one than before: each may have been replaced while
/// this process waited for it.
const MOST_REPLACED: usize = 10;

/// The gateway that is to be replaced, to the new process.
#[derive(Debug)]
pub(in crate::gateway) struct Predecessor {
    channel: Channel,
    /// The lock of the data folder, which this process holds as well; `None` if the gateway is of a
    /// version without a lock.
    pub(in crate::gateway) lock: Option<FolderLock>,
}

impl Predecessor {
    /// Has the gateway that runs on a data folder hand over its sockets and close its store. If
    /// another process is replacing it, waits for that and then replaces that one. None if no
    /// gateway runs on the folder. The sockets are added to `inherited`.
    ///
    /// # Errors
    /// Why it does not hand over.
    pub(in crate::gateway) async fn replace(
        data_dir: &Path,
        mut inherited: Inherited,
    ) -> anyhow::Result<(Option<Self>, Inherited)> {
        let data_dir = data_dir.to_owned();
        on_a_thread(move || Ok((Self::wait_for(&data_dir, &mut inherited)?, inherited))).await
    }

    fn wait_for(data_dir: &Path, inherited: &mut Inherited) -> anyhow::Result<Option<Self>> {
        let address = SockAddr::unix(data_dir.join(SOCKET)).context(
            "take_over is on, but the path of data_dir is too long for a Unix socket in it",
        )?;
        for _ in 0..MOST_REPLACED {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
            if let Err(error) = socket.connect(&address) {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                    _ => Err(error).context("cannot reach the gateway that is to be replaced"),
                };
            }
            let channel = Channel(socket);
            tracing::info!("asking the running gateway to hand over");
            let released = ask(&channel, inherited);
            match released.context("the running gateway has not handed over")? {
                HandOverReply::Released(lock) => return Ok(Some(Self { channel, lock })),
                HandOverReply::HasEnded => {}
            }
            tracing::info!("the running gateway was replaced by another process or has ended");
        }
        bail!("the running gateway was replaced again and again; try again later")
    }

    /// Asks to be the gateway from now on.
    ///
    /// # Errors
    /// The old process goes on, or may go on, so this one must end.
    pub(in crate::gateway) async fn commit(self) -> anyhow::Result<Self> {
        on_a_thread(move || commit(&self.channel, PATIENCE).map(|()| self)).await
    }
}

/// Runs what may wait for the other process, so that this one can end meanwhile.
async fn on_a_thread<T: Send + 'static>(
    wait: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let waited = tokio::task::spawn_blocking(wait).await;
    waited.context("the thread of the take-over has failed")?
}

fn commit(channel: &Channel, patience: Duration) -> anyhow::Result<()> {
    // If the other end is closed, what it has sent before can still be received.
    let _ = channel.send(&Message::Ready, &[]);
    let mut answer = channel.receive(patience);
    let is_silent = answer.as_ref().is_err_and(is_timeout);
    if is_silent {
        // The old process may be stopped. It has its store again as soon as it goes on, unless it
        // has answered in this moment: from here on it cannot.
        channel.0.shutdown(Shutdown::Read)?;
        answer = channel.receive(patience);
    }
    match answer.context("the answer of the running gateway cannot be read")? {
        Some((Message::Replaced, _)) => Ok(()),
        Some((Message::Refused { reason }, _)) => {
            bail!("the running gateway goes on, and this process ends: {reason}")
        }
        Some((message, _)) => {
            bail!("the running gateway answers {message:?}, and this process ends")
        }
        None if is_silent => bail!(
            "the running gateway has not answered for {} s but may go on, so this process ends",
            patience.as_secs()
        ),
        // Then there is no other gateway.
        None => {
            tracing::warn!("the replaced gateway has ended without an answer");
            Ok(())
        }
    }
}

/// What became of the request to hand over.
enum HandOverReply {
    /// The store is closed. With the lock of the data folder.
    Released(Option<FolderLock>),
    /// The other process has ended, or was replaced, before it answered.
    HasEnded,
}

/// Asks for the sockets and for the store.
fn ask(channel: &Channel, inherited: &mut Inherited) -> anyhow::Result<HandOverReply> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    if channel.send(&Message::TakeOver { version }, &[]).is_err() {
        return Ok(HandOverReply::HasEnded);
    }
    // Another process may be taking over.
    let mut patience = START + PATIENCE;
    let mut is_answered = false;
    loop {
        let (message, descriptors) = match channel.receive(patience) {
            Ok(Some(received)) => received,
            Ok(None) if !is_answered => return Ok(HandOverReply::HasEnded),
            received => received?.context("it has ended")?,
        };
        match message {
            Message::Sockets {
                setting,
                address,
                is_supervised,
            } => inherited.add(setting, address, descriptors, is_supervised),
            Message::Released => {
                let lock = descriptors.into_iter().next();
                return Ok(HandOverReply::Released(lock.map(FolderLock::received)));
            }
            Message::Refused { reason } => bail!("{reason}"),
            message => bail!("it answers {message:?}"),
        }
        (patience, is_answered) = (PATIENCE, true);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    /// This process's end of a channel, and the running gateway's.
    fn channels() -> (Channel, Channel) {
        let (new, old) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        (Channel(new), Channel(old))
    }

    fn mistake(outcome: anyhow::Result<()>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_gateway_that_has_ended_is_replaced() {
        let (new, old) = channels();
        drop(old);
        commit(&new, PATIENCE).unwrap();
        let (new, old) = channels();
        std::thread::scope(|scope| {
            scope.spawn(move || old.receive(PATIENCE).unwrap());
            commit(&new, PATIENCE).unwrap();
        });
    }

    #[test]
    fn what_a_gateway_says_before_it_closes_the_channel_counts() {
        let (new, old) = channels();
        let reason = "it was late".to_owned();
        old.send(&Message::Refused { reason }, &[]).unwrap();
        drop(old);
        let mistake = mistake(commit(&new, PATIENCE));
        assert!(mistake.contains("it was late"), "{mistake}");
    }

    #[test]
    fn a_gateway_that_is_silent_is_not_replaced_and_learns_of_it() {
        let (new, old) = channels();
        let mistake = mistake(commit(&new, Duration::from_millis(1)));
        assert!(mistake.contains("may go on"), "{mistake}");
        let asked = old.receive(PATIENCE).unwrap();
        assert!(matches!(asked, Some((Message::Ready, _))), "{asked:?}");
        // Although the other process may not have ended yet.
        old.send(&Message::Replaced, &[]).unwrap_err();
        drop(new);
    }
}
