//! The sessions of a socket, of which one that is idle gives way to a new one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::socket::Ends;
use crate::connections::DescriptorPermit;
use crate::relay::LastMove;

/// How long nothing has passed in a session that gives way. A session in use never does, however
/// many clients come, or pretend to.
const IDLE: Duration = Duration::from_secs(1);

/// Sessions that are looked at for one that is idle, for each new one.
const LOOKED_AT: usize = 32;

/// A session as its listener knows it.
pub(super) struct OpenSession {
    /// Takes the datagrams of its client.
    pub(super) datagrams: mpsc::Sender<Bytes>,
    /// When a datagram last passed.
    pub(super) last_move: LastMove,
    pub(super) permit: DescriptorPermit,
    /// Dropped, it has the task of the session end.
    pub(super) _held: oneshot::Sender<()>,
}

/// The sessions of a socket.
#[derive(Default)]
pub(super) struct Sessions {
    open: HashMap<Ends, (u64, OpenSession)>,
    /// The sessions in the order in which they are looked at, by their numbers. Some have ended.
    order: VecDeque<(Ends, u64)>,
    /// The number of the next session.
    next: u64,
}

impl Sessions {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What takes the datagrams of a client.
    pub(super) fn of(&self, ends: &Ends) -> Option<&mpsc::Sender<Bytes>> {
        let (_, session) = self.open.get(ends)?;
        Some(&session.datagrams)
    }

    /// Adds a session. Returns its number.
    pub(super) fn insert(&mut self, ends: Ends, session: OpenSession) -> u64 {
        let number = self.next;
        self.next += 1;
        self.open.insert(ends, (number, session));
        if self.order.len() > 2 * self.open.len() + LOOKED_AT {
            let open = &self.open;
            let is_open = |(ends, number): &(Ends, u64)| {
                open.get(ends).is_some_and(|(present, _)| present == number)
            };
            self.order.retain(is_open);
        }
        self.order.push_back((ends, number));
        number
    }

    /// Removes a session that has ended, unless another one has taken its place.
    pub(super) fn remove(&mut self, ends: &Ends, number: u64) {
        if self
            .open
            .get(ends)
            .is_some_and(|(present, _)| *present == number)
        {
            self.open.remove(ends);
        }
    }

    /// Ends a session that is idle, and returns its permit. The sessions take turns in being looked
    /// at, so the longest one is not ended while it is in use.
    pub(super) fn displace_idle(&mut self) -> Option<DescriptorPermit> {
        for _ in 0..LOOKED_AT.min(self.order.len()) {
            let (ends, number) = self.order.pop_front()?;
            match self.open.get(&ends) {
                Some((present, session)) if *present == number => {
                    if session.last_move.age() >= IDLE {
                        let (_, session) = self.open.remove(&ends)?;
                        return Some(session.permit);
                    }
                    self.order.push_back((ends, number));
                }
                // It has ended.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    struct Opened {
        number: u64,
        last_move: LastMove,
        displaced: oneshot::Receiver<()>,
    }

    fn ends(port: u16) -> Ends {
        Ends {
            client: ([192, 0, 2, 1], port).into(),
            local: ([192, 0, 2, 2], 53).into(),
        }
    }

    fn open(sessions: &mut Sessions, permits: &Arc<Semaphore>, port: u16) -> Opened {
        let (datagrams, _) = mpsc::channel(1);
        let (held, displaced) = oneshot::channel();
        let last_move = LastMove::now();
        let permit = Arc::clone(permits).try_acquire_owned().unwrap();
        let session = OpenSession {
            datagrams,
            last_move: last_move.clone(),
            permit,
            _held: held,
        };
        Opened {
            number: sessions.insert(ends(port), session),
            last_move,
            displaced,
        }
    }

    #[test]
    fn an_idle_session_gives_way_and_none_in_use() {
        let (mut sessions, permits) = (Sessions::default(), Arc::new(Semaphore::new(3)));
        let mut opened = [1, 2, 3].map(|port| open(&mut sessions, &permits, port));
        assert!(sessions.displace_idle().is_none());
        opened[1].last_move.backdate(IDLE);
        let permit = sessions.displace_idle().unwrap();
        assert!(sessions.of(&ends(2)).is_none());
        assert!(
            opened[1]
                .displaced
                .try_recv()
                .is_err_and(|error| { error == oneshot::error::TryRecvError::Closed })
        );
        assert!(
            opened[0]
                .displaced
                .try_recv()
                .is_err_and(|error| { error == oneshot::error::TryRecvError::Empty })
        );
        drop(permit);
        let again = open(&mut sessions, &permits, 2);
        // The task of the displaced session ends later, and is not the one in its place.
        sessions.remove(&ends(2), opened[1].number);
        assert!(sessions.of(&ends(2)).is_some());
        sessions.remove(&ends(2), again.number);
        assert_eq!(permits.available_permits(), 1);
    }

    #[test]
    fn ended_sessions_are_forgotten() {
        let (mut sessions, permits) = (Sessions::default(), Arc::new(Semaphore::new(1)));
        for port in 1..1000 {
            let opened = open(&mut sessions, &permits, port);
            sessions.remove(&ends(port), opened.number);
        }
        assert!(sessions.is_empty());
        assert!(sessions.order.len() <= LOOKED_AT + 4);
        assert!(sessions.displace_idle().is_none());
    }
}
