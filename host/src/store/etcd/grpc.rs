//! gRPC over a connection of HTTP/2: calls, and streams of messages in both directions.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Time without a byte from the server after which it is pinged, and then for its answer. A
/// connection whose packets vanish is found so.
const PING: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(3)];

/// Largest message from the server. A page of rows, or the events of a transaction, has far less.
const LARGEST: usize = 256 << 20;

/// Window of each stream and of the connection, in bytes.
const WINDOW: u32 = 1 << 20;

/// Why a call has failed.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// The server has answered with an error: its code and its message.
    Status(u32, String),
    /// There was no answer. The server may have done what it was asked.
    Broken(String),
}

/// gRPC's code for a resource that is used up, such as etcd's quota.
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;

/// gRPC's code for what was asked too late, such as a revision that etcd has compacted.
pub(super) const OUT_OF_RANGE: u32 = 11;

/// gRPC's code for missing or wrong credentials.
const UNAUTHENTICATED: u32 = 16;

/// gRPC's code for a request that the server refuses whatever its state.
const INVALID_ARGUMENT: u32 = 3;

/// gRPC's code for what the user may not do.
const PERMISSION_DENIED: u32 = 7;

impl CallError {
    /// Whether the server has said that it has not done, and will not do, what it was asked.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Status(code, _) = self else {
            return false;
        };
        [
            INVALID_ARGUMENT,
            PERMISSION_DENIED,
            RESOURCE_EXHAUSTED,
            OUT_OF_RANGE,
            UNAUTHENTICATED,
        ]
        .contains(code)
    }

    /// Whether the token of the user has expired.
    pub(super) fn asks_for_token(&self) -> bool {
        match self {
            Self::Status(UNAUTHENTICATED, _) => true,
            // etcd's answer after the users have changed.
            Self::Status(INVALID_ARGUMENT, message) => message.contains("auth revision"),
            _ => false,
        }
    }
}

/// The end of a sentence.
impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(_, message) => f.write_str(message),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// A connection to a server. It is closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    /// Scheme and authority.
    origin: String,
}

impl Connection {
    /// Starts HTTP/2 on a byte stream.
    pub(super) async fn start<S>(stream: S, origin: String) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let started = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(PING[0])
            .keep_alive_timeout(PING[1])
            // etcd closes connections that are pinged while they have no request
            // (`ENHANCE_YOUR_CALM`, `too_many_pings`). One that is lost meanwhile is found by the
            // next request.
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = started.map_err(|error| words(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to etcd has ended: {}", words(&error));
            }
        });
        Ok(Self { sender, origin })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Calls a method that has one answer.
    pub(super) async fn call(
        &self,
        method: &str,
        token: Option<&str>,
        message: Vec<u8>,
    ) -> Result<Bytes, CallError> {
        let (sending, messages) = outgoing(message);
        // The server may wait for the end of the request before it answers.
        drop(sending);
        let mut answers = self.open(method, token, messages).await?;
        let answer = answers.next().await?;
        let answer = answer.ok_or_else(|| CallError::Broken("it has sent no answer".into()))?;
        // An error may still follow.
        while answers.next().await?.is_some() {}
        Ok(answer)
    }

    /// Opens a stream with its first message.
    pub(super) async fn stream(
        &self,
        method: &str,
        token: Option<&str>,
        first: Vec<u8>,
    ) -> Result<(Sending, Answers), CallError> {
        let (sending, messages) = outgoing(first);
        let answers = self.open(method, token, messages).await?;
        Ok((sending, answers))
    }

    async fn open(
        &self,
        method: &str,
        token: Option<&str>,
        messages: Outgoing,
    ) -> Result<Answers, CallError> {
        let mut request = Request::post(format!("{}{method}", self.origin))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member of etcd without a leader ends a watch, instead of being silent.
            .header("hasleader", "true");
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token)
                .map_err(|_| CallError::Broken("its token is no header".into()))?;
            token.set_sensitive(true);
            request = request.header("token", token);
        }
        let request = request.body(messages);
        let request = request.map_err(|error| CallError::Broken(error.to_string()))?;
        let mut sender = self.sender.clone();
        let sent = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = sent.await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(CallError::Broken(format!("it is no gRPC: HTTP {status}")));
        }
        // An answer without a message has its status in the head.
        let has_status = match status(response.headers()) {
            Some(Err(error)) => return Err(error),
            Some(Ok(())) => true,
            None => false,
        };
        Ok(Answers {
            body: response.into_body(),
            buffer: BytesMut::new(),
            has_status,
        })
    }
}

/// The messages to the server. The stream ends for the server when this is dropped.
#[derive(Debug)]
pub(super) struct Sending(mpsc::UnboundedSender<Bytes>);

/// The body of a request that begins with a message.
fn outgoing(first: Vec<u8>) -> (Sending, Outgoing) {
    let (sender, messages) = mpsc::unbounded_channel();
    let sending = Sending(sender);
    sending.send(first);
    (sending, Outgoing(messages))
}

impl Sending {
    /// Sends a message. If the stream has ended, the next answer is the error.
    pub(super) fn send(&self, message: Vec<u8>) {
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(&message);
        drop(self.0.send(framed.freeze()));
    }
}

/// The messages from the server.
#[derive(Debug)]
pub(super) struct Answers {
    body: Incoming,
    buffer: BytesMut,
    /// Whether the server has told that the call has succeeded.
    has_status: bool,
}

impl Answers {
    /// The next message; none at the end. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                // h2 may have cut the status out of trailers that are too large.
                return match self.has_status && self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(CallError::Broken("its answer has broken off".into())),
                };
            };
            match frame.map_err(broken)?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Some(told) = frame.trailers_ref().and_then(status) {
                        told?;
                        self.has_status = true;
                    }
                }
            }
        }
    }

    /// Takes a whole message from the buffer.
    fn take(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some((head, _)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 || length > LARGEST {
            let reason = "its answer is compressed or too large".into();
            return Err(CallError::Broken(reason));
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The body of a request: messages as they come.
#[derive(Debug)]
struct Outgoing(mpsc::UnboundedReceiver<Bytes>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

/// The status of a call, if the headers have one.
fn status(headers: &HeaderMap) -> Option<Result<(), CallError>> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    if code == 0 {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes);
    let message = percent_encoding::percent_decode(message.unwrap_or_default());
    let message = message.decode_utf8_lossy().into_owned();
    Some(Err(CallError::Status(code, message)))
}

fn broken(error: hyper::Error) -> CallError {
    CallError::Broken(words(&error))
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use http::Response;
    use http_body_util::StreamBody;
    use hyper::server::conn::http2::Builder;
    use hyper::service::service_fn;

    use super::*;

    type FrameResult = Result<Frame<Bytes>, Infallible>;
    type Frames = futures_util::stream::Iter<std::vec::IntoIter<FrameResult>>;

    /// A message, with a status behind it or not.
    fn answer(has_status: bool) -> Result<Response<StreamBody<Frames>>, Infallible> {
        let mut frames: Vec<FrameResult> =
            vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01x")))];
        if has_status {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            frames.push(Ok(Frame::trailers(trailers)));
        }
        let frames = futures_util::stream::iter(frames);
        Ok(Response::new(StreamBody::new(frames)))
    }

    #[tokio::test]
    async fn an_answer_without_a_status_has_broken_off() {
        for (has_status, is_whole) in [(false, false), (true, true)] {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let service = service_fn(move |_: Request<Incoming>| async move { answer(has_status) });
            let server =
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
            let server = tokio::spawn(server);
            let connection = Connection::start(client, "http://etcd".into()).await;
            let called = connection.unwrap().call("/a.B/C", None, Vec::new()).await;
            assert_eq!(called.is_ok(), is_whole, "{called:?}");
            server.abort();
        }
    }
}
