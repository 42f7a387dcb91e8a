//! The format of a component's bytes, and the interfaces that it imports and exports.

use thiserror::Error;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Interfaces of WASI that a component may import, without version: those that std of
/// `wasm32-wasip2` imports even if they are not used. There is nothing real behind them: no files,
/// no arguments, a clock that stands still within a call, fixed random numbers, and output that
/// goes to the log.
pub(crate) const WASI: &[&str] = &[
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

/// Why a component of any kind is refused. Each sentence says what to change.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences are the documentation")]
pub enum ComponentError {
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
    #[error("the component's config-schema is not a JSON Schema that this gateway takes: {0}")]
    Schema(String),
    #[error("the component could not be loaded, for a reason on our side: {0}")]
    Internal(String),
}

/// Whether the bytes can be a component at all. This is checked before they reach a compiler.
pub(super) fn is_component(bytes: &[u8], limit: usize) -> Result<(), ComponentError> {
    if bytes.is_empty() {
        return Err(ComponentError::Empty);
    }
    if bytes.len() > limit {
        let size = bytes.len();
        return Err(ComponentError::TooLarge { size, limit });
    }
    // The preamble: magic, version, layer (0 for a core module, 1 for a component).
    match bytes.first_chunk::<8>() {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', ..]) => Err(ComponentError::CoreModule),
        _ => Err(ComponentError::NotWasm),
    }
}

/// The interfaces that a component exports, in alphabetical order: their order in the component
/// depends on its linker.
pub(crate) fn exports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let names = ty.exports(engine).map(|(name, _)| name.to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// The interfaces that a component imports.
pub(crate) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let names = ty.imports(engine).map(|(name, _)| name.to_owned());
    names.collect()
}
