//! One instance of a component, in a store of its own: a trap makes the store unusable, and nothing
//! else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use wasmtime::{Store, Trap, UpdateDeadline};

use super::compile::GUEST_STACK;
use super::guest::{self, Denied, Guest, Overdue};
use super::host::ComponentHost;
use crate::clock::thread_cpu_time;

/// Calls outside a pick may take this many times as long.
const LONG_CALL_FACTOR: u32 = 10;

/// A call that is past its deadline by the wall clock, but has used little CPU time, is waiting for
/// a processor. It may go on for up to this many times its deadline.
const STARVATION: u32 = 50;

/// Most memory that the host allocates for data from one call of the guest, in bytes: for the
/// strings of a description, or a message for the log.
const HOSTCALL_FUEL: usize = 1 << 20;

/// The message of wasmtime if that is exceeded.
const HOSTCALL_FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// The fault of a guest in any call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestFault {
    /// It trapped, or panicked: the cause, and its last output.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Deadline,
    /// It wanted more memory than it may have, or larger tables.
    #[error("{0}")]
    Memory(String),
    /// It consists of more parts than an instance may have, or one call passed more data to the
    /// host than it may.
    #[error("{0}")]
    Limit(String),
}

/// The error that ends a call past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
struct Late;

/// The store of one instance, and the bounds of its calls.
pub(crate) struct Sandbox<T: 'static> {
    store: Store<Guest<T>>,
    /// Ticks of the clock that a call may take.
    ticks: u64,
    /// Instructions that it may take, if they are counted.
    fuel: Option<u64>,
    /// CPU time of the last call after the tick of the clock during it, if there was one.
    overrun: Option<Duration>,
}

impl<T: 'static> Sandbox<T> {
    /// A sandbox with the instance that `instantiate` makes in it, which runs the guest's start
    /// code. A call may take `timeout` of CPU time.
    pub(crate) fn new<I>(
        host: &ComponentHost,
        guest: Guest<T>,
        timeout: Duration,
        instantiate: impl FnOnce(&mut Store<Guest<T>>) -> wasmtime::Result<I>,
    ) -> Result<(Self, I), GuestFault> {
        let mut store = Store::new(host.wasm(), guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.epoch_deadline_callback(move |mut context| {
            check_deadline(context.data_mut(), timeout)
        });
        let mut sandbox = Self {
            store,
            ticks: host.ticks(timeout),
            fuel: host.fuel(),
            overrun: None,
        };
        let instance = sandbox.call_outside_pick(instantiate)?;
        Ok((sandbox, instance))
    }

    /// Calls the guest while a request waits.
    #[inline]
    pub(crate) fn call<R>(
        &mut self,
        call: impl FnOnce(&mut Store<Guest<T>>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestFault> {
        self.call_within(1, call)
    }

    /// Calls the guest outside a pick. The call may take ten times as long.
    pub(crate) fn call_outside_pick<R>(
        &mut self,
        call: impl FnOnce(&mut Store<Guest<T>>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestFault> {
        self.call_within(LONG_CALL_FACTOR, call)
    }

    /// Calls the guest, which may return this many bytes and a little more. If it returns a little
    /// too much, the caller can report the size; anything beyond that is not copied at all.
    pub(crate) fn call_for_bytes<R>(
        &mut self,
        bytes: usize,
        call: impl FnOnce(&mut Store<Guest<T>>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestFault> {
        self.store
            .set_hostcall_fuel(bytes.saturating_add(HOSTCALL_FUEL));
        let answer = self.call_outside_pick(call);
        self.store.set_hostcall_fuel(HOSTCALL_FUEL);
        answer
    }

    #[inline]
    fn call_within<R>(
        &mut self,
        patience: u32,
        call: impl FnOnce(&mut Store<Guest<T>>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestFault> {
        // While a request waits, the deadline is checked at the next tick already, whatever the
        // call may take: see `take_overrun`.
        let first = match patience {
            1 => 1,
            more => first_check(self.ticks, more),
        };
        self.store.set_epoch_deadline(first);
        if let Some(fuel) = self.fuel {
            // This fails if the engine counts no instructions; then there is no limit to set.
            let _ = self.store.set_fuel(fuel * u64::from(patience));
        }
        // No panic of wasmtime is known here. If one occurs, it costs an instance and no worker.
        let called = catch_unwind(AssertUnwindSafe(|| call(&mut self.store)));
        let outcome = match called {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(fault(&mut self.store, &error)),
            Err(_) => Err(GuestFault::Trap("the host panicked".into())),
        };
        let guest = self.store.data_mut();
        if let Some(overdue) = guest.overdue.take() {
            let rest = thread_cpu_time().saturating_sub(overdue.cpu);
            self.overrun = (patience == 1).then_some(rest);
        }
        // If growth was denied and the guest went on, that is not the cause of a later fault.
        guest.limits.denied = None;
        guest.output.end_call();
        outcome
    }

    /// A lower bound of the CPU time of the last call that a request waited for, if the clock
    /// ticked during it. The longer a part of such a call takes, the likelier a tick falls into it,
    /// and no guest can know when one will.
    #[inline]
    pub(crate) fn take_overrun(&mut self) -> Option<Duration> {
        self.overrun.take()
    }

    /// Instructions of the last call, of an engine that counts them.
    #[cfg(test)]
    pub(crate) fn instructions(&self) -> Option<u64> {
        let left = self.store.get_fuel().ok()?;
        self.fuel?.checked_sub(left)
    }

    /// Bytes of memory that the instance has taken.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().limits.memory
    }

    /// The host's data of the instance.
    pub(crate) fn guest(&self) -> &Guest<T> {
        self.store.data()
    }

    /// The host's data of the instance, to change it between calls.
    #[inline]
    pub(crate) fn guest_mut(&mut self) -> &mut Guest<T> {
        self.store.data_mut()
    }
}

/// Ticks after which the time of a call is checked for the first time. Its CPU time counts from
/// there.
fn first_check(ticks: u64, patience: u32) -> u64 {
    let ticks = ticks.saturating_mul(u64::from(patience));
    ticks.saturating_sub(1).max(1)
}

/// Called when a deadline has passed by the wall clock. The guest is late only if it used the time:
/// on a busy machine it may not have run at all. The CPU clock is read here and nowhere else, so it
/// costs nothing while guests are quick.
fn check_deadline<T>(guest: &mut Guest<T>, timeout: Duration) -> wasmtime::Result<UpdateDeadline> {
    let cpu = thread_cpu_time();
    let Some(overdue) = guest.overdue else {
        let at = Instant::now();
        guest.overdue = Some(Overdue { cpu, at });
        return Ok(UpdateDeadline::Continue(1));
    };
    let used = cpu.saturating_sub(overdue.cpu);
    if used >= timeout || overdue.at.elapsed() >= timeout * STARVATION {
        return Err(Late.into());
    }
    Ok(UpdateDeadline::Continue(1))
}

/// The fault behind an error, with the guest's last output: the message of a panic tells more than
/// its trap.
fn fault<T>(store: &mut Store<Guest<T>>, error: &wasmtime::Error) -> GuestFault {
    let most = store.hostcall_fuel() >> 10;
    let guest = store.data_mut();
    let denied = guest.limits.denied.take();
    let trap = error.downcast_ref::<Trap>();
    if error.is::<Late>() || matches!(trap, Some(Trap::Interrupt | Trap::OutOfFuel)) {
        return GuestFault::Deadline;
    }
    let mut cause = error.root_cause().to_string();
    if let Some(reason) = guest::too_many(&cause) {
        return GuestFault::Limit(reason);
    }
    if trap == Some(&Trap::StackOverflow) {
        cause = format!("{cause}, of which it may have {} KiB", GUEST_STACK >> 10);
    }
    if cause.contains(HOSTCALL_FUEL_EXHAUSTED) {
        cause = format!("it handed over too much data in one call, more than {most} KiB");
    }
    let words = guest.output.last_words();
    match (denied, trap) {
        // The instance could not be made at all.
        (Some(denied @ Denied::Table(_)), None) => GuestFault::Limit(denied.to_string()),
        (Some(denied), _) => GuestFault::Memory(quoting(format!("{denied}: {cause}"), words)),
        (None, _) => GuestFault::Trap(quoting(cause, words)),
    }
}

fn quoting(cause: String, words: Option<String>) -> String {
    match words {
        Some(words) => format!("{cause}; it said: {words}"),
        None => cause,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use wasmtime::Engine;
    use wasmtime::component::{Component, Linker};

    use super::super::compile::config;
    use super::super::output::Output;
    use super::super::space::Space;
    use super::super::wasi::add_wasi;
    use super::*;

    /// A component of this many instances of a core module that has these sections.
    fn component(sections: &[u8], instances: u8) -> Vec<u8> {
        let module = [&b"\0asm\x01\0\0\0"[..], sections].concat();
        let made = [0, 0, 0].repeat(instances.into());
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        component.extend([1, module.len() as u8]);
        component.extend(&module);
        component.extend([2, made.len() as u8 + 1, instances]);
        component.extend(&made);
        component
    }

    fn refusal(sections: &[u8], instances: u8) -> String {
        let engine = Engine::new(&config(Space::here())).unwrap();
        let component = Component::new(&engine, component(sections, instances)).unwrap();
        let output = Output::new("", "", None);
        let mut store = Store::new(&engine, Guest::new(1 << 20, output, ()));
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(1000);
        let mut linker = Linker::new(&engine);
        add_wasi(&mut linker).unwrap();
        let made = linker.instantiate(&mut store, &component);
        made.map_or_else(
            |error| fault(&mut store, &error).to_string(),
            |_| String::new(),
        )
    }

    /// A section of `count` tables of funcref, each with this many elements (in LEB128).
    fn tables(count: u8, elements: &[u8]) -> Vec<u8> {
        let table = [&[0x70, 0][..], elements].concat();
        let tables = table.repeat(count.into());
        let mut section = vec![4, tables.len() as u8 + 1, count];
        section.extend(tables);
        section
    }

    #[test]
    fn each_limit_of_the_sandbox_is_named_where_it_is_exceeded() {
        assert_eq!(refusal(&tables(8, &[16]), 1), "");
        // 10,000 and 20,000.
        assert_eq!(refusal(&tables(1, &[0x90, 0x4e]), 1), "");
        let said = refusal(&tables(1, &[0xa0, 0x9c, 1]), 1);
        assert_eq!(
            said,
            "it wanted a table of 20000 elements, and one may have 10000"
        );
        let said = refusal(&tables(9, &[1]), 1);
        assert_eq!(said, "it has more tables than the 8 that it may have");
        let said = refusal(&[], 9);
        assert_eq!(
            said,
            "it consists of more than the 8 core instances that it may have"
        );
        // One page each; then 17 pages, which are more than 1 MiB.
        let said = refusal(&[5, 3, 1, 0, 1], 2);
        assert_eq!(said, "it has more memories than the 1 that it may have");
        let said = refusal(&[5, 3, 1, 0, 17], 1);
        assert!(
            said.starts_with("it wanted more memory than it may have, which is 1024 KiB"),
            "{said}"
        );
    }
}
