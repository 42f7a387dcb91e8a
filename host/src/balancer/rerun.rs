//! A balancer once more: the calls of a trace, and the answers that it got, for the component that
//! made it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::bindings;
use super::columns::Interests;
use super::engine::Engine;
use super::facts;
use super::instance::{Instance, InstanceSpec};
use super::notes::Told;
use super::plugin::Plugin;
use crate::endpoint::Endpoint;
use crate::trace::{Answer, Pick, Row};

/// Asks a component what it was asked in a trace.
pub struct Rerun {
    engine: Arc<Engine>,
    plugin: Arc<Plugin>,
    config: String,
    /// What the first instance takes over.
    saved: Vec<u8>,
    instance: Option<Instance>,
}

impl std::fmt::Debug for Rerun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rerun").finish_non_exhaustive()
    }
}

impl Rerun {
    /// One that has not been told of a table yet. `config` and `saved` are those of the trace.
    pub fn new(engine: Arc<Engine>, plugin: Arc<Plugin>, config: String, saved: Vec<u8>) -> Self {
        Self {
            engine,
            plugin,
            config,
            saved,
            instance: None,
        }
    }

    /// Tells it of a table, or a new instance of it.
    ///
    /// # Errors
    /// What it does wrong.
    pub fn table(&mut self, fresh: bool, rows: &[Row], answers: Vec<u64>) -> Result<(), String> {
        if fresh {
            let spec = InstanceSpec {
                host: &self.engine.components,
                plugin: &self.plugin,
                upstream: "",
                config: &self.config,
                limits: self.engine.limits(),
                record: false,
            };
            let made = Instance::configured(&spec, &Arc::<Interests>::default());
            let mut made = made.map_err(|fault| fault.to_string())?;
            let saved = std::mem::take(&mut self.saved);
            if !saved.is_empty() {
                let restored = made.restore(&saved);
                restored.map_err(|fault| fault.to_string())?;
            }
            self.instance = Some(made);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = |row: &Row| Endpoint::new(row.id, address, String::new(), row.weight);
        let table = rows.iter().map(|row| Arc::new(endpoint(row))).collect();
        let Some(instance) = &mut self.instance else {
            return Err("the trace does not begin with an instance".into());
        };
        instance.replay(answers);
        let told = instance.set_endpoints(&table);
        told.map_err(|fault| fault.to_string())
    }

    /// Asks it for a pick.
    ///
    /// # Errors
    /// What it does wrong.
    pub fn pick(&mut self, pick: &Pick) -> Result<Answer, String> {
        let Some(instance) = &mut self.instance else {
            return Err("the trace does not begin with an instance".into());
        };
        instance.replay(pick.heard.clone());
        let request = bindings::Request {
            entropy: pick.entropy,
            now: pick.now,
            affinity: pick.affinity,
            attempt: pick.attempt,
        };
        let answer = facts::at_hand(&Told(&pick.facts), || {
            if self.plugin.columns.is_empty() {
                instance.pick(request)
            } else {
                instance.pick_by_load(request, &pick.load)
            }
        });
        match answer {
            Ok(Some(position)) => Ok(Answer::Position(position)),
            Ok(None) => Ok(Answer::Refused),
            Err(fault) => Err(fault.to_string()),
        }
    }
}
