//! Policies: what a gateway does with a request apart from load balancing. Kong calls them plugins.
//!
//! Each kind of policy has a file below, with its behaviour behind the trait [`Policy`]; its
//! settings are declared in `entity/plugin/`. The compiler of snapshots makes the policies of rows
//! and joins them to chains, one for each route that has policies; the data plane runs the chain of
//! a request's route.

pub mod answer;
mod auth;
mod body_fields;
pub mod chain;
pub mod identity;
pub mod proxy_cache;
pub mod record;
pub mod request;
pub mod request_trace;
pub mod response;

mod acl;
mod basic_auth;
mod bot_detection;
mod correlation_id;
mod cors;
mod counters;
mod dry_run;
mod file_log;
mod grpc_web;
mod http_log;
mod ip_restriction;
mod jwt;
mod key_auth;
mod logs;
mod opentelemetry;
mod pattern_share;
mod period;
mod prometheus;
mod rate_key;
mod rate_limiting;
mod rate_sync;
mod redirect;
mod redis;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod response_ratelimiting;
mod response_transformer;
mod signature;
mod statsd;
mod syslog;
mod tcp_log;
mod transform;
mod udp_log;
mod unusable;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use http::HeaderMap;
use serde::de::DeserializeOwned;

use crate::config::{Policies, Tracing};
use crate::dns::Resolver;
use crate::entity::plugin::{Plugin, PluginKind};
use crate::entity::{Kind, Row, has_references, view};
use crate::store::Store;
use answer::Answer;
use counters::Counters;
pub use dry_run::DryRun;
use logs::Logs;
use logs::document::Documents;
pub use logs::queue::Figures as QueueFigures;
use prometheus::Metrics;
use rate_key::RateKey;
use record::LogRecord;
use request::Request;
use request_trace::RequestTrace;
use response::{BodyFilter, Received, Response};

/// A policy with its settings. It serves the requests of all workers.
///
/// A request runs through the phases in this order, in each of them through the policies of its
/// chain in their order. A policy implements the phases that it needs.
pub trait Policy: Debug + Send + Sync {
    /// Before an endpoint is chosen: may change the request, name its consumer, or answer it.
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let _ = request;
        Access::PASS
    }

    /// Whether [`Policy::access`] may run for a request that is only described.
    fn dry_run(&self) -> DryRun {
        DryRun::Effects("it may do more than look at the request")
    }

    /// Before an endpoint is chosen for a stream: whether the stream may go on. Kong calls this
    /// phase `preread`.
    fn admits_stream(&self, stream: &Stream) -> bool {
        let _ = stream;
        true
    }

    /// When the head of an endpoint's response is known, before any policy or the gateway itself
    /// has changed it. The filter that is returned reads the body as the endpoint sends it, ahead
    /// of the filters of [`Policy::body`], and returns every piece as it is.
    fn received(&self, received: &mut Received<'_>) -> Option<Box<dyn BodyFilter>> {
        let _ = received;
        None
    }

    /// When the head of a response is known, whether an endpoint or the gateway made it.
    fn response(&self, response: &mut Response<'_>) {
        let _ = response;
    }

    /// The filter that the body of the response passes, if this policy reads or changes the body.
    fn body(&self, response: &mut Response<'_>) -> Option<Box<dyn BodyFilter>> {
        let _ = response;
        None
    }

    /// When the last byte of the response was sent, or the client has disconnected; of a stream,
    /// when it has ended.
    fn record(&self, record: &LogRecord) {
        let _ = record;
    }

    /// Whether [`Policy::record`] does anything. Without such a policy, no record is made.
    fn records(&self) -> bool {
        false
    }

    /// Begins the trace of a request with these headers, before the first policy of its chain: the
    /// policies that follow are part of it. [`Policy::record`] gets the record of a request whose
    /// trace is sampled.
    fn begin_trace(&self, headers: &HeaderMap) -> Option<RequestTrace> {
        let _ = headers;
        None
    }

    /// Whether [`Policy::begin_trace`] does anything.
    fn traces(&self) -> bool {
        false
    }
}

/// A stream, before an endpoint is chosen for it.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// The client. An IPv4 address is not within IPv6.
    pub client: SocketAddr,
}

/// The result of the access phase of a policy.
pub enum Access<'a> {
    /// The policy has decided.
    Done(Verdict),
    /// The policy waits, such as for a server or for the body of the request.
    Pending(LocalBoxFuture<'a, Verdict>),
}

/// What happens to a request after a policy.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on to the next policy, and then to an endpoint.
    Continue,
    /// The policy answers it. No further policy sees it in the access phase.
    Answer(Box<Answer>),
}

impl Access<'_> {
    /// The request goes on.
    pub const PASS: Self = Self::Done(Verdict::Continue);
}

impl From<Answer> for Verdict {
    fn from(answer: Answer) -> Self {
        Self::Answer(Box::new(answer))
    }
}

impl From<Answer> for Access<'_> {
    fn from(answer: Answer) -> Self {
        Self::Done(answer.into())
    }
}

/// What policies share, and what outlives a change of their settings.
#[derive(Debug)]
pub struct Resources {
    /// The responses of `proxy-cache`.
    pub proxy_cache: Arc<proxy_cache::Cache>,
    /// The counts of `rate-limiting`.
    rate_limits: Counters<RateKey>,
    /// The counts of `response-ratelimiting`, by the names of limits.
    response_limits: Counters<(RateKey, Arc<str>)>,
    /// Where requests of several gateways are counted.
    redis: redis::Servers,
    /// The queues of the policies that log.
    pub logs: Logs,
    /// What the policies `prometheus` have counted.
    pub metrics: Arc<Metrics>,
    /// The local socket of the system's log.
    syslog_socket: PathBuf,
    /// What looks up the servers that policies use.
    resolver: Arc<Resolver>,
    /// What is traced unless a plugin says otherwise.
    tracing: Tracing,
}

impl Resources {
    /// What is empty so far, within the bounds of the settings. `store` has the entities that
    /// records name.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread or a runtime.
    pub fn start(
        settings: &Policies,
        store: Arc<dyn Store>,
        resolver: Arc<Resolver>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            proxy_cache: Arc::new(proxy_cache::Cache::new(
                settings.proxy_cache_memory,
                settings.proxy_cache_lock_timeout,
            )),
            rate_limits: Counters::default(),
            response_limits: Counters::default(),
            redis: redis::Servers::new(Arc::clone(&resolver)),
            logs: Logs::start(Documents::new(store))?,
            metrics: Arc::default(),
            syslog_socket: settings.syslog_socket.clone(),
            resolver,
            tracing: settings.tracing,
        })
    }
}

/// Whether a policy can be made of the settings of a plugin, as a row. Those with references to
/// vaults are known only when they are used.
///
/// # Errors
/// Why not, as the message for the field `config`.
pub(crate) fn check_row(row: &Row) -> Result<(), String> {
    if has_references(Kind::Plugin, row) {
        return Ok(());
    }
    let plugin = view(Kind::Plugin, row.clone()).map_err(|error| error.to_string())?;
    check(&plugin)
}

/// Whether a policy can be made of a plugin, as far as that depends on its settings alone and their
/// declaration cannot say it. Nothing is started.
///
/// # Errors
/// What is wrong with the settings.
fn check(plugin: &Plugin) -> Result<(), String> {
    match plugin.name.as_str() {
        "bot-detection" => bot_detection::BotDetection::new(&config(plugin)?).map(drop),
        "correlation-id" => correlation_id::CorrelationId::new(&config(plugin)?).map(drop),
        "cors" => cors::Cors::new(config(plugin)?).map(drop),
        "http-log" => http_log::check(&config(plugin)?),
        "ip-restriction" => ip_restriction::IpRestriction::new(config(plugin)?).map(drop),
        "opentelemetry" => opentelemetry::check(&config(plugin)?),
        "redirect" => redirect::Redirect::new(config(plugin)?).map(drop),
        "request-transformer" => {
            request_transformer::RequestTransformer::new(config(plugin)?).map(drop)
        }
        _ => Ok(()),
    }
}

/// The policy in place of one that cannot be made of a stored plugin, if that is one that decides
/// which requests may pass.
pub fn blocking_substitute(plugin: &Plugin) -> Option<Arc<dyn Policy>> {
    let kind = PluginKind::named(&plugin.name);
    let is_gate = kind.is_some_and(|kind| kind.is_gate);
    is_gate.then(|| Arc::new(unusable::Unusable) as Arc<dyn Policy>)
}

/// Makes the policy of a plugin.
///
/// # Errors
/// What is wrong with its settings. The Admin API accepts only valid ones, so another version of
/// the gateway wrote them.
pub fn build(plugin: &Plugin, resources: &Arc<Resources>) -> Result<Arc<dyn Policy>, String> {
    let Resources { logs, resolver, .. } = &**resources;
    Ok(match plugin.name.as_str() {
        "acl" => Arc::new(acl::Acl::new(config(plugin)?)),
        "basic-auth" => Arc::new(basic_auth::BasicAuth::new(config(plugin)?)),
        "bot-detection" => Arc::new(bot_detection::BotDetection::new(&config(plugin)?)?),
        "correlation-id" => Arc::new(correlation_id::CorrelationId::new(&config(plugin)?)?),
        "cors" => Arc::new(cors::Cors::new(config(plugin)?)?),
        "file-log" => file_log::new(config(plugin)?, plugin, logs),
        "grpc-web" => Arc::new(grpc_web::GrpcWeb::new(&config(plugin)?)),
        "http-log" => http_log::new(&config(plugin)?, plugin, logs, resolver)?,
        "ip-restriction" => Arc::new(ip_restriction::IpRestriction::new(config(plugin)?)?),
        "jwt" => Arc::new(jwt::Jwt::new(config(plugin)?)),
        "key-auth" => Arc::new(key_auth::KeyAuth::new(config(plugin)?)),
        "opentelemetry" => {
            let (config, defaults) = (config(plugin)?, resources.tracing);
            let policy =
                opentelemetry::OpenTelemetry::new(&config, plugin, logs, resolver, defaults);
            Arc::new(policy?)
        }
        "prometheus" => {
            let metrics = &resources.metrics;
            Arc::new(prometheus::Prometheus::new(config(plugin)?, metrics))
        }
        "proxy-cache" => Arc::new(proxy_cache::ProxyCache::new(config(plugin)?, resources)),
        "rate-limiting" => {
            let config = config(plugin)?;
            Arc::new(rate_limiting::RateLimiting::new(plugin, config, resources)?)
        }
        "redirect" => Arc::new(redirect::Redirect::new(config(plugin)?)?),
        "request-size-limiting" => {
            let config = config(plugin)?;
            Arc::new(request_size_limiting::RequestSizeLimiting::new(&config))
        }
        "request-termination" => {
            let (config, documents) = (config(plugin)?, Arc::clone(logs.documents()));
            Arc::new(request_termination::RequestTermination::new(
                config, documents,
            ))
        }
        "request-transformer" => {
            let config = config(plugin)?;
            Arc::new(request_transformer::RequestTransformer::new(config)?)
        }
        "response-ratelimiting" => {
            let config = config(plugin)?;
            let policy =
                response_ratelimiting::ResponseRatelimiting::new(plugin, config, resources);
            Arc::new(policy?)
        }
        "response-transformer" => {
            let config = config(plugin)?;
            Arc::new(response_transformer::ResponseTransformer::new(config))
        }
        "statsd" => {
            let config = config(plugin)?;
            Arc::new(statsd::Statsd::new(config, plugin, logs, resolver))
        }
        "syslog" => {
            let socket = resources.syslog_socket.clone();
            Arc::new(syslog::Syslog::new(config(plugin)?, plugin, logs, socket))
        }
        "tcp-log" => tcp_log::new(config(plugin)?, plugin, logs, resolver),
        "udp-log" => udp_log::new(config(plugin)?, plugin, logs, resolver),
        name => return Err(format!("there is no plugin '{name}'")),
    })
}

/// The settings of a plugin, in the type of its kind.
fn config<T: DeserializeOwned>(plugin: &Plugin) -> Result<T, String> {
    serde_json::from_value(plugin.config.clone()).map_err(|error| error.to_string())
}
