//! What a balancer asks about the endpoints of its table: see `endpoint-facts` in
//! `wit/balancer.wit`. It is answered only while the balancer is told of the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::trace::{EndpointFact, EndpointQuestion};

/// The answers of the present call, and where they come from.
#[derive(Default)]
pub(super) struct EndpointFacts {
    /// Whether the guest is being told of a table.
    is_open: bool,
    /// The position of each id of that table, once the guest has asked.
    positions: Option<HashMap<u64, u32>>,
    /// The answers that the guest was given, if they are recorded. An answer of `None` is not
    /// kept, since none is what a replay answers to a question that is not in the trace.
    recorded: Option<BTreeMap<(u32, EndpointQuestion), String>>,
    /// The answers of a trace, by position and question.
    replayed: Option<BTreeMap<(u32, EndpointQuestion), String>>,
}

impl EndpointFacts {
    /// Answers that are kept for a recording if `record`.
    pub(super) fn new(record: bool) -> Self {
        Self {
            recorded: record.then(BTreeMap::new),
            ..Self::default()
        }
    }

    /// Answers questions from now on, about a new table.
    pub(super) fn open(&mut self) {
        self.is_open = true;
        self.positions = None;
        if let Some(recorded) = &mut self.recorded {
            recorded.clear();
        }
    }

    /// Answers no more questions.
    pub(super) fn close(&mut self) {
        self.is_open = false;
        self.positions = None;
        self.replayed = None;
    }

    /// Answers with these facts, and not from the endpoints, while the next table is told.
    pub(super) fn replay(&mut self, facts: &[EndpointFact]) {
        let facts = facts.iter().cloned();
        let facts = facts.map(|fact| ((fact.position, fact.asked), fact.answer));
        self.replayed = Some(facts.collect());
    }

    /// The answers that the guest was given when it was told of its table, if they are recorded.
    pub(super) fn recorded(&self) -> Vec<EndpointFact> {
        let recorded = self.recorded.iter().flatten();
        let fact =
            |((position, asked), answer): (&(u32, EndpointQuestion), &String)| EndpointFact {
                position: *position,
                asked: asked.clone(),
                answer: answer.clone(),
            };
        recorded.map(fact).collect()
    }

    /// The answer to a question about the endpoint with this id.
    pub(super) fn answer(
        &mut self,
        table: &[Arc<Endpoint>],
        id: u64,
        asked: EndpointQuestion,
    ) -> Option<String> {
        if !self.is_open {
            return None;
        }
        let positions = self.positions.get_or_insert_with(|| {
            let ids = table.iter().map(|endpoint| endpoint.id);
            ids.zip(0..).collect()
        });
        let position = *positions.get(&id)?;
        if let Some(replayed) = &self.replayed {
            return replayed.get(&(position, asked)).cloned();
        }
        let endpoint = table.get(position as usize)?;
        let answer = match &asked {
            EndpointQuestion::Label(key) => endpoint.labels.get(key)?.to_owned(),
            EndpointQuestion::Host => endpoint.host.to_string(),
            EndpointQuestion::Address => endpoint.address.to_string(),
        };
        if let Some(recorded) = &mut self.recorded {
            recorded.insert((position, asked), answer.clone());
        }
        Some(answer)
    }
}
