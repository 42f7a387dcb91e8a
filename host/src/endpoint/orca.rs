//! What endpoints report of their own load, in a header of their responses. Source: Open Request
//! Cost Aggregation (ORCA), `OrcaLoadReport` as text or as JSON in `endpoint-load-metrics`, as in
//! Envoy and vLLM.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use serde_json::Value;

/// The header.
const NAME: &str = "endpoint-load-metrics";

/// How long a report is used, in microseconds of the balancers' clock.
pub(super) const FRESH: u64 = 10_000_000;

/// Named metrics that tell how many requests wait; the first one that is present counts.
const QUEUES: [&str; 2] = ["queue_size", "num_requests_waiting"];

/// The last report of an endpoint.
#[derive(Debug, Default)]
pub(super) struct LastReport {
    /// The load in the upper half, the queue in the lower one.
    values: AtomicU64,
    at: AtomicU64,
}

/// One report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Utilization of the endpoint, in thousandths.
    pub load: u32,
    /// Requests queued at the endpoint.
    pub queue: u32,
}

impl LastReport {
    pub(super) fn set(&self, now: u64, report: LoadReport) {
        let values = u64::from(report.load) << 32 | u64::from(report.queue);
        self.values.store(values, Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    /// The last report; all 0 if there was none lately.
    pub(super) fn at(&self, now: u64) -> LoadReport {
        let at = self.at.load(Ordering::Relaxed);
        if now.saturating_sub(at) > FRESH {
            return LoadReport::default();
        }
        let values = self.values.load(Ordering::Relaxed);
        LoadReport {
            load: (values >> 32) as u32,
            queue: values as u32,
        }
    }
}

/// The metrics of a report.
#[derive(Debug)]
pub struct Metrics<'a>(Form<'a>);

#[derive(Debug)]
enum Form<'a> {
    Json(Value),
    /// Pairs of a name and a value, read anew each time: a report comes with each response, and two
    /// or three of its metrics are looked for.
    Text(Cow<'a, str>),
}

/// Most named metrics of a report that are read.
const METRICS: usize = 64;

/// What names of metrics begin with in the form of text.
const PREFIX: &str = "named_metrics.";

impl<'a> Form<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let text = text.trim();
        match text.split_once(' ') {
            Some(("JSON", json)) => serde_json::from_str(json).ok().map(Self::Json),
            Some(("TEXT", text)) => Some(Self::Text(text.into())),
            _ if text.starts_with('{') => serde_json::from_str(text).ok().map(Self::Json),
            _ if text.contains('=') => Some(Self::Text(text.into())),
            _ => None,
        }
    }

    fn into_owned(self) -> Form<'static> {
        match self {
            Self::Json(report) => Form::Json(report),
            Self::Text(text) => Form::Text(text.into_owned().into()),
        }
    }
}

impl<'a> Metrics<'a> {
    /// The report in an answer, if there is one that can be read.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        // A metric whose name is not valid text or not ASCII is not one of those looked for here.
        let form = match String::from_utf8_lossy(headers.get(NAME)?.as_bytes()) {
            Cow::Borrowed(text) => Form::of(text)?,
            Cow::Owned(text) => Form::of(&text)?.into_owned(),
        };
        Some(Self(form))
    }

    fn metric(&self, name: &str) -> Option<f64> {
        match &self.0 {
            Form::Json(report) => report.get(name)?.as_f64(),
            Form::Text(text) => {
                let mut pairs = pairs_of(text);
                pairs.find(|(found, _)| *found == name).map(|pair| pair.1)
            }
        }
    }

    /// The named metrics, a limited number of them.
    pub fn named(&self) -> impl Iterator<Item = (&str, f64)> {
        self.all_named().take(METRICS)
    }

    fn all_named(&self) -> impl Iterator<Item = (&str, f64)> {
        let (json, text) = match &self.0 {
            Form::Json(report) => (report.get("named_metrics").and_then(Value::as_object), ""),
            Form::Text(text) => (None, &**text),
        };
        let json = json.into_iter().flatten();
        let json = json.filter_map(|(name, value)| Some((&**name, value.as_f64()?)));
        let text = pairs_of(text);
        let text = text.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
        json.chain(text)
    }

    /// What every balancer can read of it.
    pub fn load(&self) -> LoadReport {
        // The utilization that the application reports is better than that of its processor.
        // Source: gRPC A58.
        let load = self
            .metric("application_utilization")
            .filter(|load| *load > 0.0);
        let load = load
            .or_else(|| self.metric("cpu_utilization"))
            .unwrap_or(0.0);
        let queue = QUEUES.iter().find_map(|queue| {
            let mut named = self.all_named();
            named.find(|(name, _)| name == queue)
        });
        LoadReport {
            // A value out of range becomes the nearest bound, and one that is not a number becomes
            // 0.
            load: (load * 1000.0) as u32,
            queue: queue.map_or(0, |(_, queue)| queue as u32),
        }
    }
}

fn pairs_of(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, value)| Some((name.trim(), value.trim().parse().ok()?)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn report(text: &str) -> Option<(u32, u32)> {
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_str(text).unwrap());
        let report = Metrics::of(&headers)?.load();
        Some((report.load, report.queue))
    }

    #[test]
    fn text_and_json_are_read() {
        assert_eq!(
            report("TEXT cpu_utilization=0.3, named_metrics.queue_size=7"),
            Some((300, 7))
        );
        assert_eq!(
            report("cpu_utilization=0.3,application_utilization=1.2"),
            Some((1200, 0))
        );
        assert_eq!(
            report(
                r#"JSON {"cpu_utilization": 0.5, "named_metrics": {"num_requests_waiting": 3}}"#
            ),
            Some((500, 3))
        );
        assert_eq!(report(r#"{"application_utilization": 0}"#), Some((0, 0)));
        assert_eq!(report("TEXT"), None);
        assert_eq!(report("BIN abc"), None);
        assert_eq!(report("JSON {"), None);
        assert!(Metrics::of(&HeaderMap::new()).is_none());
        // A name that is not UTF-8 hides no other.
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b" TEXT a\xff=1,cpu_utilization=0.3 ").unwrap();
        headers.insert(NAME, value);
        assert_eq!(Metrics::of(&headers).unwrap().load().load, 300);
    }

    #[test]
    fn named_metrics_are_read_by_their_names() {
        for text in [
            "TEXT named_metrics.a=0.5, cpu_utilization=1,named_metrics.b:c=7,named_metrics.d=x",
            r#"JSON {"named_metrics": {"a": 0.5, "b:c": 7, "d": "x"}, "cpu_utilization": 1}"#,
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(NAME, HeaderValue::from_str(text).unwrap());
            let metrics = Metrics::of(&headers).unwrap();
            let named: Vec<(&str, f64)> = metrics.named().collect();
            assert_eq!(named, [("a", 0.5), ("b:c", 7.0)], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text in "[ -~]{0,60}", load: f64) {
            report(&text);
            report(&format!("cpu_utilization={load},named_metrics.queue_size={load}"));
        }
    }

    #[test]
    fn an_old_report_is_ignored() {
        let reported = LastReport::default();
        let last = LoadReport {
            load: 900,
            queue: 4,
        };
        reported.set(1_000_000, last);
        assert_eq!(reported.at(11_000_000), last);
        assert_eq!(reported.at(11_000_001), LoadReport::default());
    }
}
