//! The Admin API: one set of handlers for every entity, generated from the declarations.

mod absent;
mod access;
mod acme;
mod activation;
mod arguments;
mod balancers;
mod bounds;
mod canary;
mod canary_state;
mod candidate;
mod certificates;
mod changes;
mod clustering;
mod conditional;
mod configuration;
mod consumers;
mod current;
mod decode;
mod entities;
mod error;
mod expired;
mod explain;
mod form;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gui;
mod hooks;
mod import;
mod info;
mod intake;
mod key;
mod keys;
mod lists;
mod live;
mod log_level;
mod logs;
mod metrics;
mod node;
mod openapi;
mod overlay;
mod paced;
mod page;
mod peer;
mod plugins;
mod proxy_cache;
mod read_only;
mod record;
mod refusal;
mod respond;
mod rollout;
mod routes;
mod rows;
mod schemas;
mod serve;
mod settings;
mod shadow;
mod shared_probes;
mod simulate;
mod status;
mod tags;
mod targets;
mod tidy;
mod token;
mod upload;
mod upstreams;
mod version_rows;
mod versions;
mod writes;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::Notify;
use uuid::Uuid;

pub use balancers::install_shipped;
pub use canary::follow_canaries;
pub use clustering::{announce, leave};
pub use configuration::Loaded;
pub(crate) use configuration::{DocumentFile, load_text, offline_changes};
pub use expired::remove_expired;
pub(crate) use import::Importer;
pub use intake::resume_checks;
pub use keys::install_key_hash;
pub(crate) use live::Live;
pub use live::make_live_events;
pub(crate) use serve::{serve, serve_gui, serve_status};
pub use tidy::tidy_cache;

use crate::access_log::{AccessLog, StreamLog};
use crate::acme::Acme;
use crate::balancer::Engine;
use crate::config::{AdminAccess, Config, Listen};
use crate::connections::ConnectionLimits;
use crate::entity::Kind;
use crate::listener::TlsFigures;
use crate::log_level::LogLevel;
use crate::policy::Resources;
use crate::proxy::Counters;
use crate::snapshot::Published;
use crate::store::{Revision, Store, Write};
use crate::stream::StreamFigures;
use crate::upstream::{Names, Upstream};
use error::Error;
use hooks::Hooks;

/// Largest body of a request, in bytes. Source: Kong.
const BODY_LIMIT: usize = 10 << 20;

/// How long the data plane may take to apply a stored change before the log reports a delay. It
/// usually takes part of a millisecond. A name that does not resolve takes as long as the wait for
/// the resolver, and a component that has to be compiled again takes longer.
const SLOW_APPLY: Duration = Duration::from_secs(10);

/// Where the description of the Admin API is.
const OPENAPI: &str = "/openapi.json";

/// A path, its handlers, and the methods that they answer in the form of `Allow`.
type ApiEndpoint = (String, MethodRouter<Admin>, &'static str);

/// The result of a handler.
type ApiResult = Result<Response, Error>;

/// The addresses that connections are accepted on, with their flags and the ports that the system
/// chose.
#[derive(Debug, Default)]
pub struct Listening {
    /// Those of the proxy.
    pub proxy: Vec<Listen>,
    /// Those of the Admin API.
    pub admin: Vec<Listen>,
    /// Those of the page for operators.
    pub gui: Vec<Listen>,
    /// Those that tell the state of the gateway.
    pub status: Vec<Listen>,
    /// Those of streams.
    pub stream: Vec<Listen>,
}

/// What all handlers work with.
#[derive(Clone)]
pub struct Admin {
    /// Where entities are kept.
    pub store: Arc<dyn Store>,
    /// Checks uploaded components.
    pub engine: Arc<Engine>,
    /// The snapshots that the data plane runs on.
    pub published: Arc<Published>,
    /// Host names with their addresses.
    pub names: Arc<Names>,
    /// The counters of the workers.
    pub counters: Vec<Arc<Counters>>,
    /// How many connections there may be.
    pub limits: Arc<ConnectionLimits>,
    /// The settings. Each handler has a clone of the `Admin`, so they are shared.
    pub config: Arc<Config>,
    /// The configuration that was loaded last, without a database.
    pub loaded: Arc<Loaded>,
    /// What is logged.
    pub log_level: Arc<LogLevel>,
    /// Where the proxy and the Admin API listen.
    pub listening: Arc<Listening>,
    /// Notified when compiled components may have been left without a version.
    pub left_over: Arc<Notify>,
    /// Requests certificates.
    pub acme: Arc<Acme>,
    /// What policies keep.
    pub resources: Arc<Resources>,
    /// The log of the proxy's requests, if there is one.
    pub access_log: Option<Arc<AccessLog>>,
    /// The log of streams, if there is one.
    pub stream_log: Option<Arc<StreamLog>>,
    /// Number of connections without the header of the PROXY protocol that they had to begin with,
    /// by what listens.
    pub headerless: [(&'static str, Arc<AtomicU64>); 5],
    /// What has happened in TLS handshakes, by what listens.
    pub tls: [(&'static str, Arc<TlsFigures>); 5],
    /// What has happened to streams.
    pub streams: Arc<StreamFigures>,
    /// The clients that get live figures.
    pub(crate) live: Arc<Live>,
    /// Whether an operator has said that this gateway shall get no more requests.
    pub draining: Arc<AtomicBool>,
}

impl Admin {
    /// Stores changes, and waits until requests that start from now on see them.
    async fn write(&self, writes: Vec<Write>) -> Result<Revision, Error> {
        let revision = self.store.write(writes).await?;
        self.wait_for(revision).await;
        Ok(revision)
    }

    /// An upstream as the data plane has it.
    fn upstream(&self, id: Uuid) -> Result<Arc<Upstream>, Error> {
        let (_, snapshot) = self.published.current();
        let upstream = snapshot.upstreams.get(&id).cloned();
        upstream.ok_or_else(Error::not_found)
    }

    /// Waits until requests that start from now on see what was stored, however long that takes:
    /// the answer to the client means that the change is in effect. The gateway ends if the
    /// compiler of snapshots stops.
    async fn wait_for(&self, revision: Revision) {
        let mut applied = pin!(self.published.applied(revision));
        if tokio::time::timeout(SLOW_APPLY, applied.as_mut())
            .await
            .is_err()
        {
            tracing::warn!(revision, "a change is stored but not yet in effect");
            applied.await;
        }
    }
}

/// The hooks of an entity: what it does beyond its declaration.
fn hooks(kind: Kind) -> &'static Hooks {
    match kind {
        Kind::Route => &routes::HOOKS,
        Kind::Upstream => &upstreams::HOOKS,
        Kind::Target => &targets::HOOKS,
        Kind::Consumer => &consumers::HOOKS,
        Kind::Plugin => &plugins::HOOKS,
        Kind::Certificate => &certificates::HOOKS,
        Kind::KeyAuthCredential => &keys::HOOKS,
        Kind::Service
        | Kind::Balancer
        | Kind::BalancerVersion
        | Kind::Rollout
        | Kind::BasicAuthCredential
        | Kind::JwtSecret
        | Kind::Acl
        | Kind::Sni
        | Kind::CaCertificate
        | Kind::Vault
        | Kind::KeySet
        | Kind::Key => &Hooks::NONE,
    }
}

/// The endpoints of `status_listen`: the state of the gateway, and nothing that needs a token.
/// Source: Kong 3.9, `kong.status`.
fn status_router(admin: Admin) -> Router {
    let ready = get(status::ready).post(status::set_ready);
    let endpoints: [ApiEndpoint; 4] = [
        ("/status".into(), get(status::status), "GET, HEAD, OPTIONS"),
        ("/status/ready".into(), ready, "GET, HEAD, OPTIONS, POST"),
        ("/status/dns".into(), get(status::dns), "GET, HEAD, OPTIONS"),
        ("/metrics".into(), get(metrics::show), "GET, HEAD, OPTIONS"),
    ];
    // Prometheus and probes have no tokens, and may name the gateway as they like.
    let access = Arc::new(AdminAccess {
        tokens: Vec::new(),
        reads_for_any_host: true,
        ..admin.config.admin_access.clone()
    });
    let not_found = async || Error::Plain(StatusCode::NOT_FOUND, "Not found".into());
    with_endpoints(endpoints.into())
        .fallback(not_found)
        .layer(from_fn(respond::only_chunked))
        .layer(from_fn_with_state(access, respond::frame))
        .layer(map_response_with_state((), respond::server))
        .with_state(admin)
}

/// Keeps search engines away from an address that was opened to all by mistake, as in Kong.
const ROBOTS: &str = include_str!("../page/robots.txt");

/// A router with these endpoints, each of which also answers OPTIONS, and 405 to other methods.
fn with_endpoints(endpoints: Vec<ApiEndpoint>) -> Router<Admin> {
    let mut router = Router::new().route("/robots.txt", get(ROBOTS));
    for (path, methods, allowed) in endpoints {
        let methods = methods
            .options(async move |headers: http::HeaderMap| respond::options(&headers, allowed))
            .fallback(async move || respond::method_not_allowed(allowed));
        router = router.route(&path, methods);
    }
    router
}

/// Every endpoint, generated for entities as Kong does.
fn router(admin: Admin) -> Router {
    let mut endpoints: Vec<ApiEndpoint> = vec![
        ("/".into(), get(info::root), "GET, HEAD, OPTIONS"),
        ("/status".into(), get(status::status), "GET, HEAD, OPTIONS"),
        (
            "/status/ready".into(),
            get(status::ready),
            "GET, HEAD, OPTIONS",
        ),
        ("/metrics".into(), get(metrics::show), "GET, HEAD, OPTIONS"),
    ];
    endpoints.extend(log_level::endpoints());
    endpoints.extend(node::endpoints());
    if admin.store.nodes().is_some() {
        endpoints.extend(clustering::endpoints());
    }
    endpoints.extend(configuration::endpoints());
    endpoints.extend(rollout::endpoints());
    endpoints.extend(tags::endpoints());
    endpoints.extend(schemas::endpoints());
    endpoints.extend(plugins::endpoints());
    endpoints.extend(balancers::endpoints());
    endpoints.extend(versions::endpoints());
    endpoints.push(canary::endpoint());
    endpoints.push(logs::endpoint());
    endpoints.extend(targets::endpoints());
    endpoints.extend(proxy_cache::endpoints());
    endpoints.extend(acme::endpoints());
    endpoints.push(record::endpoint());
    endpoints.push(shadow::endpoint());
    endpoints.push(explain::endpoint());
    endpoints.push(explain::route::endpoint());
    endpoints.push(simulate::endpoint());
    endpoints.extend(live::endpoints());
    for kind in Kind::ALL {
        let of_kind = entities::endpoints(kind);
        endpoints.extend(read_only::endpoints(&admin, kind, of_kind));
    }
    let paths = endpoints.iter().map(|(path, ..)| path.as_str());
    let paths = info::shown_paths(paths.chain(["/endpoints", OPENAPI]));
    let list = get(async move || info::endpoints(&paths));
    endpoints.push(("/endpoints".into(), list, "GET, HEAD, OPTIONS"));
    let described = endpoints
        .iter()
        .map(|(path, _, allowed)| (path.clone(), *allowed));
    let described: Vec<_> = described
        .chain([(OPENAPI.into(), "GET, HEAD, OPTIONS")])
        .collect();
    // It takes megabytes to make, and few gateways are ever asked for it.
    let document = Arc::new(LazyLock::new(move || {
        let described = described.iter();
        let document =
            openapi::document(described.map(|(path, methods)| (path.as_str(), *methods)));
        Bytes::from(document.to_string())
    }));
    let document = get(async move || {
        let document = Bytes::clone(&document);
        ([(CONTENT_TYPE, "application/json")], document)
    });
    endpoints.push((OPENAPI.into(), document, "GET, HEAD, OPTIONS"));

    let access = Arc::new(admin.config.admin_access.clone());
    with_endpoints(endpoints)
        .fallback(absent::answer)
        .layer(from_fn_with_state(admin.clone(), tidy::after_changes))
        .layer(from_fn_with_state(admin.clone(), current::catch_up))
        .layer(from_fn_with_state(admin.clone(), clustering::wait_for_all))
        .layer(from_fn(respond::only_chunked))
        .layer(from_fn_with_state(access, respond::frame))
        .layer(map_response_with_state((), respond::server))
        .with_state(admin)
}
