//! Recordings of the calls to an upstream's balancer and of its answers, made while it serves.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Admin;
use super::arguments::Path;
use super::error::Error;
use super::peer::Peer;
use super::rows::{find, id_of};
use crate::balancer::Recording;
use crate::entity::Kind;
use crate::upstream::Upstream;

/// Duration and size of a recording: the default, and the most that a request may ask for.
const SECONDS: (u64, u64) = (60, 24 * 3600);
const BYTES: (u64, u64) = (64 << 20, 4 << 30);

/// Chunks of a trace that may wait for a slow client: 8 MiB.
const WAITING: usize = 256;

/// Media type of a trace.
const TRACE: &str = "application/vnd.pointsman.trace";

pub(super) fn endpoint() -> super::ApiEndpoint {
    let path = "/upstreams/{key}/record".to_owned();
    (path, post(record), "OPTIONS, POST")
}

/// Answers with the trace while it is recorded. It ends after `seconds`, before `max_bytes`, when
/// another balancer takes over, or when the client disconnects.
async fn record(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let peer = Peer::of(&request);
    let query = request.uri().query().unwrap_or_default();
    let (mut seconds, mut bytes, mut facts) = (SECONDS.0, BYTES.0, false);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "seconds" => seconds = number(&name, &value, SECONDS.1)?,
            "max_bytes" => bytes = number(&name, &value, BYTES.1)?,
            "facts" => {
                let value = value.parse();
                facts = value.map_err(|_| Error::field("facts", "expected a boolean"))?;
            }
            other => return Err(Error::field(other, "unknown field")),
        }
    }
    let upstream = find(&admin, Kind::Upstream, &key)?;
    let upstream = upstream.ok_or_else(|| Error::missing("upstream", &key))?;
    let (_, snapshot) = admin.published.current();
    let running = snapshot.upstreams.get(&id_of(&upstream.row));
    let running = running.ok_or_else(Error::not_found)?.clone();
    let name = upstream.row.get("algorithm").and_then(|name| name.as_str());
    let name = name.unwrap_or_default().to_owned();
    let digest = running.balancer().plugin().digest.clone();
    let Some(component) = super::balancers::component_of(&admin, &name, &digest)? else {
        let message = format!("the component of the balancer {name} is not in the store");
        return Err(Error::Plain(StatusCode::CONFLICT, message));
    };
    let (to, mut pieces) = mpsc::channel(WAITING);
    let recording = Recording {
        name,
        component,
        to,
        limit: usize::try_from(bytes).unwrap_or(usize::MAX),
        facts,
    };
    let begun = running.balancer().record(recording);
    let number = begun.map_err(|why| Error::Plain(StatusCode::CONFLICT, why))?;
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let timer = tokio::spawn({
        let running = running.clone();
        async move {
            let leaves = async {
                match &peer {
                    Some(peer) => peer.leaves().await,
                    None => std::future::pending().await,
                }
            };
            // Nothing is written to the client while no request comes, so no write fails.
            let _ = tokio::time::timeout_at(end, leaves).await;
            running.balancer().end_recording(number);
        }
    });
    let recording = RunningRecording {
        running,
        number,
        timer,
    };
    let trace = stream::poll_fn(move |cx| {
        // The recording is dropped with the response.
        let _recording = &recording;
        let piece = pieces.poll_recv(cx);
        piece.map(|piece| piece.map(Ok::<_, std::convert::Infallible>))
    });
    Ok(([(CONTENT_TYPE, TRACE)], Body::from_stream(trace)).into_response())
}

/// A recording that ends when this is dropped, with the response.
struct RunningRecording {
    running: Arc<Upstream>,
    number: u64,
    /// Ends the recording when its time is over, or when its client has left.
    timer: JoinHandle<()>,
}

impl Drop for RunningRecording {
    fn drop(&mut self) {
        self.timer.abort();
        self.running.balancer().end_recording(self.number);
    }
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, Error> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Error::field(name, format!("value should be between 1 and {most}")))
}
