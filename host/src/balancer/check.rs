//! What a component must be to serve as a balancer.

use std::sync::atomic::{AtomicU8, Ordering};

use thiserror::Error;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::endpoint::Endpoint;

/// The interface that a balancer exports, and the one that it may.
const POLICY: &str = "pointsman:balancer/policy@1.";
const STATE: &str = "pointsman:balancer/state@1.";

/// The interface by which a balancer asks about requests.
const FACTS: &str = "pointsman:balancer/request-facts@1.";

/// Its function by which one asks for the start of a body.
const BODY_START: &str = "body-start";

/// Interfaces that a component may import, without version: what std of `wasm32-wasip2` asks for
/// whether it is used or not, beside our own. Theirs are empty behind the name: no files, no arguments, a clock
/// that stands still within a call, fixed random numbers, and output that goes to the log.
const GIVEN: &[&str] = &[
    "pointsman:balancer/load",
    "pointsman:balancer/log",
    "pointsman:balancer/request-facts",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Why a component is refused. Each sentence says what to change.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences are the documentation")]
pub enum LoadError {
    #[error("the component is empty: send the bytes of a .wasm file")]
    Empty,
    #[error(
        "the component has {size} bytes, more than the {limit} that this gateway takes (setting balancer_upload)"
    )]
    TooLarge { size: usize, limit: usize },
    #[error(
        "this is not WebAssembly: send the bytes of a component, as cargo builds it for the target wasm32-wasip2"
    )]
    NotWasm,
    #[error("this is a core module and not a component: build it for the target wasm32-wasip2")]
    CoreModule,
    #[error("the component is not valid: {0}")]
    Invalid(String),
    #[error("the component did not compile within {seconds} s (setting balancer_compile_timeout)")]
    CompileTime { seconds: u64 },
    #[error("the component needs more than {mebibytes} MiB of memory to compile")]
    CompileMemory { mebibytes: u64 },
    #[error(
        "the component lacks the interface pointsman:balancer/policy@1.0.0; it exports {}",
        list(exports)
    )]
    NoPolicy { exports: Vec<String> },
    #[error(
        "the component imports {import}, which this gateway does not give to balancers: a balancer has no network, no files and no services, only what is in its arguments"
    )]
    Capability { import: String },
    #[error("an import of the component is not what this gateway gives: {0}")]
    Imports(String),
    #[error("an interface that the component exports is not the one of that name and version: {0}")]
    Exports(String),
    #[error("the component needs more than an instance of it may have: {0}")]
    Limit(String),
    #[error("the component fails when it is asked to describe itself: {0}")]
    Describe(String),
    #[error(
        "the component asks for the load column {column:?}, which this gateway does not know; it knows {}",
        list(known)
    )]
    Column { column: String, known: Vec<String> },
    #[error("the component's config-schema is not a JSON Schema that this gateway takes: {0}")]
    Schema(String),
    #[error("the component could not be loaded, for a reason on our side: {0}")]
    Internal(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

/// Something about requests that is taken note of only where a balancer looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Observed {
    /// How long an answer took.
    Latency = 1,
    /// What the endpoint says of its load.
    Report = 2,
}

/// What a balancer looks at: asked for with every request, seldom changed.
#[derive(Debug, Default)]
pub(super) struct Interests(AtomicU8);

impl Interests {
    /// What these columns need; more may be added when a plugin looks for itself.
    pub(super) fn new(columns: &[Column]) -> Self {
        let interests = Self::default();
        interests.reset(columns);
        interests
    }

    pub(super) fn reset(&self, columns: &[Column]) {
        let sources = columns.iter().filter_map(|column| column.source());
        let all = sources.fold(0, |all, source| all | source as u8);
        self.0.store(all, Ordering::Relaxed);
    }

    pub(super) fn add(&self, observed: Observed) {
        self.0.fetch_or(observed as u8, Ordering::Relaxed);
    }

    /// Adds all that is in others.
    pub(super) fn absorb(&self, others: &Self) {
        let others = others.0.load(Ordering::Relaxed);
        self.0.fetch_or(others, Ordering::Relaxed);
    }

    pub(super) fn contains(&self, observed: Observed) -> bool {
        self.0.load(Ordering::Relaxed) & observed as u8 != 0
    }
}

/// A load column that this gateway fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Requests sent and not yet answered in full.
    InFlight,
    /// Microseconds until an answer, a moving average.
    Latency,
    /// The same at the present number of requests in flight.
    LatencyAtLoad,
    /// How much of what it can do an endpoint says that it does, in thousandths.
    ReportedLoad,
    /// Requests that it says wait inside of it.
    ReportedQueue,
}

impl Column {
    const ALL: [Self; 5] = [
        Self::InFlight,
        Self::Latency,
        Self::LatencyAtLoad,
        Self::ReportedLoad,
        Self::ReportedQueue,
    ];

    /// The name that stands for it in a description.
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Latency => "latency",
            Self::LatencyAtLoad => "latency-at-load",
            Self::ReportedLoad => "reported-load",
            Self::ReportedQueue => "reported-queue",
        }
    }

    /// The column of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// What has to be taken note of for it.
    pub(super) fn source(self) -> Option<Observed> {
        match self {
            Self::InFlight => None,
            Self::Latency | Self::LatencyAtLoad => Some(Observed::Latency),
            Self::ReportedLoad | Self::ReportedQueue => Some(Observed::Report),
        }
    }

    /// The number by which a guest refers to it.
    pub(super) fn handle(self) -> u32 {
        self as u32
    }

    /// The column of this number.
    pub(super) fn of_handle(handle: u32) -> Option<Self> {
        Self::ALL.get(handle as usize).copied()
    }

    /// What it says of an endpoint at a time.
    pub(super) fn value(self, endpoint: &Endpoint, now: u64) -> u32 {
        match self {
            Self::InFlight => endpoint.in_flight(),
            Self::Latency => endpoint.latency(now),
            Self::LatencyAtLoad => endpoint.latency_at_load(now),
            Self::ReportedLoad => endpoint.reported(now).load,
            Self::ReportedQueue => endpoint.reported(now).queue,
        }
    }
}

/// Whether the bytes can be a component at all, before any compiler sees them.
pub(super) fn is_component(bytes: &[u8], limit: usize) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > limit {
        let size = bytes.len();
        return Err(LoadError::TooLarge { size, limit });
    }
    // The preamble: magic, version, layer (0 for a core module, 1 for a component).
    match bytes.first_chunk::<8>() {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', ..]) => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

/// The interfaces that a component exports, if they and its imports are acceptable.
pub(super) fn interfaces(engine: &Engine, component: &Component) -> Result<Vec<String>, LoadError> {
    let ty = component.component_type();
    let mut exports: Vec<String> = ty
        .exports(engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    // Their order in the component is its linker's.
    exports.sort_unstable();
    if !exports.iter().any(|name| name.starts_with(POLICY)) {
        return Err(LoadError::NoPolicy { exports });
    }
    for (import, _) in ty.imports(engine) {
        let name = import.split('@').next().unwrap_or(import);
        if !GIVEN.contains(&name) {
            let import = import.to_owned();
            return Err(LoadError::Capability { import });
        }
    }
    Ok(exports)
}

/// The interfaces that a component imports.
pub(super) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Whether a component with these exports can hand its state over.
pub(super) fn hands_over(exports: &[String]) -> bool {
    exports.iter().any(|name| name.starts_with(STATE))
}

/// Whether a component asks about the requests that it chooses for.
pub(super) fn reads_facts(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    ty.imports(engine).any(|(name, _)| name.starts_with(FACTS))
}

/// Whether a component asks for the start of their bodies.
pub(super) fn reads_bodies(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    let mut facts = ty
        .imports(engine)
        .filter(|(name, _)| name.starts_with(FACTS));
    facts.any(|(_, item)| match item.ty {
        ComponentItem::ComponentInstance(facts) => facts.get_export(engine, BODY_START).is_some(),
        _ => false,
    })
}

/// The columns that a description names.
pub(super) fn columns(names: &[String]) -> Result<Vec<Column>, LoadError> {
    let known = |name: &String| {
        Column::named(name).ok_or_else(|| LoadError::Column {
            column: name.clone(),
            known: Column::ALL.map(|c| c.name().to_owned()).to_vec(),
        })
    };
    names.iter().map(known).collect()
}
