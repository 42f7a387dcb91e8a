//! An inference server that batches: it works in steps, and each step computes parts of prompts and
//! one token of each answer that has begun. vLLM with chunked prefill works like this.

use std::collections::VecDeque;

use super::scenario::Batching;
use super::ticket::Ticket;

/// A request inside a server, in tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    /// The whole prompt.
    pub(super) prompt: u32,
    /// What of the prompt need not be computed, because it is cached.
    pub(super) cached: u32,
    /// The answer.
    pub(super) answer: u32,
}

/// What became of a request in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The first token of the answer.
    First(Ticket),
    /// A further token of it, which is not the last one.
    Further(Ticket),
    /// The last token.
    Done(Ticket),
}

/// A job that has its place in the batch and its space in the KV cache.
#[derive(Debug, Clone, Copy)]
struct Running {
    job: Job,
    /// Tokens of the prompt that are computed or cached.
    computed: u32,
    /// Tokens of the prompt that the present step computes.
    planned: u32,
    /// Tokens of the answer.
    answered: u32,
}

/// The queue and the batch of a server.
#[derive(Debug)]
pub(super) struct Batch {
    limits: Batching,
    waiting: VecDeque<Job>,
    /// In the order of admission.
    running: Vec<Running>,
    /// Tokens of KV cache that running jobs have reserved.
    reserved: u64,
    /// The work at whose end the present step is done; none if the server is idle.
    step_end: Option<f64>,
}

impl Job {
    /// Tokens of KV cache that it needs until its end.
    fn space(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.answer)
    }
}

impl Batch {
    pub(super) fn new(limits: Batching) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            running: Vec::new(),
            reserved: 0,
            step_end: None,
        }
    }

    /// Queues a job. `attained` is the work that the server has done so far, in milliseconds.
    /// An answer ends where the KV cache does.
    pub(super) fn take(&mut self, mut job: Job, attained: f64) {
        let room = self.limits.kv_tokens.saturating_sub(job.prompt.into());
        job.answer = job.answer.min(u32::try_from(room).unwrap_or(u32::MAX));
        self.waiting.push_back(job);
        if self.step_end.is_none() {
            self.begin(attained);
        }
    }

    /// Removes a job whose client has gone. The present step takes as long as before.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|job| job.ticket != ticket);
        self.running.retain(|running| {
            let stays = running.job.ticket != ticket;
            if !stays {
                self.reserved -= running.job.space();
            }
            stays
        });
    }

    /// The work at whose end the present step is done.
    pub(super) fn step_end(&self) -> Option<f64> {
        self.step_end
    }

    /// Ends the present step and begins the next one. Further tokens are listed only if `all` is
    /// set.
    pub(super) fn step(&mut self, attained: f64, all: bool) -> Vec<Progress> {
        let mut progress = Vec::new();
        for running in &mut self.running {
            let job = running.job;
            if running.computed < job.prompt {
                running.computed += std::mem::take(&mut running.planned);
                if running.computed < job.prompt {
                    continue;
                }
            }
            running.answered += 1;
            match running.answered {
                answered if answered >= job.answer => progress.push(Progress::Done(job.ticket)),
                1 => progress.push(Progress::First(job.ticket)),
                _ if all => progress.push(Progress::Further(job.ticket)),
                _ => {}
            }
        }
        let reserved = &mut self.reserved;
        self.running.retain(|running| {
            let stays = running.answered < running.job.answer;
            if !stays {
                *reserved -= running.job.space();
            }
            stays
        });
        self.begin(attained);
        progress
    }

    /// Begins a step: a token of each answer that has begun, and with what is left of the step's
    /// tokens prompts, in the order in which the jobs came.
    fn begin(&mut self, attained: f64) {
        let limits = self.limits;
        let mut left = limits.tokens;
        let (mut prompts, mut answers) = (0, 0);
        for running in &mut self.running {
            let missing = running.job.prompt - running.computed;
            if missing == 0 {
                answers += 1;
                left = left.saturating_sub(1);
            } else {
                running.planned = missing.min(left);
                left -= running.planned;
                prompts += running.planned;
            }
        }
        while left > 0
            && self.running.len() < limits.sequences as usize
            && let Some(job) = self.waiting.front().copied()
            && self.reserved + job.space() <= limits.kv_tokens
        {
            self.waiting.pop_front();
            self.reserved += job.space();
            // The last token is computed in any case, because the answer begins with it.
            let computed = job.cached.min(job.prompt - 1);
            let planned = (job.prompt - computed).min(left);
            left -= planned;
            prompts += planned;
            self.running.push(Running {
                job,
                computed,
                planned,
                answered: 0,
            });
        }
        let work = limits.step
            + f64::from(prompts) * limits.prompt_token
            + f64::from(answers) * limits.answer_token;
        self.step_end = (!self.running.is_empty()).then_some(attained + work);
    }

    /// Removes all jobs. Returns their tickets.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        let waiting = self.waiting.drain(..).map(|job| job.ticket);
        let running = self.running.drain(..).map(|running| running.job.ticket);
        let tickets = running.chain(waiting).collect();
        self.reserved = 0;
        self.step_end = None;
        tickets
    }

    /// The share of the KV cache that is reserved, and the number of jobs that wait.
    pub(super) fn report(&self) -> (f64, f64) {
        let used = self.reserved as f64 / self.limits.kv_tokens as f64;
        (used, self.waiting.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Batching = Batching {
        tokens: 100,
        sequences: 3,
        kv_tokens: 1000,
        step: 10.0,
        prompt_token: 1.0,
        answer_token: 0.5,
    };

    fn job(slot: usize, prompt: u32, answer: u32) -> Job {
        Job {
            ticket: Ticket { slot, serial: 0 },
            prompt,
            cached: 0,
            answer,
        }
    }

    /// Runs a step; returns its end and what came of it.
    fn step(batch: &mut Batch) -> Option<(f64, Vec<Progress>)> {
        let end = batch.step_end()?;
        Some((end, batch.step(end, false)))
    }

    #[test]
    fn a_long_prompt_delays_the_short_ones_behind_it() {
        let mut batch = Batch::new(LIMITS);
        batch.take(job(0, 250, 2), 0.0);
        batch.take(job(1, 10, 1), 0.0);
        let ticket = |slot| Ticket { slot, serial: 0 };
        // Two steps of a hundred tokens each, then the remaining fifty together with the short one.
        assert_eq!(step(&mut batch), Some((110.0, vec![])));
        assert_eq!(step(&mut batch), Some((220.0, vec![])));
        let both = vec![Progress::First(ticket(0)), Progress::Done(ticket(1))];
        assert_eq!(step(&mut batch), Some((290.0, both)));
        let last = vec![Progress::Done(ticket(0))];
        assert_eq!(step(&mut batch), Some((300.5, last)));
        assert_eq!(step(&mut batch), None);
    }

    #[test]
    fn what_is_cached_is_not_computed() {
        let mut batch = Batch::new(LIMITS);
        let cached = |cached| Job {
            cached,
            ..job(0, 80, 1)
        };
        batch.take(cached(60), 0.0);
        assert_eq!(batch.step_end(), Some(30.0));
        batch.clear();
        // All but the last token, also if all of it is cached.
        batch.take(cached(80), 0.0);
        assert_eq!(batch.step_end(), Some(11.0));
    }

    #[test]
    fn jobs_wait_for_a_place_and_for_space() {
        let mut batch = Batch::new(LIMITS);
        batch.take(job(0, 90, 800), 0.0);
        batch.take(job(1, 90, 100), 0.0);
        // 890 of 1,000 tokens are reserved, so the second one waits, and so does all behind it.
        batch.take(job(2, 1, 1), 0.0);
        assert_eq!(batch.report(), (0.89, 2.0));
        batch.leave(Ticket { slot: 0, serial: 0 });
        assert!(step(&mut batch).is_some());
        assert_eq!(batch.report(), (0.192, 0.0));
    }

    proptest! {
        #[test]
        fn every_job_ends_once_and_all_space_is_returned(
            jobs in prop::collection::vec((1_u32..300, 1_u32..50, 0_u32..300, any::<bool>()), 1..30),
        ) {
            let mut batch = Batch::new(LIMITS);
            let mut expected = 0;
            for (slot, (prompt, answer, cached, leaves)) in jobs.iter().copied().enumerate() {
                let job = Job { cached, ..job(slot, prompt, answer) };
                batch.take(job, batch.step_end().unwrap_or(0.0));
                if leaves {
                    batch.leave(job.ticket);
                } else {
                    expected += 1;
                }
                prop_assert!(batch.reserved <= LIMITS.kv_tokens);
            }
            let (mut done, mut end) = (Vec::new(), 0.0);
            while let Some((at, progress)) = step(&mut batch) {
                prop_assert!(at > end);
                end = at;
                prop_assert!(batch.reserved <= LIMITS.kv_tokens && batch.running.len() <= 3);
                done.extend(progress.into_iter().filter_map(|progress| match progress {
                    Progress::Done(ticket) => Some(ticket),
                    _ => None,
                }));
            }
            done.sort_unstable();
            done.dedup();
            prop_assert_eq!(done.len(), expected);
            prop_assert_eq!((batch.reserved, batch.waiting.len()), (0, 0));
        }
    }
}
