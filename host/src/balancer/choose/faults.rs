//! Faults of a balancer's instance: what each costs, and when another instance is made.

use std::time::{Duration, Instant};

use super::{CostBudget, Inner, Slot};
use crate::balancer::fault::Fault;
use crate::component::GuestFault;

/// Time without a fault after which faults in a row count from zero again.
pub(super) const FAULT_MEMORY: Duration = Duration::from_secs(60);

/// First and longest quarantine before a faulty instance is replaced; each fault doubles it. The
/// very first replacement is made at once, unless the fault blocked a worker.
const FIRST_QUARANTINE: Duration = Duration::from_millis(100);
const LONGEST_QUARANTINE: Duration = Duration::from_secs(30);

/// After picks that took too long, or too much memory (which takes long as well), the first
/// quarantine lasts at least this many times as long as a pick may take: while the worker waited
/// for them, it could not serve requests of other upstreams.
const QUARANTINE_FACTOR: u32 = 1000;

impl Inner {
    /// Drops the instance, counts its fault, and sets when another one may be made.
    #[cold]
    pub(super) fn record_fault(&mut self, upstream: &str, fault: &Fault) {
        let now = Instant::now();
        if self.last_fault.is_none_or(|last| now - last > FAULT_MEMORY) {
            self.faults = 0;
        }
        self.last_fault = Some(now);
        let holds_up = matches!(
            fault,
            Fault::Guest(GuestFault::Deadline | GuestFault::Memory(_)) | Fault::Cost { .. }
        );
        let first = if holds_up {
            FIRST_QUARANTINE.max(self.limits.pick_timeout * QUARANTINE_FACTOR)
        } else {
            FIRST_QUARANTINE
        };
        let pause = match self.faults {
            // A first fault may never come again, so the replacement is made at once, unless the
            // fault blocked a worker.
            0 if !holds_up => Duration::ZERO,
            0 => first.min(LONGEST_QUARANTINE),
            more => (first * 2_u32.saturating_pow(more - 1)).min(LONGEST_QUARANTINE),
        };
        self.faults = (self.faults + 1).min(16);
        self.slot = Slot::Quarantined(now + pause);
        if let Some(outcomes) = &self.outcomes {
            self.generation = outcomes.begin();
        }
        // The budget was that of the dropped instance.
        self.budget = CostBudget::NEW;
        let faults = &mut self.counters.faults;
        match fault {
            Fault::Guest(GuestFault::Trap(_)) => faults.trap += 1,
            Fault::Guest(GuestFault::Deadline) => faults.deadline += 1,
            Fault::Cost { .. } => faults.cost += 1,
            Fault::Guest(GuestFault::Memory(_) | GuestFault::Limit(_)) => faults.memory += 1,
            Fault::OutOfRange { .. } => faults.out_of_range += 1,
            Fault::Configuration(_) => faults.configuration += 1,
            Fault::State(_) | Fault::StateSize { .. } => faults.state += 1,
        }
        let text = fault.to_string();
        let plugin = self.plugin.identity.name.as_str();
        let next = match pause.is_zero() {
            true => "a new instance is made at once".to_owned(),
            false => format!("fallback picks until a new instance is made in {pause:?}"),
        };
        tracing::warn!(upstream, plugin, "balancer fault: {text}; {next}");
        self.note_judged(upstream, &text);
        self.counters.last_fault = Some(text);
    }
}
