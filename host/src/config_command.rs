//! `pointsman config`: the configuration as a file, checked, imported into a gateway, exported from
//! it, and compared with it; of a running gateway, or of the data folder of one that is stopped.
//! And files of nginx and manifests of Kubernetes, converted.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::admin::{DocumentFile, Importer, install_key_hash, install_shipped, offline_changes};
use crate::balancer::{self, Engine};
use crate::client::{self, Gateway};
use crate::config::{self, Config, Written};
use crate::declarative::{self, Components, Exported, NoGateway, Syntax, Text};
use crate::entity::{Kind, route};
use crate::pattern::PatternMemory;
use crate::standard_output::print;
use crate::store::{self, FolderLock, JournaledStore, OpenError, Store};

/// Checks, imports, exports and compares declarative configurations
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Checks a file
    Validate(Validate),
    /// Makes the configuration of a gateway that of a file, in one step
    Import(Import),
    /// Writes the configuration of a gateway as a file
    Export(Export),
    /// Lists what an import would change; the exit code is 2 if anything
    Diff(Import),
    /// Makes a file of a configuration file of nginx, or of manifests of the Kubernetes Gateway API
    Convert(Validate),
}

/// Where a command finds the configuration of a gateway
#[derive(Debug, Args)]
struct Location {
    /// Data folder of a gateway that is not running
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    #[command(flatten)]
    gateway: Gateway,
}

/// Checks or converts a file
#[derive(Debug, Args)]
pub struct Validate {
    /// File; - for standard input
    file: PathBuf,
}

/// Imports a file
#[derive(Debug, Args)]
pub struct Import {
    /// File in YAML or JSON; - for standard input
    file: PathBuf,

    #[command(flatten)]
    location: Location,
}

/// Exports a configuration
#[derive(Debug, Args)]
pub struct Export {
    /// File to write, which must not exist; standard output if none is given
    file: Option<PathBuf>,

    /// Leaves out keys, passwords and tokens
    #[arg(long)]
    without_secrets: bool,

    #[command(flatten)]
    location: Location,
}

impl Arguments {
    /// Checks that a command is about one place alone.
    fn check(&self) -> anyhow::Result<()> {
        let location = match self {
            Self::Import(import) | Self::Diff(import) => &import.location,
            Self::Export(export) => &export.location,
            Self::Validate(_) | Self::Convert(_) => return Ok(()),
        };
        match location.data_dir.is_some() && location.gateway.is_asked_for() {
            true => bail!("--admin and --data-dir name two places: leave out one of them"),
            false => Ok(()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What failed; for a file, all that is wrong with it, one mistake a line.
pub fn config(arguments: &Arguments, settings: &Written) -> anyhow::Result<ExitCode> {
    // Which fields a route has depends on a setting, which is read as the gateway reads it. Its
    // mistakes are told where a command needs the settings.
    let settings = Config::load(settings.clone());
    arguments.check()?;
    if let Ok(config) = &settings {
        route::install_flavor(config.proxy.router_flavor);
    }
    match arguments {
        Arguments::Validate(validate) => {
            check(&validate.file, settings)?;
            print("the configuration is valid\n")?;
            Ok(ExitCode::SUCCESS)
        }
        Arguments::Import(import) => {
            let changes = changes(import, false, settings)?;
            let count = changes.as_array().map_or(0, Vec::len);
            print(&format!("{}{count} entities changed\n", listed(&changes)))?;
            Ok(ExitCode::SUCCESS)
        }
        Arguments::Diff(import) => {
            let changes = changes(import, true, settings)?;
            print(&listed(&changes))?;
            let is_same = changes.as_array().is_none_or(Vec::is_empty);
            Ok(ExitCode::from(if is_same { 0 } else { 2 }))
        }
        Arguments::Convert(convert) => {
            let (text, shown) = (read_text(&convert.file)?, convert.file.display());
            let is_manifest = declarative::is_manifest(&text);
            let config = settings?;
            let context = without_gateway(&config, Components::NONE);
            let converted = match is_manifest {
                true => declarative::convert_kubernetes(&text, &context),
                false if text.lines().any(|line| line.starts_with("_format_version")) => {
                    bail!("{shown} is in Kong's declarative format already: import it as it is")
                }
                // Each directive of nginx ends with one.
                false if !text.contains(';') => bail!(
                    "{shown} cannot be converted: expected a configuration of nginx, or manifests of \
                     the Gateway API"
                ),
                false => declarative::convert_nginx(&text, &context),
            };
            let (document, left) = converted.map_err(|why| in_file(&convert.file, &why))?;
            for left in left {
                eprintln!("{shown}: {left}");
            }
            if !["\nservices:", "\nroutes:"]
                .iter()
                .any(|list| document.contains(list))
            {
                bail!(match is_manifest {
                    true => format!("{shown} has no route"),
                    false => format!(
                        "{shown} has no location; `nginx -T` writes a file with \
                         what it includes"
                    ),
                });
            }
            print(&document)?;
            Ok(ExitCode::SUCCESS)
        }
        Arguments::Export(export) => {
            let text = exported(export)?;
            let Some(file) = &export.file else {
                print(&text)?;
                return Ok(ExitCode::SUCCESS);
            };
            let shown = file.display();
            let mut options = std::fs::OpenOptions::new();
            // The file may hold secrets.
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let opened = options.write(true).create_new(true).open(file);
            let mut opened = opened.map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => anyhow!(
                    "{shown} is there already: name another file, or leave it out to write to \
                     standard output"
                ),
                _ => anyhow!("cannot write {shown}: {error}"),
            })?;
            let written = opened.write_all(text.as_bytes());
            written.with_context(|| format!("cannot write {shown}"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The text of a file, or of standard input.
fn read_text(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        read.context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The text of a declarative configuration, with its syntax.
fn read(file: &Path) -> anyhow::Result<(String, Syntax)> {
    let syntax = match file == Path::new("-") {
        true => Syntax::Either,
        false => Syntax::of_file(&file.to_string_lossy())
            .map_err(|why| anyhow!("{}: {why}", file.display()))?,
    };
    Ok((read_text(file)?, syntax))
}

/// The folder of a file, in which the components are that it names.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

/// Reads a file without a gateway. It may name any balancer.
fn check(file: &Path, settings: Result<Config, config::Error>) -> anyhow::Result<()> {
    let (text, syntax) = read(file)?;
    let shown = file.display();
    let text = Text::read(&text, syntax).map_err(|why| anyhow!("{shown}: {why}"))?;
    let config = settings?;
    let components = Components::beside(&text, folder_of(file), config.balancer.upload);
    let context = without_gateway(&config, components);
    declarative::read(&text, &context)
        .map_err(|mistakes| in_file(file, &mistakes.told(&text.lines()).join("\n")))?;
    Ok(())
}

/// What a document is checked against without a gateway.
fn without_gateway(config: &Config, components: Components) -> NoGateway {
    NoGateway {
        flavor: config.proxy.router_flavor,
        pattern_memory: config.proxy.route_regex_memory,
        components,
    }
}

/// What is wrong with a file, one mistake a line, each with the name of the file.
fn in_file(file: &Path, wrong: &str) -> anyhow::Error {
    let shown = file.display();
    let lines = wrong.lines().map(|line| format!("{shown}: {line}"));
    anyhow!(lines.collect::<Vec<_>>().join("\n"))
}

/// What an import changes, or would change.
fn changes(
    import: &Import,
    is_trial: bool,
    settings: Result<Config, config::Error>,
) -> anyhow::Result<Value> {
    let (text, syntax) = read(&import.file)?;
    let in_file = |error: anyhow::Error| in_file(&import.file, &error.to_string());
    match &import.location.data_dir {
        None => {
            let path = format!("/pointsman/config?dry_run={is_trial}");
            let admin = import.location.gateway.admin()?;
            // The gateway says what is wrong with a text that cannot be read.
            let components = Text::read(&text, syntax).map(|read| {
                let most = client::LARGEST_COMPONENT;
                Components::beside(&read, folder_of(&import.file), most)
            });
            let components = components.unwrap_or_default();
            let mut parts = Vec::new();
            for (path, component) in components.iter() {
                parts.push((format!("component:{path}"), &*component.bytes));
                if let Some(signature) = &component.signature {
                    parts.push((format!("signature:{path}"), signature.as_bytes()));
                }
            }
            let answer = admin.put_document(&path, &text, &parts);
            let answer = answer.map_err(in_file)?;
            Ok(answer.body.get("changes").cloned().unwrap_or_default())
        }
        Some(folder) => {
            let offline = Offline::open(folder)?;
            offline.run(async {
                let importer = offline.importer(is_trial, settings?).await?;
                let file = DocumentFile {
                    text: &text,
                    syntax,
                    folder: folder_of(&import.file),
                };
                let changed = offline_changes(&importer, file, is_trial).await;
                let changed = changed.map_err(|why| in_file(anyhow!(why)))?;
                Ok(serde_json::to_value(changed)?)
            })
        }
    }
}

/// Changes as lines.
fn listed(changes: &Value) -> String {
    let mut text = String::new();
    for change in changes.as_array().into_iter().flatten() {
        let field = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
        let name = match field("name") {
            "" => String::new(),
            name => format!(" {name:?}"),
        };
        let fields = change.get("fields").and_then(Value::as_array);
        let fields: Vec<&str> = fields
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let fields = match fields.as_slice() {
            [] => String::new(),
            fields => format!(": {}", fields.join(", ")),
        };
        let (change, entity, id) = (field("change"), field("entity"), field("id"));
        text += &format!("{change} {entity}{name} ({id}){fields}\n");
    }
    text
}

fn exported(export: &Export) -> anyhow::Result<String> {
    match &export.location.data_dir {
        None => {
            let path = format!("/pointsman/config?secrets={}", !export.without_secrets);
            export.location.gateway.admin()?.document(&path)
        }
        Some(folder) => {
            let offline = Offline::open(folder)?;
            let mut rows = std::collections::HashMap::new();
            for kind in Kind::ALL {
                let listed = offline.store.list(kind, None, usize::MAX, &|_| true)?;
                let listed: Vec<_> = listed.into_iter().map(|stored| stored.row).collect();
                rows.insert(kind, listed);
            }
            let of_kind = |kind| rows.get(&kind).cloned().unwrap_or_default();
            let without_secrets = export.without_secrets;
            Ok(declarative::export(&of_kind, Exported { without_secrets }))
        }
    }
}

/// The data folder of a gateway that is not running.
struct Offline {
    folder: PathBuf,
    _lock: FolderLock,
    store: Arc<JournaledStore>,
    runtime: tokio::runtime::Runtime,
}

impl Offline {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            bail!("{} is not a folder", folder.display());
        }
        let opened = store::lock(folder)
            .and_then(|lock| store::open(folder, &lock).map(|store| (lock, store)));
        let (lock, store) = opened.map_err(|why| match why {
            OpenError::InUse(_) => {
                anyhow!("{why}; if that is a gateway that runs, use --admin in place of --data-dir")
            }
            why => anyhow::Error::new(why).context("cannot open the store"),
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
            store: Arc::new(store),
            runtime,
        })
    }

    fn run<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.runtime.block_on(work)
    }

    async fn importer(&self, is_trial: bool, config: Config) -> anyhow::Result<Importer> {
        let limits = config.balancer;
        let engine = Engine::new(balancer::Settings {
            pick_timeout: limits.pick_timeout,
            pick_cost: limits.pick_cost,
            memory: limits.memory,
            state: limits.state,
            upload: limits.upload,
            compile_timeout: limits.compile_timeout,
            cache_dir: Some(self.folder.join("cache")),
            compiler: "/proc/self/exe".into(),
        })?;
        let store: Arc<dyn Store> = Arc::clone(&self.store) as Arc<dyn Store>;
        // Keys are stored as the gateway stores them.
        let hash_file = config.policies.hash_keys_file;
        let hash_file = hash_file.unwrap_or_else(|| self.folder.join("hash.key"));
        let stores_hashes = config.policies.hash_keys && !is_trial;
        let installed = install_key_hash(&store, &hash_file, stores_hashes).await;
        installed.map_err(anyhow::Error::msg)?;
        // In the folder of a gateway that was never started, there are no balancers yet.
        if store.list(Kind::Balancer, None, 1, &|_| true)?.is_empty() {
            install_shipped(&store, &engine).await?;
        }
        Ok(Importer {
            store,
            engine,
            limits,
            flavor: config.proxy.router_flavor,
            patterns: Arc::new(PatternMemory::new(config.proxy.route_regex_memory)),
            components: Arc::default(),
            keeps_ids: config.database,
        })
    }
}
