//! The interfaces that plugins may import.

use std::borrow::Cow;

use tracing::Level;

use super::*;
use crate::component::Journal;
use crate::endpoint::Labels;
use crate::trace::{BalancerAnswer, Event, Reader};

struct Asked;

impl RequestFacts for Asked {
    fn method(&self) -> Option<Cow<'_, str>> {
        Some("PURGE".into())
    }
    fn path(&self) -> Option<Cow<'_, str>> {
        Some("/a/b".into())
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "X-Position" => Some("2".into()),
            "x-Several" => Some("1, 2".into()),
            _ => None,
        }
    }
    fn client(&self) -> Option<Cow<'_, str>> {
        Some("2001:db8::7".into())
    }
    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(b"a body"[..most.min(6)].into())
    }
}

/// A balancer that is in use under a name, with its log lines.
fn in_use(engine: &Arc<Engine>, name: &str) -> (Balancer, Arc<Journal>) {
    let plugin = engine.load_trusted(&guest(name)).unwrap();
    let plugin = engine.named(&plugin, name);
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, "{}".into());
    balancer.set_endpoints(endpoints(&[1, 1, 1]));
    (balancer, engine.journal(name).unwrap())
}

#[test]
fn a_plugin_reads_facts_only_of_the_request_that_it_chooses_for() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "asks");
    let asked = PickRequest {
        facts: Some(&Asked),
        ..request(0)
    };
    for (request, expected) in [
        (asked, 3),
        (request(0), 1),
        (asked, 3),
        (asked.in_numbers(), 1),
    ] {
        let chosen = balancer.pick(request, &[], |endpoint| endpoint.id);
        assert!(matches!(chosen, Choice::Endpoint(id) if id == expected));
    }
    assert_eq!(balancer.counters().fallback_picks, 0);
    let (lines, _) = journal.read();
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    let (known, nothing) = ("PURGE /a/b - 2001:db8::7 1, 2 -", "- - - - - -");
    assert_eq!(messages, [known, nothing, known, nothing]);
}

#[test]
fn only_a_plugin_that_asks_for_bodies_reads_them() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "reads-body");
    assert!(balancer.reads_bodies());
    let asked = PickRequest {
        facts: Some(&Asked),
        ..request(0)
    };
    // The last byte of "a body" is 121.
    let chosen = balancer.pick(asked, &[], |endpoint| endpoint.id);
    assert!(matches!(chosen, Choice::Endpoint(2)), "{chosen:?}");
    let chosen = balancer.pick(request(0), &[], |endpoint| endpoint.id);
    assert!(matches!(chosen, Choice::Endpoint(1)), "{chosen:?}");
    let (lines, _) = journal.read();
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    assert_eq!(messages, ["0 6 2", "0 none none"]);
    // A plugin that asks for other facts, or none, does not read bodies.
    for (name, reads) in [("asks", false), ("reads-body", true), ("first", false)] {
        let plugin = engine.load_trusted(&guest(name)).unwrap();
        balancer.replace(plugin, "{}".into());
        assert_eq!(balancer.reads_bodies(), reads, "{name}");
    }
}

fn labelled(zones: &[Option<&str>]) -> Arc<[Arc<Endpoint>]> {
    let endpoints = endpoints(&vec![1; zones.len()]);
    let label = |(endpoint, zone): (&Arc<Endpoint>, &Option<&str>)| {
        let mut endpoint = endpoint.view();
        let zone = zone.map(|zone| ("zone".to_owned(), zone.to_owned()));
        endpoint.labels = Labels::new([], &zone.into_iter().collect());
        Arc::new(endpoint)
    };
    endpoints.iter().zip(zones).map(label).collect()
}

#[test]
fn a_plugin_learns_about_endpoints_only_when_it_gets_its_table() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "labels");
    balancer.set_endpoints(labelled(&[None, Some("b"), Some("a")]));
    assert_eq!(picks(&balancer, 2), [3, 3]);
    balancer.set_endpoints(labelled(&[Some("a")]));
    assert_eq!(picks(&balancer, 1), [1]);
    assert_eq!(balancer.counters().fallback_picks, 0);
    let (lines, _) = journal.read();
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    let first = "- - h 127.0.0.1:1, b - h 127.0.0.1:2, a - h 127.0.0.1:3";
    assert_eq!(messages, [first, "a - h 127.0.0.1:1"]);
}

/// A replay knows of each endpoint what the plugin has asked, and nothing else.
#[test]
fn what_a_plugin_learns_about_endpoints_is_replayed() {
    let (_folder, engine) = shared_engine();
    let (balancer, _) = in_use(&engine, "labels");
    balancer.set_endpoints(labelled(&[Some("b"), Some("a")]));
    let trace = recorded(&balancer, "labels", || {
        picks(&balancer, 2);
        balancer.set_endpoints(labelled(&[Some("a"), Some("b")]));
        picks(&balancer, 2);
    });
    let mut reader = Reader::new(&trace).unwrap();
    let plugin = engine.load_trusted(reader.component).unwrap();
    let mut rerun = Rerun::new(Arc::clone(&engine), plugin, "{}".into(), Vec::new());
    let mut answers = Vec::new();
    while let Some(event) = reader.event().unwrap() {
        match event {
            Event::Table {
                fresh,
                rows,
                load_answers,
                facts,
            } => {
                // Two hosts, two addresses and two zones; nothing has the other label.
                assert_eq!(facts.len(), 6, "{facts:?}");
                rerun.table(fresh, &rows, load_answers, &facts).unwrap();
            }
            Event::Pick(pick) => {
                assert_eq!(rerun.pick(&pick).unwrap(), (pick.answer, 0));
                answers.push(pick.answer);
            }
            Event::Ended { .. } | Event::Outcome { .. } => {}
        }
    }
    let [first, second] = [1, 0].map(BalancerAnswer::Position);
    assert_eq!(answers, [first, first, second, second]);
}

#[test]
fn a_plugin_that_weighs_requests_reads_what_it_has_said() {
    struct Costs(&'static str);
    impl RequestFacts for Costs {
        fn header(&self, name: &str) -> Option<Cow<'_, str>> {
            (name == "x-cost").then(|| self.0.into())
        }
    }
    let (_folder, engine) = shared_engine();
    let (balancer, _) = in_use(&engine, "weighs");
    let place = |costs: &'static str| {
        let facts = Costs(costs);
        let request = PickRequest {
            facts: Some(&facts),
            ..request(0)
        };
        let placed = |endpoint, details: ChoiceDetails| {
            InFlight::new(endpoint).weighing(details.cost, true, 0)
        };
        match balancer.place(request, &[], placed) {
            Choice::Endpoint(in_flight) => in_flight,
            other => panic!("{other:?}"),
        }
    };
    let mut requests = ["5 5", "3 4", "6 0", "1 1"].map(place);
    let ids = |requests: &[InFlight]| {
        let ids = requests.iter().map(|request| request.endpoint().id);
        ids.collect::<Vec<_>>()
    };
    // The third endpoint has the least work when the fourth request comes.
    assert_eq!(ids(&requests), [1, 2, 3, 3]);
    requests[0].note_body(|| 0);
    requests[0].note_answered();
    // 5, 7 and 8 are left.
    let more = ["1 9", "0 0"].map(place);
    assert_eq!(ids(&more), [1, 2]);
    assert_eq!(balancer.counters().fallback_picks, 0);
    assert!(balancer.wants(Observed::Body));
}

/// A balancer asks in `configure` and with its table too, when there are no tries.
#[test]
fn a_plugin_learns_of_earlier_tries_only_in_a_pick() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "avoids-tried");
    let retry = |last_status, attempt| PickRequest {
        last_status,
        attempt,
        ..request(0)
    };
    let chosen = |request, tried: &[u64]| match balancer.pick(request, tried, |e| e.id) {
        Choice::Endpoint(id) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen(request(0), &[]), 1);
    assert_eq!(chosen(retry(Some(429), 1), &[1, 9]), 2);
    assert_eq!(chosen(retry(None, 2), &[1, 2]), 3);
    balancer.set_endpoints(endpoints(&[1, 1]));
    assert_eq!(chosen(request(0), &[]), 1);
    assert_eq!(balancer.counters().fallback_picks, 0);
    let (lines, _) = journal.read();
    let messages: Vec<&str> = lines.iter().map(|line| &*line.message).collect();
    assert_eq!(messages, ["retry 1: Some(429) [0]", "retry 2: None [0, 1]"]);
}

#[test]
fn log_lines_of_a_plugin_can_be_read() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "says");
    picks(&balancer, 1);
    let (lines, dropped) = journal.read();
    let lines: Vec<(Level, &str)> = lines
        .iter()
        .map(|line| (line.level, &*line.message))
        .collect();
    let expected = [
        (Level::TRACE, "a trace"),
        (Level::DEBUG, "a bug less"),
        (Level::INFO, "3 endpoints"),
        (Level::WARN, "a warning"),
        (Level::ERROR, "an error"),
        (Level::INFO, "printed"),
    ];
    assert_eq!((&lines[..], dropped), (&expected[..], 0));
}

#[test]
fn a_plugin_that_logs_too_much_is_cut_short_without_a_fault() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "says-too-much");
    picks(&balancer, 1);
    let (lines, dropped) = journal.read();
    assert_eq!(lines.len() as u64 + dropped, 1000);
    assert!(lines.len() <= 100 && lines[0].message.len() < 1100);
    assert_eq!(balancer.counters().fallback_picks, 0);
}

#[test]
fn a_journal_is_dropped_with_its_balancer() {
    let (_folder, engine) = shared_engine();
    let (balancer, journal) = in_use(&engine, "prints");
    picks(&balancer, 1);
    assert_eq!(journal.read().0.len(), 2);
    drop((balancer, journal));
    assert!(engine.journal("prints").is_none());
}
