//! The figures of a gateway, as they come. Threads read them, so that no key waits for the network.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::{Admin, Gateway};

/// Pause before a lost connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// How often the names of routes and the list of gateways are read.
const LISTS: Duration = Duration::from_secs(5);

/// Longest event that is read, in bytes. One about thousands of targets has some hundred kilobytes.
const LONGEST: usize = 16 << 20;

/// What has come.
#[derive(Debug)]
pub(super) enum News {
    /// Figures of the gateway.
    Gateway(Value),
    /// Figures of the upstream of this name.
    Upstream(String, Value),
    /// The routes, as the Admin API lists them.
    Routes(Vec<Value>),
    /// The gateways that share the configuration; none if none can.
    Nodes(Option<Vec<Value>>),
    /// There are no figures now, and why.
    Trouble(String),
}

/// Reads the figures.
pub(super) struct Feed {
    news: Receiver<News>,
    /// The upstream whose figures are wanted.
    wanted: Arc<Mutex<Option<String>>>,
}

impl Feed {
    /// Starts to read.
    ///
    /// # Errors
    /// The address or the token cannot be used: a sentence.
    pub(super) fn start(gateway: &Gateway) -> anyhow::Result<Self> {
        let (sender, news) = channel();
        let wanted = Arc::<Mutex<Option<String>>>::default();
        let admin = gateway.admin()?;
        let to = sender.clone();
        thread::spawn(move || follow_gateway(&admin, &to));
        let admin = gateway.admin()?;
        let to = sender.clone();
        thread::spawn(move || follow_lists(&admin, &to));
        let admin = gateway.admin()?;
        let watched = Arc::clone(&wanted);
        thread::spawn(move || follow_upstream(&admin, &sender, &watched));
        Ok(Self { news, wanted })
    }

    /// Has the figures of this upstream read from now on, and of no other.
    pub(super) fn want(&self, upstream: Option<&str>) {
        let mut wanted = self.wanted.lock();
        if wanted.as_deref() != upstream {
            *wanted = upstream.map(str::to_owned);
        }
    }

    /// The next news, if there are any within this time.
    ///
    /// # Errors
    /// There will be none any more.
    pub(super) fn next(&self, within: Duration) -> anyhow::Result<Option<News>> {
        match self.news.recv_timeout(within) {
            Ok(news) => Ok(Some(news)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the figures have ended"),
        }
    }
}

/// Reads the figures of the gateway, until they are no longer wanted.
fn follow_gateway(admin: &Admin, to: &Sender<News>) {
    loop {
        let read = events(admin, "/pointsman/live", |figures| {
            to.send(News::Gateway(figures)).is_ok()
        });
        let trouble = read.err().map(|error| error.to_string());
        let trouble = trouble.unwrap_or_else(|| "the gateway has ended the figures".to_owned());
        if to.send(News::Trouble(trouble)).is_err() {
            return;
        }
        thread::sleep(RECONNECT_PAUSE);
    }
}

/// Reads the figures of the upstream that is wanted.
fn follow_upstream(admin: &Admin, to: &Sender<News>, wanted: &Mutex<Option<String>>) {
    loop {
        let name = wanted.lock().clone();
        let Some(name) = name else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let path = utf8_percent_encode(&name, NON_ALPHANUMERIC);
        let path = format!("/upstreams/{path}/live");
        let mut is_wanted = true;
        // An error is one of the gateway as well, which `follow_gateway` tells; or the upstream is
        // gone.
        let read = events(admin, &path, |figures| {
            is_wanted = wanted.lock().as_deref() == Some(&name);
            is_wanted && to.send(News::Upstream(name.clone(), figures)).is_ok()
        });
        if read.is_err() || is_wanted {
            thread::sleep(RECONNECT_PAUSE);
        }
    }
}

/// Reads what changes seldom.
fn follow_lists(admin: &Admin, to: &Sender<News>) {
    loop {
        let due = Instant::now() + LISTS;
        let rows = |listed: Option<Value>| {
            let mut listed = listed?;
            match listed.get_mut("data").map(Value::take) {
                Some(Value::Array(rows)) => Some(rows),
                _ => None,
            }
        };
        if let Ok(nodes) = admin.find("/clustering/data-planes")
            && to.send(News::Nodes(rows(nodes))).is_err()
        {
            return;
        }
        // Without an answer, routes go by their ids.
        let routes = admin.find("/routes?size=1000").ok().and_then(rows);
        if to.send(News::Routes(routes.unwrap_or_default())).is_err() {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Reads server-sent events until `take` returns false, or until there are no more.
fn events(admin: &Admin, path: &str, mut take: impl FnMut(Value) -> bool) -> anyhow::Result<()> {
    let mut lines = BufReader::new(admin.follow(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut lines, LONGEST as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(data) = line.strip_prefix(b"data: ") else {
            continue;
        };
        let Ok(figures) = serde_json::from_slice(data) else {
            bail!("the gateway sends figures that are not JSON");
        };
        if !take(figures) {
            return Ok(());
        }
    }
}
