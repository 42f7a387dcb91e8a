//! All that a guest can reach: nothing, behind the names that std of `wasm32-wasip2` imports.
//!
//! wasmtime-wasi serves what needs no more than an empty context (arguments, files, terminals). The
//! rest is ours. Its synchronous streams and pollables block on tokio, which panics on a thread that
//! runs tokio already, so a guest that prints or sleeps would take a worker with it; and its clocks
//! and random numbers are real, so two instances would answer differently.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::sync::filesystem::types;
use wasmtime_wasi::p2::bindings::sync::io::poll::{self, Pollable};
use wasmtime_wasi::p2::bindings::sync::io::streams::{self, InputStream, OutputStream};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::p2::{StreamError, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::{load, log, request_facts};
use super::check::{Column, Interests};
use super::facts::{self, BODY_START};
use super::output::{Output, level_of};
use crate::endpoint::{Changes, Endpoint};
use crate::split_mix;

/// Bytes that a guest may write at once.
const WRITE: u64 = 4096;

/// Random bytes that a guest may ask for at once.
const RANDOM: u64 = 4096;

/// The stream that is standard error.
const STDERR: u32 = 2;

/// What an instance may have beside a memory of the size that is set. The README says so beside that
/// setting.
const MEMORIES: usize = 1;
const TABLES: usize = 8;
const TABLE_ELEMENTS: usize = 10_000;
/// Core modules that a component is made of: one of Rust has about three.
const INSTANCES: usize = 8;

/// What the host keeps for an instance.
pub(super) struct Guest {
    context: WasiCtx,
    table: ResourceTable,
    pub(super) limits: Limits,
    pub(super) output: Output,
    /// The table that the guest was told of.
    endpoints: Arc<[Arc<Endpoint>]>,
    /// What has changed in it, once the guest has asked.
    changes: Option<Changes>,
    pub(super) ear: Ear,
    /// What the guest asks for is added here, so that it is taken note of.
    interests: Arc<Interests>,
    /// What the guest's clocks show, in microseconds: the time that the pick was handed.
    pub(super) now: u64,
    /// State of the generator behind the guest's random numbers, the same for every new instance.
    random: u64,
    /// CPU time of the thread when the running call first met its deadline.
    pub(super) overdue: Option<Overdue>,
}

/// A call that has met its deadline by the clock on the wall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overdue {
    /// CPU time of the thread then.
    pub(super) cpu: std::time::Duration,
    /// The moment.
    pub(super) at: std::time::Instant,
}

/// Who hears, or gives, the answers to a guest's questions about load.
pub(super) enum Ear {
    /// Nobody.
    Deaf,
    /// Somebody who writes down the answers of a call.
    Listening(Vec<u64>),
    /// Somebody who knows them from a trace, and gives them.
    Prompted(std::vec::IntoIter<u64>),
}

impl Guest {
    /// A guest of so many bytes at most.
    pub(super) fn new(memory: usize, output: Output, interests: Arc<Interests>) -> Self {
        Self {
            context: WasiCtx::builder().build(),
            table: ResourceTable::new(),
            limits: Limits {
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
            endpoints: Arc::new([]),
            changes: None,
            ear: Ear::Deaf,
            interests,
            now: 0,
            random: 0,
            overdue: None,
        }
    }

    /// Makes this the table that the guest's questions are about.
    pub(super) fn set_endpoints(&mut self, table: &Arc<[Arc<Endpoint>]>) {
        self.endpoints = Arc::clone(table);
        if self.changes.is_some() {
            self.changes = Some(Changes::new(Arc::clone(table)));
        }
    }

    /// Adds what the guest has asked for, and what it will, to these.
    pub(super) fn report_to(&mut self, interests: &Arc<Interests>) {
        interests.absorb(&self.interests);
        self.interests = Arc::clone(interests);
    }

    fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(split_mix::STEP);
        split_mix::finish(self.random)
    }

    fn random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        if length > RANDOM {
            wasmtime::bail!("a balancer may ask for {RANDOM} random bytes at once, not {length}");
        }
        Ok((0..length).map(|_| self.random_u64() as u8).collect())
    }
}

/// What an instance wanted more of than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Memory, of which it may have so many bytes.
    Memory(usize),
    /// A table of so many elements.
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

/// What wasmtime says where a component consists of more than its store has room for.
const TOO_MANY: &str = "resource limit exceeded: ";

/// What is wrong where that is the cause of an error.
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

/// Bounds on what an instance may hold, with a mark when it asked for more than that.
pub(super) struct Limits {
    limits: StoreLimits,
    /// Bytes that its memory may have.
    most: usize,
    pub(super) denied: Option<Denied>,
    /// Bytes that its one memory has.
    pub(super) memory: usize,
}

impl ResourceLimiter for Limits {
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

/// Links what a guest may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;
    types::add_to_linker::<Guest, WasiFilesystem>(l, Guest::filesystem)?;

    type Own = HasSelf<Guest>;
    load::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    log::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    request_facts::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    cli::stdin::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    cli::stdout::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    cli::stderr::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    clocks::monotonic_clock::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    clocks::wall_clock::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    io::error::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    poll::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    streams::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    random::random::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    random::insecure::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    random::insecure_seed::add_to_linker::<Guest, Own>(l, |guest| guest)?;
    Ok(linker)
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.context,
            table: &mut self.table,
        }
    }
}

/// What a guest is told where nothing has changed.
const NO_CHANGE: u64 = u64::MAX;

impl Guest {
    fn value(&self, column: u32, position: u32) -> wasmtime::Result<u32> {
        let Some(column) = Column::of_handle(column) else {
            wasmtime::bail!("{column} is not the handle of a column");
        };
        let Some(endpoint) = self.endpoints.get(position as usize) else {
            let length = self.endpoints.len();
            wasmtime::bail!("it looked at position {position} of a table of {length}");
        };
        Ok(column.value(endpoint, self.now))
    }

    fn change(&mut self) -> u64 {
        let endpoints = &self.endpoints;
        // Nobody else pays for it.
        let changes = (self.changes).get_or_insert_with(|| Changes::new(Arc::clone(endpoints)));
        match changes.next() {
            Some((position, in_flight)) => u64::from(position) << 32 | u64::from(in_flight),
            None => NO_CHANGE,
        }
    }

    fn pair(&self, low: u32, high: u32, position: u32) -> wasmtime::Result<u64> {
        let (low, high) = (self.value(low, position)?, self.value(high, position)?);
        Ok(u64::from(high) << 32 | u64::from(low))
    }
}

impl Guest {
    /// An answer to a question about load, which is written down or known already.
    fn answer(
        &mut self,
        live: impl FnOnce(&mut Self) -> wasmtime::Result<u64>,
    ) -> wasmtime::Result<u64> {
        if let Ear::Prompted(answers) = &mut self.ear {
            let answer = answers.next();
            return answer.ok_or_else(|| wasmtime::Error::msg("it asks more than it did"));
        }
        let answer = live(self)?;
        if let Ear::Listening(heard) = &mut self.ear {
            heard.push(answer);
        }
        Ok(answer)
    }
}

impl load::Host for Guest {
    fn read(&mut self, column: String) -> wasmtime::Result<Option<u32>> {
        let column = Column::named(&column);
        if let Some(observed) = column.and_then(Column::source) {
            self.interests.add(observed);
        }
        // It does not depend on anything, so nobody has to hear it.
        Ok(column.map(Column::handle))
    }

    fn at(&mut self, column: u32, position: u32) -> wasmtime::Result<u32> {
        let value = self.answer(|guest| guest.value(column, position).map(u64::from))?;
        Ok(value as u32)
    }

    fn at_two(
        &mut self,
        low: u32,
        high: u32,
        first: u32,
        second: u32,
    ) -> wasmtime::Result<(u64, u64)> {
        let first = self.answer(|guest| guest.pair(low, high, first))?;
        Ok((first, self.answer(|guest| guest.pair(low, high, second))?))
    }

    fn changes(&mut self) -> wasmtime::Result<(u64, u64, u64, u64)> {
        // Mostly there is none, and then nobody has to look for another three times.
        let mut last = 0;
        let mut next = || {
            self.answer(|guest| {
                if last != NO_CHANGE {
                    last = guest.change();
                }
                Ok(last)
            })
        };
        Ok((next()?, next()?, next()?, next()?))
    }
}

impl log::Host for Guest {
    fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.output.say(level_of(level), &message);
        Ok(())
    }
}

impl request_facts::Host for Guest {
    fn method(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.method()?.into_owned())).flatten())
    }

    fn path(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.path()?.into_owned())).flatten())
    }

    fn query(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.query()?.into_owned())).flatten())
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.header(&name)?.into_owned())).flatten())
    }

    fn client(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.client()?.into_owned())).flatten())
    }

    fn body_start(&mut self, most: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        let most = BODY_START.min(most as usize);
        Ok(facts::read(|facts| Some(facts.body_start(most)?.into_owned())).flatten())
    }
}

// The standard streams are numbers without anything behind them: all output goes to the log.

impl cli::stdin::Host for Guest {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<InputStream>> {
        Ok(Resource::new_own(0))
    }
}

impl cli::stdout::Host for Guest {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        Ok(Resource::new_own(1))
    }
}

impl cli::stderr::Host for Guest {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        Ok(Resource::new_own(STDERR))
    }
}

impl streams::Host for Guest {
    fn convert_stream_error(
        &mut self,
        error: StreamError,
    ) -> wasmtime::Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl streams::HostInputStream for Guest {
    fn read(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<InputStream>) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn drop(&mut self, _: Resource<InputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl streams::HostOutputStream for Guest {
    fn check_write(&mut self, _: Resource<OutputStream>) -> StreamResult<u64> {
        Ok(WRITE)
    }

    fn write(&mut self, stream: Resource<OutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if stream.rep() == STDERR {
            self.output.print_error(&bytes);
        } else {
            self.output.print(&bytes);
        }
        Ok(())
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.write(stream, bytes)
    }

    fn flush(&mut self, _: Resource<OutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<OutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn write_zeroes(&mut self, _: Resource<OutputStream>, _: u64) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        _: Resource<OutputStream>,
        _: u64,
    ) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn splice(
        &mut self,
        _: Resource<OutputStream>,
        _: Resource<InputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<OutputStream>,
        _: Resource<InputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// Whatever a guest waits for, it would wait for it with a worker.

impl poll::Host for Guest {
    fn poll(&mut self, _: Vec<Resource<Pollable>>) -> wasmtime::Result<Vec<u32>> {
        wasmtime::bail!("a balancer may not wait")
    }
}

impl poll::HostPollable for Guest {
    fn ready(&mut self, _: Resource<Pollable>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<Pollable>) -> wasmtime::Result<()> {
        wasmtime::bail!("a balancer may not wait or sleep")
    }

    fn drop(&mut self, _: Resource<Pollable>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl io::error::Host for Guest {}

impl io::error::HostError for Guest {
    fn to_debug_string(&mut self, _: Resource<io::error::Error>) -> wasmtime::Result<String> {
        Ok("closed".into())
    }

    fn drop(&mut self, _: Resource<io::error::Error>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// Time stands still within a call.

impl clocks::monotonic_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now.saturating_mul(1000))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1000)
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }
}

impl clocks::wall_clock::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: self.now / 1_000_000,
            nanoseconds: u32::try_from(self.now % 1_000_000).unwrap_or(0) * 1000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1000,
        })
    }
}

impl random::random::Host for Guest {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random_u64())
    }
}

impl random::insecure::Host for Guest {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random_u64())
    }
}

impl random::insecure_seed::Host for Guest {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_u64(), self.random_u64()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use wasmtime::Store;
    use wasmtime::component::Component;

    use super::*;
    use crate::balancer::engine::config;
    use crate::balancer::instance::fault;
    use crate::balancer::space::Space;

    /// A component of so many instances of a core module that has these sections.
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
        let mut store = Store::new(&engine, Guest::new(1 << 20, output, Arc::default()));
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(1000);
        let made = linker(&engine).unwrap().instantiate(&mut store, &component);
        made.map_or_else(
            |error| fault(&mut store, &error).to_string(),
            |_| String::new(),
        )
    }

    /// A table of funcref, `count` of them, each with so many elements (in LEB128).
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
