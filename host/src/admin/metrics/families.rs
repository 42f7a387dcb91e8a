//! Figures as families of metrics: here those of the gateway as a whole.

mod kong;
mod page;
mod state;
mod upstreams;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Figures;
use crate::policy::QueueFigures;
use page::{Label, MetricsPage};

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricsPage(encoder);
        self.kong(&mut page)?;
        self.own(&mut page)
    }
}

impl Figures {
    fn streams(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let figures = &*self.streams;
        page.whole(
            "pointsman_stream_sessions_active",
            "Connections of streams, and sessions of UDP, that are open",
            MetricType::Gauge,
            [([] as [Label<'_>; 0], figures.active())],
        )?;
        let ended: Vec<(String, u64)> = figures
            .ended()
            .map(|(code, number)| (code.to_string(), number))
            .collect();
        page.whole(
            "pointsman_stream_sessions",
            "Connections of streams, and sessions of UDP, that have ended, by how",
            MetricType::Counter,
            ended
                .iter()
                .map(|(code, number)| ([("code", &**code)], *number)),
        )?;
        page.whole(
            "pointsman_stream_udp_sessions_over_limit",
            "Sessions of UDP that began over max_udp_sessions: in the place of an idle one (displaced), \
             or not at all (refused)",
            MetricType::Counter,
            figures
                .sessions_over_limit()
                .map(|(outcome, number)| ([("outcome", outcome)], number)),
        )?;
        page.whole(
            "pointsman_stream_bytes",
            "Bytes of streams, from clients (ingress) and to clients (egress)",
            MetricType::Counter,
            figures
                .bytes()
                .map(|(direction, number)| ([("direction", direction)], number)),
        )
    }

    fn own(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        page.whole(
            "pointsman_connections_refused",
            "Connections of clients that were refused, since there were as many as there may be",
            counter,
            (self.refused.iter()).map(|(listener, number)| ([("listener", *listener)], *number)),
        )?;
        page.whole(
            "pointsman_address_connections_refused",
            "Connections of clients that were closed, since their address had as many as it may have",
            MetricType::Counter,
            [
                ([("listener", "proxy")], self.refused_of_address),
                ([("listener", "stream")], self.streams.refused_of_address()),
            ],
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
        self.streams(page)?;
        self.upstreams(page)?;
        self.logs(page)?;
        self.access_log(page)?;
        self.tls(page)?;
        self.certificates(page)?;
        self.acme(page)?;
        self.store(page)?;
        self.config(page)?;
        self.cluster(page)?;
        self.pool(page)?;
        let resident = self.resident.map(|bytes| ([] as [Label<'_>; 0], bytes));
        page.whole(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            MetricType::Gauge,
            resident,
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

    /// What has become of the lines of the access log.
    fn access_log(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let Some(log) = self.access_log else {
            return Ok(());
        };
        let one = |number| [([] as [Label<'_>; 0], number)];
        page.whole(
            "pointsman_access_log_lines_written",
            "Lines of the access log that were written",
            MetricType::Counter,
            one(log.written),
        )?;
        page.whole(
            "pointsman_access_log_lines_failed",
            "Lines of the access log that were given up, because they could not be written",
            MetricType::Counter,
            one(log.failed),
        )?;
        page.whole(
            "pointsman_access_log_lines_dropped",
            "Lines of the access log that were dropped, because the log takes them too slowly",
            MetricType::Counter,
            one(log.dropped),
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
}
