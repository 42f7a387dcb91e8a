//! Makes the stored configuration that of a document, in one step.

mod ids;
mod refused;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::current::{Freshness, catch_up_to_newest};
use super::error::Error;
use super::overlay::Overlay;
use super::rollout::Aim;
use super::rows::{TRIES, conflict, id_of, is_race};
use super::{Admin, activation, rollout, settings, upload, upstreams, version_rows};
use crate::balancer::Engine;
use crate::config::{self, RouterFlavor};
use crate::declarative::{
    self, ChangeKind, CheckContext, Components, Configuration, Difference, Entity, Mistakes, Text,
};
use crate::entity::{Kind, Row, uuid};
use crate::pattern::PatternMemory;
use crate::store::{self, Revision, Store, Stored, Write};
pub(crate) use refused::Refused;
use refused::refused;

/// How many tries of an import are made only on what they have read. Otherwise two imports at a
/// time, at one gateway or at two, could each leave alone what the other one adds, or both delete
/// what the other one keeps. Clients that change entities all the time must not keep an import from
/// being made for ever: the tries after these, or after [`EXACT_TIME`], are refused only if a row
/// of theirs has changed.
const EXACT_TRIES: u32 = 32;

/// For how long tries are made only on what they have read. A try of a large document takes a
/// second.
const EXACT_TIME: Duration = Duration::from_secs(5);

/// What an import needs of the gateway.
#[derive(Clone)]
pub(crate) struct Importer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) limits: config::Balancer,
    pub(crate) flavor: RouterFlavor,
    /// The memory of the routes' regular expressions.
    pub(crate) patterns: Arc<PatternMemory>,
    /// The components that come with the document.
    pub(crate) components: Arc<Components>,
    /// Whether an entity without an id in the document keeps the one that it is stored with.
    /// Without a database, ids are those that Kong makes of names.
    pub(crate) keeps_ids: bool,
}

/// What an import has done, or would do.
pub(crate) struct Imported {
    /// The configuration that was read.
    pub(crate) configuration: Configuration,
    pub(crate) differences: Vec<Difference>,
    /// None if nothing was written.
    pub(crate) revision: Option<Revision>,
}

impl CheckContext for Importer {
    fn find(&self, kind: Kind, named: &str) -> Option<Uuid> {
        if let Some(id) = uuid(named) {
            return self.row(kind, id).map(|row| id_of(&row));
        }
        let key = kind.declaration().endpoint_key?;
        let found = self.store.find(kind, &[key], &[&named.into()]);
        found.ok().flatten().map(|stored| id_of(&stored.row))
    }

    fn row(&self, kind: Kind, id: Uuid) -> Option<Row> {
        let found = self.store.get(kind, id).ok().flatten();
        found.map(|stored| stored.row)
    }

    fn rows(&self, kind: Kind) -> Vec<Row> {
        let rows = self.list(kind).unwrap_or_default().into_iter();
        rows.map(|stored| stored.row).collect()
    }

    fn flavor(&self) -> RouterFlavor {
        self.flavor
    }

    fn pattern_memory(&self, kept: &[Uuid]) -> usize {
        self.patterns.left_beside(kept.iter().copied())
    }

    fn component_digest(&self, path: &str) -> Result<String, String> {
        Ok(self.components.get(path)?.digest.clone())
    }
}

impl Importer {
    pub(super) fn of(admin: &Admin) -> Self {
        Self {
            store: Arc::clone(&admin.store),
            engine: Arc::clone(&admin.engine),
            limits: admin.config.balancer.clone(),
            flavor: admin.config.proxy.router_flavor,
            patterns: Arc::clone(&admin.published.patterns),
            components: Arc::default(),
            keeps_ids: admin.config.database,
        }
    }

    /// As this one, with the components that come with a document.
    pub(crate) fn with(&self, components: Components) -> Self {
        Self {
            components: Arc::new(components),
            ..self.clone()
        }
    }

    /// The stored rows of a kind.
    fn list(&self, kind: Kind) -> Result<Vec<Stored>, store::Error> {
        self.store.list(kind, None, usize::MAX, &|_| true)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn read(&self, text: &Text) -> Result<Configuration, Mistakes> {
        declarative::read(text, self)
    }

    /// Makes the stored configuration this one, or finds what would change.
    ///
    /// # Errors
    /// The document contradicts what is stored, or the store cannot be written. Nothing was
    /// changed.
    pub(super) async fn import(
        &self,
        mut configuration: Configuration,
        aim: Aim,
    ) -> Result<Imported, Refused> {
        for entity in &mut configuration.entities {
            if entity.kind == Kind::Upstream {
                settings::pin_by_digest(&*self.store, &mut entity.row)?;
            }
        }
        let began = Instant::now();
        let mut is_known = false;
        for turn in 0..TRIES {
            let is_exact = turn < EXACT_TRIES && began.elapsed() < EXACT_TIME;
            // Read before the rows, so that a newer row is noticed.
            let base = self.store.head();
            if self.keeps_ids {
                ids::keep(&mut configuration, &*self.store)?;
            }
            let mut stored = HashMap::new();
            for kind in Kind::ALL {
                stored.insert(kind, self.list(kind)?);
            }
            // Known to be lost before the rows are compared, which takes longer.
            if is_exact && self.store.head() != base {
                tokio::task::yield_now().await;
                continue;
            }
            let (mut writes, mut differences) = declarative::changes(&configuration, stored);
            let mut mistakes = Mistakes::default();
            let switches = self.balancers(&configuration, &mut mistakes).await?;
            differences.extend(switches.differences.iter().cloned());
            let relied_on = self.check_upstreams(&configuration, &writes, &switches, &mut mistakes);
            let relied_on = relied_on.await?;
            if !mistakes.is_empty() {
                return Err(Refused::Mistakes(mistakes));
            }
            // What is not written now has to be what the store would take, or it fails only when it
            // is written.
            if aim != Aim::Change {
                let together = [writes.as_slice(), &switches.writes].concat();
                match self.store.check(&together) {
                    Ok(()) => {}
                    Err(error) if is_race(&error) => continue,
                    Err(error) => return Err(refused(&*self.store, &configuration, error)),
                }
            }
            if let Aim::Canary(settings) = &aim {
                writes = rollout::begin(&*self.store, &writes, &switches.writes, settings)?;
            }
            let is_dry_run = aim == Aim::DryRun;
            writes.extend(switches.writes);
            if !writes.is_empty() {
                let known: HashSet<Uuid> = writes.iter().map(Write::id).collect();
                let others = relied_on.into_iter();
                writes.extend(others.filter(|write| !known.contains(&write.id())));
            }
            if !is_dry_run && writes.is_empty() {
                // The kinds were read one after the other: the document may never have been in
                // effect as a whole.
                if is_exact && self.store.head() != base {
                    continue;
                }
                if !is_known && catch_up_to_newest(&*self.store, base).await? == Freshness::CaughtUp
                {
                    is_known = true;
                    continue;
                }
            }
            if is_dry_run || writes.is_empty() {
                return Ok(Imported {
                    configuration,
                    differences,
                    revision: None,
                });
            }
            let base = Some(base).filter(|_| is_exact);
            match self.store.exchange(writes, base).await {
                Ok(revision) => {
                    return Ok(Imported {
                        configuration,
                        differences,
                        revision: Some(revision),
                    });
                }
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(refused(&*self.store, &configuration, error)),
            }
        }
        // The message is the same for all kinds.
        Err(conflict(Kind::Service).into())
    }

    /// What gives balancers the versions and the tags of the document.
    async fn balancers(
        &self,
        configuration: &Configuration,
        mistakes: &mut Mistakes,
    ) -> Result<Switches, Error> {
        let mut switches = Switches::new(&self.store);
        let all = configuration.entities.iter().enumerate();
        for (number, entity) in all.filter(|(_, entity)| entity.kind == Kind::Balancer) {
            let row = &entity.row;
            let (name, digest) = (
                version_rows::text(row, "name"),
                version_rows::text(row, "digest"),
            );
            let mut wrong = |field: &str, message: String| {
                let fields = Row::from_iter([(field.to_owned(), message.into())]);
                mistakes.fields_of(number, entity, &fields);
            };
            let stored = self
                .store
                .find(Kind::Balancer, &["name"], &[&name.into()])?;
            let tags = row.get("tags").cloned().unwrap_or_default();
            let version = match &stored {
                Some(stored) => version_rows::of_digest(&*self.store, id_of(&stored.row), digest)?,
                None => None,
            };
            let component = row.get("component").and_then(Value::as_str);
            let is_ready = |version: &Stored| version_rows::not_ready(&version.row).is_none();
            if let Some(path) = component
                && !version.as_ref().is_some_and(is_ready)
            {
                match self.brought(entity, stored.as_ref(), path, tags).await {
                    Ok(writes) => {
                        switches.overlay.add(&writes);
                        switches.writes.extend(writes);
                        switches.promoted.insert(name.to_owned(), digest.to_owned());
                        let fields = vec!["digest".to_owned()];
                        switches.tell(entity, stored.as_ref(), fields);
                    }
                    Err(Brought::Wrong(why)) => wrong("component", why),
                    Err(Brought::Other(error)) => return Err(error),
                }
                continue;
            }
            let Some(stored) = stored else {
                wrong(
                    "name",
                    format!("there is no such balancer: upload the component {digest} as {name}"),
                );
                continue;
            };
            let Some(version) = version else {
                let message = format!("it has no version {digest}: upload that component first");
                wrong("digest", message);
                continue;
            };
            if let Some(reason) = version_rows::not_ready(&version.row) {
                wrong("digest", reason);
                continue;
            }
            let is_active = version_rows::text(&stored.row, "digest") == digest;
            let has_tags = stored.row.get("tags").unwrap_or(&Value::Null) == &tags;
            if is_active && has_tags {
                continue;
            }
            let mut changed = Vec::new();
            if !is_active {
                switches.promoted.insert(name.to_owned(), digest.to_owned());
                changed.push("digest".to_owned());
            }
            if !has_tags {
                changed.push("tags".to_owned());
            }
            switches.tell(entity, Some(&stored), changed);
            let fields = Row::from_iter([("tags".to_owned(), tags)]);
            let writes = activation::switch_writes(&stored, version, fields)?;
            switches.writes.extend(writes);
        }
        Ok(switches)
    }

    /// The writes that make a component that comes with the document the active version of a
    /// balancer.
    async fn brought(
        &self,
        entity: &Entity,
        stored: Option<&Stored>,
        path: &str,
        tags: Value,
    ) -> Result<Vec<Write>, Brought> {
        let component = self.components.get(path).map_err(Brought::Wrong)?;
        if let Some(stored) = stored
            && stored.row.get("source") == Some(&"shipped".into())
        {
            let why = "a balancer that ships with the gateway has no other versions";
            return Err(Brought::Wrong(why.into()));
        }
        let keys = &self.limits.public_keys;
        upload::verify(keys, &component.bytes, component.signature.as_deref())
            .map_err(Brought::Wrong)?;
        let plugin = self.engine.load(component.bytes.clone()).await;
        let plugin = plugin.map_err(|error| Brought::of(error.into()))?;
        let id = stored.map_or(entity.id, |stored| id_of(&stored.row));
        let bytes = component.bytes.clone();
        let version = activation::ready_version(&*self.store, id, &plugin, bytes);
        let mut fields = Row::from_iter([("tags".to_owned(), tags)]);
        if stored.is_none() {
            let name = entity.row.get("name").cloned().unwrap_or_default();
            fields.insert("name".into(), name);
            fields.insert("source".into(), "uploaded".into());
        }
        let version = version.map_err(Brought::of)?;
        let activated = activation::activation(id, stored, fields, version, None);
        let (_, writes) = activated.map_err(|error| Brought::of(error.into()))?;
        Ok(writes)
    }

    /// Checks each upstream that changes, or whose balancer changes, by the same function as a
    /// single write does. Returns the writes of balancers that have to be in the same step.
    async fn check_upstreams(
        &self,
        configuration: &Configuration,
        writes: &[Write],
        switches: &Switches,
        mistakes: &mut Mistakes,
    ) -> Result<Vec<Write>, Error> {
        let changed = writes.iter().filter(|write| write.kind() == Kind::Upstream);
        let changed: HashSet<Uuid> = changed.map(Write::id).collect();
        let mut companions: HashMap<Uuid, Write> = HashMap::new();
        // Many upstreams have the same settings.
        let mut checked: HashMap<String, Option<Row>> = HashMap::new();
        let store: Arc<dyn Store> = Arc::new(switches.overlay.clone());
        for (number, entity) in configuration.entities.iter().enumerate() {
            let row = &entity.row;
            let algorithm = version_rows::text(row, "algorithm");
            let promoted = switches.promoted.get(algorithm).map(String::as_str);
            let is_new = changed.contains(&entity.id) || promoted.is_some();
            if entity.kind != Kind::Upstream || !is_new {
                continue;
            }
            let settings = json!([algorithm, row.get("pointsman")]).to_string();
            let wrong = match checked.get(&settings) {
                Some(known) => known.clone(),
                None => {
                    let (store, engine) = (&store, &self.engine);
                    let said = upstreams::check_with(store, engine, &self.limits, row, promoted);
                    let wrong = match said.await {
                        Ok(writes) => {
                            companions.extend(writes.into_iter().map(|write| (write.id(), write)));
                            None
                        }
                        Err(error) => match error.fields() {
                            Some(fields) => Some(fields.clone()),
                            None => return Err(error),
                        },
                    };
                    checked.insert(settings, wrong.clone());
                    wrong
                }
            };
            if let Some(fields) = wrong {
                mistakes.fields_of(number, entity, &fields);
            }
        }
        Ok(companions.into_values().collect())
    }
}

/// What gives balancers other versions or other tags.
struct Switches {
    writes: Vec<Write>,
    /// The digests of the versions that become active, by the name of the balancer.
    promoted: HashMap<String, String>,
    /// The stored rows, with those of components that come with the document.
    overlay: Overlay,
    differences: Vec<Difference>,
}

impl Switches {
    fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            writes: Vec::new(),
            promoted: HashMap::new(),
            overlay: Overlay::new(store),
            differences: Vec::new(),
        }
    }

    fn tell(&mut self, entity: &Entity, stored: Option<&Stored>, fields: Vec<String>) {
        let name = entity.row.get("name").and_then(Value::as_str);
        self.differences.push(Difference {
            entity: Kind::Balancer.name(),
            id: stored.map_or(entity.id, |stored| id_of(&stored.row)),
            name: name.map(str::to_owned),
            change: match stored {
                Some(_) => ChangeKind::Update,
                None => ChangeKind::Create,
            },
            fields: match stored {
                Some(_) => fields,
                None => Vec::new(),
            },
        });
    }
}

/// Why a component that comes with a document is not taken.
enum Brought {
    /// Something is wrong with it.
    Wrong(String),
    /// Something else is wrong.
    Other(Error),
}

impl Brought {
    fn of(error: Error) -> Self {
        match error.fields() {
            Some(_) => Self::Wrong(error.message()),
            None => Self::Other(error),
        }
    }
}

/// The stored rows of a kind, in the order of ids.
pub(super) fn present(admin: &Admin, kind: Kind) -> Result<Vec<Row>, store::Error> {
    let rows = admin.store.list(kind, None, usize::MAX, &|_| true)?;
    let rows = rows.into_iter().map(|stored| stored.row);
    Ok(rows.collect())
}
