//! What a balancer would answer, without any effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choose::{Balancer, Handover};
use super::engine::Engine;
use super::facts::RequestFacts;
use super::loaded::LoadedBalancer;
use super::request::{Choice, PickRequest, Refusal};
use crate::endpoint::{Endpoint, RequestCost};

/// Longest time for all answers: a balancer that is slow a thousand times is cut short.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);

/// A balancer to be asked, and the requests to ask it about.
pub struct Question {
    /// The upstream, for the log.
    pub upstream: String,
    /// The balancer that serves the upstream, whose instance may have a state to take over.
    pub serving: Arc<Balancer>,
    /// The plugin that is asked.
    pub plugin: Arc<LoadedBalancer>,
    /// Its settings.
    pub config: String,
    /// The endpoints to choose from.
    pub table: Arc<[Arc<Endpoint>]>,
    /// The requests, in order.
    pub requests: Vec<PickRequest<'static>>,
    /// The ids of endpoints that each of these requests was already sent to.
    pub tried: Vec<u64>,
    /// The facts of each of these requests.
    pub facts: Box<dyn RequestFacts + Send>,
}

/// An answer.
#[derive(Debug)]
pub enum Said {
    /// A position of the table, what the request would weigh there, and the tag of the pick.
    Position(usize, RequestCost, u64),
    /// It refuses the request, and may say how.
    Refused(Option<Refusal>),
    /// It has no answer, for this reason: the host would choose by itself.
    Failed(String),
    /// There is no endpoint, so it is not asked.
    NoEndpoint,
}

/// The answers to a question.
#[derive(Debug)]
pub struct Explained {
    /// The answers: as many as requests, unless it took too long.
    pub said: Vec<Said>,
    /// The hand-over of the serving instance's state; none if there was no state to take over.
    pub handover: Option<Handover>,
}

impl Question {
    /// Asks, in an instance that is then dropped. If it can, that instance takes over the state of
    /// the serving instance, which is called for this and for nothing else. The load that it reads
    /// is the present load; no request is counted.
    pub fn ask(self, engine: &Arc<Engine>) -> Explained {
        let start = Instant::now();
        let (balancer, handover) = self.instance(engine);
        let answers = self.requests.iter().map(|request| {
            if start.elapsed() > ANSWERS_TIMEOUT {
                return None;
            }
            let request = PickRequest {
                facts: Some(&*self.facts),
                ..*request
            };
            Some(match balancer.ask(request, &self.tried) {
                Some(Choice::Endpoint((position, cost, tag))) => {
                    Said::Position(position, cost, tag)
                }
                Some(Choice::Refused(refusal)) => Said::Refused(refusal),
                Some(Choice::Empty) => Said::NoEndpoint,
                None => Said::Failed(balancer.counters().last_fault.unwrap_or_default()),
            })
        });
        Explained {
            said: answers.map_while(std::convert::identity).collect(),
            handover,
        }
    }

    /// The balancer that is asked, and the hand-over to it.
    fn instance(&self, engine: &Arc<Engine>) -> (Balancer, Option<Handover>) {
        let name = format!("{} (explained)", self.upstream);
        let (plugin, config) = (Arc::clone(&self.plugin), self.config.clone());
        let balancer = Balancer::new(Arc::clone(engine), &name, plugin, config);
        balancer.set_limits(self.serving.limits());
        balancer.set_endpoints(Arc::clone(&self.table));
        let saved = self.serving.saved_for(&self.plugin).transpose();
        let handover = saved.map(|saved| {
            let taken = saved.and_then(|saved| balancer.start_from(&saved).map(|()| saved.len()));
            match taken {
                Ok(bytes) => Handover {
                    bytes,
                    failure: None,
                },
                Err(failure) => Handover {
                    bytes: 0,
                    failure: Some(failure),
                },
            }
        });
        (balancer, handover)
    }
}
