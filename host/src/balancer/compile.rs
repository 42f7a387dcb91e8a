//! Components to machine code, apart from the gateway: see [`super::child`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use wasmtime::Engine;

use super::check::LoadError;
use super::child::{self, Failure, Job};
use super::engine::config;
use super::space::Space;

/// Largest address space of the compiler, in bytes.
pub(super) const MEMORY: u64 = 2 << 30;

/// Largest output that is read from it, in bytes: machine code is a small multiple of its source.
const OUTPUT: u64 = 256 << 20;

/// Compiles in this process, for programs that are no gateway.
pub(super) fn here(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, LoadError> {
    // wasmtime 48 panics where a component that holds another one needs several memories, which its
    // configuration here does not allow.
    match catch_unwind(AssertUnwindSafe(|| engine.precompile_component(component))) {
        Ok(Ok(machine_code)) => Ok(machine_code),
        Ok(Err(error)) => Err(LoadError::Invalid(format!("{error:#}"))),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(LoadError::Invalid(
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
) -> Result<Vec<u8>, LoadError> {
    let job = Job {
        program: compiler,
        command: "compile-worker",
        arguments: &[Space::here().name()],
        time: timeout,
        patience: timeout,
        answer: OUTPUT,
    };
    job.run(component).await.map_err(|failure| match failure {
        Failure::Refused(reason) => LoadError::Invalid(reason),
        Failure::Time => LoadError::CompileTime {
            seconds: job.seconds(),
        },
        Failure::Memory => LoadError::CompileMemory {
            mebibytes: MEMORY >> 20,
        },
        Failure::Internal(cause) => LoadError::Internal(cause),
    })
}

/// The compile worker: a component on standard input, machine code on standard output. Its
/// arguments are the CPU time that it may take, in seconds, and the [`Space`] that the code may count on: its
/// own is no measure.
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
            LoadError::Invalid(reason) => reason,
            other => other.to_string(),
        })
    })
}
