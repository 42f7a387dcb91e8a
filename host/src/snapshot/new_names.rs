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

    /// Takes over which names a commit brings into use, and which it takes out of use. Of the
    /// `touched` names, those are in use then for which `is_used` holds; nothing changes for all
    /// others. Begins to look up the new ones. Returns whether there are none.
    pub(super) async fn begin(
        &mut self,
        revision: Revision,
        touched: impl IntoIterator<Item = String>,
        is_used: impl Fn(&str) -> bool,
    ) -> bool {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for name in touched {
            if !is_used(&name) {
                if self.in_use.remove(&name) {
                    gone.push(name);
                }
            } else if self.in_use.insert(name.clone()) {
                new.push(name);
            }
        }
        self.names.forget(&gone);
        if new.is_empty() {
            return true;
        }
        let (all, watched) = (Arc::clone(&self.names), new.clone());
        let mut watching = async move { all.watch(watched).await }.boxed();
        // The first poll makes these names in use, so it has to come in the order of the commits.
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
