//! Work on components that must not block workers of the data plane, with bounds on how much runs
//! at a time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::check::ComponentError;
use super::child::{Failure, Job};
use super::schema::{self, SETTINGS, Schema};

/// Components that are loaded at a time; and, counted apart, calls of guests at a time that no
/// request waits for.
const QUESTIONS: usize = 8;

/// Schema workers at a time.
const SCHEMA_WORKERS: usize = 2;

/// Longest CPU time of a schema worker, and longest wait for it. As a rule it takes a millisecond.
const SCHEMA_TIME: Duration = Duration::from_secs(2);
const SCHEMA_PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of settings in one input of a worker, and its largest output, in bytes.
const QUESTION: usize = 4 << 20;
const ANSWER: u64 = 16 << 20;

/// Results that are remembered, because settings are validated again with each change of an
/// upstream.
const REMEMBERED: usize = 1024;

/// The permits for such work, and remembered results. None of the semaphores is ever closed.
pub(crate) struct Workers {
    /// The program that has the subcommand `schema-worker`; as a rule this program.
    program: PathBuf,
    pub(super) compilers: Semaphore,
    schemas: Semaphore,
    /// For reading and calling components while they are loaded.
    loads: Arc<Semaphore>,
    /// For other calls of their instances, which may wait for other work.
    questions: Arc<Semaphore>,
    /// Schemas of the components that ship, as text.
    trusted: Mutex<HashSet<String>>,
    /// Violations, by the digest of the schema and the settings.
    known: Mutex<HashMap<[u8; 32], Option<Value>>>,
}

impl Workers {
    /// Workers whose schemas are compiled by this program.
    pub(super) fn new(program: PathBuf) -> Self {
        // The cores belong to the data plane.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            program,
            compilers: Semaphore::new((cores / 2).clamp(1, 4)),
            schemas: Semaphore::new(SCHEMA_WORKERS),
            loads: Arc::new(Semaphore::new(QUESTIONS)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            trusted: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Has the gateway itself validate settings against this schema from now on, because it is one
    /// that ships with the gateway.
    pub(crate) fn trust(&self, schema: &Value) {
        self.trusted.lock().insert(schema.to_string());
    }

    fn remember(&self, key: [u8; 32], wrong: Option<Value>) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, wrong);
    }

    /// Runs work that calls an instance outside a pick, on a thread that may block. Work that has
    /// begun is finished even if the future is dropped.
    ///
    /// # Errors
    /// [`ComponentError::Internal`] if it panics.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComponentError> {
        aside(&self.questions, work).await
    }

    /// Runs work that reads and calls a component while it is loaded, on a thread that may block.
    /// It waits for no other work.
    pub(crate) async fn aside_to_load<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComponentError> {
        aside(&self.loads, work).await
    }

    /// Whether a schema can be compiled within its bounds.
    pub(crate) async fn check_schema(&self, schema: &Value) -> Result<(), ComponentError> {
        let checked = self.violations(schema, &[&Value::Null]).await;
        checked.map(drop)
    }

    /// The violations of each of these settings, by field or for the whole; none if there are none.
    /// A worker process compiles and applies the schema of a plugin, unless it is trusted.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub(crate) async fn violations(
        &self,
        schema: &Value,
        settings: &[&Value],
    ) -> Result<Vec<Option<Value>>, ComponentError> {
        let schema_text = schema.to_string();
        if self.trusted.lock().contains(&schema_text) {
            let schema = Schema::compile(schema).map_err(ComponentError::Schema)?;
            return Ok(settings
                .iter()
                .map(|one| {
                    let size = one.to_string().len();
                    too_large(size).or_else(|| schema.violations(one))
                })
                .collect());
        }
        schema::check(schema).map_err(ComponentError::Schema)?;
        let mut violations = vec![None; settings.len()];
        // The settings that a worker has to validate, with their sizes and keys.
        let mut open = Vec::new();
        for (number, one) in settings.iter().enumerate() {
            let text = one.to_string();
            if let Some(wrong) = too_large(text.len()) {
                violations[number] = Some(wrong);
                continue;
            }
            let key = Sha256::new()
                .chain_update(schema_text.len().to_be_bytes())
                .chain_update(&schema_text)
                .chain_update(&text)
                .finalize();
            let key = key.into();
            match self.known.lock().get(&key) {
                Some(known) => violations[number].clone_from(known),
                None => open.push((number, text.len(), key)),
            }
        }
        let mut open = open.into_iter().peekable();
        while open.peek().is_some() {
            let mut batch = Vec::new();
            let mut size = 0;
            while let Some((number, length, key)) = open.next_if(|_| size < QUESTION) {
                size += length;
                batch.push((number, key));
            }
            let asked: Vec<&Value> = batch.iter().map(|(number, _)| settings[*number]).collect();
            let answers = self.ask_schema_worker(schema, &asked).await?;
            for ((number, key), wrong) in batch.into_iter().zip(answers) {
                self.remember(key, wrong.clone());
                violations[number] = wrong;
            }
        }
        Ok(violations)
    }

    async fn ask_schema_worker(
        &self,
        schema: &Value,
        settings: &[&Value],
    ) -> Result<Vec<Option<Value>>, ComponentError> {
        let _turn = self.schemas.acquire().await;
        let job = Job {
            program: &self.program,
            command: "schema-worker",
            arguments: &[],
            cpu_time: SCHEMA_TIME,
            wall_time: SCHEMA_PATIENCE,
            max_output: ANSWER,
        };
        let seconds = job.seconds();
        let bytes = job.run(&schema::question(schema, settings)).await;
        let bytes = bytes.map_err(|failure| match failure {
            Failure::Refused(reason) => ComponentError::Schema(reason),
            Failure::CpuTime => ComponentError::Schema(format!(
                "to compile it and to hold settings against it takes more than {seconds} s of CPU time"
            )),
            Failure::WallTime => ComponentError::Internal(format!(
                "the machine is too busy to check a schema: that did not end within {} s",
                SCHEMA_PATIENCE.as_secs()
            )),
            Failure::Memory => ComponentError::Schema(format!(
                "to compile it and to hold settings against it takes more than {} MiB of memory",
                schema::MEMORY >> 20
            )),
            Failure::Internal(cause) => ComponentError::Internal(cause),
        })?;
        let answers = schema::answer(&bytes).map_err(ComponentError::Internal)?;
        if answers.len() != settings.len() {
            return Err(ComponentError::Internal(
                "the schema worker said too little".into(),
            ));
        }
        Ok(answers)
    }
}

/// Runs work on a thread that may block, once there is a permit for it.
async fn aside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ComponentError> {
    let place = Arc::clone(places).acquire_owned().await;
    let work = move || {
        let _place = place;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ComponentError::Internal(error.to_string()))
}

fn too_large(size: usize) -> Option<Value> {
    (size > SETTINGS)
        .then(|| format!("the settings have {size} bytes of JSON, and may have {SETTINGS}").into())
}
