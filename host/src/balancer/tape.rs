//! A recording of what a balancer is asked and answers, while one is going on.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::facts::RequestFacts;
use super::notes::{Notes, RecordedFacts};
use super::request::PickRequest;
use crate::clock::micros;
use crate::endpoint::Endpoint;
use crate::trace::{Answer, Header, Pick, Row, Writer};

/// Bytes that are sent on together, and the longest time that fewer wait, in microseconds.
const PIECE: usize = 32 << 10;
const PAUSE: u64 = 200_000;

/// Writes down what happens, in pieces for somebody who takes them away.
pub(super) struct Tape {
    writer: Writer,
    to: Sender<Bytes>,
    limit: usize,
    /// When something was last sent, on the clock of requests.
    sent: u64,
    /// What is asked about the request at hand, where that is recorded.
    notes: Option<Mutex<Notes>>,
}

/// The recording is over: nobody takes it away, not quickly enough, or it is as large as it may be,
/// or would be with what the balancer asked about one request.
pub(super) struct Over;

impl Tape {
    pub(super) fn new(
        header: &Header,
        component: &[u8],
        saved: &[u8],
        to: Sender<Bytes>,
        limit: usize,
    ) -> Self {
        Self {
            writer: Writer::new(header, component, saved),
            to,
            limit,
            sent: micros(Instant::now()),
            notes: header.facts.then(Mutex::default),
        }
    }

    pub(super) fn table(&mut self, fresh: bool, table: &[Arc<Endpoint>], answers: &[u64]) {
        let rows = table.iter().map(|endpoint| Row {
            id: endpoint.id,
            weight: endpoint.weight,
        });
        self.writer.table(fresh, rows, answers);
    }

    /// Asks a balancer for a pick, and takes note of what it asks about the request meanwhile.
    pub(super) fn record_facts<T>(
        &self,
        facts: &dyn RequestFacts,
        ask: impl FnOnce(&dyn RequestFacts) -> T,
    ) -> T {
        match &self.notes {
            Some(notes) => ask(&RecordedFacts { facts, notes }),
            None => ask(facts),
        }
    }

    pub(super) fn pick(
        &mut self,
        request: PickRequest<'_>,
        load: &[u32],
        answers: &[u64],
        answer: Answer,
        chosen: Option<usize>,
    ) -> Result<(), Over> {
        let facts = match &mut self.notes {
            Some(notes) => notes.get_mut().take().ok_or(Over)?,
            None => Vec::new(),
        };
        let handed = Pick {
            facts,
            now: request.now,
            entropy: request.entropy,
            affinity: request.affinity,
            attempt: request.attempt,
            ..Pick::default()
        };
        let chosen = chosen.and_then(|position| u32::try_from(position).ok());
        let before = self.writer.pending();
        self.writer.pick(&handed, load, answers, answer, chosen);
        self.pass_on(before, request.now)
    }

    pub(super) fn outcome(&mut self, entropy: u64, status: u16, now: u64) -> Result<(), Over> {
        let before = self.writer.pending();
        self.writer.outcome(entropy, status, now);
        self.pass_on(before, now)
    }

    /// Sends on what there is, if it is enough. `before` is where the last event begins.
    /// The clock is not read for it: that is done often enough for every request.
    fn pass_on(&mut self, before: usize, now: u64) -> Result<(), Over> {
        if self.writer.len() > self.limit {
            self.writer.take_back(before);
            return Err(Over);
        }
        let pending = self.writer.pending();
        if pending >= PIECE || (pending > 0 && now.saturating_sub(self.sent) >= PAUSE) {
            self.sent = now;
            // A gap would make the rest worthless.
            return self.send();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Over> {
        self.to
            .try_send(self.writer.take().into())
            .map_err(|_| Over)
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        // What is left; whether somebody still wants it does not matter any more.
        let _ = self.send();
    }
}
