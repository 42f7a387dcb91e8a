//! Connections that many requests share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use foldhash::HashMap;
use tokio::sync::Notify;

use super::super::wire::{Destination, Exchange, SharedConnection};

/// The shared connections of one worker.
#[derive(Default)]
pub(super) struct Shared {
    open: RefCell<HashMap<Destination, Vec<SharedConnection>>>,
    /// The connections that are being opened.
    opening: RefCell<HashMap<Destination, Rc<Opening>>>,
    /// Notified when an exchange ends.
    freed: Rc<Notify>,
}

/// A connection that is being opened, by the first request that needs it.
#[derive(Default)]
struct Opening {
    ended: Notify,
    /// Whether there is no connection that others could share.
    failed: Cell<bool>,
}

/// What a request that needs a connection has to do.
pub(in crate::proxy) enum Turn<'a> {
    /// Open it.
    Open(Opener<'a>),
    /// Look again, because another request has opened one.
    Look,
    /// Open one of its own, because the one that another request was opening cannot be shared.
    OpenOwn,
}

/// Opens a connection while other requests wait for it.
pub(in crate::proxy) struct Opener<'a> {
    shared: &'a Shared,
    destination: Destination,
}

impl Opener<'_> {
    /// To be called when there is no connection that others could share.
    pub(in crate::proxy) fn fail(self) {
        if let Some(opening) = self.shared.opening.borrow().get(&self.destination) {
            opening.failed.set(true);
        }
    }
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        if let Some(opening) = self.shared.opening.borrow_mut().remove(&self.destination) {
            opening.ended.notify_waiters();
        }
    }
}

impl Shared {
    /// An exchange on a connection that has room for one. Connections are filled one after another,
    /// so that those which are not needed become idle.
    pub(super) fn exchange(
        &self,
        destination: &Destination,
        is_used_up: impl Fn(&SharedConnection) -> bool,
    ) -> Option<Exchange> {
        let mut open = self.open.borrow_mut();
        let list = open.get_mut(destination)?;
        list.retain(|connection| !is_used_up(connection) && !connection.is_closed());
        let connection = list.iter().find(|connection| connection.has_room())?;
        Some(connection.exchange())
    }

    /// Shares a connection.
    pub(super) fn add(&self, connection: SharedConnection) {
        let destination = connection.destination().clone();
        let mut open = self.open.borrow_mut();
        open.entry(destination).or_default().push(connection);
    }

    /// What a request has to do that has found none. Waits while another request opens a
    /// connection.
    pub(super) async fn turn(&self, destination: &Destination) -> Turn<'_> {
        let known = self.opening.borrow().get(destination).cloned();
        let Some(opening) = known else {
            let mut all = self.opening.borrow_mut();
            all.insert(destination.clone(), Rc::default());
            return Turn::Open(Opener {
                shared: self,
                destination: destination.clone(),
            });
        };
        opening.ended.notified().await;
        match opening.failed.get() {
            true => Turn::OpenOwn,
            false => Turn::Look,
        }
    }

    /// Notified when an exchange ends.
    pub(super) fn freed(&self) -> &Rc<Notify> {
        &self.freed
    }

    /// Closes the idle connections for which `worth` is false. Those that are closed already are
    /// dropped.
    pub(super) fn keep(&self, mut worth: impl FnMut(&SharedConnection) -> bool) {
        self.open.borrow_mut().retain(|_, list| {
            list.retain(|connection| {
                !connection.is_closed() && (!connection.is_idle() || worth(connection))
            });
            !list.is_empty()
        });
    }
}
