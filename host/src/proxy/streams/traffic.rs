//! The frames of an HTTP/2 connection, in both directions: how many of them carry no content.
//!
//! Frames such as `PING`, `SETTINGS`, `PRIORITY` and `RST_STREAM`, and empty ones, cost the gateway
//! time, and no flow control limits them (CVE-2019-9512 to 9518). Each of them spends a part of a
//! budget that content adds to, in either direction, and that fills again with time. Source: nginx,
//! which compares the bytes of a connection with those of its content.
//!
//! They show as well how large the compressed form of a head or of trailers is, which h2 does not
//! tell.
//!
//! The empty `DATA` frame that ends the body of a request costs nothing: many clients end each body
//! with one, and a request has only one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The budget, in bytes of content.
const BUDGET: u64 = 1024 * CONTROL_FRAME;

/// Time in which an empty budget becomes full again.
const PERIOD: Duration = Duration::from_millis(500);

/// What a frame without content costs, in bytes of content.
const CONTROL_FRAME: u64 = 1024;

/// Length of a frame's header, in bytes (RFC 9113, 4.1).
const HEADER: usize = 9;

/// Types of frames with content (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The flag of the last frame of a stream's content.
const END_STREAM: u8 = 1;

/// The bits of a frame's header that are a stream's number; the first one is reserved.
const STREAM: u32 = u32::MAX >> 1;

/// What the frames of a connection amount to.
pub(in super::super) struct Traffic {
    budget: Cell<u64>,
    /// Until when the budget was filled.
    filled: Cell<Instant>,
    is_flooded: Cell<bool>,
    /// When content was last sent to the client.
    last_sent: Cell<Instant>,
    /// The time of the worker's last check of its connections.
    clock: Rc<Cell<Instant>>,
}

impl Traffic {
    pub(super) fn new(clock: Rc<Cell<Instant>>) -> Self {
        Self {
            budget: Cell::new(BUDGET),
            filled: Cell::new(clock.get()),
            is_flooded: Cell::default(),
            last_sent: Cell::new(clock.get()),
            clock,
        }
    }

    /// Counts frames that were received.
    pub(in super::super) fn receive(&self, frames: &Frames) {
        self.receive_at(frames, Instant::now);
    }

    /// Asks for the time only if the budget does not suffice: the worker may be late to fill it.
    fn receive_at(&self, frames: &Frames, now: impl FnOnce() -> Instant) {
        self.budget.set(self.budget.get() + frames.content);
        if !self.spend(frames) {
            self.earn(now());
            self.is_flooded.set(!self.spend(frames));
        }
    }

    /// Pays for the frames without content. Returns whether the budget suffices.
    fn spend(&self, frames: &Frames) -> bool {
        let left = (self.budget.get()).checked_sub(frames.control * CONTROL_FRAME);
        self.budget.set(left.unwrap_or(self.budget.get()));
        left.is_some()
    }

    /// Counts frames that were sent.
    pub(in super::super) fn send(&self, frames: &Frames) {
        if frames.content > 0 {
            self.budget.set(self.budget.get() + frames.content);
            self.last_sent.set(self.clock.get());
        }
    }

    /// Fills the budget by what the time has earned, until it is full.
    pub(in super::super) fn refill(&self, now: Instant) {
        self.earn(now);
        self.budget.set(self.budget.get().min(BUDGET));
    }

    /// Adds what the time since the last call has earned.
    fn earn(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled.get());
        self.filled.set(self.filled.get().max(now));
        let earned = passed.as_secs_f64() / PERIOD.as_secs_f64() * BUDGET as f64;
        self.budget
            .set(self.budget.get().saturating_add(earned as u64));
    }

    /// Whether the client has sent more frames without content than the budget allows.
    pub(in super::super) fn is_flooded(&self) -> bool {
        self.is_flooded.get()
    }

    /// When content was last sent to the client.
    pub(in super::super) fn last_sent(&self) -> Instant {
        self.last_sent.get()
    }
}

/// The frames in some bytes of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Frames {
    /// Frames that carry no content.
    control: u64,
    /// Bytes of heads, trailers and bodies.
    content: u64,
    /// Heads and trailers whose compressed form is larger than the limit of the meter.
    pub(in super::super) oversized: Vec<Oversized>,
}

/// Fields whose compressed form is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Oversized {
    /// The number of their stream.
    pub(in super::super) stream: u32,
    /// Whether the stream was opened before, so that they are trailers. Only for what a client
    /// sends.
    pub(in super::super) is_trailers: bool,
}

/// The fields that are being received: the frames of a head, or of trailers.
#[derive(Default)]
struct FieldBlock {
    stream: u32,
    is_trailers: bool,
    /// Bytes of its frames so far.
    length: usize,
}

/// Finds the frames in the bytes of one direction.
pub(in super::super) struct FrameMeter {
    /// The part of a frame's header that was received.
    header: [u8; HEADER],
    received: usize,
    /// Bytes that are left of the current frame.
    left: usize,
    is_content: bool,
    /// Requests whose body has begun and may be ended by an empty frame.
    unended: u64,
    block: FieldBlock,
    /// The highest number of a stream with a head.
    opened: u32,
    /// Most bytes of the compressed form of a head or trailers.
    max_block: usize,
}

impl FrameMeter {
    /// For bytes of which the first `skipped` are not frames. Heads and trailers of more than
    /// `max_block` bytes are reported.
    pub(in super::super) fn after(skipped: usize, max_block: usize) -> Self {
        Self {
            header: [0; HEADER],
            received: 0,
            left: skipped,
            is_content: false,
            unended: 0,
            block: FieldBlock::default(),
            opened: 0,
            max_block,
        }
    }

    /// Adds the frames in the next bytes.
    pub(in super::super) fn pass(&mut self, mut bytes: &[u8], frames: &mut Frames) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                if self.is_content {
                    frames.content += passed as u64;
                }
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER - self.received).min(bytes.len());
            self.header[self.received..][..taken].copy_from_slice(&bytes[..taken]);
            self.received += taken;
            bytes = &bytes[taken..];
            if self.received == HEADER {
                self.received = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.is_content = self.left > 0 && matches!(kind, DATA | HEADERS | CONTINUATION);
                if !self.is_content && !self.ends_body(kind, flags) {
                    frames.control += 1;
                }
                if self.is_content && kind == HEADERS && flags & END_STREAM == 0 {
                    self.unended += 1;
                }
                if matches!(kind, HEADERS | CONTINUATION) {
                    let stream = u32::from_be_bytes(stream) & STREAM;
                    frames.oversized.extend(self.add_fields(kind, stream));
                }
            }
        }
    }

    /// Adds the frame that begins to the fields of its stream. Returns them if they have become
    /// larger than the limit by it.
    fn add_fields(&mut self, kind: u8, stream: u32) -> Option<Oversized> {
        if kind == HEADERS {
            self.block = FieldBlock {
                stream,
                is_trailers: stream <= self.opened,
                length: 0,
            };
            self.opened = self.opened.max(stream);
        }
        let before = self.block.length;
        self.block.length = before.saturating_add(self.left);
        let exceeds = before <= self.max_block && self.block.length > self.max_block;
        exceeds.then_some(Oversized {
            stream: self.block.stream,
            is_trailers: self.block.is_trailers,
        })
    }

    /// Whether this empty frame ends the body of a request. As many frames may do so as requests
    /// have begun a body.
    fn ends_body(&mut self, kind: u8, flags: u8) -> bool {
        let ends = kind == DATA && flags & END_STREAM > 0 && self.unended > 0;
        self.unended -= u64::from(ends);
        ends
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let length_bytes = (length as u32).to_be_bytes();
        let mut frame = length_bytes[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEADER + length, 0xff);
        frame
    }

    #[test]
    fn only_content_pays_for_frames_without_content() {
        let start = Instant::now();
        let traffic = Traffic::new(Rc::new(Cell::new(start)));
        let content = |content| Frames {
            content,
            ..Frames::default()
        };
        let receive = |frames: Frames, at| traffic.receive_at(&frames, || at);
        receive(control(1024), start);
        traffic.send(&content(CONTROL_FRAME));
        receive(control(1), start);
        assert!(!traffic.is_flooded());
        receive(content(CONTROL_FRAME - 1), start);
        receive(control(1), start);
        assert!(traffic.is_flooded());
    }

    fn control(control: u64) -> Frames {
        Frames {
            control,
            ..Frames::default()
        }
    }

    #[test]
    fn the_budget_fills_with_time_however_late_the_worker_is() {
        let start = Instant::now();
        let traffic = Traffic::new(Rc::new(Cell::new(start)));
        for half in 0..10 {
            let at = start + half * PERIOD / 2;
            traffic.receive_at(&control(if half == 0 { 1024 } else { 512 }), || at);
            assert!(!traffic.is_flooded());
        }
        // It is never more than full.
        let later = start + 100 * PERIOD;
        traffic.refill(later);
        traffic.receive_at(&control(1024), || later);
        assert!(!traffic.is_flooded());
        traffic.receive_at(&control(1), || later);
        assert!(traffic.is_flooded());
    }

    #[test]
    fn the_empty_frame_that_ends_a_body_costs_nothing_once_for_each_request() {
        let with_flags = |kind, length, flags| {
            let mut frame = frame(kind, length);
            frame[4] = flags;
            frame
        };
        let end = with_flags(DATA, 0, END_STREAM);
        let control = |sent: &[&[u8]]| {
            let (mut meter, mut frames) = (FrameMeter::after(0, usize::MAX), Frames::default());
            meter.pass(&sent.concat(), &mut frames);
            frames.control
        };
        let (head, get) = (frame(HEADERS, 9), with_flags(HEADERS, 9, END_STREAM));
        assert_eq!(control(&[&head, &frame(DATA, 5), &end, &head, &end]), 0);
        assert_eq!(control(&[&head, &end, &end]), 1);
        assert_eq!(control(&[&get, &end]), 1);
        assert_eq!(control(&[&head, &frame(DATA, 0), &end]), 1);
    }

    #[test]
    fn fields_that_are_too_large_are_reported_once_and_as_soon_as_their_frame_begins() {
        let on = |kind, stream: u8, length| {
            let mut frame = frame(kind, length);
            frame[8] = stream;
            frame
        };
        let mut meter = FrameMeter::after(0, 100);
        let mut found = |sent: &[u8]| {
            let mut frames = Frames::default();
            meter.pass(sent, &mut frames);
            frames.oversized
        };
        let oversized = |stream, is_trailers| Oversized {
            stream,
            is_trailers,
        };
        assert_eq!(found(&on(HEADERS, 1, 100)), []);
        assert_eq!(found(&on(HEADERS, 3, 101)[..9]), [oversized(3, false)]);
        assert_eq!(found(&[0xff; 101]), []);
        assert_eq!(found(&on(DATA, 1, 200)), []);
        assert_eq!(found(&on(HEADERS, 1, 60)), []);
        assert_eq!(found(&on(CONTINUATION, 1, 40)), []);
        assert_eq!(found(&on(CONTINUATION, 1, 1)), [oversized(1, true)]);
        assert_eq!(found(&on(CONTINUATION, 1, 200)), []);
    }

    proptest! {
        #[test]
        fn the_frames_do_not_depend_on_how_the_bytes_are_cut(
            sent in prop::collection::vec((0..12_u8, 0..40_usize), 0..20),
            cuts in prop::collection::vec(1..30_usize, 1..10),
            skipped in 0..30_usize,
        ) {
            let mut bytes = vec![0xff; skipped];
            let mut expected = Frames::default();
            for (kind, length) in sent {
                bytes.extend(frame(kind, length));
                if matches!(kind, 0 | 1 | 9) && length > 0 {
                    expected.content += length as u64;
                } else {
                    expected.control += 1;
                }
            }
            let (mut meter, mut found) = (FrameMeter::after(skipped, usize::MAX), Frames::default());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                meter.pass(part, &mut found);
                rest = after;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
