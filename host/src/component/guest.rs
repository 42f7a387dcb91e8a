//! The host's data of an instance, and the limits of the instance.

use std::time::{Duration, Instant};

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::output::Output;
use crate::split_mix;

/// Random bytes that a guest may ask for at once.
const RANDOM: u64 = 4096;

/// Limits of an instance besides the size of its memory, which is a setting. The README names them
/// at that setting.
const MEMORIES: usize = 1;
const TABLES: usize = 8;
const TABLE_ELEMENTS: usize = 10_000;
/// Core modules that a component consists of: one of Rust has about three.
const INSTANCES: usize = 8;

/// The host's data of an instance. `T` is the data of the interfaces that the component gets
/// besides WASI.
pub(crate) struct Guest<T> {
    context: WasiCtx,
    table: ResourceTable,
    pub(super) limits: InstanceLimits,
    pub(crate) output: Output,
    /// What the guest's clocks show, in microseconds: the time that was passed to the call.
    pub(crate) now: u64,
    /// State of the generator behind the guest's random numbers, the same for every new instance.
    random: u64,
    /// CPU time of the thread when the running call first met its deadline.
    pub(super) overdue: Option<Overdue>,
    pub(crate) own: T,
}

/// A call that has met its deadline by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overdue {
    /// CPU time of the thread then.
    pub(super) cpu: Duration,
    /// The moment.
    pub(super) at: Instant,
}

impl<T> Guest<T> {
    /// A guest with at most this much memory, in bytes.
    pub(crate) fn new(memory: usize, output: Output, own: T) -> Self {
        Self {
            context: WasiCtx::builder().build(),
            table: ResourceTable::new(),
            limits: InstanceLimits {
                limits: StoreLimitsBuilder::new()
                    .memory_size(memory)
                    .memories(MEMORIES)
                    .tables(TABLES)
                    .table_elements(TABLE_ELEMENTS)
                    .instances(INSTANCES)
                    .build(),
                most: memory,
                denied: None,
                memory: 0,
            },
            output,
            now: 0,
            random: 0,
            overdue: None,
            own,
        }
    }

    pub(super) fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(split_mix::STEP);
        split_mix::finish(self.random)
    }

    pub(super) fn random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        if length > RANDOM {
            wasmtime::bail!("a component may ask for {RANDOM} random bytes at once, not {length}");
        }
        Ok((0..length).map(|_| self.random_u64() as u8).collect())
    }
}

impl<T: Send> WasiView for Guest<T> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.context,
            table: &mut self.table,
        }
    }
}

/// A resource of which an instance wanted more than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Memory, of which it may have this many bytes.
    Memory(usize),
    /// A table of this many elements, which it wanted.
    Table(usize),
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(most) => write!(
                f,
                "it wanted more memory than it may have, which is {} KiB (setting balancer_memory)",
                most >> 10
            ),
            Self::Table(wanted) => write!(
                f,
                "it wanted a table of {wanted} elements, and one may have {TABLE_ELEMENTS}"
            ),
        }
    }
}

/// How wasmtime's message begins when a component has more parts than its store allows.
const TOO_MANY: &str = "resource limit exceeded: ";

/// The reason in words, if `cause` is such a message.
pub(super) fn too_many(cause: &str) -> Option<String> {
    let counted = cause.strip_prefix(TOO_MANY)?;
    let kind = counted.split(' ').next().unwrap_or_default();
    Some(match kind {
        "instance" => {
            format!("it consists of more than the {INSTANCES} core instances that it may have")
        }
        "memory" => format!("it has more memories than the {MEMORIES} that it may have"),
        "table" => format!("it has more tables than the {TABLES} that it may have"),
        _ => counted.to_owned(),
    })
}

/// Limits of an instance, and the last request beyond them.
pub(super) struct InstanceLimits {
    limits: StoreLimits,
    /// Largest memory, in bytes.
    most: usize,
    pub(super) denied: Option<Denied>,
    /// Present size of its one memory, in bytes.
    pub(super) memory: usize,
}

impl ResourceLimiter for InstanceLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.limits.memory_growing(current, desired, maximum)?;
        if allowed {
            self.memory = desired;
        } else {
            self.denied = Some(Denied::Memory(self.most));
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.limits.table_growing(current, desired, maximum)?;
        if !allowed {
            self.denied = Some(Denied::Table(desired));
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}
