//! The page of metrics, family by family.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

pub(super) type Label<'a> = (&'static str, &'a str);

/// The page, written family by family.
pub(super) struct MetricsPage<'a>(pub(super) DescriptorEncoder<'a>);

impl MetricsPage<'_> {
    /// A counter or a gauge. The name of a counter gets `_total` at its end.
    pub(super) fn whole<'a, const N: usize>(
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

    /// A gauge without labels that counts seconds; absent without a value.
    pub(super) fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        value: impl IntoIterator<Item = f64>,
    ) -> fmt::Result {
        let values = value.into_iter().map(|seconds| {
            let encode = move |mut encoder: MetricEncoder<'_>| encoder.encode_gauge(&seconds);
            ([] as [Label<'_>; 0], encode)
        });
        self.family(name, help, MetricType::Gauge, values)
    }

    pub(super) fn family<'a, const N: usize, F: FnOnce(MetricEncoder<'_>) -> fmt::Result>(
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
