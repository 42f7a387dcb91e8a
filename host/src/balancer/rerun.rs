//! Replays a trace: repeats its calls on the component that was recorded, with the host's recorded
//! answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::bindings;
use super::columns::Interests;
use super::engine::Engine;
use super::facts;
use super::instance::{Instance, InstanceSpec};
use super::loaded::LoadedBalancer;
use super::notes::Told;
use super::request::Refusal;
use crate::endpoint::{EndedTry, Endpoint, RequestCost};
use crate::trace::{BalancerAnswer, EndpointFact, Pick, Row};

/// Repeats the calls of a trace on a component.
pub struct Rerun {
    engine: Arc<Engine>,
    plugin: Arc<LoadedBalancer>,
    config: String,
    /// The state that the first instance restores.
    saved: Vec<u8>,
    instance: Option<Instance>,
}

impl std::fmt::Debug for Rerun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rerun").finish_non_exhaustive()
    }
}

impl Rerun {
    /// A replay without a table yet. `config` and `saved` are those of the trace.
    pub fn new(
        engine: Arc<Engine>,
        plugin: Arc<LoadedBalancer>,
        config: String,
        saved: Vec<u8>,
    ) -> Self {
        Self {
            engine,
            plugin,
            config,
            saved,
            instance: None,
        }
    }

    /// Gives a table to the instance, or to a new one if `fresh`. `answers` and `facts` are those
    /// of the trace.
    ///
    /// # Errors
    /// The fault of the instance.
    pub fn table(
        &mut self,
        fresh: bool,
        rows: &[Row],
        answers: Vec<u64>,
        facts: &[EndpointFact],
    ) -> Result<(), String> {
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
        instance.replay_endpoint_facts(facts);
        let result = instance.set_endpoints(&table);
        result.map_err(|fault| fault.to_string())
    }

    /// Tells the instance again of a try that has ended. `answers` are those of the trace.
    ///
    /// # Errors
    /// The fault of the instance.
    pub fn ended(&mut self, ended: &EndedTry, answers: Vec<u64>) -> Result<(), String> {
        let Some(instance) = &mut self.instance else {
            return Err("the trace does not begin with an instance".into());
        };
        instance.replay(answers);
        let told = instance.try_ended(ended);
        told.map_err(|fault| fault.to_string())
    }

    /// Repeats a pick. Returns the answer and the tag of the pick, if the balancer is told of its
    /// tries.
    ///
    /// # Errors
    /// The fault of the instance.
    pub fn pick(&mut self, pick: &Pick) -> Result<(BalancerAnswer, u64), String> {
        let Some(instance) = &mut self.instance else {
            return Err("the trace does not begin with an instance".into());
        };
        instance.replay(pick.load_answers.clone());
        let request = bindings::Request {
            entropy: pick.entropy,
            now: pick.now,
            affinity: pick.affinity,
            attempt: pick.attempt,
        };
        if self.plugin.asks_about_tries {
            // Each answer is one of the trace.
            instance.begin_tries(None, &[]);
        }
        let weighs = self.plugin.prepared.weighs();
        let without_cost = |position: Option<u32>| Some((position?, RequestCost::NONE));
        let answer = facts::at_hand(&Told(&pick.facts), || {
            if weighs {
                instance.pick_weighted(request, &pick.load)
            } else if self.plugin.columns.is_empty() {
                instance.pick(request).map(without_cost)
            } else {
                let answer = instance.pick_by_load(request, &pick.load);
                answer.map(without_cost)
            }
        });
        instance.end_tries();
        let takes_outcomes = self.plugin.prepared.takes_outcomes();
        let tag = if takes_outcomes { instance.tag() } else { 0 };
        match answer {
            Ok(Some((position, cost))) => Ok((answer_of(position, cost, weighs), tag)),
            Ok(None) => Ok((refused(instance.take_refusal()), tag)),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

/// An answer as a trace has it. The cost is part of it if the plugin `weighs` requests.
pub(super) fn answer_of(position: u32, cost: RequestCost, weighs: bool) -> BalancerAnswer {
    if !weighs {
        return BalancerAnswer::Position(position);
    }
    BalancerAnswer::Weighted {
        position,
        first_byte: cost.first_byte,
        rest: cost.rest,
    }
}

/// A refusal as a trace has it.
pub(super) fn refused(refusal: Option<Refusal>) -> BalancerAnswer {
    match refusal {
        None => BalancerAnswer::Refused,
        Some(Refusal {
            status,
            retry_after,
        }) => BalancerAnswer::RefusedWith {
            status,
            retry_after,
        },
    }
}
