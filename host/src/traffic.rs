//! What requests do now, for live views: counts, times and samples of the present second.
//!
//! While no client watches, a request pays one relaxed load. Otherwise it adds to the shard of its
//! thread, whose lock only the reader takes as well, once a second. So do totals, which are counted
//! while a rollout is judged by them.

mod times;
mod totals;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

pub(crate) use times::Times;
pub(crate) use totals::Totals;

/// Shards. Threads beyond this number share them.
const SHARDS: usize = 32;

/// Samples of one shard and window: of requests, and of the tries of each upstream.
const SAMPLES: usize = 24;

/// Least distance of two samples, in microseconds, so that they are spread over the window.
const SPACING: u64 = 40_000;

/// Classes of the histogram: four for each doubling of microseconds, up to an hour.
const CLASSES: usize = 128;

/// The traffic of this process.
pub(crate) static TRAFFIC: Traffic = Traffic::new();

/// What is collected.
const WINDOWS: u8 = 1;
const TOTALS: u8 = 2;

/// Collects while it is watched.
pub(crate) struct Traffic {
    /// [`WINDOWS`] and [`TOTALS`], if they are collected.
    collected: AtomicU8,
    shards: [Shard; SHARDS],
}

#[repr(align(64))]
struct Shard(Mutex<Collected>);

struct Collected {
    window: Option<Window>,
    totals: Option<Totals>,
}

/// What has happened since the last window was taken.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Requests by route; `None` for those that no route matches.
    pub(crate) routes: HashMap<Option<Uuid>, Figures>,
    /// Tries by upstream.
    pub(crate) upstreams: HashMap<Arc<str>, Tries>,
    /// Some of the requests.
    pub(crate) requests: Vec<RequestSample>,
    /// Streams that have ended, by route; `None` for those that no route matches. Their times are
    /// those from their beginning to their end.
    pub(crate) streams: HashMap<Option<Uuid>, Figures>,
    /// Some of them.
    pub(crate) ended: Vec<StreamSample>,
}

/// The tries of an upstream.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// All of them.
    pub(crate) all: Figures,
    /// By the id of the endpoint.
    pub(crate) endpoints: HashMap<u64, Counts>,
    /// Some of them.
    pub(crate) samples: Vec<TrySample>,
}

/// Counts with the distribution of the times.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// How many, and how long they took.
    pub(crate) counts: Counts,
    times: Histogram,
}

/// How many, and how long they took until the head of the response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Requests or tries.
    pub(crate) number: u64,
    /// Those of them that failed: without a response, or with a status of 500 or more.
    pub(crate) errors: u64,
    /// Sum of their microseconds.
    pub(crate) sum: u64,
    /// Most microseconds of one.
    pub(crate) most: u64,
}

/// Most bytes of a text of a sample. A head may be much longer.
const TEXT: usize = 256;

/// A text of a request as a sample has it: at most [`TEXT`] bytes of it.
pub(crate) fn sampled(text: &str) -> String {
    match text.len() > TEXT {
        true => format!(
            "{}…",
            &text[..text.floor_char_boundary(TEXT - '…'.len_utf8())]
        ),
        false => text.to_owned(),
    }
}

/// A request as it is shown. It has no query and no headers, which may hold secrets.
#[derive(Debug, Clone)]
pub(crate) struct RequestSample {
    pub(crate) route: Option<Uuid>,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) client: String,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// When it was answered, on the clock of balancers, in microseconds.
    pub(crate) at: u64,
}

/// A stream that has ended, as it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamSample {
    pub(crate) route: Option<Uuid>,
    /// The address of the client, and the port that it has come to.
    pub(crate) client: IpAddr,
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    pub(crate) transport: &'static str,
    /// How it has ended, as a status of HTTP.
    pub(crate) status: u16,
    /// Bytes from the client, and to it.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) took: Duration,
    /// When it has ended, on the clock of balancers, in microseconds.
    pub(crate) at: u64,
}

/// A try as it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrySample {
    /// The endpoint.
    pub(crate) endpoint: u64,
    /// The status of the response; 0 if there was none.
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// Whether it was a trial of an endpoint that is out.
    pub(crate) is_trial: bool,
    /// When the endpoint was picked, on the clock of balancers, in microseconds.
    pub(crate) at: u64,
}

/// Ends the collection, and forgets what was collected, when it is dropped.
#[must_use]
pub(crate) struct Watching<'a>(&'a Traffic);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.collected.fetch_and(!WINDOWS, Ordering::Relaxed);
        drop(self.0.take());
    }
}

#[derive(Debug)]
struct Histogram([u32; CLASSES]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; CLASSES])
    }
}

impl Histogram {
    fn class(micros: u64) -> usize {
        let doubling = micros.max(1).ilog2();
        let quarter = match doubling {
            0..2 => 0,
            _ => micros >> (doubling - 2) & 3,
        };
        let class = u64::from(doubling) * 4 + quarter;
        usize::try_from(class).map_or(CLASSES - 1, |class| class.min(CLASSES - 1))
    }

    /// The middle of a class, in microseconds.
    fn middle(class: usize) -> f64 {
        let (doubling, quarter) = (class / 4, (class % 4) as f64);
        2_f64.powi(i32::try_from(doubling).unwrap_or(0)) * (1.0 + (quarter + 0.5) / 4.0)
    }
}

impl Counts {
    fn add(&mut self, failed: bool, took: u64) {
        self.number += 1;
        self.errors += u64::from(failed);
        self.sum = self.sum.saturating_add(took);
        self.most = self.most.max(took);
    }

    fn merge(&mut self, other: Self) {
        self.number += other.number;
        self.errors += other.errors;
        self.sum = self.sum.saturating_add(other.sum);
        self.most = self.most.max(other.most);
    }

    /// Mean time in milliseconds; none if there was nothing.
    pub(crate) fn mean_ms(&self) -> Option<f64> {
        (self.number > 0).then(|| self.sum as f64 / self.number as f64 / 1000.0)
    }
}

impl Figures {
    fn add(&mut self, failed: bool, took: Duration) {
        let took = micros(took);
        self.counts.add(failed, took);
        self.times.0[Histogram::class(took)] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.merge(other.counts);
        for (own, other) in self.times.0.iter_mut().zip(other.times.0) {
            *own += other;
        }
    }

    /// The time in milliseconds that this part of them did not exceed, to an eighth; none if there
    /// was nothing.
    pub(crate) fn quantile_ms(&self, part: f64) -> Option<f64> {
        let wanted = (self.counts.number as f64 * part).ceil().max(1.0) as u64;
        let mut passed = 0;
        let class = self.times.0.iter().position(|number| {
            passed += u64::from(*number);
            passed >= wanted
        })?;
        let most = self.counts.most as f64;
        Some(Histogram::middle(class).min(most) / 1000.0)
    }
}

impl Window {
    fn merge(&mut self, other: Self) {
        for (route, figures) in other.routes {
            self.routes.entry(route).or_default().merge(&figures);
        }
        for (upstream, tries) in other.upstreams {
            let own = self.upstreams.entry(upstream).or_default();
            own.all.merge(&tries.all);
            for (endpoint, counts) in tries.endpoints {
                own.endpoints.entry(endpoint).or_default().merge(counts);
            }
            own.samples.extend(tries.samples);
        }
        self.requests.extend(other.requests);
        for (route, figures) in other.streams {
            self.streams.entry(route).or_default().merge(&figures);
        }
        self.ended.extend(other.ended);
    }
}

impl Traffic {
    const fn new() -> Self {
        Self {
            collected: AtomicU8::new(0),
            shards: [const {
                Shard(Mutex::new(Collected {
                    window: None,
                    totals: None,
                }))
            }; SHARDS],
        }
    }

    /// Whether a client watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.collected.load(Ordering::Relaxed) & WINDOWS != 0
    }

    /// Whether requests are to be noted.
    pub(crate) fn takes_requests(&self) -> bool {
        self.collected.load(Ordering::Relaxed) != 0
    }

    /// Collects until the result is dropped. There is one at a time.
    pub(crate) fn watch(&self) -> Watching<'_> {
        // A thread may have noted something after the last watcher had forgotten all.
        drop(self.take());
        self.collected.fetch_or(WINDOWS, Ordering::Relaxed);
        Watching(self)
    }

    /// Notes a request. `sample` is called for some of them; see [`RequestSample`].
    pub(crate) fn note_request(
        &self,
        route: Option<Uuid>,
        status: u16,
        took: Duration,
        now: u64,
        sample: impl FnOnce() -> RequestSample,
    ) {
        let collected = self.collected.load(Ordering::Relaxed);
        let mut shard = self.shard().0.lock();
        if collected & TOTALS != 0 {
            let totals = shard.totals.get_or_insert_default();
            totals.add(status >= 500, took);
        }
        if collected & WINDOWS == 0 {
            return;
        }
        let window = shard.window.get_or_insert_default();
        window
            .routes
            .entry(route)
            .or_default()
            .add(status >= 500, took);
        let last = window.requests.last().map(|last| last.at);
        if window.requests.len() < SAMPLES && is_apart(last, now) {
            window.requests.push(sample());
        }
    }

    /// Notes a stream that has ended.
    pub(crate) fn note_stream(&self, sample: StreamSample) {
        let mut shard = self.shard().0.lock();
        let window = shard.window.get_or_insert_default();
        let figures = window.streams.entry(sample.route).or_default();
        figures.add(sample.status >= 400, sample.took);
        let last = window.ended.last().map(|last| last.at);
        if window.ended.len() < SAMPLES && is_apart(last, sample.at) {
            window.ended.push(sample);
        }
    }

    /// Notes a try of an upstream.
    pub(crate) fn note_try(&self, upstream: &Arc<str>, sample: TrySample) {
        let mut shard = self.shard().0.lock();
        let window = shard.window.get_or_insert_default();
        let tries = match window.upstreams.get_mut(upstream) {
            Some(tries) => tries,
            None => window.upstreams.entry(Arc::clone(upstream)).or_default(),
        };
        let failed = sample.status == 0 || sample.status >= 500;
        tries.all.add(failed, sample.took);
        let counts = tries.endpoints.entry(sample.endpoint).or_default();
        counts.add(failed, micros(sample.took));
        let last = tries.samples.last().map(|last| last.at);
        if tries.samples.len() < SAMPLES && is_apart(last, sample.at) {
            tries.samples.push(sample);
        }
    }

    /// What was collected since the last call.
    pub(crate) fn take(&self) -> Window {
        let mut whole = Window::default();
        for shard in &self.shards {
            // Merged outside the lock, so that no request waits for it.
            let taken = shard.0.lock().window.take();
            if let Some(window) = taken {
                whole.merge(window);
            }
        }
        whole
    }

    fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        &self.shards[OWN.get()]
    }
}

/// Whether a sample is far enough from the last one. Picks need not be noted in their order.
fn is_apart(last: Option<u64>, at: u64) -> bool {
    last.is_none_or(|last| at >= last.saturating_add(SPACING))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
