#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Nothing;

impl Policy for Nothing {}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn instance(number: u128, name: &'static str, priority: i32, scope: Scope) -> Instance {
    Instance {
        id: id(number),
        name,
        priority,
        scope,
        policy: Arc::new(Nothing),
    }
}

/// The instance of a kind that a request finds.
fn found(
    policies: &Policies,
    name: &str,
    route: u128,
    service: u128,
    consumer: Option<u128>,
) -> Option<Uuid> {
    let chain = policies.of_route(id(route), Some(id(service)))?;
    let step = chain.steps().iter().find(|step| step.name == name)?;
    let chosen = step.choose(policies, consumer.map(id))?;
    Some(chosen.id)
}

#[test]
fn the_order_is_by_priority_then_by_name_backwards() {
    let mut instances = Instances::default();
    let kinds = [("acl", 950), ("cors", 2000), ("b", 7), ("a", 7)];
    for (number, (name, priority)) in (1..).zip(kinds) {
        instances.put(instance(number, name, priority, Scope::default()));
    }
    let mut policies = Policies::default();
    assert!(instances.rebuild(&mut policies));
    let chain = policies.of_route(id(1), None).unwrap();
    let names: Vec<&str> = chain.steps().iter().map(|step| step.name).collect();
    assert_eq!(names, ["cors", "acl", "b", "a"]);
}

/// The scopes of a request of consumer 3 to route 1 of service 2, in the order of their precedence.
const SCOPES: [(bool, bool, bool); 8] = [
    (true, true, true),
    (true, false, true),
    (false, true, true),
    (true, true, false),
    (false, false, true),
    (true, false, false),
    (false, true, false),
    (false, false, false),
];

fn scope((route, service, consumer): (bool, bool, bool)) -> Scope {
    Scope {
        route: route.then(|| id(1)),
        service: service.then(|| id(2)),
        consumer: consumer.then(|| id(3)),
    }
}

proptest! {
    #[test]
    fn a_request_finds_the_most_specific_instance(present in prop::collection::vec(any::<bool>(), 8)) {
        let mut instances = Instances::default();
        instances.set_service(id(1), Some(id(2)));
        let there: Vec<usize> = (0..8).filter(|place| present[*place]).collect();
        for place in &there {
            instances.put(instance(*place as u128, "cors", 1, scope(SCOPES[*place])));
        }
        let mut policies = Policies::default();
        instances.rebuild(&mut policies);
        let expected = |fits: &dyn Fn(&(bool, bool, bool)) -> bool| {
            let first = there.iter().find(|place| fits(&SCOPES[**place]));
            first.map(|place| id(*place as u128))
        };
        let find = |route, service, consumer| found(&policies, "cors", route, service, consumer);
        prop_assert_eq!(find(1, 2, Some(3)), expected(&|_| true));
        prop_assert_eq!(find(1, 2, None), expected(&|(_, _, consumer)| !consumer));
        prop_assert_eq!(find(1, 2, Some(4)), expected(&|(_, _, consumer)| !consumer));
        prop_assert_eq!(find(9, 2, Some(3)), expected(&|(route, ..)| !route));
        prop_assert_eq!(find(9, 8, Some(3)), expected(&|(route, service, _)| !route && !service));
        prop_assert_eq!(find(9, 8, None), expected(&|s| *s == (false, false, false)));
    }

    /// Whatever the order of changes, the chains are those that are made from the result alone.
    #[test]
    fn changed_chains_are_like_new_ones(
        changes in prop::collection::vec((0..6u128, 0..8usize, any::<bool>(), 0..3u128), 1..30),
    ) {
        let mut instances = Instances::default();
        let mut policies = Policies::default();
        let mut left: BTreeMap<u128, usize> = BTreeMap::new();
        let mut service = None;
        for (number, place, is_put, of_service) in changes {
            if is_put {
                instances.put(instance(number, "cors", 1, scope(SCOPES[place])));
                // The store has no two with the same scope.
                let others = left.iter().filter(|(_, other)| **other == place);
                let others: Vec<u128> = others.map(|(other, _)| *other).filter(|o| *o != number).collect();
                for other in others {
                    instances.remove(id(other));
                    left.remove(&other);
                }
                left.insert(number, place);
            } else {
                instances.remove(id(number));
                left.remove(&number);
            }
            service = (of_service > 0).then_some(of_service);
            instances.set_service(id(1), service.map(id));
            instances.rebuild(&mut policies);
        }
        let mut anew = Instances::default();
        anew.set_service(id(1), service.map(id));
        for (number, place) in left {
            anew.put(instance(number, "cors", 1, scope(SCOPES[place])));
        }
        let mut expected = Policies::default();
        anew.rebuild(&mut expected);
        for consumer in [None, Some(3), Some(4)] {
            for service in [1, 2] {
                let now = found(&policies, "cors", 1, service, consumer);
                prop_assert_eq!(now, found(&expected, "cors", 1, service, consumer));
                let now = found(&policies, "cors", 9, service, consumer);
                prop_assert_eq!(now, found(&expected, "cors", 9, service, consumer));
            }
        }
    }
}
