#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::component::ComponentError;
use crate::endpoint::{Endpoint, InFlight};

#[path = "../../../tests/harness/guests.rs"]
pub(crate) mod guests;
#[path = "tests/canary.rs"]
mod of_canary;
#[path = "tests/interfaces.rs"]
mod of_interfaces;
#[path = "tests/limits.rs"]
mod of_limits;
#[path = "tests/outcomes.rs"]
mod of_outcomes;
#[path = "tests/shipped.rs"]
mod of_shipped;
#[path = "tests/switch.rs"]
mod of_switch;

use guests::guest;

pub(crate) fn engine() -> (TempDir, Arc<Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_in(&folder);
    (folder, engine)
}

fn engine_in(folder: &TempDir) -> Arc<Engine> {
    Engine::new(settings(folder)).unwrap()
}

/// An engine with long timeouts, so that on a busy machine no pick falls to the host. A test of
/// lower limits sets them for its upstream.
pub(crate) fn patient_engine(folder: &TempDir) -> Arc<Engine> {
    Engine::new(Settings {
        pick_timeout: Duration::from_secs(60),
        pick_cost: Duration::from_secs(60),
        ..settings(folder)
    })
    .unwrap()
}

fn settings(folder: &TempDir) -> Settings {
    Settings {
        pick_timeout: Duration::from_millis(50),
        pick_cost: Duration::from_millis(50),
        memory: 16 << 20,
        state: 1 << 20,
        upload: 1 << 20,
        compile_timeout: Duration::from_secs(60),
        cache_dir: Some(folder.path().to_owned()),
        // Never started: these tests compile in their own process.
        compiler: "/dev/null".into(),
    }
}

pub(crate) fn endpoints(weights: &[u32]) -> Arc<[Arc<Endpoint>]> {
    let endpoints = (1..).zip(weights).map(|(number, &weight)| {
        let address = SocketAddr::from(([127, 0, 0, 1], number));
        Arc::new(Endpoint::new(number.into(), address, "h".into(), weight))
    });
    endpoints.collect()
}

pub(crate) fn balancer(engine: &Arc<Engine>, name: &str, weights: &[u32]) -> Balancer {
    let plugin = engine.load_trusted(&guest(name)).unwrap();
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, "{}".into());
    balancer.set_endpoints(endpoints(weights));
    balancer
}

fn shipped(engine: &Arc<Engine>, weights: &[u32]) -> Balancer {
    let plugin = engine.load_trusted(SHIPPED[0].component).unwrap();
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, "{}".into());
    balancer.set_endpoints(endpoints(weights));
    balancer
}

fn request(entropy: u64) -> PickRequest<'static> {
    PickRequest {
        now: entropy,
        entropy,
        affinity: None,
        attempt: 0,
        last_status: None,
        facts: None,
        note: None,
    }
}

/// The recording of what a balancer does meanwhile, with its component, which is this guest.
fn recorded(balancer: &Balancer, name: &str, what: impl FnOnce()) -> Vec<u8> {
    let (to, mut pieces) = tokio::sync::mpsc::channel(16);
    let recording = Recording {
        name: name.into(),
        component: bytes::Bytes::from(guest(name)),
        to,
        limit: usize::MAX,
        facts: false,
    };
    let number = balancer.record(recording).unwrap();
    what();
    balancer.end_recording(number);
    let mut trace = Vec::new();
    while let Ok(piece) = pieces.try_recv() {
        trace.extend_from_slice(&piece);
    }
    trace
}

/// The ids that are picked, 0 for none.
pub(crate) fn picks(balancer: &Balancer, count: u64) -> Vec<u64> {
    (0..count)
        .map(
            |number| match balancer.pick(request(number), &[], std::convert::identity) {
                Choice::Endpoint(endpoint) => endpoint.id,
                Choice::Refused(_) | Choice::Empty => 0,
            },
        )
        .collect()
}

#[test]
fn the_default_alternates_and_keeps_its_position_through_changes() {
    let (_folder, engine) = engine();
    let balancer = shipped(&engine, &[100, 100]);
    assert_eq!(picks(&balancer, 5), [1, 2, 1, 2, 1]);
    balancer.set_endpoints(endpoints(&[100, 100]));
    assert_eq!(picks(&balancer, 3), [2, 1, 2]);
    let same = engine.load_trusted(SHIPPED[0].component).unwrap();
    balancer.replace(same, "{}".into());
    assert_eq!(picks(&balancer, 2), [1, 2]);
}

#[test]
fn without_endpoints_no_instance_is_made() {
    let (_folder, engine) = engine();
    let balancer = balancer(&engine, "traps", &[]);
    assert!(matches!(
        balancer.pick(request(0), &[], drop),
        Choice::Empty
    ));
    assert_eq!(balancer.counters().instances, 0);
}

/// Each of these guests misbehaves sooner or later, and still each pick gets an endpoint. The test
/// runs on a tokio thread, as a worker does, where the WASI of wasmtime-wasi would panic.
#[test]
fn no_guest_fault_costs_a_pick() {
    let (_folder, engine) = engine();
    type Kind = fn(&Faults) -> u64;
    let cases: [(&str, Kind); 8] = [
        ("traps", |f| f.trap),
        ("panics", |f| f.trap),
        ("sleeps", |f| f.trap),
        ("overflows-stack", |f| f.trap),
        ("loops", |f| f.deadline),
        ("loops-in-configure", |f| f.deadline),
        ("eats-memory", |f| f.memory),
        ("out-of-range", |f| f.out_of_range),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (name, kind) in cases {
            let balancer = balancer(&engine, name, &[1, 1, 1]);
            let picked = picks(&balancer, 40);
            assert!(
                picked.iter().all(|id| (1..=3).contains(id)),
                "{name}: {picked:?}"
            );
            let counters = balancer.counters();
            assert_eq!(counters.picks, 40, "{name}");
            assert!(counters.fallback_picks >= 1, "{name}: {counters:?}");
            assert!(kind(&counters.faults) >= 1, "{name}: {counters:?}");
            assert!(counters.last_fault.is_some(), "{name}");
            // The first replacement is made at once, unless the fault blocked a worker.
            let at_once = counters.faults.deadline + counters.faults.memory == 0;
            assert_eq!(counters.instances >= 2, at_once, "{name}: {counters:?}");
        }
    });
}

#[test]
fn a_guest_may_print() {
    let (_folder, engine) = engine();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let quiet = balancer(&engine, "prints", &[1, 1]);
        assert!(picks(&quiet, 5).iter().all(|id| *id > 0));
        assert_eq!(quiet.counters().fallback_picks, 0);
        // To print megabytes may take longer than a pick may; it does no other harm.
        let loud = balancer(&engine, "floods", &[1, 1]);
        assert!(picks(&loud, 5).iter().all(|id| *id > 0));
    });
}

#[test]
fn a_guest_may_refuse() {
    let (_folder, engine) = engine();
    let balancer = balancer(&engine, "refuses", &[1, 1]);
    assert!(matches!(
        balancer.pick(request(0), &[], drop),
        Choice::Refused(None)
    ));
    assert_eq!(balancer.counters().refused, 1);
    assert_eq!(balancer.counters().fallback_picks, 0);
}

#[test]
fn a_fault_costs_one_instance_and_the_next_one_serves() {
    let (_folder, engine) = engine();
    let balancer = balancer(&engine, "panics-sometimes", &[1, 1]);
    assert!(picks(&balancer, 15).iter().all(|id| *id > 0));
    let counters = balancer.counters();
    assert_eq!(counters.faults.trap, 1);
    assert_eq!(counters.fallback_picks, 1);
    assert_eq!(counters.instances, 2);
}

#[test]
fn two_instances_answer_alike() {
    let (_folder, engine) = engine();
    for name in ["hash-map", "clock"] {
        let first = picks(&balancer(&engine, name, &[1; 16]), 50);
        assert_eq!(
            first,
            picks(&balancer(&engine, name, &[1; 16]), 50),
            "{name}"
        );
        assert!(first.iter().all(|id| *id > 0), "{name}");
    }
}

#[test]
fn a_plugin_that_asks_for_the_load_gets_it() {
    let (_folder, engine) = engine();
    let plugin = engine.load_trusted(&guest("least-in-flight")).unwrap();
    assert_eq!(plugin.columns.len(), 1);
    let balancer = Balancer::new(Arc::clone(&engine), "u", plugin, "{}".into());
    let table = endpoints(&[1, 1, 1]);
    balancer.set_endpoints(Arc::clone(&table));
    let _first = InFlight::new(Arc::clone(&table[0]));
    let _second = InFlight::new(Arc::clone(&table[2]));
    assert_eq!(picks(&balancer, 3), [2, 2, 2]);
}

#[test]
fn a_plugin_is_replaced_live() {
    let (_folder, engine) = engine();
    let balancer = shipped(&engine, &[1, 1, 1]);
    picks(&balancer, 4);
    let first = engine.load_trusted(&guest("first")).unwrap();
    balancer.replace(first, "{}".into());
    assert_eq!(picks(&balancer, 4), [1, 1, 1, 1]);
}

#[test]
fn a_component_that_is_not_a_balancer_is_refused_with_a_reason() {
    let (_folder, engine) = engine();
    let refused = |name: &str| engine.load_trusted(&guest(name)).unwrap_err().to_string();
    for (name, part) in [
        (
            "no-policy",
            "lacks the interface pointsman:balancer/policy@1.0.0",
        ),
        ("opens-socket", "imports wasi:sockets/"),
        (
            "wants-unknown-import",
            "which this gateway does not provide to balancers",
        ),
        ("unknown-column", "asks for the load column"),
        ("bad-schema", "config-schema is not a JSON Schema"),
    ] {
        let said = refused(name);
        assert!(said.contains(part), "{name}: {said}");
    }
    assert!(engine.load_trusted(b"\0asm\x0d\0\x01\0rubbish").is_err());
}

#[tokio::test]
async fn bytes_that_are_not_a_component_are_refused_before_they_are_compiled() {
    let (_folder, engine) = engine();
    let refused = async |bytes: Vec<u8>| engine.load(bytes.into()).await.unwrap_err().to_string();
    for (bytes, part) in [
        (Vec::new(), "is empty"),
        (b"#!/bin/sh".to_vec(), "not WebAssembly"),
        (
            b"\0asm\x01\0\0\0".to_vec(),
            "a core module and not a component",
        ),
        (vec![0; (1 << 20) + 1], "more than the 1048576"),
    ] {
        let said = refused(bytes).await;
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_component_with_an_unknown_export_loads() {
    let (_folder, engine) = engine();
    let plugin = engine.load_trusted(&guest("extra-export")).unwrap();
    assert!(plugin.exports.len() > 1, "{:?}", plugin.exports);
    let balancer = balancer(&engine, "extra-export", &[1, 1]);
    assert!(picks(&balancer, 4).iter().all(|id| *id > 0));
    assert_eq!(balancer.counters().fallback_picks, 0);
}

#[tokio::test]
async fn compiled_components_are_kept_and_damaged_ones_are_not_used() {
    let (folder, engine) = engine();
    engine.load_trusted(SHIPPED[0].component).unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1);
    // With the file, no compiler is needed.
    let component = bytes::Bytes::from_static(SHIPPED[0].component);
    engine_in(&folder).load(component.clone()).await.unwrap();
    let path = files[0].as_ref().unwrap().path();
    let mut content = std::fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, content).unwrap();
    let refused = engine_in(&folder).load(component).await.unwrap_err();
    assert!(
        matches!(refused, LoadError::Component(ComponentError::Internal(_))),
        "{refused}"
    );
    engine_in(&folder)
        .load_trusted(SHIPPED[0].component)
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With any plugin, a retry goes to an endpoint that was not tried while there is one.
    #[test]
    fn a_retry_goes_elsewhere(size in 1_usize..6, stubborn in any::<bool>(), entropy in any::<u64>()) {
        let (_folder, engine) = shared_engine();
        let weights = vec![1; size];
        let balancer = if stubborn {
            balancer(&engine, "first", &weights)
        } else {
            shipped(&engine, &weights)
        };
        let mut tried = Vec::new();
        for attempt in 0..size as u32 {
            let request = PickRequest { attempt, ..request(entropy) };
            let Choice::Endpoint(endpoint) = balancer.pick(request, &tried, std::convert::identity) else {
                return Err(TestCaseError::fail("no endpoint"));
            };
            prop_assert!(!tried.contains(&endpoint.id));
            tried.push(endpoint.id);
        }
        let last = balancer.pick(request(entropy), &tried, std::convert::identity);
        prop_assert!(matches!(last, Choice::Endpoint(_)));
    }
}

/// One engine for all cases of a property, because compiling takes longer than a case.
fn shared_engine() -> (&'static TempDir, Arc<Engine>) {
    static SHARED: std::sync::OnceLock<(TempDir, Arc<Engine>)> = std::sync::OnceLock::new();
    let (folder, engine) = SHARED.get_or_init(engine);
    (folder, Arc::clone(engine))
}
