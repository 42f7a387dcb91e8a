//! How an endpoint was chosen, for callers that record it.

use std::sync::Arc;

use parking_lot::Mutex;

/// A balancer, with the component that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerVersion {
    /// The name of the balancer: the one that upstreams name as `algorithm`. Where it has none, as
    /// in the simulator, the name that the plugin gives itself.
    pub name: String,
    /// The version that the plugin gives itself.
    pub version: String,
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
}

/// What has chosen an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// The active version of the balancer.
    Plugin,
    /// Its canary.
    Canary,
    /// The host, for this reason: the balancer had no answer.
    Host(&'static str),
    /// The host, to find out whether an unhealthy endpoint works again.
    Trial,
    /// The cookie of the client's session.
    Session,
    /// The host, since the request has failed at every endpoint that the balancer knows.
    Failover,
}

impl ChosenBy {
    /// Its name, and the reason of a choice by the host.
    pub fn parts(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Plugin => ("plugin", None),
            Self::Canary => ("canary", None),
            Self::Host(reason) => ("host", Some(reason)),
            Self::Trial => ("trial", None),
            Self::Session => ("session", None),
            Self::Failover => ("failover", None),
        }
    }
}

/// How an endpoint was chosen.
#[derive(Debug, Clone)]
pub struct Pick {
    /// What has chosen it.
    pub by: ChosenBy,
    /// The version of the balancer that was asked; `None` if none was.
    pub version: Option<Arc<BalancerVersion>>,
}

/// Takes note of a pick.
#[derive(Debug, Default)]
pub struct PickNote(Mutex<Option<Pick>>);

impl PickNote {
    /// Notes how an endpoint was chosen, in place of what was noted before.
    pub fn set(&self, by: ChosenBy, version: Option<Arc<BalancerVersion>>) {
        *self.0.lock() = Some(Pick { by, version });
    }

    /// Notes that the canary has chosen, and not the active version, if a plugin has.
    pub(super) fn set_canary(&self) {
        if let Some(pick) = &mut *self.0.lock()
            && pick.by == ChosenBy::Plugin
        {
            pick.by = ChosenBy::Canary;
        }
    }

    /// What was noted last; the next pick begins anew.
    pub fn take(&self) -> Option<Pick> {
        self.0.lock().take()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_plugin_has_chosen_can_be_the_canarys() {
        let note = PickNote::default();
        note.set_canary();
        assert!(note.take().is_none());
        for (by, expected) in [
            (ChosenBy::Plugin, ("canary", None)),
            (ChosenBy::Host("busy"), ("host", Some("busy"))),
        ] {
            note.set(by, None);
            note.set_canary();
            assert_eq!(note.take().unwrap().by.parts(), expected);
        }
        assert!(note.take().is_none());
    }
}
