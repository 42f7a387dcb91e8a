//! Constant load on the proxy, from several connections at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Threads that send requests until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What became of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers by the backend that made them.
    pub(crate) by_backend: BTreeMap<String, u64>,
    /// Answers other than 200, and requests without an answer.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Starts `clients` connections that ask for `path`.
    pub(crate) fn start(to: SocketAddr, path: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let threads = (0..clients).map(|_| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let url = format!("http://{to}{path}");
            std::thread::spawn(move || {
                let agent = agent();
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    tally.request(&agent, &url);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                tally
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            sent,
        }
    }

    /// Waits until this many more requests were answered.
    pub(crate) fn wait_for(&self, requests: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < goal {
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        for thread in self.threads {
            let tally = thread.join().unwrap();
            total.failures.extend(tally.failures);
            for (backend, count) in tally.by_backend {
                *total.by_backend.entry(backend).or_default() += count;
            }
        }
        total
    }
}

impl Tally {
    /// Sends this many requests from each of several connections.
    pub(crate) fn of(to: SocketAddr, path: &str, clients: usize, each: usize) -> Self {
        let url = format!("http://{to}{path}");
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                let url = url.clone();
                std::thread::spawn(move || {
                    let agent = agent();
                    let mut tally = Self::default();
                    for _ in 0..each {
                        tally.request(&agent, &url);
                    }
                    tally
                })
            })
            .collect();
        Load {
            stop: Arc::default(),
            sent: Arc::default(),
            threads,
        }
        .stop()
    }

    fn request(&mut self, agent: &ureq::Agent, url: &str) {
        match agent.get(url).call() {
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                let backend = answer.headers().get("x-backend").cloned();
                let body = answer.body_mut().read_to_string();
                match (status, backend, body) {
                    (200, Some(backend), Ok(_)) => {
                        let backend = backend.to_str().unwrap().to_owned();
                        *self.by_backend.entry(backend).or_default() += 1;
                    }
                    (status, _, body) => self.failures.push(format!("{status}: {body:?}")),
                }
            }
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .new_agent()
}
