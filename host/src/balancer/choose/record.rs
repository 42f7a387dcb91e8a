//! Recordings of a balancer's calls and answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::{Balancer, Inner, PickRequest, Slot, Unavailable};
use crate::balancer::rerun::{answer_of, refused};
use crate::balancer::tape::Tape;
use crate::clock;
use crate::endpoint::RequestCost;
use crate::trace::{BalancerAnswer, Header};

/// What is recorded, and where it goes.
#[derive(Debug)]
pub struct Recording {
    /// Name of the balancer in this gateway.
    pub name: String,
    /// The component.
    pub component: Bytes,
    /// Receives the pieces of the trace, in order. If the receiver is too slow, or is dropped, the
    /// recording ends.
    pub to: Sender<Bytes>,
    /// Largest trace, in bytes.
    pub limit: usize,
    /// Whether the trace holds what the balancer asks about requests, with the answers.
    pub facts: bool,
}

impl Balancer {
    /// Records the calls and answers of the balancer, until [`Balancer::end_recording`] or until
    /// the receiver is dropped or too slow. The recording begins with a new instance, which takes
    /// over the state of the old one, so that the trace holds all that the instance knows. Returns
    /// the number of the recording.
    ///
    /// # Errors
    /// When the upstream is being recorded already, a canary takes a share, or the instance cannot
    /// be made.
    pub fn record(&self, recording: Recording) -> Result<u64, String> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if inner.tape.is_some() {
            return Err("it is being recorded already".into());
        }
        if inner.judged.is_some() {
            return Err(
                "a canary takes a share of the picks, and a trace is of one component: end the canary first"
                    .into(),
            );
        }
        let saved = match &mut inner.slot {
            // If saving fails, the recording starts without a state.
            Slot::Running(instance) => instance.save().unwrap_or_default(),
            Slot::Empty | Slot::Quarantined(_) => Vec::new(),
        };
        let header = Header {
            upstream: self.upstream.clone(),
            balancer: recording.name,
            digest: inner.plugin.digest.clone(),
            config: inner.config.clone(),
            started: clock::since_1970(SystemTime::now()).as_secs_f64(),
            gateway: env!("CARGO_PKG_VERSION").into(),
            reads_facts: inner.plugin.reads_facts,
            facts: recording.facts && inner.plugin.reads_facts,
            contract_1_4: inner.plugin.needs_new_trace,
        };
        let tape = Tape::new(
            &header,
            &recording.component,
            &saved,
            recording.to,
            recording.limit,
        );
        inner.tape = Some(Box::new(tape));
        inner.slot = Slot::Empty;
        if inner.fill_slot(self, &saved).is_err() {
            inner.tape = None;
            let fault = inner.counters.last_fault.clone();
            return Err(fault.unwrap_or_else(|| "the balancer has no instance".into()));
        }
        self.recorded.store(true, Ordering::Relaxed);
        self.quarantined_until.store(0, Ordering::Relaxed);
        inner.recordings += 1;
        Ok(inner.recordings)
    }

    /// Ends the recording of this number, if it is the present one.
    pub fn end_recording(&self, number: u64) {
        let mut inner = self.inner.lock();
        if inner.recordings == number {
            inner.end_recording(&self.recorded);
        }
    }

    /// Records the outcome of a pick, if a recording is running: the status of the answer, 0 if
    /// there was none, and the time of its head. `entropy` is that of the pick.
    pub fn observe_outcome(&self, entropy: u64, status: u16, now: u64) {
        if !self.recorded.load(Ordering::Relaxed) {
            return;
        }
        // A trace without some outcomes is better than a request that waits.
        let patience = Duration::from_micros(self.patience.load(Ordering::Relaxed));
        let Some(mut inner) = self.inner.try_lock_for(patience) else {
            return;
        };
        let written = (inner.tape.as_mut()).map(|tape| tape.outcome(entropy, status, now));
        if !matches!(written, Some(Ok(()))) {
            inner.end_recording(&self.recorded);
        }
    }
}

impl Inner {
    #[cold]
    pub(super) fn write_down(
        &mut self,
        recorded: &AtomicBool,
        request: PickRequest<'_>,
        answer: Result<Option<(usize, RequestCost)>, Unavailable>,
        chosen: Option<usize>,
    ) {
        let Some(tape) = &mut self.tape else {
            return;
        };
        let prepared = &self.plugin.prepared;
        let (weighs, takes_outcomes) = (prepared.weighs(), prepared.takes_outcomes());
        let answer = match answer {
            Ok(Some((position, cost))) => {
                let position = u32::try_from(position).unwrap_or(u32::MAX);
                answer_of(position, cost, weighs)
            }
            Ok(None) => refused(self.refusal),
            Err(Unavailable(_)) => BalancerAnswer::None,
        };
        let (load, answers, tag): (&[u32], &[u64], _) = match &self.slot {
            // The instance was dropped, and its recorded answers with it.
            Slot::Empty | Slot::Quarantined(_) => (&[], &[], 0),
            Slot::Running(instance) => {
                let tag = if takes_outcomes { instance.tag() } else { 0 };
                (&self.load, instance.recorded_answers(), tag)
            }
        };
        let written = tape.pick(request, load, answers, (answer, tag), chosen);
        if written.is_err() {
            self.end_recording(recorded);
        }
    }

    pub(super) fn end_recording(&mut self, recorded: &AtomicBool) {
        self.tape = None;
        recorded.store(false, Ordering::Relaxed);
    }
}
