//! What all components share: the compiler, the compiled components, and the epoch clock that
//! interrupts calls.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use thiserror::Error;
use wasmtime::component::Component;

use super::cache::{self, Cache};
use super::check::{self, ComponentError};
use super::compile;
use super::space::Space;
use super::workers::Workers;

/// Longest time to compile a component that ships with the gateway: a few hundred milliseconds of
/// work, even where the machine is very busy.
const SHIPPED_COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Bounds of the component host.
#[derive(Debug, Clone)]
pub(crate) struct HostSettings {
    /// Time between two ticks of the epoch clock, at which the time of calls is checked.
    pub(crate) tick: Duration,
    /// Instructions that a call may take, if they are counted and bound the call instead of time.
    /// Then even a call that takes too long ends at the same place each time. Counting makes guests
    /// a little slower.
    pub(crate) fuel: Option<u64>,
    /// Largest component, in bytes.
    pub(crate) upload: usize,
    /// Longest time to compile a component.
    pub(crate) compile_timeout: Duration,
    /// Folder for compiled components; none to keep them nowhere.
    pub(crate) cache_dir: Option<PathBuf>,
    /// The program whose subcommands `compile-worker` and `schema-worker` do the work that can take
    /// any time; as a rule this program.
    pub(crate) compiler: PathBuf,
}

/// Why the component host cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// wasmtime refuses the configuration, for example on a processor that it has no compiler for.
    #[error("the component host cannot start: {0}")]
    Engine(wasmtime::Error),
    /// The folder for compiled components cannot be used.
    #[error("cannot use the folder for compiled components {folder}: {cause}")]
    Cache {
        /// The folder.
        folder: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The thread of the epoch clock cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Where a component comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From outside: bounded in size and time, and compiled when a permit for the compiler is free.
    Uploaded,
    /// It ships with the gateway: the bounds for those from outside do not apply.
    Shipped,
}

/// A compiled component.
pub(crate) struct Compiled {
    /// SHA-256 of the component, in lower-case hex.
    pub(crate) digest: String,
    pub(crate) component: Component,
    /// Held for as long as the component is in use.
    pub(crate) in_use: InUse,
    /// The machine code that [`ComponentHost::keep`] is still to store on disk.
    machine_code: Option<Vec<u8>>,
}

impl Compiled {
    /// Whether it was compiled just now, and did not come from the cache.
    pub(crate) fn is_new(&self) -> bool {
        self.machine_code.is_some()
    }
}

/// Keeps the compiled component on disk for as long as it lives.
#[derive(Debug, Clone)]
pub(crate) struct InUse(#[expect(dead_code, reason = "only its life counts")] Arc<()>);

/// What all components share.
pub(crate) struct ComponentHost {
    wasm: wasmtime::Engine,
    settings: HostSettings,
    cache: Option<Cache>,
    workers: Workers,
    /// The components that are loaded and still in use, by digest.
    loaded: Mutex<HashMap<String, Weak<()>>>,
    /// Stops the epoch clock when dropped.
    _clock: Arc<()>,
}

impl std::fmt::Debug for ComponentHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentHost").finish_non_exhaustive()
    }
}

impl ComponentHost {
    /// Starts the component host.
    ///
    /// # Errors
    /// When the folder for compiled components cannot be made, or wasmtime cannot run here.
    pub(crate) fn new(settings: HostSettings) -> Result<Arc<Self>, StartError> {
        let mut config = compile::config(Space::here());
        config.consume_fuel(settings.fuel.is_some());
        let wasm = wasmtime::Engine::new(&config).map_err(StartError::Engine)?;
        let open = |folder: &PathBuf| {
            Cache::open(folder, &wasm).map_err(|cause| StartError::Cache {
                folder: folder.display().to_string(),
                cause,
            })
        };
        let cache = settings.cache_dir.as_ref().map(open).transpose()?;
        let clock = start_clock(wasm.clone(), settings.tick).map_err(StartError::Thread)?;
        Ok(Arc::new(Self {
            wasm,
            cache,
            workers: Workers::new(settings.compiler.clone()),
            settings,
            loaded: Mutex::default(),
            _clock: clock,
        }))
    }

    /// Compiles a component in a process of its own, with bounds on time and memory, unless it was
    /// compiled before. Other work that takes a while is done on a thread that may block.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub(crate) async fn compile(
        self: &Arc<Self>,
        component: Bytes,
        origin: Origin,
    ) -> Result<Compiled, ComponentError> {
        if origin == Origin::Uploaded {
            check::is_component(&component, self.settings.upload)?;
        }
        let (host, bytes) = (Arc::clone(self), component.clone());
        let look = move || {
            let digest = digest(&bytes);
            let cached = host.cached(&digest);
            (digest, cached)
        };
        let (digest, cached) = self.workers.aside_to_load(look).await?;
        if let Some(cached) = cached {
            return Ok(self.compiled(digest, cached, None));
        }
        let program = &self.settings.compiler;
        let machine_code = match origin {
            Origin::Uploaded => {
                // The semaphore is never closed.
                let _turn = self.workers.compilers.acquire().await;
                compile::in_child(program, self.settings.compile_timeout, &component).await?
            }
            Origin::Shipped => {
                compile::in_child(program, SHIPPED_COMPILE_TIMEOUT, &component).await?
            }
        };
        let host = Arc::clone(self);
        let load = move || {
            let (loaded, to_keep) = match &host.cache {
                // One that ships needs no check before it is kept.
                Some(cache) if origin == Origin::Shipped => {
                    (cache.write(&host.wasm, &digest, &machine_code), None)
                }
                _ => (cache::load(&host.wasm, &machine_code), Some(machine_code)),
            };
            let component = loaded.map_err(|error| ComponentError::Internal(error.to_string()))?;
            Ok(host.compiled(digest, component, to_keep))
        };
        self.workers.aside_to_load(load).await?
    }

    /// Compiles a component that comes from the user of this program: in this process and without
    /// bounds. A gateway must not do that.
    ///
    /// # Errors
    /// As for [`ComponentHost::compile`].
    pub(crate) fn compile_here(&self, component: &[u8]) -> Result<Compiled, ComponentError> {
        check::is_component(component, self.settings.upload)?;
        let digest = digest(component);
        let component = match self.cached(&digest) {
            Some(cached) => cached,
            None => {
                let machine_code = compile::here(&self.wasm, component)?;
                let component = match &self.cache {
                    Some(cache) => cache.write(&self.wasm, &digest, &machine_code),
                    None => cache::load(&self.wasm, &machine_code),
                };
                component.map_err(|error| ComponentError::Internal(error.to_string()))?
            }
        };
        Ok(self.compiled(digest, component, None))
    }

    /// Stores a compiled component for the next start, once it has passed all checks.
    ///
    /// # Errors
    /// [`ComponentError::Internal`] if there is no thread for it.
    pub(crate) async fn keep(self: &Arc<Self>, compiled: Compiled) -> Result<(), ComponentError> {
        let Some(machine_code) = compiled.machine_code else {
            return Ok(());
        };
        let (host, digest) = (Arc::clone(self), compiled.digest);
        let keep = move || {
            if let Some(cache) = &host.cache {
                cache.keep(&digest, &machine_code);
            }
        };
        self.workers.aside_to_load(keep).await
    }

    /// Removes compiled components that belong to no stored version. A component that is being
    /// loaded stays: its version may be about to be stored.
    pub(crate) fn sweep_cache(&self, stored: &HashSet<String>) {
        let Some(cache) = &self.cache else {
            return;
        };
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, component| component.strong_count() > 0);
        let is_wanted = |digest: &str| stored.contains(digest) || loaded.contains_key(digest);
        if let Err(error) = cache.sweep(is_wanted) {
            tracing::warn!("cannot tidy the folder for compiled components: {error}");
        }
    }

    /// The engine that components are compiled for.
    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// The permits for work on components that must not block workers.
    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The ticks of the clock in this time.
    pub(super) fn ticks(&self, timeout: Duration) -> u64 {
        let ticks = timeout
            .as_nanos()
            .div_ceil(self.settings.tick.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Instructions that a call may take, if they are counted.
    pub(super) fn fuel(&self) -> Option<u64> {
        self.settings.fuel
    }

    fn cached(&self, digest: &str) -> Option<Component> {
        self.cache.as_ref()?.read(&self.wasm, digest)
    }

    fn compiled(
        &self,
        digest: String,
        component: Component,
        machine_code: Option<Vec<u8>>,
    ) -> Compiled {
        let mut loaded = self.loaded.lock();
        let known = loaded.get(&digest).and_then(Weak::upgrade);
        let in_use = known.unwrap_or_default();
        loaded.retain(|_, component| component.strong_count() > 0);
        loaded.insert(digest.clone(), Arc::downgrade(&in_use));
        Compiled {
            digest,
            component,
            in_use: InUse(in_use),
            machine_code,
        }
    }
}

/// SHA-256 of a component, in lower-case hex.
pub fn digest(component: &[u8]) -> String {
    let digest = Sha256::digest(component);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts the one epoch clock for all deadlines. It ends when the returned reference is dropped.
fn start_clock(wasm: wasmtime::Engine, tick: Duration) -> std::io::Result<Arc<()>> {
    let running = Arc::new(());
    let is_running = Arc::downgrade(&running);
    std::thread::Builder::new()
        .name("epoch".into())
        .spawn(move || {
            // One system call for each of some hundred ticks a second. Waiting for a message with a
            // time limit takes several times as long.
            while is_running.strong_count() > 0 {
                std::thread::sleep(tick);
                wasm.increment_epoch();
            }
        })?;
    Ok(running)
}
