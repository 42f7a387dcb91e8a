//! Components to machine code, in a process of their own: a compiler can be made to take any time and
//! memory, and what it took is given back with its process.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use wasmtime::Engine;

use super::check::LoadError;
use super::engine::config;
use super::space::Space;

/// Largest address space of the compile worker, in bytes.
const MEMORY: u64 = 2 << 30;

/// Largest output that is read from it, in bytes: machine code is a small multiple of its source.
const OUTPUT: u64 = 256 << 20;

/// Largest report of what went wrong that is read from it, in bytes.
const REPORT: u64 = 16 << 10;

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
    let internal = |error: std::io::Error| LoadError::Internal(error.to_string());
    let seconds = timeout.as_secs().max(1);
    let mut child = Command::new(compiler)
        .arg("compile-worker")
        .arg(seconds.to_string())
        .arg(Space::here().name())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(internal)?;
    let stdin = child.stdin.take();
    let feed = async {
        // The worker reads all of it before it does anything else; if it dies first, its exit tells.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(component).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let ((), machine_code, said) =
            tokio::join!(feed, read(stdout, OUTPUT), read(stderr, REPORT));
        Ok((child.wait().await?, machine_code?, said?))
    };
    let (status, machine_code, said) = match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome.map_err(internal)?,
        Err(_) => return Err(LoadError::CompileTime { seconds }),
    };
    if status.success() {
        return Ok(machine_code);
    }
    let said = String::from_utf8_lossy(&said);
    match status.code() {
        Some(REFUSED) => Err(LoadError::Invalid(said.trim_end().to_owned())),
        Some(code) => Err(LoadError::Internal(format!(
            "the compiler ended with {code}: {said}"
        ))),
        // Ended by a signal: one of its limits.
        None => Err(LoadError::CompileMemory),
    }
}

/// What the worker writes, up to a bound. Past it the pipe is closed, and the worker ends by that.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most).read_to_end(&mut content).await?;
    }
    Ok(content)
}

/// Exit code of the worker for a component that does not compile.
const REFUSED: i32 = 3;

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
    let limits = [
        (Resource::As, MEMORY),
        (Resource::Cpu, seconds),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if let Err(error) = setrlimit(resource, limit) {
            eprintln!("cannot limit the compiler: {error}");
            return ExitCode::FAILURE;
        }
    }
    // What a panic says is part of the answer, and where it was helps nobody there.
    std::panic::set_hook(Box::new(|_| {}));
    let mut component = Vec::new();
    let compiled = std::io::stdin()
        .read_to_end(&mut component)
        .map_err(|error| (ExitCode::FAILURE, error.to_string()))
        .and_then(|_| {
            let engine =
                Engine::new(&config(space)).map_err(|e| (ExitCode::FAILURE, format!("{e:#}")))?;
            here(&engine, &component).map_err(|error| (ExitCode::from(3), error.to_string()))
        })
        .and_then(|machine_code| {
            std::io::stdout()
                .write_all(&machine_code)
                .map_err(|error| (ExitCode::FAILURE, error.to_string()))
        });
    match compiled {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("{error}");
            code
        }
    }
}
