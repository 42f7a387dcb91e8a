//! The component host for balancers: loads them, and provides the interfaces that they may import.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use wasmtime::component::Linker;

use super::check::{self, LoadError};
use super::fault::Fault;
use super::imports::{self, Guest};
use super::instance::Instance;
use super::limits::PickLimits;
use super::loaded::{LoadedBalancer, Prepared};
use super::note::BalancerVersion;
use crate::component::{
    Compiled, ComponentError, ComponentHost, HostSettings, Journal, Journals, Origin, Schema,
    StartError, parse_schema,
};
use crate::entity::upstream::BalancerLimits;

/// Instructions that a pick may take where they are counted: some hundred milliseconds of work.
const FUEL: u64 = 500_000_000;

/// Bounds of the component host for balancers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest CPU time of a pick. A guest is stopped after one to two times as long. `configure`
    /// and the like may take ten times as long as a pick.
    pub pick_timeout: Duration,
    /// CPU time that a pick may always take. What picks take beyond it is bounded over time.
    pub pick_cost: Duration,
    /// Largest memory of an instance, in bytes.
    pub memory: usize,
    /// Largest state that the next instance takes over, in bytes.
    pub state: usize,
    /// Largest component, in bytes.
    pub upload: usize,
    /// Longest time to compile a component.
    pub compile_timeout: Duration,
    /// Folder for compiled components; none to keep them nowhere.
    pub cache_dir: Option<PathBuf>,
    /// The program whose subcommands `compile-worker` and `schema-worker` do the work that can take
    /// any time; as a rule this program.
    pub compiler: PathBuf,
}

/// What all balancers of the process share.
pub struct Engine {
    pub(super) components: Arc<ComponentHost>,
    linker: Linker<Guest>,
    limits: PickLimits,
    journals: Journals,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the component host.
    ///
    /// # Errors
    /// When the folder for compiled components cannot be made, or wasmtime cannot run here.
    pub fn new(settings: Settings) -> Result<Arc<Self>, StartError> {
        Self::with(settings, None)
    }

    /// Starts a component host whose calls are bounded by instructions and not by time, so that
    /// even a call that takes too long ends at the same place each time. This is for replay and
    /// simulation, and makes guests a little slower.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn metered(settings: Settings) -> Result<Arc<Self>, StartError> {
        Self::with(settings, Some(FUEL))
    }

    fn with(settings: Settings, fuel: Option<u64>) -> Result<Arc<Self>, StartError> {
        let tick =
            (settings.pick_timeout / 2).clamp(Duration::from_millis(1), Duration::from_millis(10));
        let components = ComponentHost::new(HostSettings {
            tick,
            fuel,
            upload: settings.upload,
            compile_timeout: settings.compile_timeout,
            cache_dir: settings.cache_dir,
            compiler: settings.compiler,
        })?;
        let linker = imports::linker(components.wasm()).map_err(StartError::Engine)?;
        Ok(Arc::new(Self {
            components,
            linker,
            limits: PickLimits {
                pick_timeout: settings.pick_timeout,
                pick_cost: settings.pick_cost,
                memory: settings.memory,
                state: settings.state,
            },
            journals: Journals::default(),
        }))
    }

    /// The bounds of an instance whose upstream sets no others.
    pub fn limits(&self) -> PickLimits {
        self.limits
    }

    /// The bounds of an instance whose upstream sets these.
    pub fn limits_for(&self, asked: &BalancerLimits) -> PickLimits {
        self.limits.tightened(asked)
    }

    /// The plugin as the balancer of this name, which is how logs and records name it. Its log
    /// lines are kept in the journal of that balancer.
    pub fn named(&self, plugin: &LoadedBalancer, name: &str) -> Arc<LoadedBalancer> {
        let identity = BalancerVersion {
            name: name.to_owned(),
            ..BalancerVersion::clone(&plugin.identity)
        };
        Arc::new(LoadedBalancer {
            identity: Arc::new(identity),
            journal: Some(self.journals.open(name)),
            ..plugin.clone()
        })
    }

    /// The log lines of the balancer of this name; none if it is not in use.
    pub fn journal(&self, name: &str) -> Option<Arc<Journal>> {
        self.journals.find(name)
    }

    /// Checks a component from outside. The component and its schema are compiled in processes of
    /// their own, with bounds on time and memory, unless that was done before. All other work that
    /// takes a while is done on a thread that may block.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub async fn load(
        self: &Arc<Self>,
        component: Bytes,
    ) -> Result<Arc<LoadedBalancer>, LoadError> {
        self.load_from(Origin::Uploaded, component).await
    }

    /// Checks a component that ships with the gateway: the bounds for those from outside do not
    /// apply.
    ///
    /// # Errors
    /// As for [`Engine::load`], and only if the gateway was built wrongly.
    pub async fn load_shipped(
        self: &Arc<Self>,
        component: Bytes,
    ) -> Result<Arc<LoadedBalancer>, LoadError> {
        let plugin = self.load_from(Origin::Shipped, component).await?;
        self.components.workers().trust(&plugin.config_schema);
        Ok(plugin)
    }

    async fn load_from(
        self: &Arc<Self>,
        origin: Origin,
        component: Bytes,
    ) -> Result<Arc<LoadedBalancer>, LoadError> {
        let size = component.len();
        let compiled = self.components.compile(component, origin).await?;
        let engine = Arc::clone(self);
        // The guest is called to describe itself, which may take a while.
        let check = move || Ok::<_, LoadError>((engine.check(&compiled, size)?, compiled));
        let (plugin, compiled) = self.components.workers().aside_to_load(check).await??;
        // A component from the cache has passed this before.
        if origin == Origin::Uploaded && compiled.is_new() {
            let workers = self.components.workers();
            workers.check_schema(&plugin.config_schema).await?;
        }
        self.components.keep(compiled).await?;
        Ok(plugin)
    }

    /// Checks a component that comes from the user of this program: it is compiled in this process
    /// and without bounds. A gateway must not do that.
    ///
    /// # Errors
    /// As for [`Engine::load`].
    pub fn load_trusted(&self, component: &[u8]) -> Result<Arc<LoadedBalancer>, LoadError> {
        let compiled = self.components.compile_here(component)?;
        let plugin = self.check(&compiled, component.len())?;
        Schema::compile(&plugin.config_schema).map_err(ComponentError::Schema)?;
        Ok(plugin)
    }

    /// Removes compiled components that belong to no stored version. A component that is being
    /// loaded stays: its version may be about to be stored.
    pub fn sweep_cache(&self, stored: &HashSet<String>) {
        self.components.sweep_cache(stored);
    }

    /// Largest memory of an instance, in bytes.
    pub fn memory(&self) -> usize {
        self.limits.memory
    }

    /// Runs work that calls an instance for something else than a pick, on a thread that may block.
    /// Work that has begun is finished even if the future is dropped.
    ///
    /// # Errors
    /// [`ComponentError::Internal`] if it panics.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        Ok(self.components.workers().aside(work).await?)
    }

    /// The violations of each of these settings, by field or for the whole; none if there are none.
    /// A worker process compiles and applies the schema of a plugin.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub async fn violations(
        &self,
        schema: &Value,
        settings: &[&Value],
    ) -> Result<Vec<Option<Value>>, LoadError> {
        let workers = self.components.workers();
        Ok(workers.violations(schema, settings).await?)
    }

    fn check(&self, compiled: &Compiled, size: usize) -> Result<Arc<LoadedBalancer>, LoadError> {
        let (wasm, component) = (self.components.wasm(), &compiled.component);
        let exports = check::interfaces(wasm, component)?;
        let imports = crate::component::imports(wasm, component);
        let pre = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| LoadError::Imports(format!("{error:#}")))?;
        let prepared = Prepared::new(pre, &exports)
            .map_err(|error| LoadError::Exports(format!("{error:#}")))?;
        let digest = &compiled.digest;
        let description = Instance::describe(&self.components, self.limits, &prepared, digest)?;
        let columns = check::columns(&description.columns)?;
        let config_schema = parse_schema(&description.config_schema)?;
        let identity = BalancerVersion {
            name: description.name.clone(),
            version: description.version.clone(),
            digest: digest.clone(),
        };
        Ok(Arc::new(LoadedBalancer {
            identity: Arc::new(identity),
            digest: digest.clone(),
            size,
            name: description.name,
            version: description.version,
            config_schema,
            columns,
            asks_about_tries: check::asks_about_tries(&imports),
            needs_new_trace: check::needs_new_trace(&exports, &imports),
            reads_facts: check::reads_facts(&imports),
            reads_bodies: check::reads_bodies(wasm, component),
            scans_bodies: check::scans_bodies(&imports),
            exports,
            imports,
            prepared: Arc::new(prepared),
            journal: None,
            _in_use: compiled.in_use.clone(),
        }))
    }
}

/// Whether a plugin takes these settings.
///
/// # Errors
/// The plugin's message about them.
pub fn try_settings(engine: &Engine, plugin: &LoadedBalancer, config: &str) -> Result<(), String> {
    let configured = Instance::configure(&engine.components, engine.limits, plugin, config);
    configured.map_err(|fault| match fault {
        Fault::Configuration(sentence) => sentence,
        other => format!("the balancer fails on these settings: {other}"),
    })
}
