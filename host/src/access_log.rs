//! The access log: a line for each request, when its last byte was sent.
//!
//! Workers put lines into memory and never wait: each has a buffer of its own, and one thread
//! writes the lines of all of them. If that thread is late, because a disk or a pipe takes nothing,
//! the buffers become full, and further lines are dropped and counted.

mod escape;
mod file;
mod json;
mod line;
mod output;
mod sink;
mod stream;
mod syslog;
mod text;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::clock;
use crate::config;
use crate::policy::record::Record;
use crate::priority::Background;
use sink::Sink;
pub use stream::{StreamLog, StreamWriter};
use text::Times;
pub use text::Wants;

/// Most bytes of lines that wait in the buffer of a worker.
const MOST_WAITING: usize = 4 << 20;

/// How long lines wait for others to be written with.
const BATCH: Duration = Duration::from_millis(50);

/// Number of bytes in a buffer at which the thread does not wait for more.
const FLUSH_BYTES: usize = MOST_WAITING / 8;

/// Shortest time between two log lines about lines that cannot be written.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The access log of the proxy.
#[derive(Debug)]
pub struct AccessLog {
    format: config::LogFormat,
    wants: Wants,
    shared: Arc<Shared>,
    thread: Thread,
    /// Ends when the thread has.
    ended: Mutex<Receiver<()>>,
}

/// What the workers and the thread share.
#[derive(Debug, Default)]
struct Shared {
    buffers: Mutex<Vec<Arc<Buffer>>>,
    /// Whether the thread knows that there are lines.
    is_awake: AtomicBool,
    /// Whether a buffer has so many lines that the thread does not wait for more.
    is_flush_due: AtomicBool,
    /// Whether the log has to be opened again.
    reopens: AtomicBool,
    /// Whether no further lines come.
    ends: AtomicBool,
    /// Whether the thread gives up what cannot be written at once.
    is_late: AtomicBool,
    figures: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    /// Lines that were given up, because they could not be written.
    failed: AtomicU64,
    /// Lines that were dropped, because a buffer was full.
    dropped: AtomicU64,
}

/// What has become of the lines.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Those that were written.
    pub written: u64,
    /// Those that were given up, because they could not be written.
    pub failed: u64,
    /// Those that were dropped, because a buffer was full.
    pub dropped: u64,
}

impl std::ops::Add for Figures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            failed: self.failed + other.failed,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// The lines of a worker.
#[derive(Debug, Default)]
struct Buffer(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    count: u64,
}

impl AccessLog {
    /// Opens the log, and starts its thread; `None` if requests are not logged. `syslog_socket` is
    /// the local socket of the system's log, and `dns` says how the name of a log daemon is looked
    /// up.
    ///
    /// # Errors
    /// The log cannot be opened, or the thread not be started: a sentence.
    pub fn start(
        settings: &config::AccessLog,
        syslog_socket: &Path,
        dns: &config::Dns,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(target) = &settings.target else {
            return Ok(None);
        };
        let sink = Sink::open(target, settings, syslog_socket, dns)?;
        Self::over(sink, &settings.format).map(Some)
    }

    /// Starts the thread that writes to this sink.
    fn over(sink: Sink, format: &config::LogFormat) -> Result<Arc<Self>, String> {
        let shared = Arc::<Shared>::default();
        let (ends, ended) = channel();
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                Background::Prompt.lower_this_thread();
                Writing::new(writing, sink).run();
                drop::<std::sync::mpsc::Sender<()>>(ends);
            })
            .map_err(|error| format!("cannot start the thread of the access log: {error}"))?;
        Ok(Arc::new(Self {
            wants: Wants::of(format),
            format: format.clone(),
            shared,
            thread: thread.thread().clone(),
            ended: Mutex::new(ended),
        }))
    }

    /// Where a worker puts its lines.
    pub fn writer(self: &Arc<Self>) -> Writer {
        let buffer = Arc::<Buffer>::default();
        self.shared.buffers.lock().push(Arc::clone(&buffer));
        Writer {
            log: Arc::clone(self),
            buffer,
            own: RefCell::default(),
            count: Cell::default(),
            times: RefCell::default(),
        }
    }

    /// Opens the file again, so that a file that was renamed is written no longer.
    pub fn reopen(&self) {
        self.shared.reopens.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// What has become of the lines so far.
    pub fn figures(&self) -> Figures {
        let Counters {
            written,
            failed,
            dropped,
        } = &self.shared.figures;
        Figures {
            written: written.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
        }
    }

    /// Writes the lines that still wait, for `patience` at most. Returns whether all were written
    /// or given up.
    pub fn shut_down(&self, patience: Duration) -> bool {
        self.shared.ends.store(true, Ordering::Release);
        self.thread.unpark();
        let ended = self.ended.lock().recv_timeout(patience);
        if ended == Err(RecvTimeoutError::Timeout) {
            self.shared.is_late.store(true, Ordering::Release);
            self.thread.unpark();
        }
        ended == Err(RecvTimeoutError::Disconnected)
    }

    fn wake(&self) {
        if !self.shared.is_awake.load(Ordering::Relaxed)
            && !self.shared.is_awake.swap(true, Ordering::AcqRel)
        {
            self.thread.unpark();
        }
    }
}

/// Where a worker puts the lines of its requests.
#[derive(Debug)]
pub struct Writer {
    log: Arc<AccessLog>,
    buffer: Arc<Buffer>,
    /// Lines that the thread does not see yet, as a rule only the one that is being made, and their
    /// number.
    own: RefCell<Vec<u8>>,
    count: Cell<u64>,
    times: RefCell<Times>,
}

impl Writer {
    /// What the lines need to know of requests.
    pub fn wants(&self) -> Wants {
        self.log.wants
    }

    /// Adds the line of a request that has ended at `now`.
    pub fn write(&self, record: &Record, now: Instant) {
        self.add_line(now, |own, times| match &self.log.format {
            config::LogFormat::Json => json::write(own, record, times),
            config::LogFormat::Template { parts, escape } => {
                line::write(own, parts, *escape, record, times);
            }
        });
    }

    /// Adds the line that `write` makes, without its end, of what has ended at `now`.
    fn add_line(&self, now: Instant, write: impl FnOnce(&mut Vec<u8>, &Times)) {
        let own = &mut *self.own.borrow_mut();
        if own.len() >= MOST_WAITING {
            self.log
                .shared
                .figures
                .dropped
                .fetch_add(1, Ordering::Relaxed);
        } else {
            let mut times = self.times.borrow_mut();
            times.set(clock::time_of_day(now));
            write(own, &times);
            own.push(b'\n');
            self.count.set(self.count.get() + 1);
        }
        self.hand_over(own);
    }

    /// Hands over lines that could not be handed over before, because the thread was taking others.
    pub fn flush(&self) {
        let own = &mut *self.own.borrow_mut();
        if !own.is_empty() {
            self.hand_over(own);
        }
    }

    /// Hands over the lines of the worker, unless the thread is taking others at this moment.
    fn hand_over(&self, own: &mut Vec<u8>) {
        if let Some(lines) = self.buffer.0.try_lock() {
            self.add(own, lines);
        }
    }

    fn add(&self, own: &mut Vec<u8>, mut lines: MutexGuard<'_, Lines>) {
        let waiting = lines.text.len() + own.len();
        let count = self.count.take();
        if waiting > MOST_WAITING {
            let dropped = &self.log.shared.figures.dropped;
            dropped.fetch_add(count, Ordering::Relaxed);
        } else {
            lines.text.extend_from_slice(own);
            lines.count += count;
        }
        drop(lines);
        let has_become_much = waiting > FLUSH_BYTES && waiting - own.len() <= FLUSH_BYTES;
        own.clear();
        self.log.wake();
        if has_become_much {
            self.log.shared.is_flush_due.store(true, Ordering::Release);
            self.log.thread.unpark();
        }
    }
}

impl Drop for Writer {
    /// The worker has ended: here it may wait until the thread has taken other lines.
    fn drop(&mut self) {
        let own = std::mem::take(self.own.get_mut());
        if !own.is_empty() {
            self.add(&mut { own }, self.buffer.0.lock());
        }
    }
}

/// The thread that writes the lines.
struct Writing {
    shared: Arc<Shared>,
    sink: Sink,
    /// Reused for the lines of each buffer.
    lines: Lines,
    /// When a failure was logged last.
    noted: Option<Instant>,
}

impl Writing {
    fn new(shared: Arc<Shared>, sink: Sink) -> Self {
        Self {
            shared,
            sink,
            lines: Lines::default(),
            noted: None,
        }
    }

    fn run(mut self) {
        loop {
            let ends = self.shared.ends.load(Ordering::Acquire);
            if self.shared.reopens.swap(false, Ordering::AcqRel) {
                self.sink.reopen();
            }
            // Before the lines are taken: what comes after that wakes the thread again.
            self.shared.is_flush_due.store(false, Ordering::Release);
            self.shared.is_awake.swap(false, Ordering::AcqRel);
            self.write_all();
            if ends {
                return;
            }
            self.sleep();
        }
    }

    /// Waits until there are lines, and then for others to be written with. Only the first line
    /// wakes the thread: a system call for each would cost more than to write them.
    fn sleep(&self) {
        let shared = &self.shared;
        let is_called =
            || shared.ends.load(Ordering::Acquire) || shared.reopens.load(Ordering::Acquire);
        while !shared.is_awake.load(Ordering::Acquire) {
            if is_called() {
                return;
            }
            std::thread::park();
        }
        let end = Instant::now() + BATCH;
        while !is_called() && !shared.is_flush_due.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Writes the lines of all buffers.
    fn write_all(&mut self) {
        let buffers = self.shared.buffers.lock().clone();
        for buffer in &buffers {
            std::mem::swap(&mut *buffer.0.lock(), &mut self.lines);
            if self.lines.text.is_empty() {
                continue;
            }
            let all = self.lines.count;
            let (written, result) = self.sink.write(&self.lines.text, &self.shared);
            let figures = &self.shared.figures;
            figures
                .written
                .fetch_add(written.min(all), Ordering::Relaxed);
            figures
                .failed
                .fetch_add(all.saturating_sub(written), Ordering::Relaxed);
            if let Err(error) = result {
                self.note(&error, all.saturating_sub(written));
            }
            self.lines.text.clear();
            self.lines.count = 0;
        }
        // The buffers of workers that have ended.
        if buffers.iter().any(|buffer| Arc::strong_count(buffer) == 2) {
            drop(buffers);
            let is_used = |buffer: &Arc<Buffer>| {
                Arc::strong_count(buffer) > 1 || !buffer.0.lock().text.is_empty()
            };
            self.shared.buffers.lock().retain(is_used);
        }
    }

    fn note(&mut self, error: &io::Error, lost: u64) {
        let now = Instant::now();
        if self.noted.is_none_or(|noted| now - noted >= WARN_INTERVAL) {
            self.noted = Some(now);
            let log = self.sink.name();
            tracing::warn!(
                "the access log {log} cannot be written, {lost} lines are lost (more are counted in \
                 pointsman_access_log_lines_failed_total): {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
