//! The frames of an HTTP/2 connection, in both directions: how many of them carry no content.
//!
//! Frames such as `PING`, `SETTINGS`, `PRIORITY` and `RST_STREAM`, and empty ones, cost the gateway
//! time, and no flow control limits them (CVE-2019-9512 to 9518). Each of them spends a part of a
//! budget that content adds to, in either direction, and that is full again at intervals. Source:
//! nginx, which compares the bytes of a connection with those of its content.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// The budget, in bytes of content.
const BUDGET: u64 = 1024 * CONTROL_FRAME;

/// What a frame without content costs, in bytes of content.
const CONTROL_FRAME: u64 = 1024;

/// Length of a frame's header, in bytes (RFC 9113, 4.1).
const HEADER: usize = 9;

/// What the frames of a connection amount to.
pub(in super::super) struct Traffic {
    budget: Cell<u64>,
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
            is_flooded: Cell::default(),
            last_sent: Cell::new(clock.get()),
            clock,
        }
    }

    /// Counts frames that were received.
    pub(in super::super) fn receive(&self, frames: &Frames) {
        let budget = self.budget.get() + frames.content;
        match budget.checked_sub(frames.control * CONTROL_FRAME) {
            Some(left) => self.budget.set(left),
            None => self.is_flooded.set(true),
        }
    }

    /// Counts frames that were sent.
    pub(in super::super) fn send(&self, frames: &Frames) {
        if frames.content > 0 {
            self.budget.set(self.budget.get() + frames.content);
            self.last_sent.set(self.clock.get());
        }
    }

    /// Fills the budget again.
    pub(in super::super) fn refill(&self) {
        self.budget.set(BUDGET);
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
}

/// Finds the frames in the bytes of one direction.
pub(in super::super) struct FrameMeter {
    /// The part of a frame's header that was received.
    header: [u8; HEADER],
    received: usize,
    /// Bytes that are left of the current frame.
    left: usize,
    is_content: bool,
}

impl FrameMeter {
    /// For bytes of which the first `skipped` are not frames.
    pub(in super::super) fn after(skipped: usize) -> Self {
        Self {
            header: [0; HEADER],
            received: 0,
            left: skipped,
            is_content: false,
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
                let [a, b, c, kind, ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                // DATA, HEADERS and CONTINUATION.
                self.is_content = self.left > 0 && matches!(kind, 0 | 1 | 9);
                frames.control += u64::from(!self.is_content);
            }
        }
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
        let traffic = Traffic::new(Rc::new(Cell::new(Instant::now())));
        let control = |control| Frames {
            control,
            content: 0,
        };
        let content = |content| Frames {
            control: 0,
            content,
        };
        traffic.receive(&control(1024));
        traffic.send(&content(CONTROL_FRAME));
        traffic.receive(&control(1));
        assert!(!traffic.is_flooded());
        traffic.receive(&content(CONTROL_FRAME - 1));
        traffic.refill();
        traffic.receive(&control(1024));
        assert!(!traffic.is_flooded());
        traffic.receive(&control(1));
        assert!(traffic.is_flooded());
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
            let (mut meter, mut found) = (FrameMeter::after(skipped), Frames::default());
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
