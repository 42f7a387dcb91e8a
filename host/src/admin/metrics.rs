//! `GET /metrics`, for Prometheus. Names are those of Kong 3.9's plugin where it has them; the
//! names of metrics that Kong does not have begin with `pointsman_`. `docs/metrics.md` has the
//! list.

mod certificates;
mod cluster;
mod families;
mod openmetrics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::Admin;
use super::error::Error;
use super::rows::id_of;
use super::status::{resident_bytes, sum};
use crate::access_log;
use crate::acme;
use crate::balancer::{CanaryFigures, Counters, ShadowReport};
use crate::entity::Kind;
use crate::listener::TlsFigures;
use crate::node;
use crate::policy::QueueFigures;
use crate::store::Condition;
use crate::store::{Failure, Node, Revision};
use crate::stream::StreamFigures;
use crate::upstream::{AddressReport, Upstream};
use certificates::CertificateFigure;

/// The media type of the text format, as Kong writes it. Prometheus takes it for that format, and
/// asks for OpenMetrics by `Accept`.
const TEXT: &str = "text/plain; charset=UTF-8";

/// `GET /metrics`: in the text format, or as OpenMetrics with exemplars if the scraper prefers
/// that.
pub(super) async fn show(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let is_openmetrics = openmetrics::is_preferred(headers.get_all(ACCEPT));
    let nodes = cluster::nodes(&admin).await;
    // With a thousand upstreams this takes some milliseconds. Other tasks do not wait for it (see
    // `in_place`).
    let text = text(&admin, nodes, is_openmetrics)?;
    let (content_type, text) = match is_openmetrics {
        true => (openmetrics::CONTENT_TYPE, openmetrics::converted(&text)),
        false => (TEXT, text),
    };
    let headers = [(CONTENT_TYPE, content_type), (VARY, "accept")];
    Ok((headers, text).into_response())
}

fn text(
    admin: &Admin,
    nodes: Option<Option<Vec<Node>>>,
    with_exemplars: bool,
) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures::of(admin, nodes)?));
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    let counted = &admin.resources.metrics;
    text.push_str(&counted.text(&*admin.store, with_exemplars));
    Ok(text)
}

/// All figures, as of one moment.
#[derive(Debug)]
struct Figures {
    node: String,
    connections: [(&'static str, u64); 7],
    /// Connections that were refused, by listener.
    refused: [(&'static str, u64); 3],
    /// Connections that were closed because of their address.
    refused_of_address: u64,
    /// Connections that were closed because their clients abused HTTP/2.
    abusive: u64,
    /// Connections without the header of the PROXY protocol that they had to begin with.
    headerless: [(&'static str, u64); 5],
    requests: u64,
    store: Condition,
    /// Whether the file `declarative_config` is in effect; none if there is none.
    declarative_config: Option<bool>,
    resident: Option<u64>,
    upstreams: Vec<UpstreamFigure>,
    canaries: Vec<CanaryFigure>,
    logs: Vec<QueueFigures>,
    access_log: Option<access_log::Figures>,
    /// The names that get certificates by ACME.
    acme: BTreeMap<String, acme::Name>,
    /// What has happened in TLS handshakes, by what listens.
    tls: [(&'static str, Arc<TlsFigures>); 5],
    streams: Arc<StreamFigures>,
    pool: [(&'static str, u64); 3],
    /// Connections to endpoints that are idle, and those that are open.
    pool_now: [u64; 2],
    /// The commit that is in effect, and when it took effect.
    applied: (Revision, Option<f64>),
    certificates: Vec<CertificateFigure>,
    /// The gateways that share the configuration, if several can; none of them if that cannot be
    /// read.
    nodes: Option<Option<Vec<Node>>>,
}

/// The figures of a canary.
#[derive(Debug)]
struct CanaryFigure {
    balancer: String,
    version: String,
    sides: [CanaryFigures; 2],
}

/// The figures of an upstream.
#[derive(Debug)]
struct UpstreamFigure {
    upstream: Arc<Upstream>,
    counters: Counters,
    shadow: Option<ShadowReport>,
    targets: Vec<TargetFigure>,
}

#[derive(Debug)]
struct TargetFigure {
    name: String,
    weighs: bool,
    addresses: Vec<(String, AddressReport)>,
}

impl Figures {
    fn of(admin: &Admin, nodes: Option<Option<Vec<Node>>>) -> Result<Self, Error> {
        let accepted = sum(admin, |counters| &counters.accepted);
        let active = sum(admin, |counters| &counters.active);
        let requests = sum(admin, |counters| &counters.requests);
        let refused = sum(admin, |counters| &counters.refused);
        let refused_of_address = sum(admin, |counters| &counters.refused_of_address);
        let admin_refused = admin.limits.admin_refused.load(Ordering::Relaxed);
        let (_, snapshot) = admin.published.current();
        let mut upstreams = Vec::new();
        for (id, upstream) in snapshot.upstreams.iter() {
            let rows =
                (admin.store).list_referring(Kind::Target, "upstream", *id, None, usize::MAX)?;
            let addresses = upstream.addresses();
            let targets = rows.iter().map(|stored| {
                let id = id_of(&stored.row);
                let own = addresses.iter().filter(|address| address.target == id);
                let name = stored.row.get("target").and_then(Value::as_str);
                TargetFigure {
                    name: name.unwrap_or_default().to_owned(),
                    weighs: stored.row.get("weight").and_then(Value::as_u64) != Some(0),
                    addresses: own.map(|a| (a.address.to_string(), a.clone())).collect(),
                }
            });
            upstreams.push(UpstreamFigure {
                targets: targets.collect(),
                counters: upstream.balancer().counters(),
                shadow: upstream.shadow().map(|shadow| shadow.report()),
                upstream: Arc::clone(upstream),
            });
        }
        upstreams.sort_by(|a, b| a.upstream.name.cmp(&b.upstream.name));
        Ok(Self {
            node: node::id().to_string(),
            connections: [
                ("accepted", accepted),
                (
                    "handled",
                    accepted.saturating_sub(refused + refused_of_address),
                ),
                ("total", requests),
                ("active", active),
                // Open connections are not counted by what they do: all count as writing.
                ("reading", 0),
                ("writing", active),
                ("waiting", 0),
            ],
            refused: [
                ("proxy", refused),
                ("admin", admin_refused),
                ("stream", admin.streams.refused()),
            ],
            refused_of_address,
            headerless: (admin.headerless.each_ref())
                .map(|(listener, number)| (*listener, number.load(Ordering::Relaxed))),
            abusive: sum(admin, |counters| &counters.abusive),
            requests,
            store: admin.store.condition(),
            declarative_config: (!admin.config.database
                && admin.config.declarative_config.is_some())
            .then(|| admin.loaded.wrong().is_none()),
            resident: resident_bytes(),
            upstreams,
            canaries: CanaryFigure::all(admin),
            logs: admin.resources.logs.figures(),
            access_log: {
                let requests = admin.access_log.as_ref().map(|log| log.figures());
                let streams = admin.stream_log.as_ref().map(|log| log.figures());
                requests.into_iter().chain(streams).reduce(|a, b| a + b)
            },
            acme: admin.acme.names(),
            tls: admin.tls.clone(),
            streams: Arc::clone(&admin.streams),
            pool: [
                ("opened", sum(admin, |counters| &counters.pool.opened)),
                ("failed", sum(admin, |counters| &counters.pool.failed)),
                ("reused", sum(admin, |counters| &counters.pool.reused)),
            ],
            pool_now: [
                sum(admin, |counters| &counters.pool.idle),
                admin.limits.open_endpoints() as u64,
            ],
            applied: (
                admin.published.applied_revisions().borrow().unwrap_or(0),
                admin.published.applied_at(),
            ),
            certificates: certificates::all(&*admin.store)?,
            nodes,
        })
    }

    /// For how many seconds the gateway has not known whether its configuration is the newest one.
    fn config_age(&self) -> f64 {
        let since = self
            .store
            .failure
            .as_ref()
            .map(|Failure { since, .. }| *since);
        let age = since.and_then(|since| since.elapsed().ok());
        age.unwrap_or_default().as_secs_f64()
    }
}

impl CanaryFigure {
    fn all(admin: &Admin) -> Vec<Self> {
        let canaries = admin.published.canaries().borrow().clone();
        let shown = canaries.iter().map(|canary| Self {
            balancer: canary.name.clone(),
            version: canary.plugin.digest.clone(),
            sides: canary.figures(),
        });
        let mut shown: Vec<Self> = shown.collect();
        shown.sort_by(|a, b| a.balancer.cmp(&b.balancer));
        shown
    }
}
