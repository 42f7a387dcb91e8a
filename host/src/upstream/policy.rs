//! The settings of an upstream, ready to be applied: from the entity's fields to durations and
//! sets.

mod reports;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::affinity::AffinityPolicy;
use super::session::SessionKey;
use crate::authority::Authority;
use crate::balancer::{BODY_MOST, BODY_USUAL};
use crate::endpoint::health::{Report, Thresholds};
use crate::entity::upstream as entity;
use crate::listener::ProxyVersion;
use crate::tls::{
    self, Authorities, ClientCertificate, TlsClient, TlsOptions, Trust, VERIFY_DEPTH,
};
pub(super) use reports::ReportPolicy;

/// Seconds that values count which were set over the Admin API, unless the upstream sets others.
const FACTS_MAX_AGE: u32 = 60;

fn facts_max_age(extension: &entity::Extension) -> u64 {
    u64::from(extension.facts_max_age.unwrap_or(FACTS_MAX_AGE)) * 1_000_000
}

/// A set of statuses, read at each response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses([u64; 16]);

impl Statuses {
    fn of(list: &[u16]) -> Self {
        let mut set = Self([0; 16]);
        for status in list {
            if let Some(word) = set.0.get_mut(usize::from(status / 64)) {
                *word |= 1 << (status % 64);
            }
        }
        set
    }

    pub(super) fn has(&self, status: u16) -> bool {
        let word = self.0.get(usize::from(status / 64));
        word.is_some_and(|word| word >> (status % 64) & 1 == 1)
    }
}

/// How the statuses of responses count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judge {
    healthy: Statuses,
    unhealthy: Statuses,
    pub(super) thresholds: Thresholds,
}

impl Judge {
    fn new(healthy: &entity::Healthy, unhealthy: &entity::Unhealthy) -> Self {
        let of = |list: &Option<Vec<u16>>| Statuses::of(list.as_deref().unwrap_or_default());
        Self {
            healthy: of(&healthy.http_statuses),
            unhealthy: of(&unhealthy.http_statuses),
            thresholds: Thresholds {
                successes: healthy.successes,
                http_failures: unhealthy.http_failures,
                tcp_failures: unhealthy.tcp_failures,
                timeouts: unhealthy.timeouts,
            },
        }
    }

    /// What a status counts as, if it counts at all.
    pub(super) fn of(&self, status: u16) -> Option<Report> {
        if self.healthy.has(status) {
            Some(Report::Success)
        } else if self.unhealthy.has(status) {
            Some(Report::HttpFailure)
        } else {
            None
        }
    }
}

/// The protocol of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeKind {
    Tcp,
    Http,
    Https,
    Grpc,
    Grpcs,
}

/// How the gateway itself asks targets, for probes and for reports.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProbeServer {
    /// Whether probes are made over TLS.
    pub(super) is_secure: bool,
    /// The name that is sent over TLS, in place of the host.
    pub(super) sni: Option<String>,
    pub(super) tls: Arc<TlsClient>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) host_header: Option<Authority<'static>>,
}

/// How targets are probed.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    pub(super) kind: ProbeKind,
    pub(super) timeout: Duration,
    pub(super) concurrency: usize,
    pub(super) path: String,
    pub(super) server: ProbeServer,
    pub(super) probe: entity::Probe,
    /// Time between two probes of an available address; none for no probes.
    pub(super) healthy_interval: Option<Duration>,
    /// Time between two probes of an unavailable address; none for no probes.
    pub(super) unhealthy_interval: Option<Duration>,
    pub(super) judge: Judge,
}

/// The settings of an upstream, beyond a name and a balancer.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Name of the balancer that was asked for.
    pub algorithm: String,
    /// More than this percentage of the weight must be available; with 0 any is enough.
    pub threshold: f64,
    /// None if nothing is to be probed.
    pub active: Option<Active>,
    /// None if no reports of targets are read.
    pub(super) reports: Option<ReportPolicy>,
    /// None if no request is to be judged.
    pub(super) passive: Option<Judge>,
    /// Whether `Host` is the name in an SRV record, instead of the target's.
    pub(super) use_srv_name: bool,
    /// The affinity of requests to endpoints, if there is any.
    pub affinity: Option<AffinityPolicy>,
    /// The authorities whose certificates are accepted, where certificates are verified; none if
    /// the upstream names none.
    trust: Option<Trust>,
    /// The certificate that servers are shown.
    client_certificate: Option<Arc<ClientCertificate>>,
    /// The server name for TLS, where that is not the `Host` of the servers.
    server_name: Option<ServerName<'static>>,
    /// The settings beyond Kong's.
    pub extension: entity::Extension,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithm: String::new(),
            threshold: 0.0,
            active: None,
            reports: None,
            passive: None,
            use_srv_name: false,
            affinity: None,
            trust: None,
            client_certificate: None,
            server_name: None,
            extension: entity::Extension::default(),
        }
    }
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
}

impl Policy {
    /// Reads the entity. `certificate` is the one that its servers are shown.
    pub(crate) fn of(
        upstream: &entity::Upstream,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> Self {
        let checks = &upstream.healthchecks;
        let (active, passive) = (&checks.active, &checks.passive);
        let healthy_interval = seconds(active.healthy.interval);
        let unhealthy_interval = seconds(active.unhealthy.interval);
        let probed = healthy_interval.is_some() || unhealthy_interval.is_some();
        // `passive.healthy.successes` alone makes no checker, as in Kong.
        let unhealthy = &passive.unhealthy;
        let tls_settings = &upstream.pointsman.tls;
        let trust = tls_settings.ca_certificates.as_ref().map(|texts| {
            let read = Authorities::parse(texts);
            let read = read.unwrap_or_else(|error| {
                tracing::error!(
                    upstream = upstream.name,
                    "no certificate authority is trusted: {error}"
                );
                Authorities::none()
            });
            Trust::Only(Arc::new(read))
        });
        let judged = unhealthy.tcp_failures + unhealthy.timeouts + unhealthy.http_failures > 0;
        let sni = active.https_sni.clone();
        let server = ProbeServer {
            is_secure: matches!(&*active.r#type, "https" | "grpcs"),
            sni: sni.or_else(|| tls_settings.server_name.clone()),
            tls: TlsClient::of(TlsOptions {
                trust: trust
                    .as_ref()
                    .unwrap_or(&Trust::System)
                    .if_verified(active.https_verify_certificate),
                max_intermediates: Some(VERIFY_DEPTH),
                certificate: certificate.clone(),
            }),
            headers: active
                .headers
                .iter()
                .flatten()
                .flat_map(|(name, values)| values.iter().map(|v| (name.clone(), v.clone())))
                .collect(),
            host_header: upstream.host_header.clone(),
        };
        Self {
            reports: ReportPolicy::of(upstream, &server),
            algorithm: upstream.algorithm.clone(),
            threshold: checks.threshold,
            active: probed.then(|| Active {
                kind: match active.r#type.as_str() {
                    "tcp" => ProbeKind::Tcp,
                    "https" => ProbeKind::Https,
                    "grpc" => ProbeKind::Grpc,
                    "grpcs" => ProbeKind::Grpcs,
                    _ => ProbeKind::Http,
                },
                // Kong accepts 0; a probe that may take no time at all could only fail.
                timeout: seconds(active.timeout).unwrap_or(Duration::from_secs(1)),
                concurrency: usize::try_from(active.concurrency).unwrap_or(1).max(1),
                path: active.http_path.clone(),
                server,
                probe: upstream.pointsman.probe.clone(),
                healthy_interval,
                unhealthy_interval,
                judge: Judge::new(&active.healthy, &active.unhealthy),
            }),
            passive: judged.then(|| Judge::new(&passive.healthy, &passive.unhealthy)),
            use_srv_name: upstream.use_srv_name.unwrap_or(false),
            affinity: AffinityPolicy::of(upstream),
            trust,
            client_certificate: certificate,
            server_name: tls_settings
                .server_name
                .as_deref()
                .and_then(tls::server_name),
            extension: upstream.pointsman.clone(),
        }
    }

    /// Has the cookies of sessions made and read with this key.
    #[must_use]
    pub fn with_session_key(mut self, key: &Arc<SessionKey>) -> Self {
        if let Some(AffinityPolicy::Session(_, own)) = &mut self.affinity {
            *own = Arc::clone(key);
        }
        self
    }

    /// The authorities whose certificates are accepted, if the upstream names them.
    pub(crate) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// Whether certificates are verified. `service` is whether the service asks for it.
    pub(crate) fn verifies(&self, service: bool) -> bool {
        self.extension.tls.verify.unwrap_or(service)
    }

    /// The certificate that servers are shown, unless the service names one.
    pub(crate) fn client_certificate(&self) -> Option<&Arc<ClientCertificate>> {
        self.client_certificate.as_ref()
    }

    /// The name that is sent to targets over TLS, and that certificates must be for, if that is not
    /// their `Host`.
    pub(crate) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// Bytes of a body that are read for a balancer that asks about them.
    pub(crate) fn balancer_body_size(&self) -> usize {
        let size = self.extension.balancer_body_size;
        size.map_or(BODY_USUAL, |kib| (kib as usize * 1024).min(BODY_MOST))
    }

    /// How long values count that were set over the Admin API, in microseconds.
    pub(super) fn facts_max_age(&self) -> u64 {
        facts_max_age(&self.extension)
    }

    /// The header of the PROXY protocol that connections to targets begin with.
    pub(crate) fn proxy_protocol(&self) -> Option<ProxyVersion> {
        self.extension.proxy_protocol
    }

    /// Whether outlier detection compares addresses with their peers.
    pub(super) fn watches_outliers(&self) -> bool {
        let outliers = &self.extension.outlier_detection;
        outliers.success_rate || outliers.latency
    }

    /// First and longest pause between two trials of an unavailable address; none for no trials.
    pub(super) fn recovery(&self) -> Option<(Duration, Duration)> {
        let recovery = &self.extension.recovery;
        let base = seconds(recovery.base_time)?;
        Some((base, seconds(recovery.max_time).unwrap_or(base).max(base)))
    }

    /// How long requests in flight may continue at an address that leaves; none for no limit.
    pub(super) fn drain_timeout(&self) -> Option<Duration> {
        seconds(self.extension.drain_timeout)
    }

    /// How long a weight ramps up.
    pub fn slow_start(&self) -> Duration {
        seconds(self.extension.slow_start.window).unwrap_or_default()
    }

    /// Whether one gateway probes for all of its channel.
    pub fn shares_probes(&self) -> bool {
        self.extension.share_probes && self.active.is_some()
    }

    /// Whether there are any checks; if not, Kong says `HEALTHCHECKS_OFF`.
    pub fn is_checked(&self) -> bool {
        self.active.is_some() || self.passive.is_some()
    }
}
