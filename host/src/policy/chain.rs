//! Which policies a request runs through, and in which order.
//!
//! Of each kind of policy, exactly one instance serves a request: the one with the most specific
//! scope. The consumer is known only once an authentication policy has run, so the instance of a
//! step is chosen when its turn comes. Source: Kong 3.9, `kong/runloop/plugins_iterator.lua`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::Policy;
use super::identity::Identities;
use crate::shared_map::SharedMap;

/// A policy with the requests that it is for.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The primary key of its plugin.
    pub id: Uuid,
    /// The name of its kind.
    pub name: &'static str,
    /// Its place in the order; the greatest comes first.
    pub priority: i32,
    /// The requests that it is for.
    pub scope: Scope,
    /// The behaviour.
    pub policy: Arc<dyn Policy>,
}

/// The requests that a policy is for: those of a route, of a service and of a consumer, as far as
/// they are named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// The route.
    pub route: Option<Uuid>,
    /// The service.
    pub service: Option<Uuid>,
    /// The consumer.
    pub consumer: Option<Uuid>,
}

impl Scope {
    /// Its place among the scopes that a request may find; the smallest comes first. Source: Kong.
    fn rank(&self) -> u8 {
        match (self.route, self.service, self.consumer) {
            (Some(_), Some(_), Some(_)) => 0,
            (Some(_), None, Some(_)) => 1,
            (None, Some(_), Some(_)) => 2,
            (Some(_), Some(_), None) => 3,
            (None, None, Some(_)) => 4,
            (Some(_), None, None) => 5,
            (None, Some(_), None) => 6,
            (None, None, None) => 7,
        }
    }

    /// Whether it contains requests to a route of a service.
    fn contains(&self, route: Option<Uuid>, service: Option<Uuid>) -> bool {
        (self.route.is_none() || self.route == route)
            && (self.service.is_none() || self.service == service)
    }
}

/// The policies of a route, in their order.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<Step>,
    records: bool,
    traces: bool,
}

/// The instances of one kind of policy that a request to a route may find, besides those for single
/// consumers at any route.
#[derive(Debug)]
pub struct Step {
    name: &'static str,
    priority: i32,
    /// For single consumers, at this route or service.
    consumers_here: HashMap<Uuid, Arc<Instance>>,
    /// For the route with its service.
    route_and_service: Option<Arc<Instance>>,
    /// For all other requests.
    otherwise: Option<Arc<Instance>>,
}

impl Chain {
    /// The steps in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether a policy that a request may find works from its record.
    pub fn records(&self) -> bool {
        self.records
    }

    /// Whether a policy that a request may find begins its trace.
    pub fn traces(&self) -> bool {
        self.traces
    }
}

impl Step {
    /// The instance for a request of this consumer.
    pub fn choose<'s>(
        &'s self,
        policies: &'s Policies,
        consumer: Option<Uuid>,
    ) -> Option<&'s Arc<Instance>> {
        consumer
            .and_then(|id| self.consumers_here.get(&id))
            .or(self.route_and_service.as_ref())
            .or_else(|| policies.consumers.get(&(self.name, consumer?)))
            .or(self.otherwise.as_ref())
    }
}

/// The policies of all routes, and the identities that they work with. Copies share what they have
/// in common.
#[derive(Debug, Default, Clone)]
pub struct Policies {
    /// Consumers and credentials.
    pub identities: Identities,
    /// The instances for single consumers at any route, by the name of their kind.
    consumers: SharedMap<(&'static str, Uuid), Arc<Instance>>,
    /// For routes and services without policies of their own.
    global: Option<Arc<Chain>>,
    /// For requests without a route.
    unmatched: Option<Arc<Chain>>,
    /// For routes without policies of their own whose service has some.
    services: SharedMap<Uuid, Arc<Chain>>,
    /// For routes with policies of their own.
    routes: SharedMap<Uuid, Arc<Chain>>,
}

impl Policies {
    /// The chain of a route.
    pub fn of_route(&self, route: Uuid, service: Option<Uuid>) -> Option<&Arc<Chain>> {
        let own = (!self.routes.is_empty()).then(|| self.routes.get(&route));
        own.flatten()
            .or_else(|| {
                let has_any = !self.services.is_empty();
                service
                    .filter(|_| has_any)
                    .and_then(|id| self.services.get(&id))
            })
            .or(self.global.as_ref())
    }

    /// The chain of requests without a route. Only the later phases of its policies run.
    pub fn of_unmatched(&self) -> Option<&Arc<Chain>> {
        self.unmatched.as_ref()
    }
}

/// The instances by what they are for, from which chains are made.
#[derive(Debug, Default)]
pub struct Instances {
    all: HashMap<Uuid, Arc<Instance>>,
    by_route: HashMap<Uuid, BTreeSet<Uuid>>,
    by_service: HashMap<Uuid, BTreeSet<Uuid>>,
    /// Those for all requests.
    global: BTreeSet<Uuid>,
    /// Those for single consumers at any route, by kind.
    of_consumers: BTreeMap<&'static str, OfConsumers>,
    /// The services of the routes.
    services: HashMap<Uuid, Uuid>,
    /// The routes of each service.
    routes: HashMap<Uuid, BTreeSet<Uuid>>,
    changed: Changed,
}

/// The instances of a kind for single consumers at any route.
#[derive(Debug)]
struct OfConsumers {
    priority: i32,
    records: bool,
    traces: bool,
    count: usize,
}

/// A new instance for a consumer, or the id of one that is gone. Another one may have taken its
/// place before, since the changes of a commit are in any order.
type ConsumerChange = Result<Arc<Instance>, Uuid>;

/// What has changed since the chains were last made.
#[derive(Debug, Default)]
struct Changed {
    /// Every chain has to be made.
    everything: bool,
    /// The instances of single consumers at any route.
    consumers: Vec<(&'static str, Uuid, ConsumerChange)>,
    routes: BTreeSet<Uuid>,
    services: BTreeSet<Uuid>,
}

impl Instances {
    /// Adds an instance, or replaces the one with its id.
    pub fn put(&mut self, instance: Instance) {
        self.remove(instance.id);
        let Instance {
            id,
            scope,
            name,
            priority,
            ..
        } = instance;
        let instance = Arc::new(instance);
        match scope {
            Scope {
                route: Some(route), ..
            } => {
                self.by_route.entry(route).or_default().insert(id);
                self.changed.routes.insert(route);
            }
            Scope {
                service: Some(service),
                ..
            } => {
                self.by_service.entry(service).or_default().insert(id);
                self.changed.services.insert(service);
            }
            Scope {
                consumer: Some(consumer),
                ..
            } => {
                let kind = self.of_consumers.entry(name).or_insert(OfConsumers {
                    priority,
                    records: instance.policy.records(),
                    traces: instance.policy.traces(),
                    count: 0,
                });
                kind.count += 1;
                // Every chain gets a step for the first instance of a kind.
                self.changed.everything |= kind.count == 1;
                let change = (name, consumer, Ok(Arc::clone(&instance)));
                self.changed.consumers.push(change);
            }
            _ => {
                self.global.insert(id);
                self.changed.everything = true;
            }
        }
        self.all.insert(id, instance);
    }

    /// Removes an instance, if it is present.
    pub fn remove(&mut self, id: Uuid) {
        let Some(instance) = self.all.remove(&id) else {
            return;
        };
        match instance.scope {
            Scope {
                route: Some(route), ..
            } => {
                remove_from(&mut self.by_route, route, id);
                self.changed.routes.insert(route);
            }
            Scope {
                service: Some(service),
                ..
            } => {
                remove_from(&mut self.by_service, service, id);
                self.changed.services.insert(service);
            }
            Scope {
                consumer: Some(consumer),
                ..
            } => {
                if let Some(kind) = self.of_consumers.get_mut(instance.name) {
                    kind.count -= 1;
                    if kind.count == 0 {
                        self.of_consumers.remove(instance.name);
                        self.changed.everything = true;
                    }
                }
                self.changed
                    .consumers
                    .push((instance.name, consumer, Err(id)));
            }
            _ => {
                self.global.remove(&id);
                self.changed.everything = true;
            }
        }
    }

    /// Sets the service of a route; `None` for a route without one, and for one that is gone.
    pub fn set_service(&mut self, route: Uuid, service: Option<Uuid>) {
        let old = match service {
            Some(service) => self.services.insert(route, service),
            None => self.services.remove(&route),
        };
        if old != service {
            if let Some(old) = old {
                remove_from(&mut self.routes, old, route);
            }
            if let Some(service) = service {
                self.routes.entry(service).or_default().insert(route);
            }
            self.changed.routes.insert(route);
        }
    }

    /// Brings the chains up to date. Returns whether they have changed.
    pub fn rebuild(&mut self, policies: &mut Policies) -> bool {
        let mut changed = std::mem::take(&mut self.changed);
        for service in &changed.services {
            changed
                .routes
                .extend(self.routes.get(service).into_iter().flatten());
        }
        if changed.everything {
            changed.routes.extend(self.by_route.keys());
            changed.services.extend(self.by_service.keys());
            policies.global = self.chain(None, None, true);
            policies.unmatched = self.chain(None, None, false);
        }
        let mut is_changed = changed.everything || !changed.consumers.is_empty();
        for (name, consumer, instance) in changed.consumers {
            match instance {
                Ok(instance) => policies.consumers.insert((name, consumer), instance),
                Err(gone) => {
                    let key = (name, consumer);
                    if policies
                        .consumers
                        .get(&key)
                        .is_some_and(|now| now.id == gone)
                    {
                        policies.consumers.remove(&key);
                    }
                }
            }
        }
        for service in changed.services {
            let own = self.by_service.contains_key(&service);
            let chain = own.then(|| self.chain(None, Some(service), true));
            is_changed |= set(&mut policies.services, service, chain.flatten());
        }
        for route in changed.routes {
            let own = self.by_route.contains_key(&route);
            let service = self.services.get(&route).copied();
            let chain = own.then(|| self.chain(Some(route), service, true));
            is_changed |= set(&mut policies.routes, route, chain.flatten());
        }
        is_changed
    }

    /// The chain of a route of a service; `None` if there is no policy. `has_consumers` is whether
    /// its requests may have a consumer.
    fn chain(
        &self,
        route: Option<Uuid>,
        service: Option<Uuid>,
        has_consumers: bool,
    ) -> Option<Arc<Chain>> {
        let step = |name, priority| Step {
            name,
            priority,
            consumers_here: HashMap::new(),
            route_and_service: None,
            otherwise: None,
        };
        let mut steps: BTreeMap<&'static str, Step> = BTreeMap::new();
        let (mut records, mut traces) = (false, false);
        if has_consumers {
            for (name, kind) in &self.of_consumers {
                steps.insert(name, step(name, kind.priority));
                records |= kind.records;
                traces |= kind.traces;
            }
        }
        let lists = [
            route.and_then(|id| self.by_route.get(&id)),
            service.and_then(|id| self.by_service.get(&id)),
            Some(&self.global),
        ];
        let here = lists.into_iter().flatten().flatten();
        let here = here.filter_map(|id| self.all.get(id));
        for instance in here.filter(|instance| instance.scope.contains(route, service)) {
            let Instance {
                name,
                priority,
                scope,
                ..
            } = **instance;
            records |= instance.policy.records();
            traces |= instance.policy.traces();
            let step = steps.entry(name).or_insert_with(|| step(name, priority));
            let is_better = |than: Option<&Arc<Instance>>| {
                than.is_none_or(|than| scope.rank() < than.scope.rank())
            };
            match scope {
                Scope {
                    consumer: Some(consumer),
                    ..
                } => {
                    if is_better(step.consumers_here.get(&consumer)) {
                        step.consumers_here.insert(consumer, Arc::clone(instance));
                    }
                }
                Scope {
                    route: Some(_),
                    service: Some(_),
                    ..
                } => {
                    step.route_and_service = Some(Arc::clone(instance));
                }
                _ => {
                    if is_better(step.otherwise.as_ref()) {
                        step.otherwise = Some(Arc::clone(instance));
                    }
                }
            }
        }
        let mut steps: Vec<Step> = steps.into_values().collect();
        // Of two kinds with the same priority, the later name comes first. Source: Kong.
        steps.sort_by(|one, other| (other.priority, other.name).cmp(&(one.priority, one.name)));
        (!steps.is_empty()).then(|| {
            Arc::new(Chain {
                steps,
                records,
                traces,
            })
        })
    }
}

fn remove_from(sets: &mut HashMap<Uuid, BTreeSet<Uuid>>, key: Uuid, id: Uuid) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&id);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

/// Sets or removes a chain. Returns whether there is one now, or was one.
fn set(chains: &mut SharedMap<Uuid, Arc<Chain>>, id: Uuid, chain: Option<Arc<Chain>>) -> bool {
    match chain {
        Some(chain) => {
            chains.insert(id, chain);
            true
        }
        None => chains.remove(&id).is_some(),
    }
}

#[cfg(test)]
mod tests;
