//! Sockets that listen already, because another process has opened them: the gateway that this one
//! replaces, or a supervisor.

use std::os::fd::OwnedFd;

use super::passed::{self, PassedSocket};
use crate::config::Listen;

/// Sockets that another process has opened, until their listeners take them.
#[derive(Debug, Default)]
pub struct Inherited {
    /// From the gateway that this one replaces.
    handed_over: Vec<InheritedSockets>,
    /// From the supervisor.
    passed: Vec<PassedSocket>,
}

/// The sockets of one address.
#[derive(Debug)]
struct InheritedSockets {
    /// The setting that lists the address.
    setting: String,
    /// The address, as the setting writes it: with port 0 if it takes any free one.
    address: String,
    sockets: Vec<OwnedFd>,
    is_supervised: bool,
}

/// The sockets of an address that a listener has taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) sockets: Vec<OwnedFd>,
    /// Whether a supervisor has opened them, which also keeps the file of a Unix socket.
    pub(super) is_supervised: bool,
}

impl Inherited {
    /// The sockets that a supervisor such as systemd has passed to this process.
    ///
    /// # Errors
    /// What is passed is no socket that listens.
    pub fn from_supervisor() -> anyhow::Result<Self> {
        Ok(Self {
            handed_over: Vec::new(),
            passed: passed::sockets()?,
        })
    }

    /// Adds sockets of an address of the gateway that this one replaces, to those that are there
    /// already.
    pub fn add(
        &mut self,
        setting: String,
        address: String,
        sockets: Vec<OwnedFd>,
        is_supervised: bool,
    ) {
        let known = self
            .handed_over
            .iter_mut()
            .find(|known| known.setting == setting && known.address == address);
        match known {
            Some(known) => known.sockets.extend(sockets),
            None => self.handed_over.push(InheritedSockets {
                setting,
                address,
                sockets,
                is_supervised,
            }),
        }
    }

    /// The sockets of an entry of a setting, which are then no longer here. `address` is what the
    /// entry is called.
    pub(super) fn take(&mut self, setting: &str, address: &str, listen: &Listen) -> Taken {
        let passed = self
            .passed
            .extract_if(.., |passed| passed.is_for(setting, listen));
        let passed: Vec<OwnedFd> = passed.map(PassedSocket::into_descriptor).collect();
        let position = self
            .handed_over
            .iter()
            .position(|known| known.setting == setting && known.address == address);
        match position.map(|position| self.handed_over.remove(position)) {
            Some(taken) => Taken {
                sockets: taken.sockets,
                is_supervised: taken.is_supervised,
            },
            None => Taken {
                is_supervised: !passed.is_empty(),
                sockets: passed,
            },
        }
    }

    /// The addresses whose sockets no listener has taken.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.handed_over.iter().map(|left| &*left.address)
    }

    /// The sockets of the supervisor that no listener has taken.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.passed.iter().map(ToString::to_string)
    }
}
