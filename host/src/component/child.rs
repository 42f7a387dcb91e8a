//! Work on data from a plugin, in a worker process of its own. A plugin can make such work take any
//! time and memory. The process is stopped when that is too much, and its resources are freed when
//! it ends.
//!
//! If the gateway ends, even by SIGKILL, the kernel closes its end of the worker's standard input.
//! A thread of the worker waits for that and ends the worker.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Largest error message that is read from a worker, in bytes.
const REPORT: u64 = 16 << 10;

/// Exit code of a worker that refuses its input.
const REFUSED: u8 = 3;

/// The last argument of a worker whose input has its length in front, in eight bytes, and whose
/// pipe stays open for as long as the gateway lives. Without it (tests, and runs by
/// hand), the input ends with the pipe.
const WATCHED: &str = "watched";

/// Stack of the thread that watches the gateway, in bytes: it does nothing else.
const WATCHER_STACK: usize = 128 << 10;

/// Why a worker has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It refuses its input, for this reason.
    Refused(String),
    /// It used up its CPU time.
    CpuTime,
    /// It did not end in time, although it has not used up its CPU time: the machine is busy.
    WallTime,
    /// It was ended by another signal than those of its time limit or an interruption: it ran out
    /// of memory, or of stack.
    Memory,
    /// It could not do its work, for a reason that is not in its input.
    Internal(String),
}

/// A subcommand of this program, and its limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    /// The program, as a rule this one.
    pub(super) program: &'a Path,
    /// The subcommand. Its first argument is the CPU time that it may take, in seconds.
    pub(super) command: &'a str,
    /// Its further arguments.
    pub(super) arguments: &'a [&'a str],
    /// Longest CPU time.
    pub(super) cpu_time: Duration,
    /// Longest wall-clock time: on a busy machine a worker may not run at all for a while.
    pub(super) wall_time: Duration,
    /// Largest output, in bytes.
    pub(super) max_output: u64,
}

impl Job<'_> {
    /// Whole seconds of CPU time, as the kernel counts them.
    pub(super) fn seconds(&self) -> u64 {
        self.cpu_time.as_secs().max(1)
    }

    /// Runs a worker with this input. It is killed when it takes too long, or when the future is
    /// dropped.
    pub(super) async fn run(&self, input: &[u8]) -> Result<Vec<u8>, Failure> {
        let internal = |error: std::io::Error| Failure::Internal(error.to_string());
        let mut child = Command::new(self.program)
            .arg(self.command)
            .arg(self.seconds().to_string())
            .args(self.arguments)
            .arg(WATCHED)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(internal)?;
        // Stays open until the worker has ended.
        let mut stdin = child.stdin.take();
        let feed = async {
            // The worker reads all of it before it does anything else; if it dies first, its exit
            // status says why.
            if let Some(stdin) = &mut stdin {
                let length = (input.len() as u64).to_le_bytes();
                let _ = stdin.write_all(&length).await;
                let _ = stdin.write_all(input).await;
                let _ = stdin.flush().await;
            }
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let ((), answer, said) =
                tokio::join!(feed, read(stdout, self.max_output), read(stderr, REPORT));
            Ok((child.wait().await?, answer?, said?))
        };
        let (status, answer, said) = match tokio::time::timeout(self.wall_time, work).await {
            Ok(outcome) => outcome.map_err(internal)?,
            Err(_) => return Err(Failure::WallTime),
        };
        if status.success() {
            return Ok(answer);
        }
        if answer.len() as u64 >= self.max_output {
            let most = self.max_output >> 20;
            return Err(Failure::Refused(format!(
                "its result is larger than {most} MiB"
            )));
        }
        let said = String::from_utf8_lossy(&said);
        // The soft and the hard limit are the same, so the kernel may send either.
        let out_of_time = [Signal::XCPU, Signal::KILL].map(|signal| Some(signal.as_raw()));
        let interrupted = [Signal::INT, Signal::TERM].map(|signal| Some(signal.as_raw()));
        Err(match status.code() {
            Some(code) if code == i32::from(REFUSED) => {
                Failure::Refused(said.trim_end().to_owned())
            }
            Some(code) => {
                let command = self.command;
                Failure::Internal(format!("the {command} ended with {code}: {said}"))
            }
            None if out_of_time.contains(&status.signal()) => Failure::CpuTime,
            // A terminal sends Ctrl-C to the workers as well.
            None if interrupted.contains(&status.signal()) => {
                Failure::Internal(format!("the {} was interrupted", self.command))
            }
            None => Failure::Memory,
        })
    }
}

/// Reads the output of a worker, up to a bound. Beyond it the pipe is closed, which ends the
/// worker.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most).read_to_end(&mut content).await?;
    }
    Ok(content)
}

/// The worker's side: does `work` on its standard input, in no more than `memory` bytes of address
/// space and `seconds` of CPU time. An error of `work` is a refusal.
pub(super) fn serve(
    memory: u64,
    seconds: u64,
    work: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, String>,
) -> ExitCode {
    match served(memory, seconds, work) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("{error}");
            code
        }
    }
}

fn served(
    memory: u64,
    seconds: u64,
    work: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, String>,
) -> Result<(), (ExitCode, String)> {
    let internal = |error: std::io::Error| (ExitCode::FAILURE, error.to_string());
    let limits = [
        (Resource::As, memory),
        (Resource::Cpu, seconds),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|error| internal(error.into()))?;
    }
    // The message of a panic is part of the answer. Its place in the code would not help the author
    // of the plugin.
    std::panic::set_hook(Box::new(|_| {}));
    let input = input().map_err(internal)?;
    let answer = work(input).map_err(|error| (ExitCode::from(REFUSED), error))?;
    std::io::stdout().write_all(&answer).map_err(internal)
}

/// The input of the worker. From then on it ends with the gateway.
fn input() -> std::io::Result<Vec<u8>> {
    let mut stdin = std::io::stdin();
    let mut input = Vec::new();
    if std::env::args().next_back().as_deref() != Some(WATCHED) {
        stdin.read_to_end(&mut input)?;
        return Ok(input);
    }
    let mut length = [0; 8];
    stdin.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    (&mut stdin).take(length).read_to_end(&mut input)?;
    let watch = move || {
        // No more input comes, so this returns at the end of the pipe, or with an error.
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
        // No milder way stops a compiler in another thread.
        let _ = kill_process(getpid(), Signal::KILL);
    };
    std::thread::Builder::new()
        .name("watcher".into())
        .stack_size(WATCHER_STACK)
        .spawn(watch)?;
    Ok(input)
}
