//! What all components share: the compiler, the sandbox and the clock that interrupts.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, OptLevel};

use super::cache::{self, Cache};
use super::check::{self, LoadError};
use super::compile;
use super::instance::{Fault, Instance, Prepared};
use super::journal::{Journal, Journals};
use super::limits::Limits;
use super::sandbox::{self, Guest};
use super::schema::{self, Schema};
use super::shadow;
use super::space::Space;
use super::workers::{self, Workers};

/// Stack of a guest: ample for a pick, and far less than a worker's.
pub(super) const GUEST_STACK: usize = 256 << 10;

/// Instructions of a pick where these are counted: some hundred milliseconds of work.
const FUEL: u64 = 500_000_000;

/// Longest time to compile a component that ships with the gateway: a few hundred milliseconds of
/// work, even where the machine is very busy.
const SHIPPED_COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Bounds of the component host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest CPU time of a pick. A guest is stopped between one and two times later; `configure` and
    /// the like may take ten times as long.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take. What picks take beyond it is bounded over time.
    pub pick_cost: Duration,
    /// Largest memory of an instance, in bytes.
    pub memory: usize,
    /// Largest state that one instance hands over to the next, in bytes.
    pub state: usize,
    /// Largest component, in bytes.
    pub upload: usize,
    /// Longest time to compile a component.
    pub compile_timeout: Duration,
    /// Folder for compiled components; none to keep them nowhere.
    pub cache_dir: Option<PathBuf>,
    /// The program whose subcommands `compile-worker` and `schema-worker` do what takes any time, as a
    /// rule this one.
    pub compiler: PathBuf,
}

/// Why the component host cannot start.
#[derive(Debug, Error)]
pub enum Error {
    /// wasmtime does not take the configuration, as on a processor that it has no compiler for.
    #[error("the component host cannot start: {0}")]
    Engine(wasmtime::Error),
    /// No place for compiled components.
    #[error("cannot use the folder for compiled components {folder}: {cause}")]
    Cache {
        /// The folder.
        folder: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// No thread for the clock.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What all components share. One for the process.
pub struct Engine {
    pub(super) wasm: wasmtime::Engine,
    linker: Linker<Guest>,
    pub(super) settings: Settings,
    /// Time between two ticks of the epoch clock.
    pub(super) tick: Duration,
    /// Instructions that a pick may take, where these are counted.
    pub(super) fuel: Option<u64>,
    cache: Option<Cache>,
    pub(super) workers: Workers,
    /// What has been loaded and is still in use, by digest.
    loaded: Mutex<HashMap<String, Weak<Plugin>>>,
    journals: Journals,
    /// The way to those who compare.
    pub(super) shadows: shadow::Queue,
    /// Stops the epoch clock when dropped.
    _clock: Sender<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A component that was checked and is ready to be instantiated.
pub struct Plugin {
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
    /// Size of the component, in bytes.
    pub size: usize,
    /// The name that the plugin gives itself.
    pub name: String,
    /// The version that the plugin gives itself.
    pub version: String,
    /// JSON Schema of its settings.
    pub config_schema: serde_json::Value,
    /// The load columns that it asks for.
    pub columns: Vec<check::Column>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports, all of which this gateway gives.
    pub imports: Vec<String>,
    /// Whether it asks about the requests that it chooses for.
    pub(super) reads_facts: bool,
    /// Whether it asks for the start of their bodies.
    pub(super) reads_bodies: bool,
    pub(super) prepared: Prepared,
    /// Where it writes to, once it has the name that it is loaded under.
    pub(super) journal: OnceLock<Arc<Journal>>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {})", self.name, self.version)
    }
}

/// How a component is to be compiled, the same in the gateway and in its compile worker.
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
        // What a balancer has no use for, and what has had holes.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        // A backtrace of a fault in someone else's code helps nobody here.
        .wasm_backtrace_max_frames(None);
    space.apply(&mut config);
    config
}

impl Engine {
    /// Starts the component host.
    ///
    /// # Errors
    /// When the folder for compiled components cannot be made, or wasmtime cannot run here.
    pub fn new(settings: Settings) -> Result<Arc<Self>, Error> {
        Self::with(settings, None)
    }

    /// The same where calls are bounded by the instructions that they take and not by time, so that even
    /// one that takes too long ends at the same place each time: for replay and simulation. It costs a
    /// little of the speed.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn metered(settings: Settings) -> Result<Arc<Self>, Error> {
        Self::with(settings, Some(FUEL))
    }

    fn with(settings: Settings, fuel: Option<u64>) -> Result<Arc<Self>, Error> {
        let mut config = config(Space::here());
        config.consume_fuel(fuel.is_some());
        let wasm = wasmtime::Engine::new(&config).map_err(Error::Engine)?;
        let linker = sandbox::linker(&wasm).map_err(Error::Engine)?;
        let open = |folder: &PathBuf| {
            Cache::open(folder, &wasm).map_err(|cause| Error::Cache {
                folder: folder.display().to_string(),
                cause,
            })
        };
        let cache = settings.cache_dir.as_ref().map(open).transpose()?;
        let tick =
            (settings.pick_timeout / 2).clamp(Duration::from_millis(1), Duration::from_millis(10));
        let clock = start_clock(wasm.clone(), tick).map_err(Error::Thread)?;
        Ok(Arc::new(Self {
            wasm,
            linker,
            settings,
            tick,
            fuel,
            cache,
            workers: Workers::default(),
            loaded: Mutex::default(),
            journals: Journals::default(),
            shadows: shadow::Queue::default(),
            _clock: clock,
        }))
    }

    /// The bounds of an instance whose upstream asks for no others.
    pub fn limits(&self) -> Limits {
        Limits::of_gateway(&self.settings)
    }

    /// Keeps what a plugin says from now on, under the name that it is loaded under. The first name
    /// stands.
    pub fn name_plugin(&self, plugin: &Plugin, name: &str) {
        plugin.journal.get_or_init(|| self.journals.open(name));
    }

    /// What the balancer of this name has said; none if it is not in use.
    pub fn journal(&self, name: &str) -> Option<Arc<Journal>> {
        self.journals.find(name)
    }

    /// Checks a component from outside. It is compiled in a process of its own, with bounds on time
    /// and memory, unless it was compiled before; and so is its schema. All else that takes a while is
    /// done on a thread that may be kept waiting.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub async fn load(self: &Arc<Self>, component: Bytes) -> Result<Arc<Plugin>, LoadError> {
        check::is_component(&component, self.settings.upload)?;
        let timeout = self.settings.compile_timeout;
        let turns = Some(&self.workers.compilers);
        self.load_within(timeout, turns, component).await
    }

    /// Checks a component that ships with the gateway: the bounds for those from outside do not apply.
    ///
    /// # Errors
    /// As for [`Engine::load`], and only if the gateway was built wrongly.
    pub async fn load_shipped(
        self: &Arc<Self>,
        component: Bytes,
    ) -> Result<Arc<Plugin>, LoadError> {
        let plugin = self
            .load_within(SHIPPED_COMPILE_TIMEOUT, None, component)
            .await?;
        self.workers.trust(&plugin.config_schema);
        Ok(plugin)
    }

    async fn load_within(
        self: &Arc<Self>,
        timeout: Duration,
        turns: Option<&Semaphore>,
        component: Bytes,
    ) -> Result<Arc<Plugin>, LoadError> {
        let engine = Arc::clone(self);
        let bytes = component.clone();
        let loads = &self.workers.loads;
        let (digest, cached) = workers::aside(loads, move || {
            let digest = digest(&bytes);
            let cached = engine.cached(&digest);
            (digest, cached)
        })
        .await?;
        let machine_code = match cached {
            Some(_) => None,
            None => {
                // It is never closed.
                let _turn = match turns {
                    Some(turns) => turns.acquire().await.ok(),
                    None => None,
                };
                let compiler = &self.settings.compiler;
                Some(compile::in_child(compiler, timeout, &component).await?)
            }
        };
        let engine = Arc::clone(self);
        // The guest is asked to describe itself, and may take its time.
        let (plugin, machine_code) = workers::aside(loads, move || {
            let compiled = match (cached, &machine_code) {
                (Some(compiled), _) => compiled,
                (None, code) => {
                    let code = code.as_deref().unwrap_or_default();
                    cache::load(&engine.wasm, code)
                        .map_err(|error| LoadError::Internal(error.to_string()))?
                }
            };
            let plugin = engine.check(&compiled, digest, component.len())?;
            let loaded = (plugin.digest.clone(), Arc::downgrade(&plugin));
            engine.loaded.lock().extend([loaded]);
            Ok::<_, LoadError>((plugin, machine_code))
        })
        .await??;
        let Some(machine_code) = machine_code else {
            return Ok(plugin);
        };
        if turns.is_some() {
            self.check_schema(&plugin.config_schema).await?;
        }
        // What is kept has passed all of it.
        let (engine, digest) = (Arc::clone(self), plugin.digest.clone());
        let keep = move || {
            if let Some(cache) = &engine.cache {
                cache.keep(&digest, &machine_code);
            }
        };
        workers::aside(loads, keep).await?;
        Ok(plugin)
    }

    /// Checks a component that whoever runs this program brings: it is compiled here and without
    /// bounds, which no gateway can afford.
    ///
    /// # Errors
    /// As for [`Engine::load`].
    pub fn load_trusted(&self, component: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        check::is_component(component, self.settings.upload)?;
        let digest = digest(component);
        let compiled = match self.cached(&digest) {
            Some(compiled) => compiled,
            None => {
                let machine_code = compile::here(&self.wasm, component)?;
                self.keep(&digest, &machine_code)?
            }
        };
        let plugin = self.check(&compiled, digest, component.len())?;
        Schema::compile(&plugin.config_schema).map_err(LoadError::Schema)?;
        Ok(plugin)
    }

    /// Removes compiled components that no stored version has. What is just being loaded stays: its
    /// version may be about to be stored.
    pub fn sweep_cache(&self, stored: &HashSet<String>) {
        let Some(cache) = &self.cache else {
            return;
        };
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, plugin| plugin.strong_count() > 0);
        let is_wanted = |digest: &str| stored.contains(digest) || loaded.contains_key(digest);
        if let Err(error) = cache.sweep(is_wanted) {
            tracing::warn!("cannot tidy the folder for compiled components: {error}");
        }
    }

    /// Largest memory of an instance, in bytes.
    pub fn memory(&self) -> usize {
        self.settings.memory
    }

    fn cached(&self, digest: &str) -> Option<Component> {
        self.cache.as_ref()?.read(&self.wasm, digest)
    }

    fn keep(&self, digest: &str, machine_code: &[u8]) -> Result<Component, LoadError> {
        let component = match &self.cache {
            Some(cache) => cache.write(&self.wasm, digest, machine_code),
            None => cache::load(&self.wasm, machine_code),
        };
        component.map_err(|error| LoadError::Internal(error.to_string()))
    }

    fn check(
        &self,
        component: &Component,
        digest: String,
        size: usize,
    ) -> Result<Arc<Plugin>, LoadError> {
        let exports = check::interfaces(&self.wasm, component)?;
        let imports = check::imports(&self.wasm, component);
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::Imports(format!("{error:#}")))?;
        let prepared = Prepared::new(pre, check::hands_over(&exports))
            .map_err(|error| LoadError::Exports(format!("{error:#}")))?;
        let description = Instance::describe(self, &prepared, &digest)?;
        let columns = check::columns(&description.columns)?;
        let config_schema = schema::parse(&description.config_schema)?;
        Ok(Arc::new(Plugin {
            digest,
            size,
            name: description.name,
            version: description.version,
            config_schema,
            columns,
            exports,
            imports,
            reads_facts: check::reads_facts(&self.wasm, component),
            reads_bodies: check::reads_bodies(&self.wasm, component),
            prepared,
            journal: OnceLock::new(),
        }))
    }
}

/// Whether a plugin takes these settings.
///
/// # Errors
/// What it says of them, in its own words.
pub fn try_settings(engine: &Engine, plugin: &Plugin, config: &str) -> Result<(), String> {
    Instance::configure(engine, plugin, config).map_err(|fault| match fault {
        Fault::Configuration(sentence) => sentence,
        other => format!("the balancer fails on these settings: {other}"),
    })
}

/// SHA-256 of a component, in lower-case hex.
pub fn digest(component: &[u8]) -> String {
    let digest = Sha256::digest(component);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts the one clock that all deadlines are read from. It ends with the returned sender.
fn start_clock(wasm: wasmtime::Engine, tick: Duration) -> std::io::Result<Sender<()>> {
    let (sender, stopped) = channel();
    std::thread::Builder::new()
        .name("epoch".into())
        .spawn(move || {
            while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                wasm.increment_epoch();
            }
        })?;
    Ok(sender)
}
