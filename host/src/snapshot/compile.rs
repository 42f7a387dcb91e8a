//! Compiles entities to snapshots, following the store's watch.
//!
//! Each entity has its part, which stores the rows of a commit and rebuilds what they affect. A
//! part imports only the parts above it. What it needs of a later one (values of vaults, pinned
//! versions), `Compiler::rebuild` passes as data.
//!
//! | part | of |
//! |---|---|
//! | `balancers` | balancers and their versions, loaded, and their canaries |
//! | `client_tls` | certificates for connections to endpoints |
//! | `upstreams` | upstreams with the balancers that they ask for |
//! | `targets` | the targets that upstreams choose from |
//! | `services` | services with the upstreams that their hosts lead to |
//! | `routes` | the router, of the routes whose services are enabled |
//! | `policies` | plugins, and the identities that they work with |
//! | `certificates` | certificates, by the server names that they are shown for |

mod balancers;
mod certificates;
mod client_tls;
mod context;
mod policies;
mod routes;
mod services;
mod targets;
mod upstreams;
mod users;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use super::channel::CanaryChannel;
use super::new_names::NewNames;
use super::{Published, Snapshot};
use crate::allocator;
use crate::authority::Host;
use crate::balancer::{Engine, LoadedBalancer, ShadowThread};
use crate::config::RouterFlavor;
use crate::entity::{self, Kind, Row};
use crate::policy::Resources;
use crate::store::{Change, Commit, Revision, Store};
use crate::tls::ClientCertificate;
use crate::upstream::{Memory, Names, SessionKey, Upstream};
pub(crate) use balancers::complete;
use balancers::{Balancers, DEFAULT_BALANCER};
use certificates::Certificates;
use client_tls::{CaCertificates, ClientCertificates};
use context::Context;
use policies::{PolicyParts, ReferencingRows, Rotation, Rows};
use routes::Routes;
use services::{Parts, Services};
use targets::Targets;
use upstreams::Upstreams;

/// Follows the store and publishes what it compiles.
pub struct Compiler {
    context: Context,
    new_names: NewNames,
    balancers: Balancers,
    client_certificates: ClientCertificates,
    ca_certificates: CaCertificates,
    upstreams: Upstreams,
    targets: Targets,
    services: Services,
    routes: Routes,
    policies: PolicyParts,
    certificates: Certificates,
    /// The certificates with references to vaults. The other parts have them with values.
    referencing_certificates: ReferencingRows,
    /// Deleted upstreams that services still use until the names of their hosts have resolved.
    deleted: Vec<Arc<Upstream>>,
    /// What is in effect here in place of what is stored.
    channel: Option<CanaryChannel>,
}

/// What all upstreams share.
pub struct UpstreamResources {
    /// Host names with their addresses.
    pub names: Arc<Names>,
    /// The unhealthy addresses that an earlier run knew.
    pub memory: Arc<Memory>,
    /// The runtime of the probes.
    pub probing: Handle,
}

/// What the compiler keeps of an entity. `Compiler::rebuild` calls the parts in their order.
trait Part {
    /// Stores a row that was written.
    fn put(&mut self, id: Uuid, row: Row);

    /// Forgets a row that was deleted.
    fn delete(&mut self, id: Uuid);
}

impl Compiler {
    /// A compiler without any rows yet. `default` is the balancer where no other one serves.
    pub fn new(
        published: Arc<Published>,
        store: Arc<dyn Store>,
        engine: Arc<Engine>,
        default: Arc<LoadedBalancer>,
        upstreams: UpstreamResources,
        policies: Arc<Resources>,
    ) -> Self {
        let UpstreamResources {
            names,
            memory,
            probing,
        } = upstreams;
        let default = engine.named(&default, DEFAULT_BALANCER);
        Self {
            new_names: NewNames::new(Arc::clone(&names)),
            balancers: Balancers::default(),
            client_certificates: ClientCertificates::default(),
            ca_certificates: CaCertificates::default(),
            upstreams: Upstreams::default(),
            targets: Targets::default(),
            services: Services::default(),
            routes: Routes::new(Arc::clone(&published.patterns)),
            policies: PolicyParts::new(policies),
            certificates: Certificates::default(),
            referencing_certificates: ReferencingRows::new(Kind::Certificate),
            deleted: Vec::new(),
            channel: None,
            context: Context {
                published,
                store,
                engine,
                default,
                shadows: ShadowThread::default(),
                names,
                memory,
                probing,
                sessions: SessionKey::of_process(),
                client_certificate: None,
            },
        }
    }

    /// Has session cookies made with this key, instead of one that ends with the process.
    #[must_use]
    pub fn with_session_key(mut self, key: Arc<SessionKey>) -> Self {
        self.context.sessions = key;
        self
    }

    /// Has routes read as this flavor of the router has them.
    #[must_use]
    pub fn with_router_flavor(mut self, flavor: RouterFlavor) -> Self {
        self.routes.flavor = flavor;
        self
    }

    /// Has the gateway follow the channel `canary`: what a rollout changes takes effect here.
    #[must_use]
    pub fn with_canary_channel(mut self, is_canary: bool) -> Self {
        self.channel = is_canary.then(CanaryChannel::default);
        self
    }

    /// Shows this certificate to endpoints where neither their service nor their upstream names
    /// one.
    #[must_use]
    pub(crate) fn with_client_certificate(mut self, shown: Option<Arc<ClientCertificate>>) -> Self {
        self.context.client_certificate = shown;
        self
    }

    /// Applies commits until the store ends, and the answers of names that are looked up again.
    pub async fn run(mut self, mut commits: mpsc::UnboundedReceiver<Commit>) {
        let (refreshed, mut changed) = mpsc::channel(1);
        let names = Arc::clone(&self.context.names);
        let refresh = tokio::spawn(async move {
            // If a message is still waiting to be received, it stands for this one as well.
            let tell = || !matches!(refreshed.try_send(()), Err(TrySendError::Closed(())));
            names.follow(tell).await;
        });
        let mut rotation = Rotation::new();
        loop {
            let references = || self.policies.references(&self.referencing_certificates);
            tokio::select! {
                commit = commits.recv() => match commit {
                    Some(commit) => self.apply(commit).await,
                    None => break,
                },
                Some(()) = changed.recv() => self.refresh_addresses(),
                Some(revision) = self.new_names.next() => self.resolved(revision).await,
                Some(read) = rotation.next(references) => {
                    if self.apply_vault_values(read) {
                        self.rebuild().await;
                    }
                }
            }
        }
        refresh.abort();
    }

    async fn apply(&mut self, commit: Commit) {
        let commit = match &mut self.channel {
            Some(channel) => channel.over(commit, |(kind, id)| {
                let stored = self.context.store.get(kind, id).ok().flatten();
                stored.map(|stored| stored.row)
            }),
            None => commit,
        };
        let is_large = commit.changes.len() >= allocator::LARGE_CHANGE;
        for change in commit.changes {
            match change {
                Change::Put { kind, id, row } => {
                    if kind == Kind::Route {
                        self.policies.plugins.put_route(id, Some(&row));
                    }
                    if kind == Kind::Certificate {
                        self.put_certificate(id, row);
                    } else if let Some(part) = self.part(kind) {
                        part.put(id, row);
                    }
                }
                Change::Delete { kind, id } => {
                    if kind == Kind::Route {
                        self.policies.plugins.put_route(id, None);
                    }
                    if kind == Kind::Certificate {
                        self.referencing_certificates.delete(id);
                        self.client_certificates.delete(id);
                    }
                    if let Some(part) = self.part(kind) {
                        part.delete(id);
                    }
                }
            }
        }
        let is_resolved = self.look_up_names(commit.revision).await;
        self.rebuild().await;
        self.context
            .published
            .mark_applied(commit.revision, is_resolved);
        if is_large {
            tokio::spawn(allocator::return_after_large_change());
        }
    }

    fn put_certificate(&mut self, id: Uuid, row: Row) {
        match self.referencing_certificates.put(id, row) {
            Some(row) => {
                self.client_certificates.put(id, row.clone());
                self.certificates.put(id, row);
            }
            // Its vault may be in a later change of this commit, so the rebuild resolves the
            // references and puts the result. Until then the old certificate must not be used.
            None => {
                self.client_certificates.delete(id);
                self.certificates.delete(id);
            }
        }
    }

    /// Stores certificates whose values in vaults have changed.
    fn put_values(&mut self, certificates: Vec<(Uuid, Row)>) {
        for (id, row) in certificates {
            if self.certificates.replace(id, row.clone()) {
                self.client_certificates.put(id, row);
            }
        }
    }

    /// Stores the values of vaults that were read again. Returns whether any has changed.
    fn apply_vault_values(&mut self, read: Vec<Rows>) -> bool {
        let mut is_changed = false;
        for rows in read {
            if rows.kind == Kind::Certificate {
                let certificates = self.referencing_certificates.apply_vault_values(rows);
                is_changed |= !certificates.is_empty();
                self.put_values(certificates);
            } else {
                is_changed |= self.policies.plugins.apply_vault_values(rows);
            }
        }
        is_changed
    }

    /// The part of an entity; `None` if the data plane does not depend on it.
    fn part(&mut self, kind: Kind) -> Option<&mut dyn Part> {
        let part: &mut dyn Part = match kind {
            Kind::Balancer => &mut self.balancers,
            Kind::BalancerVersion => &mut self.balancers.versions,
            Kind::CaCertificate => &mut self.ca_certificates,
            Kind::Upstream => &mut self.upstreams,
            Kind::Target => &mut self.targets,
            Kind::Service => &mut self.services,
            Kind::Route => &mut self.routes,
            Kind::Certificate => &mut self.certificates,
            Kind::Sni => &mut self.certificates.names,
            kind => return self.policies.part(kind),
        };
        Some(part)
    }

    /// Begins to look up new names. Returns whether there are none.
    async fn look_up_names(&mut self, revision: Revision) -> bool {
        let mut touched = std::mem::take(&mut self.targets.names_touched);
        touched.extend(std::mem::take(&mut self.services.names_touched));
        for host in std::mem::take(&mut self.upstreams.hosts_touched) {
            // The same host, as an absolute name.
            touched.insert(format!("{host}."));
            touched.insert(host);
        }
        let is_used = |name: &str| {
            let Some(host) = Host::parse(name).filter(|host| host.ip().is_none()) else {
                return false;
            };
            self.targets.names.has(name)
                || self.services.hosts.has(name) && !self.upstreams.hosts.has(host.as_str())
        };
        self.new_names.begin(revision, touched, is_used).await
    }

    /// Applies what is known of the names of a commit.
    async fn resolved(&mut self, revision: Revision) {
        self.refresh_addresses();
        self.services.compile_waiting();
        self.rebuild().await;
        self.context.published.mark_resolved(revision);
    }

    /// Applies the present addresses of the names whose addresses have changed.
    fn refresh_addresses(&self) {
        let names = &self.context.names;
        let changed = names.take_changed();
        self.targets.refresh(&changed, &self.upstreams, names);
        self.services.refresh(&changed, names);
    }

    /// Rebuilds what has changed since the last time, each part before those that depend on it, and
    /// publishes the result.
    async fn rebuild(&mut self) {
        let resolved = self
            .referencing_certificates
            .resolve(self.policies.vaults());
        self.put_values(resolved);
        let context = &self.context;
        let certificates = self.client_certificates.rebuild();
        self.upstreams.change_users_of(&certificates);
        self.services.change_users_of(&certificates);
        self.services
            .change_users_of(&self.ca_certificates.take_changed());
        let pins_changed = self.upstreams.take_pins_changed();
        let pinned = self.upstreams.pinned_versions();
        let balancers_changed = self.balancers.rebuild(context, pins_changed, pinned).await;
        let rebuilt = self.upstreams.rebuild(
            context,
            &self.balancers,
            balancers_changed,
            &self.client_certificates,
        );
        self.targets
            .rebuild(&self.upstreams, &rebuilt.changed, &context.names);
        let upstreams_changed = !rebuilt.changed.is_empty();
        let services_changed = self.services.rebuild(
            &Parts {
                context,
                upstreams: &self.upstreams,
                client_certificates: &self.client_certificates,
                ca_certificates: &self.ca_certificates,
                new_names: &self.new_names,
            },
            &rebuilt.hosts,
        );
        let toggled = self.services.take_toggled();
        let routes_changed = self.routes.rebuild(&self.services, &toggled);
        let policies_changed = self.policies.rebuild();
        let certificates_changed = self.certificates.rebuild();
        let changed = [
            upstreams_changed,
            services_changed,
            routes_changed,
            policies_changed,
            certificates_changed,
        ];
        if changed.contains(&true) {
            context.published.publish(Snapshot {
                router: self.routes.router().clone(),
                stream_router: self.routes.stream_router().clone(),
                services: self.services.compiled().clone(),
                upstreams: self.upstreams.compiled().clone(),
                policies: self.policies.compiled().clone(),
                stream_policies: self.policies.compiled_for_streams().clone(),
                server_names: self.certificates.compiled().clone(),
            });
        }
        // Last, so that no request that begins now finds an upstream without targets.
        self.deleted.extend(rebuilt.deleted);
        self.deleted.extend(self.services.take_left());
        let unused = |upstream: &mut Arc<Upstream>| !self.services.uses(upstream);
        for upstream in self.deleted.extract_if(.., unused) {
            upstream.retire();
        }
    }
}

/// Reads a row as the data plane uses it. The Admin API accepts only valid rows, so one that cannot
/// be read was written by another version; it is left out and logged.
fn view<T: DeserializeOwned>(kind: Kind, id: Uuid, row: Row) -> Option<T> {
    match entity::view(kind, row) {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::error!(entity = kind.name(), %id, "a stored row is left out: {error}");
            None
        }
    }
}
