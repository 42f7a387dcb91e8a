//! Constant load on the proxy, from several connections at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads that send requests until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

/// The outcomes of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers of status 200, by the backend that sent them.
    pub(crate) by_backend: BTreeMap<String, u64>,
    /// Answers other than 200, and requests without an answer.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Starts `clients` connections that ask for `path`.
    pub(crate) fn start(to: SocketAddr, path: &str, clients: usize) -> Self {
        Self::start_bounded(to, path, clients, usize::MAX)
    }

    /// The same with an end: each connection sends `each` requests.
    fn start_bounded(to: SocketAddr, path: &str, clients: usize, each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let tally = Arc::<Mutex<Tally>>::default();
        let threads = (0..clients).map(|_| {
            let (stop, sent, tally) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&tally));
            let url = format!("http://{to}{path}");
            std::thread::spawn(move || {
                let agent = agent();
                for _ in 0..each {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = ask(&agent, &url);
                    tally.lock().unwrap().note(answer);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            sent,
            tally,
        }
    }

    /// Sends `each` requests for `path` on each of `clients` connections, and waits for the last
    /// answer.
    pub(crate) fn run(to: SocketAddr, path: &str, clients: usize, each: usize) -> Tally {
        let mut load = Self::start_bounded(to, path, clients, each);
        load.join();
        load.take()
    }

    /// Waits until this many more requests were answered.
    pub(crate) fn wait_for(&self, requests: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < goal {
            // A loop without a pause would take one of the machine's processors from the others.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The outcomes of the requests since this was last called.
    pub(crate) fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap())
    }

    /// Stops, and returns the outcomes since [`Load::take`] was last called.
    pub(crate) fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
        self.take()
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Tally {
    fn note(&mut self, answer: Result<String, String>) {
        match answer {
            Ok(backend) => *self.by_backend.entry(backend).or_default() += 1,
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// The name of the backend that answered, or the failure.
fn ask(agent: &ureq::Agent, url: &str) -> Result<String, String> {
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let backend = answer.headers().get("x-backend").cloned();
    let body = answer.body_mut().read_to_string();
    match (status, backend, body) {
        (200, Some(backend), Ok(_)) => Ok(backend.to_str().unwrap().to_owned()),
        (status, _, body) => Err(format!("{status}: {body:?}")),
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .new_agent()
}
