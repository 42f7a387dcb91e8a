//! The families of what the gateway works with: store, configuration, other gateways, certificates,
//! and connections to endpoints.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::super::Figures;
use super::page::{Label, MetricsPage};
use crate::clock;
use crate::store::Node;

impl Figures {
    pub(super) fn store(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let one = |number| [([] as [Label<'_>; 0], number)];
        page.whole(
            "pointsman_store_writable",
            "Whether changes can be stored",
            MetricType::Gauge,
            one(u64::from(self.store.failure.is_none())),
        )?;
        page.whole(
            "pointsman_store_failures",
            "Times that changes could no longer be stored",
            MetricType::Counter,
            one(self.store.failures),
        )?;
        page.whole(
            "pointsman_store_set_aside_rows",
            "Stored rows that cannot be used, and are left out",
            MetricType::Gauge,
            one(self.store.set_aside.len() as u64),
        )?;
        if let Some(is_in_effect) = self.declarative_config {
            page.whole(
                "pointsman_declarative_config_in_effect",
                "Whether the present file of the setting declarative_config is in effect",
                MetricType::Gauge,
                one(u64::from(is_in_effect)),
            )?;
        }
        Ok(())
    }

    pub(super) fn config(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let (revision, applied_at) = self.applied;
        page.whole(
            "pointsman_config_revision",
            "The newest commit of the store that is in effect",
            MetricType::Gauge,
            [([] as [Label<'_>; 0], revision)],
        )?;
        page.seconds(
            "pointsman_config_applied_timestamp_seconds",
            "When that commit took effect",
            applied_at,
        )?;
        page.seconds(
            "pointsman_config_age_seconds",
            "For how long the store could not be reached, so that a newer configuration is not known; \
             0 while it can be",
            [self.config_age()],
        )
    }

    /// The gateways that share the configuration.
    pub(super) fn cluster(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let Some(listed) = &self.nodes else {
            return Ok(());
        };
        page.whole(
            "pointsman_cluster_reachable",
            "Whether the list of the gateways that share the configuration can be read",
            MetricType::Gauge,
            [([] as [Label<'_>; 0], u64::from(listed.is_some()))],
        )?;
        let Some(nodes) = listed else {
            return Ok(());
        };
        let nodes: Vec<(String, &Node)> = nodes
            .iter()
            .map(|node| (node.id.to_string(), node))
            .collect();
        let each = |of: fn(&Node) -> u64| {
            nodes.iter().map(move |(id, node)| {
                let ip = node.ip.as_deref().unwrap_or_default();
                let of_node = [("node_id", &**id), ("hostname", &node.hostname), ("ip", ip)];
                (of_node, of(node))
            })
        };
        page.whole(
            "pointsman_cluster_node_revision",
            "The newest commit that is in effect at a gateway",
            MetricType::Gauge,
            each(|node| node.revision),
        )?;
        page.whole(
            "kong_data_plane_last_seen",
            "Last time a gateway was known to be alive: now, since the others are not listed",
            MetricType::Gauge,
            each(|_| clock::unix_seconds()),
        )?;
        page.whole(
            "kong_data_plane_config_hash",
            "Hash of the configuration of a gateway, as a number",
            MetricType::Gauge,
            // As much of it as a float holds. Source: Kong.
            each(|node| {
                let digits = node.config_hash.get(..13).unwrap_or(&node.config_hash);
                u64::from_str_radix(digits, 16).unwrap_or(0)
            }),
        )
    }

    /// Connections to endpoints.
    pub(super) fn pool(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let [opened, failed, reused] = self.pool;
        let one = |(_, number): (_, u64)| [([] as [Label<'_>; 0], number)];
        let counter = MetricType::Counter;
        page.whole(
            "pointsman_upstream_connections_opened",
            "Connections to endpoints that were opened",
            counter,
            one(opened),
        )?;
        page.whole(
            "pointsman_upstream_connections_failed",
            "Connections to endpoints that could not be opened",
            counter,
            one(failed),
        )?;
        page.whole(
            "pointsman_upstream_connections_reused",
            "Requests that were sent over a connection that was open before",
            counter,
            one(reused),
        )?;
        let [idle, open] = self.pool_now;
        page.whole(
            "pointsman_upstream_connections_idle",
            "Connections to endpoints over HTTP/1.1 that no request uses",
            MetricType::Gauge,
            [([] as [Label<'_>; 0], idle)],
        )?;
        page.whole(
            "pointsman_upstream_connections_open",
            "Connections to endpoints that are open or are being opened, of streams as well",
            MetricType::Gauge,
            [([] as [Label<'_>; 0], open)],
        )
    }

    pub(super) fn certificates(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        page.whole(
            "pointsman_tls_certificate_expiry_timestamp_seconds",
            "When a stored certificate ends, by its id and one of its server names",
            MetricType::Gauge,
            self.certificates.iter().map(|of| {
                let labels = [("certificate", &*of.id), ("server_name", &*of.name)];
                (labels, of.not_after)
            }),
        )
    }

    pub(super) fn acme(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        page.whole(
            "pointsman_acme_certificate_expiry_timestamp_seconds",
            "When the certificate of a name ends that was requested by ACME",
            MetricType::Gauge,
            self.acme.iter().filter_map(|(name, state)| {
                let end = u64::try_from(state.not_after?).ok()?;
                Some(([("name", &**name)], end))
            }),
        )?;
        page.whole(
            "pointsman_acme_failures",
            "Requests of certificates by ACME that have failed",
            MetricType::Counter,
            (self.acme.iter()).map(|(name, state)| ([("name", &**name)], state.all_failures)),
        )
    }
}
