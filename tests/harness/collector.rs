//! A collector of traces: it takes OTLP over HTTP, in protobuf.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::otlp::{ExportTraceServiceRequest, Resource, Span, Value};
use prost::Message;

/// A collector of traces.
pub(crate) struct Collector {
    address: SocketAddr,
    received: Receiver<Export>,
    /// The statuses of its next responses; then it answers 200.
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

/// What a collector has received at a time.
pub(crate) struct Export {
    /// The head of the request.
    pub(crate) head: String,
    pub(crate) message: ExportTraceServiceRequest,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let statuses = Arc::<Mutex<VecDeque<u16>>>::default();
        let (sender, received) = channel();
        let next = Arc::clone(&statuses);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sender, next) = (sender.clone(), Arc::clone(&next));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(export) = read_export(&mut stream) {
                        let status = next.lock().unwrap().pop_front().unwrap_or(200);
                        let answer = format!("HTTP/1.1 {status} .\r\ncontent-length: 0\r\n\r\n");
                        let _ = stream.get_mut().write_all(answer.as_bytes());
                        let _ = sender.send(export);
                    }
                });
            }
        });
        Self {
            address,
            received,
            statuses,
        }
    }

    /// Where traces are sent.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// Answers the next exports with these statuses.
    pub(crate) fn answer_with(&self, statuses: impl IntoIterator<Item = u16>) {
        self.statuses.lock().unwrap().extend(statuses);
    }

    /// The next export.
    #[track_caller]
    pub(crate) fn next(&self) -> Export {
        self.received.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Whether it has received nothing since.
    pub(crate) fn is_idle(&self) -> bool {
        self.received.try_recv().is_err()
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

fn read_export(stream: &mut BufReader<TcpStream>) -> Option<Export> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).ok()?;
    let message = ExportTraceServiceRequest::decode(&*body).unwrap();
    Some(Export { head, message })
}
