#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header {
        upstream: "u".into(),
        balancer: "round-robin".into(),
        digest: "ab".into(),
        config: "{}".into(),
        started: 1.5,
        gateway: "0.1.0".into(),
        reads_facts: false,
        facts: true,
        contract_1_4: true,
    }
}

fn fact() -> impl Strategy<Value = Fact> {
    let asked = prop_oneof![
        Just(RequestQuestion::Method),
        Just(RequestQuestion::Path),
        Just(RequestQuestion::Query),
        ".{0,5}".prop_map(RequestQuestion::Header),
        Just(RequestQuestion::Client),
        any::<u32>().prop_map(RequestQuestion::BodyStart),
        Just(RequestQuestion::Body(BodyQuestion::Length)),
        Just(RequestQuestion::Body(BodyQuestion::PromptLength)),
        (".{0,5}", any::<u32>()).prop_map(|(pointer, most)| RequestQuestion::Body(
            BodyQuestion::JsonField { pointer, most }
        )),
        any::<(u32, u32)>().prop_map(|(block, most)| RequestQuestion::Body(
            BodyQuestion::PrefixHashes { block, most }
        )),
    ];
    let answer = prop::option::of(prop::collection::vec(any::<u8>(), 0..5));
    (asked, answer).prop_map(|(asked, answer)| Fact { asked, answer })
}

fn endpoint_fact() -> impl Strategy<Value = EndpointFact> {
    let asked = prop_oneof![
        ".{0,5}".prop_map(EndpointQuestion::Label),
        Just(EndpointQuestion::Host),
        Just(EndpointQuestion::Address),
    ];
    (any::<u32>(), asked, ".{0,5}").prop_map(|(position, asked, answer)| EndpointFact {
        position,
        asked,
        answer,
    })
}

fn table() -> impl Strategy<Value = Event> {
    let rows = prop::collection::vec((any::<u64>(), any::<u32>()), 0..5);
    (
        any::<bool>(),
        rows,
        prop::collection::vec(any::<u64>(), 0..5),
        prop::collection::vec(endpoint_fact(), 0..4),
    )
        .prop_map(|(fresh, rows, load_answers, facts)| {
            let rows = rows.into_iter().map(|(id, weight)| Row { id, weight });
            let rows = rows.collect();
            Event::Table {
                fresh,
                rows,
                load_answers,
                facts,
            }
        })
}

fn pick() -> impl Strategy<Value = Event> {
    let answer = prop_oneof![
        Just(BalancerAnswer::None),
        Just(BalancerAnswer::Refused),
        (any::<u16>(), any::<Option<u32>>()).prop_map(|(status, retry_after)| {
            BalancerAnswer::RefusedWith {
                status,
                retry_after,
            }
        }),
        any::<u32>().prop_map(BalancerAnswer::Position),
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(position, first_byte, rest)| {
            BalancerAnswer::Weighted {
                position,
                first_byte,
                rest,
            }
        }),
    ];
    let handed = (
        any::<u64>(),
        any::<u64>(),
        any::<Option<u64>>(),
        any::<u32>(),
    );
    let told = (
        prop::collection::vec(0_u32..3, 0..6),
        prop::collection::vec(any::<u64>(), 0..6),
        prop::collection::vec(fact(), 0..4),
    );
    (handed, told, answer, any::<(Option<u32>, u64)>()).prop_map(|(handed, told, answer, last)| {
        let (chosen, tag) = last;
        let (now, entropy, affinity, attempt) = handed;
        let (load, load_answers, facts) = told;
        Event::Pick(Pick {
            now,
            entropy,
            affinity,
            attempt,
            load,
            load_answers,
            facts,
            answer,
            tag,
            chosen,
        })
    })
}

fn ended() -> impl Strategy<Value = Event> {
    let whose = (any::<u64>(), any::<u64>(), any::<u64>());
    let answer = any::<(Option<u16>, Option<u32>, Option<u64>)>();
    let rest = (
        any::<u64>(),
        any::<u64>(),
        prop::sample::select(&EndReason::ALL),
    );
    let load_answers = prop::collection::vec(any::<u64>(), 0..3);
    (whose, answer, rest, load_answers).prop_map(|(whose, answer, rest, load_answers)| {
        let ((endpoint, tag, now), (status, retry_after, first_byte)) = (whose, answer);
        let (took, bytes, why) = rest;
        let ended = EndedTry {
            endpoint,
            tag,
            now,
            status,
            retry_after,
            first_byte,
            took,
            bytes,
            why,
        };
        Event::Ended {
            ended,
            load_answers,
        }
    })
}

fn read(bytes: &[u8]) -> Result<Vec<Event>, Error> {
    let mut reader = Reader::new(bytes)?;
    std::iter::from_fn(|| reader.event().transpose()).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(events in prop::collection::vec(prop_oneof![table(), pick(), ended()], 0..20)) {
        let mut writer = Writer::new(&header(), b"component", b"saved");
        for event in &events {
            writer.event(event);
        }
        let bytes = writer.take();
        let reader = Reader::new(&bytes).unwrap();
        prop_assert_eq!((reader.header.clone(), reader.component, reader.saved), (header(), &b"component"[..], &b"saved"[..]));
        prop_assert_eq!(read(&bytes).unwrap(), events);
    }

    #[test]
    fn reading_damaged_bytes_never_panics(
        events in prop::collection::vec(prop_oneof![table(), pick(), ended()], 0..8),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut writer = Writer::new(&header(), b"component", b"saved");
        events.iter().for_each(|event| writer.event(event));
        let mut bytes = writer.take();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = read(&bytes);
    }
}

#[test]
fn outcomes_find_their_picks() {
    let mut writer = Writer::new(&header(), &[], &[]);
    for entropy in [7, 8, 9] {
        let pick = Pick {
            now: 1000 + entropy,
            entropy,
            ..Pick::default()
        };
        writer.pick(&pick, &[], &[], BalancerAnswer::Position(0), Some(0));
    }
    writer.outcome(8, 200, 1508);
    writer.outcome(5, 200, 1508);
    writer.outcome(7, 0, 2007);
    let outcome = |pick, status, latency| Event::Outcome {
        pick,
        status,
        latency,
    };
    let events = read(&writer.take()).unwrap();
    assert_eq!(events[3..], [outcome(1, 200, 500), outcome(0, 0, 1000)]);
}

#[test]
fn an_invalid_trace_is_refused_and_a_cut_one_says_where() {
    assert_eq!(read(b"PMTRACE4"), Err(Error::Foreign));
    let mut writer = Writer::new(&header(), &[], &[]);
    writer.table(true, [Row { id: 1, weight: 2 }].into_iter(), &[], &[]);
    let bytes = writer.take();
    let whole = bytes.len();
    assert!(matches!(read(&bytes[..whole - 1]), Err(Error::Cut(_))));
    assert_eq!(read(&bytes).unwrap().len(), 1);
}

/// Before version 1.2 of the contract, a trace had no state, and its header did not say whether the
/// balancer asks about requests.
#[test]
fn a_trace_of_before_there_was_state_is_read() {
    let header = br#"{"upstream":"u","balancer":"b","digest":"d","config":"{}","started":1.5,"gateway":"0.1.0"}"#;
    let mut trace = b"PMTRACE1".to_vec();
    trace.push(header.len() as u8);
    trace.extend(header);
    trace.extend(b"\x04wasm");
    // A table of one endpoint with the id 7 and the weight 2, without answers about load.
    trace.extend([2, 1, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    let mut reader = Reader::new(&trace).unwrap();
    assert_eq!((reader.component, reader.saved), (&b"wasm"[..], &[][..]));
    assert!(!reader.header.reads_facts && !reader.header.facts);
    let event = reader.event().unwrap();
    assert!(
        matches!(&event, Some(Event::Table { fresh: true, rows, .. }) if rows[..] == [Row { id: 7, weight: 2 }]),
        "{event:?}"
    );
    assert_eq!(reader.event(), Ok(None));
}

#[test]
fn a_trace_has_facts_of_endpoints_only_if_its_version_says_so() {
    let facts = [EndpointFact {
        position: 0,
        asked: EndpointQuestion::Label("zone".into()),
        answer: "a".into(),
    }];
    for (facts_of_requests, contract_1_4, magic) in [
        (false, true, b"PMTRACE3"),
        (true, true, b"PMTRACE3"),
        (false, false, b"PMTRACE1"),
    ] {
        let header = Header {
            facts: facts_of_requests,
            contract_1_4,
            ..header()
        };
        let mut writer = Writer::new(&header, &[], &[]);
        writer.table(true, [Row { id: 1, weight: 2 }].into_iter(), &[], &facts);
        let bytes = writer.take();
        assert!(bytes.starts_with(magic));
        assert_eq!(Reader::new(&bytes).unwrap().header, header);
        assert_eq!(read(&bytes).is_ok(), contract_1_4);
    }
}

#[test]
fn a_trace_has_ended_tries_and_tags_only_if_its_version_says_so() {
    let ended = Event::Ended {
        ended: EndedTry {
            why: EndReason::Client,
            ..EndedTry::default()
        },
        load_answers: Vec::new(),
    };
    let tagged = Event::Pick(Pick {
        tag: 7,
        ..Pick::default()
    });
    for event in [ended, tagged] {
        for contract_1_4 in [true, false] {
            let header = Header {
                contract_1_4,
                ..header()
            };
            let mut writer = Writer::new(&header, &[], &[]);
            writer.event(&event);
            let known = read(&writer.take()).ok();
            assert_eq!(known, contract_1_4.then(|| vec![event.clone()]));
        }
    }
}

/// A trace without facts has the same bytes as before facts were added; such a trace with a pick
/// that has facts is invalid.
#[test]
fn a_trace_has_facts_only_if_its_version_says_so() {
    let written = |facts: bool, asked: &[Fact]| {
        let header = Header {
            facts,
            contract_1_4: false,
            ..header()
        };
        let mut writer = Writer::new(&header, &[], &[]);
        let pick = Pick {
            facts: asked.to_vec(),
            ..Pick::default()
        };
        writer.event(&Event::Pick(pick));
        writer.take()
    };
    let fact = Fact {
        asked: RequestQuestion::Header("x-a".into()),
        answer: Some(b"1".to_vec()),
    };
    let asked = std::slice::from_ref(&fact);
    let (with, without) = (written(true, asked), written(false, &[]));
    assert!(with.starts_with(b"PMTRACE2") && without.starts_with(b"PMTRACE1"));
    assert!(!Reader::new(&without).unwrap().header.facts);
    assert!(read(&without).is_ok() && read(&with).is_ok());
    let wrong = read(&written(false, asked));
    assert!(matches!(wrong, Err(Error::Damaged(_))), "{wrong:?}");
}
