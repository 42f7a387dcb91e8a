//! Plugins that export `outcome`: how they are told of the tries of their picks.

use super::*;
use crate::component::Journal;
use crate::endpoint::EndReason;
use crate::trace::{EndedTry, Event, Reader};

/// The guest that logs the tries that it is told of, under a name of its own.
fn with_outcomes(engine: &Arc<Engine>, name: &str) -> (Balancer, Arc<Journal>) {
    let plugin = engine.load_trusted(&guest("takes-outcomes")).unwrap();
    let plugin = engine.named(&plugin, name);
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, "{}".into());
    balancer.set_endpoints(endpoints(&[1, 1]));
    (balancer, engine.journal(name).unwrap())
}

fn placed(balancer: &Balancer, number: u64) -> InFlight {
    let claim = |endpoint, details: ChoiceDetails| InFlight::new(endpoint).noted(details.notes);
    match balancer.place(request(number), &[], claim) {
        Choice::Endpoint(in_flight) => in_flight,
        other => panic!("{other:?}"),
    }
}

fn end(mut in_flight: InFlight, why: EndReason, now: u64) {
    in_flight.end(why, || now);
}

fn said(journal: &Journal) -> Vec<String> {
    let (lines, _) = journal.read();
    lines.iter().map(|line| line.message.to_string()).collect()
}

#[test]
fn tries_are_reported_in_the_order_of_their_ends_before_the_next_pick() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = with_outcomes(&engine, "in-order");
    let [first, second, third] = [1, 2, 3].map(|number| placed(&balancer, number));
    end(third, EndReason::Timeout, 9);
    end(first, EndReason::Complete, 10);
    drop(second);
    // A pick that the gateway sends nowhere.
    let unsent = balancer.place(request(4), &[], |_, _| ());
    assert!(matches!(unsent, Choice::Endpoint(())));
    let three = [
        "3 Timeout None None 0 false",
        "1 Complete None None 0 false",
        "2 Client None None 0 false",
    ];
    assert_eq!(said(&journal), three);
    assert_eq!(picks(&balancer, 1), [1]);
    assert_eq!(said(&journal)[3..], ["4 Unsent None None 0 false"]);
    let counters = balancer.counters();
    assert_eq!((counters.outcomes, counters.outcomes_dropped), (4, 0));
    assert_eq!(counters.fallback_picks, 0);
}

#[test]
fn ended_tries_are_reported_at_once_unless_a_pick_holds_the_lock() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = with_outcomes(&engine, "at-once");
    let balancer = balancer.shared();
    let [first, second] = [1, 2].map(|number| placed(&balancer, number));
    end(first, EndReason::Complete, 3);
    assert_eq!(said(&journal), ["1 Complete None None 0 false"]);
    // It ends while a pick is in progress.
    let second = std::cell::Cell::new(Some(second));
    let claim = |_, _| drop(second.take());
    let in_progress = balancer.place(request(3), &[], claim);
    assert!(matches!(in_progress, Choice::Endpoint(())));
    assert_eq!(said(&journal).len(), 1);
    drop(placed(&balancer, 4));
    let tags: Vec<String> = said(&journal).iter().map(|line| line[..1].into()).collect();
    assert_eq!(tags, ["1", "2", "3", "4"]);
}

#[test]
fn tries_that_do_not_fit_into_the_queue_are_dropped_and_counted() {
    let (_folder, engine) = shared_engine();
    let (balancer, _) = with_outcomes(&engine, "dropped");
    let open: Vec<InFlight> = (0..1030).map(|number| placed(&balancer, number)).collect();
    drop(open);
    let counters = balancer.counters();
    assert_eq!((counters.outcomes, counters.outcomes_dropped), (0, 6));
    picks(&balancer, 3);
    // Four before each pick, of which three have no try.
    assert_eq!(balancer.counters().outcomes, 12);
    // The counters are those of the plugin.
    let other = engine.load_trusted(&guest("first")).unwrap();
    balancer.replace(other, "{}".into());
    assert_eq!(balancer.counters().outcomes_dropped, 0);
}

#[test]
fn an_instance_is_not_told_of_the_tries_of_another_one() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = with_outcomes(&engine, "generations");
    let balancer = balancer.shared();
    let before = placed(&balancer, 1);
    let waits = placed(&balancer, 2);
    let limits = engine.limits();
    balancer.set_limits(PickLimits { state: 0, ..limits });
    end(before, EndReason::Complete, 2);
    let now = placed(&balancer, 3);
    end(waits, EndReason::Complete, 4);
    end(now, EndReason::Complete, 5);
    assert_eq!(said(&journal), ["1 Complete None None 0 false"]);
}

#[test]
fn nothing_is_noted_for_a_plugin_without_outcomes() {
    let (_folder, engine) = shared_engine();
    for component in [
        guest("first"),
        guest("weighs"),
        include_bytes!("../../../../tests/components/p2c-1.3.0.wasm").to_vec(),
    ] {
        let plugin = engine.load_trusted(&component).unwrap();
        let balancer = Balancer::new(Arc::clone(&engine), "u", plugin, "{}".into());
        balancer.set_endpoints(endpoints(&[1, 1]));
        let notes = balancer.place(request(0), &[], |_, details| details.notes.is_some());
        assert!(matches!(notes, Choice::Endpoint(false)), "{notes:?}");
    }
}

#[test]
fn what_a_plugin_is_told_of_is_replayed() {
    let (_folder, engine) = shared_engine();
    let (balancer, _) = with_outcomes(&engine, "replayed");
    let trace = recorded(&balancer, "takes-outcomes", || {
        end(placed(&balancer, 5), EndReason::Broken, 25);
        drop(placed(&balancer, 30));
    });
    let mut reader = Reader::new(&trace).unwrap();
    let plugin = engine.load_trusted(reader.component).unwrap();
    let mut rerun = Rerun::new(Arc::clone(&engine), plugin, "{}".into(), Vec::new());
    let mut replayed = Vec::new();
    let mut tags = Vec::new();
    while let Some(event) = reader.event().unwrap() {
        match event {
            Event::Table {
                fresh,
                rows,
                load_answers,
                facts,
            } => rerun.table(fresh, &rows, load_answers, &facts).unwrap(),
            Event::Pick(pick) => {
                assert_eq!(rerun.pick(&pick).unwrap(), (pick.answer, pick.tag));
                tags.push(pick.tag);
            }
            Event::Ended {
                ended,
                load_answers,
            } => {
                rerun.ended(&ended, load_answers).unwrap();
                replayed.push(ended);
            }
            Event::Outcome { .. } => {}
        }
    }
    assert_eq!(tags, [1, 2]);
    let expected = EndedTry {
        endpoint: 1,
        tag: 1,
        now: 25,
        took: 20,
        why: EndReason::Broken,
        ..EndedTry::default()
    };
    assert_eq!(replayed, [expected]);
}
