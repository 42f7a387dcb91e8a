//! What the parts of the compiler share.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::super::Published;
use crate::balancer::{Balancer, Engine, LoadedBalancer, ShadowThread};
use crate::store::Store;
use crate::tls::ClientCertificate;
use crate::upstream::{Memory, Names, SessionKey, Upstream};

/// What the parts of the compiler share.
pub(super) struct Context {
    pub(super) published: Arc<Published>,
    pub(super) store: Arc<dyn Store>,
    pub(super) engine: Arc<Engine>,
    /// The balancer that serves if the configured one is not loaded.
    pub(super) default: Arc<LoadedBalancer>,
    /// Where shadows compare what they would have picked.
    pub(super) shadows: ShadowThread,
    pub(super) names: Arc<Names>,
    /// The unhealthy addresses that an earlier run knew.
    pub(super) memory: Arc<Memory>,
    /// The runtime of the probes.
    pub(super) probing: Handle,
    /// The key of session cookies.
    pub(super) sessions: Arc<SessionKey>,
    /// The certificate that endpoints are shown where neither service nor upstream names one.
    pub(super) client_certificate: Option<Arc<ClientCertificate>>,
}

impl Context {
    /// An upstream without targets. `named` is whether it is one of the Admin API.
    pub(super) fn new_upstream(
        &self,
        name: &str,
        named: bool,
        plugin: Arc<LoadedBalancer>,
        config: String,
    ) -> Upstream {
        let engine = Arc::clone(&self.engine);
        let balancer = Balancer::new(engine, name, plugin, config);
        Upstream::new(name, named, balancer, &self.memory, &self.probing)
    }
}
