//! Compiles components to machine code, in a process apart from the gateway: see [`super::child`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel};

use super::check::ComponentError;
use super::child::{self, Failure, Job};
use super::space::Space;

/// Largest address space of the compiler, in bytes.
pub(super) const MEMORY: u64 = 2 << 30;

/// Largest output that is read from it, in bytes: machine code is a small multiple of its source.
const OUTPUT: u64 = 256 << 20;

/// Stack of a guest, in bytes: ample for a call that a request waits for, and far less than the
/// stack of a worker.
pub(super) const GUEST_STACK: usize = 256 << 10;

/// The configuration of the compiler, the same in the gateway and in its compile worker.
pub(super) fn config(space: Space) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // One thread: the cores belong to the data plane.
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(GUEST_STACK)
        // Every answer must be the same on every machine, for replay.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Features that components for the gateway do not need, and that have had security holes.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        // The gateway has no use for a backtrace of a guest's code.
        .wasm_backtrace_max_frames(None);
    space.apply(&mut config);
    config
}

/// Compiles in this process, for programs other than the gateway.
pub(super) fn here(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, ComponentError> {
    // wasmtime 48 panics where a component that holds another one needs several memories, which its
    // configuration here does not allow.
    match catch_unwind(AssertUnwindSafe(|| engine.precompile_component(component))) {
        Ok(Ok(machine_code)) => Ok(machine_code),
        Ok(Err(error)) => Err(ComponentError::Invalid(format!("{error:#}"))),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(ComponentError::Invalid(
                message.unwrap_or("the compiler gave up").into(),
            ))
        }
    }
}

/// Compiles in a process that is killed when it takes too long. `compiler` is the program whose
/// subcommand is the [`compile_worker`].
pub(super) async fn in_child(
    compiler: &Path,
    timeout: Duration,
    component: &[u8],
) -> Result<Vec<u8>, ComponentError> {
    let job = Job {
        program: compiler,
        command: "compile-worker",
        arguments: &[Space::here().name()],
        cpu_time: timeout,
        wall_time: timeout,
        max_output: OUTPUT,
    };
    job.run(component).await.map_err(|failure| match failure {
        Failure::Refused(reason) => ComponentError::Invalid(reason),
        Failure::CpuTime | Failure::WallTime => ComponentError::CompileTime {
            seconds: job.seconds(),
        },
        Failure::Memory => ComponentError::CompileMemory {
            mebibytes: MEMORY >> 20,
        },
        Failure::Internal(cause) => ComponentError::Internal(cause),
    })
}

/// The compile worker: a component on standard input, machine code on standard output. Its
/// arguments are the CPU time that it may take, in seconds, and the [`Space`] that the code may
/// count on: the worker's own address space is limited and says nothing about the gateway's.
pub fn compile_worker() -> ExitCode {
    let mut arguments = std::env::args().skip(2);
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let space = arguments.next().and_then(|name| Space::named(&name));
    let (Some(seconds), Some(space)) = (seconds, space) else {
        eprintln!("compile-worker is for the gateway's own use");
        return ExitCode::FAILURE;
    };
    child::serve(MEMORY, seconds, |component| {
        let engine = Engine::new(&config(space)).map_err(|error| format!("{error:#}"))?;
        here(&engine, &component).map_err(|error| match error {
            ComponentError::Invalid(reason) => reason,
            other => other.to_string(),
        })
    })
}
