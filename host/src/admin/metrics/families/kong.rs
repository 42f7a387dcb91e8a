//! The families that Kong's plugin `prometheus` has too.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::super::Figures;
use super::page::MetricsPage;
use crate::admin::info::KONG_VERSION;
use crate::admin::targets;

/// Kong's name for its HTTP subsystem.
const SUBSYSTEM: &str = "http";

const STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];

impl Figures {
    pub(super) fn kong(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let node = &*self.node;
        let here = [("node_id", node), ("subsystem", SUBSYSTEM)];
        let gauge = MetricType::Gauge;
        let connections = self.connections.iter().map(|(state, number)| {
            let [node, subsystem] = here;
            ([node, subsystem, ("state", *state)], *number)
        });
        page.whole(
            "kong_nginx_connections_total",
            "Number of connections by subsystem",
            gauge,
            connections,
        )?;
        page.whole(
            "kong_nginx_requests_total",
            "Number of requests total",
            gauge,
            [(here, self.requests)],
        )?;
        page.whole(
            "kong_datastore_reachable",
            "Datastore reachable from Kong, 0 is unreachable",
            gauge,
            [(
                [] as [(&str, &str); 0],
                u64::from(self.store.failure.is_none()),
            )],
        )?;
        page.whole(
            "kong_node_info",
            "Kong Node metadata information",
            gauge,
            [([("node_id", node), ("version", KONG_VERSION)], 1)],
        )?;
        let mut healths = Vec::new();
        for figure in &self.upstreams {
            let checked = figure.upstream.policy().is_checked();
            for target in &figure.targets {
                let mut add = |address, word: &str| {
                    let now = STATES
                        .iter()
                        .position(|state| word.eq_ignore_ascii_case(state));
                    for (number, state) in STATES.iter().enumerate() {
                        let labels = [
                            ("upstream", &*figure.upstream.name),
                            ("target", &target.name),
                            ("address", address),
                            ("state", state),
                            ("subsystem", SUBSYSTEM),
                        ];
                        healths.push((labels, u64::from(now == Some(number))));
                    }
                };
                if target.addresses.is_empty() {
                    add("", "dns_error");
                }
                for (address, report) in &target.addresses {
                    let state = targets::state(checked && target.weighs, report.available);
                    add(address, state);
                }
            }
        }
        page.whole(
            "kong_upstream_target_health",
            "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, \
             value is 1 when state is populated.",
            gauge,
            healths,
        )
    }
}
