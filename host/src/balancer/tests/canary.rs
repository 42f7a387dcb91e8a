//! A version that takes a share of the picks.

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::endpoint::{EndReason, Outcome, OutcomeObserver, TryNotes};

/// A canary of this guest, with these bounds.
fn canary(engine: &Arc<Engine>, name: &str, bounds: Value) -> Arc<RunningCanary> {
    let plugin = engine.load_trusted(&guest(name)).unwrap();
    canary_of(plugin, bounds)
}

fn canary_of(plugin: Arc<LoadedBalancer>, bounds: Value) -> Arc<RunningCanary> {
    let mut settings = json!({
        "id": "f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "version": plugin.digest, "state": "running",
        "share_percent": 100, "max_faults": 0, "min_requests": 10, "promote": false, "created_at": 0,
    });
    for (name, value) in bounds.as_object().unwrap() {
        settings[name] = value.clone();
    }
    let settings = serde_json::from_value(settings).unwrap();
    Arc::new(RunningCanary::new(
        settings,
        Uuid::nil(),
        "mine".into(),
        plugin,
    ))
}

fn begin(engine: &Arc<Engine>, balancer: &Balancer, canary: &Arc<RunningCanary>) {
    let part = (Arc::clone(canary), "{}".into(), engine.limits());
    balancer.set_canary(Some(part));
}

fn reason(canary: &RunningCanary) -> Option<String> {
    match &*canary.verdict().borrow() {
        Verdict::Returned(reason) => Some(reason.clone()),
        Verdict::Open | Verdict::Over => None,
    }
}

/// Of three endpoints with these weights the active version chooses the first, the canary the
/// third.
const WEIGHTS: [u32; 3] = [1, 2, 3];

#[test]
fn a_canary_gets_its_share_and_outcomes_count_for_the_side_that_placed_the_request() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    let canary = canary(&engine, "heaviest", json!({"share_percent": 20}));
    begin(&engine, &balancer, &canary);
    let mut of_canary = 0;
    for entropy in 0..10_000 {
        let placed = balancer.place(request(entropy), &[], |endpoint, placed| {
            (endpoint.id, placed.observer.unwrap())
        });
        let Choice::Endpoint((id, placed)) = placed else {
            panic!("no endpoint");
        };
        let is_canarys = placed.side == Side::Canary;
        assert_eq!(id, if is_canarys { 3 } else { 1 });
        of_canary += u64::from(is_canarys);
        let status = if is_canarys { 200 } else { 503 };
        placed.observe(Outcome::Answered(status), Duration::from_millis(1));
    }
    // Five standard deviations of 40.
    assert!((1800..2200).contains(&of_canary), "{of_canary}");
    let [stable, own] = canary.figures();
    assert_eq!(
        (own.picks, own.requests, own.errors),
        (of_canary, of_canary, 0)
    );
    let rest = 10_000 - of_canary;
    assert_eq!(
        (stable.picks, stable.requests, stable.errors),
        (rest, rest, rest)
    );
    assert!(canary.is_judged());
    assert_eq!(balancer.counters().picks, rest);

    balancer.set_canary(None);
    let none = balancer.place(request(0), &[], |endpoint, placed| {
        (endpoint.id, placed.observer.is_none())
    });
    assert!(matches!(none, Choice::Endpoint((1, true))), "{none:?}");
}

#[test]
fn a_client_stays_on_one_side() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    begin(
        &engine,
        &balancer,
        &canary(&engine, "heaviest", json!({"share_percent": 30})),
    );
    let mut seen = [0; 4];
    for affinity in 0..200 {
        let pick = |entropy| {
            let request = PickRequest {
                affinity: Some(affinity),
                ..request(entropy)
            };
            match balancer.pick(request, &[], |endpoint| endpoint.id) {
                Choice::Endpoint(id) => id,
                other => panic!("{other:?}"),
            }
        };
        let first = pick(0);
        assert!((1..20).all(|entropy| pick(entropy) == first));
        seen[first as usize] += 1;
    }
    assert!(seen[3] > 30 && seen[1] > 100 && seen[2] == 0, "{seen:?}");
}

#[test]
fn a_larger_share_drops_no_client_and_another_version_begins_with_others() {
    let (_folder, engine) = shared_engine();
    let clients = |name: &str, share: u32| {
        let balancer = balancer(&engine, "lightest", &WEIGHTS);
        let canary = canary(&engine, name, json!({"share_percent": share}));
        begin(&engine, &balancer, &canary);
        let is_canarys = |affinity: &u64| {
            let request = PickRequest {
                affinity: Some(*affinity),
                ..request(0)
            };
            let placed = balancer.place(request, &[], |_, placed| placed.observer.unwrap().side);
            matches!(placed, Choice::Endpoint(Side::Canary))
        };
        (0..1000).filter(is_canarys).collect::<Vec<u64>>()
    };
    let (few, more) = (clients("heaviest", 10), clients("heaviest", 40));
    assert!(few.len() > 50 && few.len() < more.len());
    assert!(few.iter().all(|client| more.contains(client)));
    let others = clients("first", 10);
    let both = others.iter().filter(|client| few.contains(client)).count();
    assert!(both < few.len() / 2, "{both} of {}", few.len());
}

#[test]
fn a_fault_of_a_canary_costs_no_request_and_ends_it_at_once() {
    let (_folder, engine) = shared_engine();
    for (name, word) in [("traps", "trapped"), ("out-of-range", "position")] {
        let balancer = balancer(&engine, "lightest", &WEIGHTS);
        let canary = canary(&engine, name, json!({}));
        begin(&engine, &balancer, &canary);
        assert!(picks(&balancer, 1)[0] > 0);
        let said = reason(&canary).unwrap();
        assert!(said.contains(word) && said.contains("u (canary)"), "{said}");
        assert_eq!(picks(&balancer, 20), [1; 20]);
        let [stable, own] = canary.figures();
        assert_eq!((stable.faults, own.faults, own.requests), (0, 1, 0));
        assert_eq!(balancer.counters().fallback_picks, 0);
    }
}

#[test]
fn a_canary_ends_when_it_has_more_faults_than_max_faults() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    let canary = canary(&engine, "panics-sometimes", json!({"max_faults": 1}));
    begin(&engine, &balancer, &canary);
    assert!(picks(&balancer, 10).iter().all(|id| *id > 0));
    assert_eq!(reason(&canary), None);
    assert!(picks(&balancer, 10).iter().all(|id| *id > 0));
    let said = reason(&canary).unwrap();
    assert!(said.starts_with("it failed 2 times, more than 1"), "{said}");
}

#[test]
fn refusals_and_failed_requests_count_as_errors_of_the_canary() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    let refuses = canary(&engine, "refuses", json!({"max_error_percent": 50}));
    begin(&engine, &balancer, &refuses);
    assert_eq!(picks(&balancer, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    assert!(reason(&refuses).unwrap().contains("100.00 %"));

    let breaks = canary(&engine, "heaviest", json!({"max_error_percent": 50}));
    begin(&engine, &balancer, &breaks);
    for number in 0..10 {
        assert_eq!(reason(&breaks), None);
        let placed = balancer.place(request(number), &[], |_, placed| placed.observer.unwrap());
        let Choice::Endpoint(placed) = placed else {
            panic!("no endpoint");
        };
        let outcome = [Outcome::Broken, Outcome::Timeout, Outcome::Answered(500)];
        placed.observe(outcome[number as usize % 3], Duration::from_millis(1));
    }
    assert!(reason(&breaks).is_some());
    assert_eq!(picks(&balancer, 3), [1; 3]);
}

#[test]
fn a_canary_gets_each_new_table_too() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    begin(&engine, &balancer, &canary(&engine, "heaviest", json!({})));
    assert_eq!(picks(&balancer, 1), [3]);
    balancer.set_endpoints(endpoints(&[1, 9, 3]));
    assert_eq!(picks(&balancer, 1), [2]);
    balancer.set_canary(None);
    assert_eq!(picks(&balancer, 1), [1]);
}

#[test]
fn a_canary_begins_with_the_state_of_the_active_version() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts", &[1, 1, 1]);
    assert_eq!(picks(&balancer, 2), [1, 2]);
    let canary = canary(&engine, "counts-next", json!({}));
    begin(&engine, &balancer, &canary);
    assert_eq!(picks(&balancer, 2), [3, 1]);
    // The same canary, set again, keeps its instance. The active version has a count of its own.
    begin(&engine, &balancer, &canary);
    assert_eq!(picks(&balancer, 1), [2]);
    balancer.set_canary(None);
    assert_eq!(picks(&balancer, 1), [3]);
}

#[test]
fn a_state_that_a_canary_refuses_is_a_fault() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts-next", &[1, 1, 1]);
    picks(&balancer, 1);
    let canary = canary(&engine, "counts", json!({}));
    begin(&engine, &balancer, &canary);
    let said = reason(&canary).unwrap();
    assert!(said.contains("this is not of version 1"), "{said}");
    assert_eq!(picks(&balancer, 2), [2, 3]);
    let counters = balancer.counters();
    assert_eq!((counters.instances, counters.faults.state), (1, 0));
}

#[test]
fn columns_of_a_canary_are_observed_while_it_runs() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    let latency = SHIPPED
        .iter()
        .find(|shipped| shipped.name == "latency")
        .unwrap();
    let plugin = engine.load_trusted(latency.component).unwrap();
    assert!(!balancer.wants(Observed::Latency));
    begin(&engine, &balancer, &canary_of(plugin, json!({})));
    picks(&balancer, 1);
    assert!(balancer.wants(Observed::Latency));
    balancer.set_canary(None);
    assert!(!balancer.wants(Observed::Latency));
}

/// Both are the same balancer, which leaves out an endpoint that has asked it for a pause.
#[test]
fn each_version_is_told_of_its_own_tries_alone() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "quota", &[1, 1]);
    let canary = canary(&engine, "quota", json!({"share_percent": 50}));
    begin(&engine, &balancer, &canary);
    let place = |entropy| {
        let placed = balancer.place(request(entropy), &[], |endpoint, details| {
            (endpoint.id, details.observer.unwrap().side, details.notes)
        });
        let Choice::Endpoint((id, side, notes)) = placed else {
            panic!("no endpoint");
        };
        (id, side, notes.unwrap())
    };
    let end = |mut notes: Box<TryNotes>, status, pause| {
        notes.note_status(status, pause);
        notes.end(EndReason::Complete, 1);
    };
    for entropy in 0..100 {
        match place(entropy) {
            (1, Side::Canary, notes) => end(notes, 429, Some(3600)),
            (_, _, notes) => end(notes, 200, None),
        }
    }
    let mut picked = [[0_u32; 2]; 2];
    for entropy in 100..300 {
        let (id, side, notes) = place(entropy);
        picked[side as usize][id as usize - 1] += 1;
        end(notes, 200, None);
    }
    let [stable, [of_first, of_second]] = picked;
    assert_eq!(of_first, 0, "{picked:?}");
    assert!(of_second > 50, "{picked:?}");
    assert!(stable[0].abs_diff(stable[1]) <= 1, "{picked:?}");
}

#[test]
fn a_recording_is_of_one_component() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "lightest", &WEIGHTS);
    let record = || {
        let (to, pieces) = tokio::sync::mpsc::channel(16);
        let component = guest("lightest").into();
        let limit = 1 << 20;
        let name = "mine".into();
        (
            balancer.record(Recording {
                name,
                component,
                facts: false,
                to,
                limit,
            }),
            pieces,
        )
    };
    let (begun, mut pieces) = record();
    assert!(begun.is_ok());
    begin(&engine, &balancer, &canary(&engine, "heaviest", json!({})));
    while pieces.blocking_recv().is_some() {}
    let refused = record().0.unwrap_err();
    assert!(refused.contains("a canary"), "{refused}");
    balancer.set_canary(None);
    assert!(record().0.is_ok());
}
