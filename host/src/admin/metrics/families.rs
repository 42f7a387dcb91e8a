//! Figures as families of metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{CanaryFigure, Figures, UpstreamFigure};
use crate::admin::info::KONG_VERSION;
use crate::admin::targets;
use crate::balancer::{CanaryFigures, Counters, ShadowReport, Side};
use crate::policy::QueueFigures;
use crate::upstream::AddressReport;

/// Kong's name for its HTTP subsystem.
const SUBSYSTEM: &str = "http";

const STATES: [&str; 4] = ["healthchecks_off", "healthy", "unhealthy", "dns_error"];

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricsPage(encoder);
        self.kong(&mut page)?;
        self.own(&mut page)
    }
}

impl Figures {
    fn kong(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
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

    fn store(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
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
        )
    }

    /// A number for each upstream and the balancer that chooses for it.
    fn each(&self, of: fn(&Counters) -> u64) -> impl Iterator<Item = ([Label<'_>; 2], u64)> {
        let figures = self.upstreams.iter();
        figures.map(move |figure| (figure.labels(), of(&figure.counters)))
    }

    fn own(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
        page.whole(
            "pointsman_connections_refused",
            "Connections of clients that were refused, since there were as many as there may be",
            counter,
            (self.refused.iter()).map(|(listener, number)| ([("listener", *listener)], *number)),
        )?;
        page.whole(
            "pointsman_http2_abusive_connections",
            "Connections that were closed because their clients exceeded a limit of HTTP/2",
            counter,
            [([("listener", "proxy")], self.abusive)],
        )?;
        page.whole(
            "pointsman_proxy_protocol_failures",
            "Connections that were closed because they began with no header of the PROXY protocol",
            counter,
            (self.headerless.iter()).map(|(listener, number)| ([("listener", *listener)], *number)),
        )?;
        page.whole(
            "pointsman_picks",
            "Picks requested since this balancer took over",
            counter,
            self.each(|counters| counters.picks),
        )?;
        let fallback_picks = || {
            self.upstreams.iter().flat_map(|figure| {
                let kinds = figure.counters.host_choices_by_kind.by_kind();
                let [upstream, balancer] = figure.labels();
                kinds.map(move |(kind, number)| ([upstream, balancer, ("kind", kind)], number))
            })
        };
        // The old name stays for one release.
        page.whole(
            "pointsman_host_choices",
            "Renamed: see pointsman_fallback_picks",
            counter,
            fallback_picks(),
        )?;
        page.whole(
            "pointsman_fallback_picks",
            "Picks that the gateway made in place of the balancer, by the reason",
            counter,
            fallback_picks(),
        )?;
        page.whole(
            "pointsman_refused",
            "Requests that the balancer refused",
            counter,
            self.each(|counters| counters.refused),
        )?;
        page.whole(
            "pointsman_instances",
            "Instances made of the balancer",
            counter,
            self.each(|counters| counters.instances),
        )?;
        page.whole(
            "pointsman_instance_memory_bytes",
            "Memory of the balancer's instance",
            gauge,
            self.each(|counters| counters.memory as u64),
        )?;
        let switches = self.upstreams.iter();
        let switches = switches.map(|figure| ([figure.labels()[0]], figure.counters.switches));
        page.whole(
            "pointsman_switches",
            "Switches to another balancer or other settings",
            counter,
            switches,
        )?;
        page.family(
            "pointsman_pick_seconds",
            "Time that the balancer took for a pick, of one pick in 64",
            MetricType::Histogram,
            self.upstreams.iter().map(|figure| {
                let times = &figure.counters.times;
                (figure.labels(), move |mut encoder: MetricEncoder<'_>| {
                    let (sum, count) = (times.sum(), times.count());
                    encoder.encode_histogram::<NoLabelSet>(sum, count, &times.buckets(), None)
                })
            }),
        )?;
        page.whole(
            "pointsman_endpoint_picks",
            "Picks of an address by the balancers of the upstream",
            counter,
            self.addresses(|report| report.picks),
        )?;
        page.whole(
            "pointsman_endpoint_failures",
            "Requests sent to an address that got no whole response: no connection, broken off, timed out",
            counter,
            self.addresses(|report| report.failures),
        )?;
        page.whole(
            "pointsman_endpoint_in_flight",
            "Requests sent to an address and not yet answered in full",
            gauge,
            self.addresses(|report| report.in_flight.into()),
        )?;
        let rejections = self.upstreams.iter().flat_map(|figure| {
            let [upstream, _] = figure.labels();
            let reasons = figure.upstream.without_peer();
            reasons.map(move |(reason, number)| ([upstream, ("reason", reason.code())], number))
        });
        page.whole(
            "pointsman_rejected",
            "Requests answered 503 because no endpoint was available, by the reason",
            counter,
            rejections,
        )?;
        self.shadows(page)?;
        self.canaries(page)?;
        self.logs(page)?;
        self.tls(page)?;
        self.store(page)?;
        let resident = self.resident.map(|bytes| ([] as [Label<'_>; 0], bytes));
        page.whole(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            gauge,
            resident,
        )
    }

    fn shadows(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let each = |of: fn(&ShadowReport) -> u64| {
            self.upstreams.iter().filter_map(move |figure| {
                let shadow = figure.shadow.as_ref()?;
                let [upstream, _] = figure.labels();
                Some(([upstream, ("balancer", &*shadow.balancer)], of(shadow)))
            })
        };
        page.whole(
            "pointsman_shadow_compared",
            "Picks that both the shadow and the balancer that serves have made",
            MetricType::Counter,
            each(|shadow| shadow.compared),
        )?;
        page.whole(
            "pointsman_shadow_agreed",
            "Compared picks in which both chose the same endpoint",
            MetricType::Counter,
            each(|shadow| shadow.agreed),
        )?;
        page.whole(
            "pointsman_shadow_unanswered",
            "Picks that the shadow failed to make",
            MetricType::Counter,
            each(|shadow| shadow.unanswered),
        )?;
        page.whole(
            "pointsman_shadow_dropped",
            "Picks that were not compared because the shadow fell behind",
            MetricType::Counter,
            each(|shadow| shadow.dropped),
        )
    }

    /// What the queues of the plugins that log have done.
    fn logs(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let ids: Vec<String> = self.logs.iter().map(|queue| queue.id.to_string()).collect();
        let each = |of: fn(&QueueFigures) -> u64| {
            let queues = self.logs.iter().zip(&ids);
            queues.map(move |(queue, id)| ([("plugin", &*queue.plugin), ("id", &**id)], of(queue)))
        };
        let counter = MetricType::Counter;
        page.whole(
            "pointsman_log_records_sent",
            "Records of requests that a plugin has sent",
            counter,
            each(|queue| queue.sent),
        )?;
        page.whole(
            "pointsman_log_records_failed",
            "Records of requests that a plugin has given up, because they could not be sent",
            counter,
            each(|queue| queue.failed),
        )?;
        page.whole(
            "pointsman_log_records_dropped",
            "Records of requests that were dropped because the queue of a plugin was full",
            counter,
            each(|queue| queue.dropped),
        )?;
        page.whole(
            "pointsman_log_records_waiting",
            "Records of requests that wait to be sent by a plugin",
            MetricType::Gauge,
            each(|queue| queue.waiting),
        )
    }

    /// What has happened in TLS handshakes with clients.
    fn tls(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        page.whole(
            "pointsman_tls_handshakes",
            "TLS handshakes of clients that succeeded",
            counter,
            self.tls.iter().flat_map(|(listener, figures)| {
                let kinds = figures.handshakes().into_iter();
                kinds.map(move |(kind, n)| ([("listener", *listener), ("kind", kind)], n))
            }),
        )?;
        page.whole(
            "pointsman_tls_handshake_failures",
            "TLS handshakes of clients that failed",
            counter,
            self.tls.iter().flat_map(|(listener, figures)| {
                let reasons = figures.failures();
                reasons.map(move |(reason, n)| ([("listener", *listener), ("reason", reason)], n))
            }),
        )?;
        let own = self.tls.iter().find(|(listener, _)| *listener == "proxy");
        let own = own
            .into_iter()
            .flat_map(|(_, figures)| figures.default_certificates());
        page.whole(
            "pointsman_tls_default_certificates",
            "TLS handshakes of the proxy with its own certificate, since the server name had none",
            counter,
            own.map(|(reason, number)| ([("reason", reason)], number)),
        )
    }

    fn canaries(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let all = || self.canaries.iter().flat_map(CanaryFigure::labelled);
        let each = |of: fn(&CanaryFigures) -> u64| {
            all().map(move |(labels, figures)| (labels, of(figures)))
        };
        let counter = MetricType::Counter;
        page.whole(
            "pointsman_canary_picks",
            "Picks requested during a canary, by side",
            counter,
            each(|figures| figures.picks),
        )?;
        page.whole(
            "pointsman_canary_faults",
            "Faults of instances during a canary, by side",
            counter,
            each(|figures| figures.faults),
        )?;
        page.whole(
            "pointsman_canary_requests",
            "Requests placed during a canary, retries included, by side",
            counter,
            each(|figures| figures.requests),
        )?;
        page.whole(
            "pointsman_canary_errors",
            "Requests placed during a canary that failed, by side",
            counter,
            each(|figures| figures.errors),
        )?;
        let times = all().filter_map(|(labels, figures)| Some((labels, figures.recent.p99_ms?)));
        page.family(
            "pointsman_canary_p99_seconds",
            "99th percentile of the time until the head of the response, of the last minutes",
            MetricType::Gauge,
            times.map(|(labels, millis)| {
                let encode =
                    move |mut encoder: MetricEncoder<'_>| encoder.encode_gauge(&(millis / 1000.0));
                (labels, encode)
            }),
        )
    }

    /// A number for each address of each target.
    fn addresses(
        &self,
        of: fn(&AddressReport) -> u64,
    ) -> impl Iterator<Item = ([Label<'_>; 3], u64)> {
        self.upstreams.iter().flat_map(move |figure| {
            figure.targets.iter().flat_map(move |target| {
                target.addresses.iter().map(move |(address, report)| {
                    let [upstream, _] = figure.labels();
                    let labels = [upstream, ("target", &*target.name), ("address", address)];
                    (labels, of(report))
                })
            })
        })
    }
}

type Label<'a> = (&'static str, &'a str);

impl UpstreamFigure {
    fn labels(&self) -> [Label<'_>; 2] {
        let algorithm = &*self.upstream.policy().algorithm;
        [("upstream", &*self.upstream.name), ("balancer", algorithm)]
    }
}

impl CanaryFigure {
    /// The figures of each side with their labels.
    fn labelled(&self) -> impl Iterator<Item = ([Label<'_>; 3], &CanaryFigures)> {
        let sides = Side::ALL.iter().zip(&self.sides);
        sides.map(|(side, figures)| {
            let (balancer, version) = (&*self.balancer, &*self.version);
            let of = [
                ("balancer", balancer),
                ("version", version),
                ("side", side.name()),
            ];
            (of, figures)
        })
    }
}

/// The page, written family by family.
struct MetricsPage<'a>(DescriptorEncoder<'a>);

impl MetricsPage<'_> {
    /// A counter or a gauge. The name of a counter gets `_total` at its end.
    fn whole<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        rows: impl IntoIterator<Item = ([Label<'a>; N], u64)>,
    ) -> fmt::Result {
        let rows = rows.into_iter().map(|(labels, number)| {
            (labels, move |mut encoder: MetricEncoder<'_>| match kind {
                MetricType::Counter => {
                    encoder.encode_counter::<NoLabelSet, u64, f64>(&number, None)
                }
                _ => encoder.encode_gauge(&number),
            })
        });
        self.family(name, help, kind, rows)
    }

    fn family<'a, const N: usize, F: FnOnce(MetricEncoder<'_>) -> fmt::Result>(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        rows: impl IntoIterator<Item = ([Label<'a>; N], F)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, encode) in rows {
            encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
