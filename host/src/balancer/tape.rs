//! The present recording of a balancer's calls and answers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::facts::RequestFacts;
use super::instance::Instance;
use super::notes::{Notes, RecordedFacts};
use super::request::PickRequest;
use crate::clock::micros;
use crate::endpoint::{EndedTry, Endpoint};
use crate::trace::{BalancerAnswer, Header, Pick, Row, Writer};

/// Bytes that are sent together, and the longest time that fewer bytes wait, in microseconds.
const PIECE: usize = 32 << 10;
const MAX_DELAY: u64 = 200_000;

/// Writes the trace, and sends it in pieces to a receiver.
pub(super) struct Tape {
    writer: Writer,
    to: Sender<Bytes>,
    limit: usize,
    /// When something was last sent, on the clock of requests.
    sent: u64,
    /// What the plugin asks about the request of the pick, if that is recorded.
    notes: Option<Mutex<Notes>>,
}

/// The recording is over: the receiver is gone or too slow, or the trace has reached its limit, or
/// one pick asked for more facts than are noted.
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

    /// Records that an instance was told of a table, with the host's answers meanwhile.
    pub(super) fn table(&mut self, fresh: bool, table: &[Arc<Endpoint>], instance: &Instance) {
        let rows = table.iter().map(|endpoint| Row {
            id: endpoint.id,
            weight: endpoint.weight,
        });
        let facts = instance.recorded_endpoint_facts();
        self.writer
            .table(fresh, rows, instance.recorded_answers(), &facts);
    }

    /// Asks a balancer for a pick, and notes what it asks about the request.
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
        (answer, tag): (BalancerAnswer, u64),
        chosen: Option<usize>,
    ) -> Result<(), Over> {
        let facts = match &mut self.notes {
            Some(notes) => notes.get_mut().take().ok_or(Over)?,
            None => Vec::new(),
        };
        let pick = Pick {
            facts,
            now: request.now,
            entropy: request.entropy,
            affinity: request.affinity,
            attempt: request.attempt,
            tag,
            ..Pick::default()
        };
        let chosen = chosen.and_then(|position| u32::try_from(position).ok());
        let before = self.writer.pending();
        self.writer.pick(&pick, load, answers, answer, chosen);
        self.pass_on(before, request.now)
    }

    /// Records that the instance was told of a try, with the host's answers meanwhile.
    pub(super) fn ended(&mut self, ended: &EndedTry, answers: &[u64]) -> Result<(), Over> {
        let before = self.writer.pending();
        self.writer.ended(ended, answers);
        self.pass_on(before, ended.now)
    }

    pub(super) fn outcome(&mut self, entropy: u64, status: u16, now: u64) -> Result<(), Over> {
        let before = self.writer.pending();
        self.writer.outcome(entropy, status, now);
        self.pass_on(before, now)
    }

    /// Sends the pending bytes, if they are enough or have waited long enough. `before` is where
    /// the last event begins. The clock is not read for this, because it is read often enough for
    /// each request: `now` is that time.
    fn pass_on(&mut self, before: usize, now: u64) -> Result<(), Over> {
        if self.writer.len() > self.limit {
            self.writer.take_back(before);
            return Err(Over);
        }
        let pending = self.writer.pending();
        if pending >= PIECE || (pending > 0 && now.saturating_sub(self.sent) >= MAX_DELAY) {
            self.sent = now;
            // If this fails, the recording ends: after a gap, the rest would be worthless.
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
        // Sends the rest. A failure does not matter any more.
        let _ = self.send();
    }
}
