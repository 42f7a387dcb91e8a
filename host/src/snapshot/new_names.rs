//! New names of a commit: looked up in parallel to the commits that follow, not before them.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use crate::authority::Host;
use crate::store::Revision;
use crate::upstream::Names;

/// The names in use, and those that are being looked up for the first time.
pub(super) struct NewNames {
    names: Arc<Names>,
    in_use: HashSet<String>,
    awaited: HashSet<String>,
    under_way: FuturesUnordered<BoxFuture<'static, Answered>>,
}

/// The revision of a commit, once the first look-up of its names has ended or was given up for now.
struct Answered {
    revision: Revision,
    names: Vec<String>,
}

impl NewNames {
    pub(super) fn new(names: Arc<Names>) -> Self {
        Self {
            names,
            in_use: HashSet::new(),
            awaited: HashSet::new(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Begins to look up those of `names` that are new, and drops those that are no longer among
    /// them. Returns whether none is new.
    pub(super) async fn begin(&mut self, revision: Revision, names: HashSet<String>) -> bool {
        let new: Vec<String> = names.difference(&self.in_use).cloned().collect();
        self.in_use.clone_from(&names);
        let all = Arc::clone(&self.names);
        let mut watching = async move { all.watch(names.into_iter()).await }.boxed();
        // The first poll makes these the names in use, so it has to come in the order of the
        // commits.
        let polled = std::future::poll_fn(|cx| Poll::Ready(watching.poll_unpin(cx))).await;
        if polled.is_ready() {
            return true;
        }
        self.awaited.extend(new.iter().cloned());
        let answered = watching.map(move |()| Answered {
            revision,
            names: new,
        });
        self.under_way.push(answered.boxed());
        false
    }

    /// The next commit whose names have been looked up, or given up for now; none while no look-up
    /// is in progress.
    pub(super) async fn next(&mut self) -> Option<Revision> {
        let answered = self.under_way.next().await?;
        for name in &answered.names {
            self.awaited.remove(name);
        }
        Some(answered.revision)
    }

    /// Whether a host is being looked up for the first time.
    pub(super) fn is_awaited(&self, host: &Host<'_>) -> bool {
        self.awaited.contains(host.dns_name())
    }
}
