//! How the reports of targets are read: `pointsman.reports`, ready to be applied.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{ProbeServer, facts_max_age, seconds};
use crate::authority::Authority;
use crate::endpoint::ReportName;
use crate::entity::upstream as entity;
use crate::exposition::{Aggregation, Selector};
use crate::tls::TlsClient;

/// How the reports of targets are read.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::upstream) struct ReportPolicy {
    /// Port, in place of the target's.
    pub(in crate::upstream) port: Option<u16>,
    /// TLS, with the name that is sent in place of the host; none for clear text.
    pub(in crate::upstream) tls: Option<(Arc<TlsClient>, Option<String>)>,
    /// Path, with a query or without.
    pub(in crate::upstream) path: String,
    pub(in crate::upstream) host_header: Option<Authority<'static>>,
    pub(in crate::upstream) headers: Vec<(String, String)>,
    /// Time between two reads.
    pub(in crate::upstream) interval: Duration,
    /// Longest time of a read.
    pub(in crate::upstream) timeout: Duration,
    /// How long a value counts, in microseconds.
    pub(in crate::upstream) max_age: u64,
    /// What is read.
    pub(in crate::upstream) selectors: Vec<Selector>,
    /// The name of the value of each selector.
    pub(in crate::upstream) names: Vec<ValueName>,
}

/// The name of a value, as text while the gateway has too many other names in use.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct ValueName {
    pub(in crate::upstream) text: String,
    known: OnceLock<ReportName>,
}

impl PartialEq for ValueName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl ValueName {
    fn new(text: &str) -> Self {
        let name = Self {
            text: text.to_owned(),
            known: OnceLock::new(),
        };
        // So that it is in use from now on, and not only from the first read.
        name.known();
        name
    }

    /// The name; none while too many others are in use.
    pub(in crate::upstream) fn known(&self) -> Option<&ReportName> {
        if self.known.get().is_none() {
            // Another reader may set it meanwhile, to the same name.
            let _ = self.known.set(ReportName::of(&self.text)?);
        }
        self.known.get()
    }
}

impl ReportPolicy {
    /// None if nothing is to be read.
    pub(super) fn of(upstream: &entity::Upstream, server: &ProbeServer) -> Option<Self> {
        let settings = &upstream.pointsman.reports;
        let (mut selectors, mut names) = (Vec::new(), Vec::new());
        for metric in settings.metrics.iter().flatten() {
            let name = metric.r#as.as_deref().unwrap_or(&metric.name);
            names.push(ValueName::new(name));
            selectors.push(Selector {
                name: metric.name.clone(),
                labels: metric.labels.clone().into_iter().flatten().collect(),
                aggregation: match &*metric.aggregation {
                    "min" => Aggregation::Min,
                    "max" => Aggregation::Max,
                    "avg" => Aggregation::Avg,
                    _ => Aggregation::Sum,
                },
            });
        }
        let interval = seconds(settings.interval)?;
        let timeout = seconds(settings.timeout)?;
        // One read that fails must not make the values 0. Each of two reads can take as long as it
        // may, and the pause after the first begins at its end.
        let least = 2 * (interval + timeout);
        let least = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
        (!names.is_empty()).then(|| Self {
            port: settings.port,
            tls: settings
                .tls
                .unwrap_or(server.is_secure)
                .then(|| (Arc::clone(&server.tls), server.sni.clone())),
            path: settings.path.clone(),
            host_header: server.host_header.clone(),
            headers: server.headers.clone(),
            interval,
            timeout,
            max_age: facts_max_age(&upstream.pointsman).max(least),
            selectors,
            names,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upstream::Policy;

    #[test]
    fn a_value_outlasts_a_read_that_fails_at_its_timeout() {
        let reports = json!({"interval": 1, "timeout": 0.5, "metrics": [{"name": "a"}]});
        let upstream = json!({
            "id": uuid::Uuid::nil(), "name": "u", "algorithm": "random", "slots": 10,
            "pointsman": {"facts_max_age": 1, "reports": reports},
        });
        let upstream: entity::Upstream = serde_json::from_value(upstream).unwrap();
        let policy = Policy::of(&upstream, None);
        assert_eq!(policy.reports.unwrap().max_age, 3_000_000);
    }
}
