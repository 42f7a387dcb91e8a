//! A collector of traces: it takes OTLP over HTTP, in protobuf.

use pointsman::otlp::{ExportTraceServiceRequest, Resource, Span, Value};
use prost::Message;

use super::HttpReceiver;

/// A collector of traces.
pub(crate) struct Collector(HttpReceiver);

/// What a collector has received at a time.
pub(crate) struct Export {
    /// The head of the request.
    pub(crate) head: String,
    pub(crate) message: ExportTraceServiceRequest,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self(HttpReceiver::start([]))
    }

    /// Where traces are sent.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/traces", self.0.address)
    }

    /// Answers the next exports with these statuses.
    pub(crate) fn answer_with(&self, statuses: impl IntoIterator<Item = u16>) {
        self.0.statuses.lock().unwrap().extend(statuses);
    }

    /// The next export.
    #[track_caller]
    pub(crate) fn next(&self) -> Export {
        let (head, body) = self.0.next();
        let message = ExportTraceServiceRequest::decode(&*body).unwrap();
        Export { head, message }
    }

    /// Whether it has received nothing since.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl Export {
    pub(crate) fn resource(&self) -> &Resource {
        self.message.resource_spans[0].resource.as_ref().unwrap()
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.message.resource_spans[0].scope_spans[0].spans
    }

    /// The spans with this name, in their order.
    pub(crate) fn named(&self, name: &str) -> Vec<&Span> {
        let spans = self.spans().iter();
        spans.filter(|span| span.name == name).collect()
    }

    /// The only span with this name.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> &Span {
        let spans = self.named(name);
        assert_eq!(spans.len(), 1, "{name}: {:?}", self.spans());
        spans[0]
    }
}

/// The value of an attribute as text.
pub(crate) fn attribute(attributes: &[pointsman::otlp::KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => text.clone(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
    })
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
