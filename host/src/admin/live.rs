//! What the gateway does now, as server-sent events: one a second, for the page and for other
//! clients.
//!
//! An event is made once however many clients get it, and nothing is measured or made while there
//! are none.

mod gateway;
mod upstream;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::arguments::Path;
use super::error::Error;
use super::rows::parent_id;
use super::{Admin, ApiEndpoint, ApiResult};
use crate::entity::Kind;
use crate::traffic::TRAFFIC;

/// Most clients at a time, over all events.
const VIEWERS: usize = 32;

/// Events that may wait for a slow client; it misses the older ones of more.
const WAITING: usize = 4;

const PERIOD: Duration = Duration::from_secs(1);

/// Asks nginx not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Gateway,
    Upstream(Uuid),
}

/// Whether a client waits for the next event, having taken those before. In the extensions of its
/// answer, for the connection: see `serve.rs`.
#[derive(Debug, Clone, Default)]
pub(super) struct Viewer(Arc<AtomicBool>);

impl Viewer {
    pub(super) fn waits(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clients that get events.
#[derive(Debug, Default)]
pub(crate) struct Live {
    topics: Mutex<Topics>,
    /// Notified when a client has come.
    joined: Notify,
}

#[derive(Debug, Default)]
struct Topics {
    is_closed: bool,
    senders: HashMap<Topic, Sender<Bytes>>,
}

pub(super) fn endpoints() -> [ApiEndpoint; 2] {
    let read = "GET, HEAD, OPTIONS";
    [
        ("/pointsman/live".into(), get(of_gateway), read),
        ("/upstreams/{key}/live".into(), get(of_upstream), read),
    ]
}

/// `GET /pointsman/live`: the gateway as a whole, its routes and its upstreams.
async fn of_gateway(State(admin): State<Admin>) -> ApiResult {
    admin.live.join(Topic::Gateway)
}

/// `GET /upstreams/{u}/live`: an upstream with each of its targets.
async fn of_upstream(State(admin): State<Admin>, Path(key): Path<String>) -> ApiResult {
    let id = parent_id(&admin, Kind::Upstream, &key)?;
    admin.live.join(Topic::Upstream(id))
}

impl Live {
    /// Answers with the events of a topic, which end with the gateway.
    fn join(&self, topic: Topic) -> ApiResult {
        let receiver = self.topics.lock().join(topic)?;
        self.joined.notify_one();
        let viewer = Viewer::default();
        let events = stream::unfold((receiver, viewer.clone()), async |(receiver, viewer)| {
            viewer.0.store(true, Ordering::Relaxed);
            let event = next(receiver).await;
            viewer.0.store(false, Ordering::Relaxed);
            let (event, receiver) = event?;
            Some((event, (receiver, viewer)))
        });
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-store"),
            (X_ACCEL_BUFFERING, "no"),
        ];
        let mut answer = (headers, Body::from_stream(events)).into_response();
        answer.extensions_mut().insert(viewer);
        Ok(answer)
    }

    /// Ends all events, and admits no more clients.
    pub(crate) fn close(&self) {
        let mut topics = self.topics.lock();
        topics.is_closed = true;
        topics.senders.clear();
    }

    /// The topics that have clients. The others are removed.
    fn present(&self) -> Vec<Topic> {
        let mut topics = self.topics.lock();
        topics
            .senders
            .retain(|_, sender| sender.receiver_count() > 0);
        topics.senders.keys().copied().collect()
    }

    /// Sends an event, or ends the events of a topic that no longer exists.
    fn send(&self, topic: Topic, event: Option<Value>) {
        let mut topics = self.topics.lock();
        match event {
            None => drop(topics.senders.remove(&topic)),
            Some(event) => {
                if let Some(sender) = topics.senders.get(&topic) {
                    // Without clients it is not sent, which is not an error.
                    let _ = sender.send(format!("event: figures\ndata: {event}\n\n").into());
                }
            }
        }
    }
}

impl Topics {
    fn join(&mut self, topic: Topic) -> Result<Receiver<Bytes>, Error> {
        let unavailable = |why: String| Err(Error::Plain(StatusCode::SERVICE_UNAVAILABLE, why));
        if self.is_closed {
            return unavailable("the gateway shuts down".into());
        }
        let viewers: usize = self.senders.values().map(Sender::receiver_count).sum();
        if viewers >= VIEWERS {
            return unavailable(format!(
                "{VIEWERS} clients get live figures already: close a page, or read /metrics"
            ));
        }
        let sender = self.senders.entry(topic);
        Ok(sender.or_insert_with(|| channel(WAITING).0).subscribe())
    }
}

/// The next event of a client; none once there are no more.
async fn next(mut events: Receiver<Bytes>) -> Option<(Result<Bytes, Infallible>, Receiver<Bytes>)> {
    loop {
        match events.recv().await {
            Ok(event) => return Some((Ok(event), events)),
            // It is too slow: it goes on with the newest ones.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

/// Makes events, while there are clients for them, for as long as the future is polled.
pub async fn make_live_events(admin: Admin) {
    loop {
        while admin.live.present().is_empty() {
            admin.live.joined.notified().await;
        }
        // Dropped as well if the future is: a process that was replaced ends it while it drains.
        let _watching = TRAFFIC.watch();
        make_events(&admin).await;
    }
}

/// Makes events until there are no clients.
async fn make_events(admin: &Admin) {
    let mut upstreams = HashMap::new();
    let mut gateway = gateway::Before::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = Instant::now();
    loop {
        let is_due = tokio::select! {
            biased;
            _ = ticks.tick() => true,
            () = admin.live.joined.notified() => false,
        };
        let topics = admin.live.present();
        for topic in &topics {
            // What counters have now, so that the first event of a topic has rates.
            if let Topic::Upstream(id) = topic
                && !upstreams.contains_key(id)
                && let Ok(upstream) = admin.upstream(*id)
            {
                upstreams.insert(*id, upstream::Before::of(&upstream));
            }
        }
        if !is_due {
            continue;
        }
        if topics.is_empty() {
            return;
        }
        let window = TRAFFIC.take();
        let now = Instant::now();
        let passed = now - std::mem::replace(&mut last, now);
        upstreams.retain(|id, _| topics.contains(&Topic::Upstream(*id)));
        for topic in topics {
            let event = match topic {
                Topic::Gateway => Some(gateway::event(admin, &mut gateway, &window, passed)),
                Topic::Upstream(id) => {
                    let found = admin.upstream(id).ok().zip(upstreams.get_mut(&id));
                    found.map(|(upstream, before)| {
                        upstream::event(&upstream, before, &window, passed)
                    })
                }
            };
            admin.live.send(topic, event);
        }
    }
}

/// A number for each second.
fn rate(number: u64, passed: Duration) -> f64 {
    round(number as f64 / passed.as_secs_f64().max(0.001))
}

/// To three decimal places, which is enough to be shown and short to be sent.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_clients_is_bounded() {
        let mut topics = Topics::default();
        let mut clients: Vec<_> = (0..VIEWERS)
            .map(|number| {
                let topic = match number % 2 {
                    0 => Topic::Gateway,
                    _ => Topic::Upstream(Uuid::from_u128(number as u128)),
                };
                topics.join(topic).unwrap()
            })
            .collect();
        assert!(topics.join(Topic::Gateway).is_err());
        clients.pop();
        assert!(topics.join(Topic::Gateway).is_ok());
    }

    #[tokio::test]
    async fn events_end_when_the_gateway_does() {
        let live = Live::default();
        let receiver = live.topics.lock().join(Topic::Gateway).unwrap();
        live.send(Topic::Gateway, Some(Value::from(1)));
        let (event, receiver) = next(receiver).await.unwrap();
        assert_eq!(event.unwrap(), "event: figures\ndata: 1\n\n");
        live.close();
        assert!(next(receiver).await.is_none());
        assert!(live.join(Topic::Gateway).is_err());
    }

    #[test]
    fn a_topic_without_clients_is_removed() {
        let live = Live::default();
        let receiver = live.topics.lock().join(Topic::Gateway).unwrap();
        assert_eq!(live.present(), [Topic::Gateway]);
        drop(receiver);
        assert_eq!(live.present(), []);
    }
}
