//! `POST /pointsman/simulate`: balancers on a simulated fleet, by a process of their own.
//!
//! The process is `pointsman simulate`, so the figures are those of the command. It takes at most
//! [`SIMULATION_TIMEOUT`] and [`MEMORY`], has a low priority, and ends when the client closes its
//! side. There is one at a time.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::balancers::component_of;
use super::error::Error;
use super::peer::Peer;
use super::token;
use super::{Admin, ApiEndpoint, ApiResult, BODY_LIMIT, decode};
use crate::balancer::SHIPPED;
use crate::entity::{Check, Field, Kind, Preset, Row, Shape, read_fields};
use crate::simulate;

/// Longest time of a simulation.
const SIMULATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Largest memory of a simulation, in bytes: what its process may write to (`RLIMIT_DATA`). Its
/// components reserve more addresses, which cost nothing.
const MEMORY: u64 = 1 << 30;

/// Largest outcome, in bytes.
const OUTPUT: u64 = 16 << 20;

/// Longest text of errors, in bytes.
const MESSAGES: u64 = 64 << 10;

/// Most balancers of a simulation.
const BALANCERS: usize = 16;

/// The lowest priority of a process.
const LOWEST: i32 = 19;

/// Only one simulation at a time: each may take a core.
static TURN: Semaphore = Semaphore::const_new(1);

const NAME: Field = Field::element(Shape::Any);

pub(super) const FIELDS: &[Field] = &[
    Field::string("scenario").required(),
    Field::string("text"),
    Field::array("balancers", &NAME),
    Field::integer("seed")
        .default(Preset::Integer(1))
        .check(&[Check::Between(0, 1 << 53)]),
];

pub(super) fn endpoint() -> ApiEndpoint {
    (
        "/pointsman/simulate".into(),
        get(scenarios).post(run),
        "GET, HEAD, OPTIONS, POST",
    )
}

/// The scenarios that ship, and whether the client may simulate.
async fn scenarios(State(admin): State<Admin>, headers: HeaderMap) -> Json<Value> {
    let shipped = simulate::shipped_scenarios();
    let data = shipped.map(|(name, text)| json!({ "name": name, "text": text }));
    let tokens = &admin.config.admin_access.tokens;
    Json(json!({
        "data": data.collect::<Vec<_>>(),
        "admitted": token::may_write(tokens, &headers),
    }))
}

async fn run(State(admin): State<Admin>, request: Request) -> ApiResult {
    let peer = Peer::of(&request);
    let input = decode::fields(FIELDS, request, BODY_LIMIT).await?;
    let input = read_fields(FIELDS, input).map_err(|wrong| Error::schema(&wrong))?;
    // Before anything is written for it.
    let Ok(_turn) = TURN.try_acquire() else {
        let message = "another simulation is running: try again when it has ended";
        return Err(Error::Plain(StatusCode::CONFLICT, message.into()));
    };
    let text = |field: &str| input.get(field).and_then(Value::as_str).unwrap_or_default();
    let folder = Folder::new(&admin.config.data_dir).map_err(|error| internal(&error))?;
    let scenario = match text("text") {
        "" => {
            let name = text("scenario");
            let mut shipped = simulate::shipped_scenarios();
            if !shipped.any(|(known, _)| known == name) {
                let message = "no scenario of this name ships: send its text in the field text";
                return Err(Error::field("scenario", message));
            }
            name.to_owned()
        }
        scenario => {
            let file = folder.0.join("scenario.toml");
            std::fs::write(&file, scenario).map_err(|error| internal(&error))?;
            file.to_string_lossy().into_owned()
        }
    };
    let names = balancers(&admin, &input, &folder.0)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["simulate", "--format", "json", "--seed"]);
    command.arg(
        input
            .get("seed")
            .and_then(Value::as_u64)
            .unwrap_or(1)
            .to_string(),
    );
    for name in &names {
        command.args(["--balancer", name]);
    }
    // The scenario may be a name of the client: it is never taken for a flag.
    command.arg("--").arg(&scenario);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| internal(&error))?;
    restrict(&child).map_err(|error| internal(&error))?;
    let ended = tokio::select! {
        ended = tokio::time::timeout(SIMULATION_TIMEOUT, outcome(&mut child)) => ended,
        () = left(peer) => {
            let message = "the simulation was ended, because the client has closed its side of the connection";
            return Err(Error::bad_request(message));
        }
    };
    let Ok(ended) = ended else {
        let message = format!(
            "the simulation took longer than {} s: simulate fewer requests, or use pointsman simulate",
            SIMULATION_TIMEOUT.as_secs()
        );
        return Err(Error::field("text", message));
    };
    let (status, written, said) = ended.map_err(|error| internal(&error))?;
    if written.len() as u64 > OUTPUT {
        let message = format!(
            "the outcome has more than {} MiB: simulate fewer targets, or use pointsman simulate",
            OUTPUT >> 20
        );
        return Err(Error::field("text", message));
    }
    if status.success() {
        return Ok(([(CONTENT_TYPE, "application/json")], written).into_response());
    }
    if status.signal().is_some() || lacks_memory(&said) {
        let message = format!(
            "the simulation was ended, probably because it needs more than {} MiB of memory: simulate fewer requests or targets, or use pointsman simulate",
            MEMORY >> 20
        );
        return Err(Error::field("text", message));
    }
    Err(refused(&said, &folder.0))
}

/// Ends once the client has left. The process of the simulation ends with the answer to it.
async fn left(peer: Option<Peer>) {
    match peer {
        Some(peer) => peer.leaves().await,
        None => std::future::pending().await,
    }
}

/// Reads what the process writes, up to a bound each, and waits for its end. A process that writes
/// more is ended, because it cannot write any further.
async fn outcome(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (written, said) = tokio::try_join!(read(stdout, OUTPUT + 1), read(stderr, MESSAGES))?;
    Ok((child.wait().await?, written, said))
}

/// Reads at most `most` bytes, and closes the pipe then.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most).read_to_end(&mut content).await?;
    }
    Ok(content)
}

/// Limits the memory of the process, and gives it the lowest priority, so that requests have the
/// processors first.
fn restrict(child: &Child) -> std::io::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        // It has ended already.
        return Ok(());
    };
    let limit = Rlimit {
        current: Some(MEMORY),
        maximum: Some(MEMORY),
    };
    prlimit(Some(pid), Resource::Data, limit)?;
    // Where memory is short, the system ends this process before any other.
    let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    if let Err(error) = std::fs::write(file, "1000") {
        tracing::debug!("a simulation is not the first to end where memory is short: {error}");
    }
    if let Err(error) = setpriority_process(Some(pid), LOWEST) {
        tracing::debug!("a simulation runs at the usual priority: {error}");
    }
    Ok(())
}

/// Whether the process has said that the system gave it no memory or, for want of memory, no
/// thread.
fn lacks_memory(said: &[u8]) -> bool {
    [Errno::NOMEM, Errno::AGAIN].into_iter().any(|errno| {
        let told = format!("(os error {})", errno.raw_os_error());
        said.windows(told.len()).any(|part| part == told.as_bytes())
    })
}

/// What the process has said, without the names of files of this machine.
fn refused(said: &[u8], folder: &Path) -> Error {
    let said = String::from_utf8_lossy(said);
    let folder = format!("{}/", folder.display());
    let lines = said.trim().lines();
    let lines = lines.map(|line| line.strip_prefix("pointsman: ").unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    Error::field("text", text.replace(&folder, ""))
}

/// The balancers as the command takes them: those that ship by name, others as files.
fn balancers(admin: &Admin, input: &Row, folder: &Path) -> Result<Vec<String>, Error> {
    let given = input.get("balancers").and_then(Value::as_array);
    let given = given.map(Vec::as_slice).unwrap_or_default();
    if given.len() > BALANCERS {
        let message = format!("expected {BALANCERS} balancers at most");
        return Err(Error::field("balancers", message));
    }
    let mut names = Vec::new();
    for (number, one) in given.iter().enumerate() {
        let name = one.get("name").or(Some(one)).and_then(Value::as_str);
        let wrong = || {
            Error::field(
                "balancers",
                "expected names, or objects with name and config",
            )
        };
        let name = name.ok_or_else(wrong)?;
        let config = one.get("config").filter(|config| !config.is_null());
        let is_shipped = SHIPPED.iter().any(|shipped| shipped.name == name);
        let row = admin
            .store
            .find(Kind::Balancer, &["name"], &[&name.into()])?;
        let missing = || Error::field("balancers", format!("there is no balancer {name:?}"));
        let row = row.ok_or_else(missing)?.row;
        let is_own = is_shipped && row.get("source") == Some(&"shipped".into());
        let mut text = match is_own {
            true => name.to_owned(),
            false => {
                let digest = row
                    .get("digest")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                let component = component_of(admin, name, digest)?.ok_or_else(missing)?;
                let file = folder.join(format!("{number}"));
                std::fs::create_dir_all(&file).map_err(|error| internal(&error))?;
                let file = file.join(format!("{}.wasm", plain(name)));
                std::fs::write(&file, component).map_err(|error| internal(&error))?;
                file.to_string_lossy().into_owned()
            }
        };
        if let Some(config) = config {
            text.push_str(&format!("={config}"));
        }
        names.push(text);
    }
    Ok(names)
}

/// A name that is safe in a path, and has no `=`, which ends the name of a component.
fn plain(name: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    name.chars().map(safe).collect()
}

/// Where simulations have their files.
fn folders(data_dir: &Path) -> PathBuf {
    data_dir.join("simulations")
}

/// Removes the files of simulations that a process which was killed has left.
pub(super) fn remove_left_over(data_dir: &Path) {
    match std::fs::remove_dir_all(folders(data_dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("files of an earlier simulation cannot be removed: {error}");
        }
        _ => {}
    }
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(data_dir: &Path) -> std::io::Result<Self> {
        let all = folders(data_dir);
        std::fs::create_dir_all(&all)?;
        let path = all.join(uuid::Uuid::new_v4().to_string());
        // For this user alone: components may be confidential.
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn internal(error: &std::io::Error) -> Error {
    tracing::error!("cannot simulate: {error}");
    Error::Plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "An unexpected error occurred".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_balancers_are_no_paths() {
        assert_eq!(plain("../a=b c"), "___a_b_c");
    }

    #[test]
    fn an_error_names_no_file_of_this_machine() {
        let folder = Path::new("/tmp/x");
        let error = refused(
            b"pointsman: /tmp/x/scenario.toml is not a scenario: no",
            folder,
        );
        let body = format!("{error:?}");
        assert!(
            body.contains("scenario.toml is not a scenario: no"),
            "{body}"
        );
        assert!(!body.contains("/tmp"), "{body}");
    }

    #[test]
    fn a_process_that_gets_no_memory_says_so_in_several_ways() {
        for errno in [Errno::NOMEM, Errno::AGAIN] {
            let said = format!("cannot start a thread: {}", std::io::Error::from(errno));
            assert!(lacks_memory(said.as_bytes()), "{said}");
        }
        assert!(!lacks_memory(
            b"scenario.toml: cannot read: No such file (os error 2)"
        ));
    }
}
