//! The families of upstreams: what their balancers, shadows and canaries have done, and what became
//! of the requests sent to their addresses.

use std::fmt;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::super::{CanaryFigure, Figures, UpstreamFigure};
use super::page::{Label, MetricsPage};
use crate::balancer::{CanaryFigures, Counters, ShadowReport, Side};
use crate::upstream::AddressReport;

impl Figures {
    pub(super) fn upstreams(&self, page: &mut MetricsPage<'_>) -> fmt::Result {
        let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
        page.whole(
            "pointsman_picks",
            "Picks requested since this balancer took over",
            counter,
            self.each(|counters| counters.picks),
        )?;
        let fallback_picks = || {
            self.upstreams.iter().flat_map(|figure| {
                let kinds = figure.counters.fallback_picks_by_kind.by_kind();
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
            "pointsman_outcomes",
            "Ended tries that the balancer was told of, if it exports outcome",
            counter,
            self.each(|counters| counters.outcomes),
        )?;
        page.whole(
            "pointsman_outcomes_dropped",
            "Ended tries that the balancer was not told of, since too many waited",
            counter,
            self.each(|counters| counters.outcomes_dropped),
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
            self.addresses(|report| Some(report.picks)),
        )?;
        page.whole(
            "pointsman_endpoint_failures",
            "Requests sent to an address that got no whole response: no connection, broken off, timed out",
            counter,
            self.addresses(|report| Some(report.failures)),
        )?;
        page.whole(
            "pointsman_endpoint_in_flight",
            "Requests sent to an address and not yet answered in full",
            gauge,
            self.addresses(|report| Some(report.in_flight.into())),
        )?;
        page.whole(
            "pointsman_endpoint_report_failures",
            "Reads of the reports of an address that have failed",
            counter,
            self.addresses(|report| report.report_reads.as_ref().map(|reads| reads.failures)),
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
        self.canaries(page)
    }

    /// A number for each upstream and the balancer that chooses for it.
    fn each(&self, of: fn(&Counters) -> u64) -> impl Iterator<Item = ([Label<'_>; 2], u64)> {
        let figures = self.upstreams.iter();
        figures.map(move |figure| (figure.labels(), of(&figure.counters)))
    }

    /// A number for each address of each target that has one.
    fn addresses(
        &self,
        of: fn(&AddressReport) -> Option<u64>,
    ) -> impl Iterator<Item = ([Label<'_>; 3], u64)> {
        self.upstreams.iter().flat_map(move |figure| {
            figure.targets.iter().flat_map(move |target| {
                target
                    .addresses
                    .iter()
                    .filter_map(move |(address, report)| {
                        let [upstream, _] = figure.labels();
                        let labels = [upstream, ("target", &*target.name), ("address", address)];
                        Some((labels, of(report)?))
                    })
            })
        })
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
}

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
