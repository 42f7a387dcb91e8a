//! A client that speaks HTTP/2, and one that sends the frames that a test gives it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::http::request::Builder;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// The body of a request that a test sends.
pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection on which requests can be sent at the same time.
pub(crate) struct Http2 {
    pub(crate) runtime: Runtime,
    pub(crate) sender: SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
    host: SocketAddr,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Http2 {
    /// A connection to the proxy, by prior knowledge.
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::connect_with(to, 1 << 20)
    }

    /// The same, with this window for each response.
    pub(crate) fn connect_with(to: SocketAddr, window: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (sender, connection) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            client.initial_stream_window_size(window);
            client.handshake(TokioIo::new(stream)).await.unwrap()
        });
        let connection = runtime.spawn(connection);
        Self {
            runtime,
            sender,
            connection,
            host: to,
        }
    }

    /// A request to the proxy.
    pub(crate) fn request(&self, method: &str, path: &str) -> Builder {
        let uri = format!("http://{}{path}", self.host);
        Request::builder().method(method).uri(uri)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(empty()).unwrap())
    }

    /// Sends a request, and waits for the whole response.
    pub(crate) fn send(&self, request: Request<Body>) -> Answer {
        self.try_send(request).unwrap()
    }

    pub(crate) fn try_send(&self, request: Request<Body>) -> hyper::Result<Answer> {
        let response = self.start(request);
        self.runtime
            .block_on(async { collect(response.await.unwrap()?).await })
    }

    /// Sends a request, and does not wait for its response.
    pub(crate) fn start(
        &self,
        request: Request<Body>,
    ) -> JoinHandle<hyper::Result<Response<Incoming>>> {
        let mut sender = self.sender.clone();
        self.runtime.spawn(async move {
            sender.ready().await?;
            sender.send_request(request).await
        })
    }

    /// Waits for all of a response.
    pub(crate) fn wait(&self, response: JoinHandle<hyper::Result<Response<Incoming>>>) -> Answer {
        self.runtime
            .block_on(async { collect(response.await.unwrap().unwrap()).await.unwrap() })
    }

    /// Waits until the gateway has closed the connection.
    pub(crate) fn wait_for_close(self) -> hyper::Result<()> {
        drop(self.sender);
        let Self {
            runtime,
            connection,
            ..
        } = self;
        runtime.block_on(connection).unwrap()
    }
}

async fn collect(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        trailers: body.trailers().cloned().unwrap_or_default(),
        body: body.to_bytes().into(),
    })
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

pub(crate) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A body that a test sends piece by piece.
pub(crate) fn streamed() -> (UnboundedSender<BodyFrame<Bytes>>, Body) {
    let (sender, receiver) = unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let frame: BodyFrame<Bytes> = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

pub(crate) fn data(piece: impl Into<Bytes>) -> BodyFrame<Bytes> {
    BodyFrame::data(piece.into())
}

/// A connection on which a test sends frames, valid or not.
pub(crate) struct Frames(TcpStream);

/// Types of frames (RFC 9113, 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame that the gateway has sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `GOAWAY`.
    pub(crate) fn goaway_code(&self) -> u32 {
        assert_eq!(self.kind, kind::GOAWAY);
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

impl Frames {
    /// Connects, sends the preface and these settings.
    pub(crate) fn connect(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        // A test that waits in vain fails, rather than hang.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut frames = Self(stream);
        frames.bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        frames.send(kind::SETTINGS, 0, 0, &payload);
        frames
    }

    /// Sends bytes. Returns whether the connection was open.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends a frame. Returns whether the connection was open.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.bytes(&frame(kind, flags, stream, payload))
    }

    /// Sends the head of a `GET`, with further flags.
    pub(crate) fn get(&mut self, stream: u32, path: &str, flags: u8) -> bool {
        let block = head("GET", path, &[]);
        self.send(kind::HEADERS, flags | END_HEADERS, stream, &block)
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// The next frame of this type; `None` if the connection ends before.
    pub(crate) fn next_of(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// Reads until the connection ends: the last `GOAWAY`, if there was one.
    pub(crate) fn read_to_end(&mut self) -> Option<Frame> {
        std::iter::from_fn(|| self.next())
            .filter(|frame| frame.kind == kind::GOAWAY)
            .last()
    }

    /// A second handle of the connection, to read while another thread writes.
    pub(crate) fn try_clone(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The frames of a head, or of trailers, with further flags of the first one.
pub(crate) fn field_frames(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<&[u8]> = block.chunks(16_384).collect();
    let last = pieces.len().saturating_sub(1);
    let frames = pieces.iter().enumerate().map(|(number, piece)| {
        let kind = [kind::CONTINUATION, kind::HEADERS][usize::from(number == 0)];
        let flags = if number == 0 { flags } else { 0 };
        let end = if number == last { END_HEADERS } else { 0 };
        frame(kind, flags | end, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

/// The head of a request, in HPACK without compression (RFC 7541, 6.2.2).
pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "h"),
        (":path", path),
    ];
    [fields(&pseudo), fields(headers)].concat()
}

/// Fields in HPACK without compression.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}
