//! What a document is checked against, besides itself.

use uuid::Uuid;

use super::components::Components;
use crate::config::RouterFlavor;
use crate::entity::{Kind, Row};

/// What a document is checked against, besides itself: the rows of the gateway that it is for.
pub(crate) trait CheckContext {
    /// The id of an entity that has this unique name or this id.
    fn find(&self, kind: Kind, named: &str) -> Option<Uuid>;

    /// A row.
    fn row(&self, kind: Kind, id: Uuid) -> Option<Row>;

    /// The rows of a kind.
    fn rows(&self, kind: Kind) -> Vec<Row>;

    /// How routes are written.
    fn flavor(&self) -> RouterFlavor;

    /// The memory for the regular expressions of all routes besides those of these routes, which
    /// keep theirs, in bytes.
    fn pattern_memory(&self, kept: &[Uuid]) -> usize;

    /// The digest of the component that a document names by this path.
    ///
    /// # Errors
    /// Why it is not there.
    fn component_digest(&self, path: &str) -> Result<String, String>;
}

/// No gateway: a document is checked by itself. Any balancer may be named.
#[derive(Debug)]
pub(crate) struct NoGateway {
    /// How routes are written.
    pub(crate) flavor: RouterFlavor,
    /// The memory for the regular expressions of all routes, in bytes.
    pub(crate) pattern_memory: usize,
    /// The components that the document names.
    pub(crate) components: Components,
}

impl CheckContext for NoGateway {
    fn find(&self, kind: Kind, _: &str) -> Option<Uuid> {
        (kind == Kind::Balancer).then(Uuid::nil)
    }

    fn row(&self, _: Kind, _: Uuid) -> Option<Row> {
        None
    }

    fn rows(&self, _: Kind) -> Vec<Row> {
        Vec::new()
    }

    fn flavor(&self) -> RouterFlavor {
        self.flavor
    }

    fn pattern_memory(&self, _: &[Uuid]) -> usize {
        self.pattern_memory
    }

    fn component_digest(&self, path: &str) -> Result<String, String> {
        Ok(self.components.get(path)?.digest.clone())
    }
}
