//! The hand-over of a plugin's state when the plugin is replaced.

use super::*;

fn next(engine: &Arc<Engine>, balancer: &Balancer, name: &str, config: &str) {
    let plugin = engine.load_trusted(&guest(name)).unwrap();
    balancer.replace(plugin, config.into());
}

fn bytes_handed_over(balancer: &Balancer) -> usize {
    let counters = balancer.counters();
    let handover = counters.handover.unwrap();
    assert_eq!(handover.failure, None);
    assert_eq!(counters.faults.state, 0);
    handover.bytes
}

#[test]
fn another_version_and_other_settings_take_over_the_state() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts", &[1, 1, 1]);
    assert_eq!(picks(&balancer, 2), [1, 2]);
    next(&engine, &balancer, "counts-next", "{}");
    // The instance is made before its first pick.
    assert_eq!(balancer.counters().instances, 1);
    assert_eq!(bytes_handed_over(&balancer), 9);
    assert_eq!(picks(&balancer, 2), [3, 1]);
    next(&engine, &balancer, "counts-next", r#"{"round": 2}"#);
    assert_eq!(bytes_handed_over(&balancer), 2);
    assert_eq!(picks(&balancer, 2), [2, 3]);
    // Nothing has changed, so there is no switch.
    next(&engine, &balancer, "counts-next", r#"{"round": 2}"#);
    assert_eq!(balancer.counters().picks, 2);
    // It does not know the state format of later versions.
    next(&engine, &balancer, "counts", "{}");
    let handover = balancer.counters().handover.unwrap();
    let failure = handover.failure.unwrap();
    assert!(failure.contains("this is not of version 1"), "{failure}");
    assert_eq!((handover.bytes, balancer.counters().faults.state), (0, 1));
    assert_eq!(picks(&balancer, 2), [1, 2]);
    assert_eq!(balancer.counters().fallback_picks, 0);
}

#[test]
fn new_limits_keep_the_state_too() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts", &[1, 1, 1]);
    picks(&balancer, 1);
    let limits = PickLimits {
        memory: 2 << 20,
        ..engine.limits()
    };
    balancer.set_limits(limits);
    assert_eq!(bytes_handed_over(&balancer), 9);
    assert_eq!(picks(&balancer, 1), [2]);
}

#[test]
fn without_a_state_of_the_same_plugin_there_is_no_hand_over() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts", &[1, 1, 1]);
    // There was no pick yet, so there is no instance and no state.
    next(&engine, &balancer, "counts-next", "{}");
    assert!(balancer.counters().handover.is_none());
    picks(&balancer, 1);
    let other = engine.load_trusted(SHIPPED[0].component).unwrap();
    balancer.replace(other, "{}".into());
    assert!(balancer.counters().handover.is_none());
    assert_eq!(picks(&balancer, 1), [1]);
    next(&engine, &balancer, "first", "{}");
    picks(&balancer, 1);
    next(&engine, &balancer, "counts", "{}");
    assert!(balancer.counters().handover.is_none());
    // A plugin of version 1.0 has no such interface.
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/components/round-robin-1.0.0.wasm"
    );
    let old = engine.load_trusted(&std::fs::read(path).unwrap()).unwrap();
    balancer.replace(old, "{}".into());
    picks(&balancer, 1);
    let new = engine.load_trusted(SHIPPED[0].component).unwrap();
    balancer.replace(new, "{}".into());
    assert!(balancer.counters().handover.is_none());
    assert_eq!(picks(&balancer, 1), [1]);
}

/// Any failure of a hand-over loses the state, and no pick.
#[test]
fn a_state_that_cannot_be_handed_over_costs_nothing_else() {
    let (_folder, engine) = shared_engine();
    for (saves, restores, said) in [
        ("", "refuses", "1 bytes of nonsense"),
        ("", "panics-in-restore", "it trapped"),
        ("", "loops-in-restore", "in time"),
        ("panics-in-save", "", "it trapped"),
        ("loops-in-save", "", "in time"),
        (
            "saves-2-mib",
            "",
            "it saved 2097152 bytes, and may save 1048576",
        ),
        ("saves-8-mib", "", "too much data"),
        ("saves-too-much-memory", "", "memory"),
    ] {
        let case = format!("{saves} {restores}");
        let settings = |does: &str| format!(r#"{{"does": "{does}"}}"#);
        let balancer = balancer(&engine, "hands-over-badly", &[1, 1]);
        next(&engine, &balancer, "hands-over-badly", &settings(saves));
        picks(&balancer, 1);
        next(&engine, &balancer, "hands-over-badly", &settings(restores));
        let counters = balancer.counters();
        let failure = counters.handover.unwrap().failure.unwrap();
        assert!(failure.contains(said), "{case}: {failure}");
        assert_eq!(counters.faults.state, 1, "{case}");
        // The new instance is not in quarantine.
        assert_eq!(picks(&balancer, 3), [1, 1, 1], "{case}");
        let counters = balancer.counters();
        assert_eq!(counters.fallback_picks, 0, "{case}: {counters:?}");
        assert_eq!(counters.last_fault, None, "{case}");
    }
}

/// After one slow hand-over, the plugin is not asked again, at this upstream or another.
#[test]
fn after_one_slow_hand_over_a_plugin_is_not_asked_again() {
    let (_folder, engine) = shared_engine();
    let plugin = engine.load_trusted(&guest("hands-over-badly")).unwrap();
    let made = |config: &str| {
        let balancer = Balancer::new(Arc::clone(&engine), "u", Arc::clone(&plugin), config.into());
        balancer.set_endpoints(endpoints(&[1, 1]));
        picks(&balancer, 1);
        balancer
    };
    // The second one would trap if it were asked for its state.
    for (config, said) in [
        ("loops-in-save", "in time"),
        ("panics-in-save", "an earlier hand-over took too long"),
    ] {
        let balancer = made(&format!(r#"{{"does": "{config}"}}"#));
        balancer.replace(Arc::clone(&plugin), "{}".into());
        let counters = balancer.counters();
        let failure = counters.handover.unwrap().failure.unwrap();
        assert!(failure.contains(said), "{failure}");
        assert_eq!(counters.faults.state, 1);
        assert_eq!(picks(&balancer, 2), [1, 1]);
    }
}

#[test]
fn a_state_is_bounded_for_each_upstream() {
    let (_folder, engine) = shared_engine();
    let all = engine.limits();
    for (state, handed_over) in [(all.state, Some(100 << 10)), (64 << 10, None), (0, Some(0))] {
        let balancer = balancer(&engine, "hands-over-badly", &[1, 1]);
        balancer.set_limits(PickLimits { state, ..all });
        next(
            &engine,
            &balancer,
            "hands-over-badly",
            r#"{"does": "saves-100-kib"}"#,
        );
        picks(&balancer, 1);
        next(&engine, &balancer, "hands-over-badly", "{}");
        let handover = balancer.counters().handover;
        let bytes = match &handover {
            None => Some(0),
            Some(handover) if handover.failure.is_none() => Some(handover.bytes),
            Some(_) => None,
        };
        assert_eq!(bytes, handed_over, "{state}: {handover:?}");
    }
}

/// A plugin that fails in `configure` fails once, before it is in the slot.
#[test]
fn a_successor_that_does_not_start_is_a_fault() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "counts", &[1, 1, 1]);
    picks(&balancer, 1);
    next(&engine, &balancer, "loops-in-configure", "{}");
    let counters = balancer.counters();
    assert_eq!((counters.faults.deadline, counters.instances), (1, 1));
    assert!(picks(&balancer, 3).iter().all(|id| *id > 0));
}

#[test]
fn only_what_the_successor_reads_is_observed_after_a_switch() {
    let (_folder, engine) = shared_engine();
    let load = |name: &str| {
        let shipped = SHIPPED.iter().find(|shipped| shipped.name == name).unwrap();
        engine.load_trusted(shipped.component).unwrap()
    };
    let balancer = Balancer::new(Arc::clone(&engine), "u", load("prequal"), "{}".into());
    balancer.set_endpoints(endpoints(&[1, 1]));
    picks(&balancer, 1);
    assert!(balancer.wants(Observed::Latency));
    balancer.replace(load("prequal"), r#"{"hot_load": 0.9}"#.into());
    picks(&balancer, 1);
    assert!(balancer.wants(Observed::Latency) && balancer.wants(Observed::Report));
    balancer.replace(load("prequal"), "{}".into());
    picks(&balancer, 1);
    assert!(balancer.wants(Observed::Latency) && !balancer.wants(Observed::Report));
}

/// Upgrades while several threads pick: no pick is lost, the host makes none, and no state is lost.
#[test]
fn the_count_of_picks_survives_upgrades_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let engine = patient_engine(&folder);
    let balancer = balancer(&engine, "counts", &[1; 7]);
    let versions = ["counts", "counts-next"].map(|name| engine.load_trusted(&guest(name)).unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let picked: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let worker = || {
            let mut counts = vec![0; 7];
            while !stop.load(order) {
                for id in picks(&balancer, 20) {
                    counts[id as usize - 1] += 1;
                }
            }
            counts
        };
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(worker)).collect();
        let busy = |balancer: &Balancer| {
            while balancer.counters().picks < 50 {
                std::thread::yield_now();
            }
        };
        for round in 0..30 {
            busy(&balancer);
            let config = format!(r#"{{"round": {round}}}"#);
            balancer.replace(Arc::clone(&versions[1]), config);
            assert!(bytes_handed_over(&balancer) > 1);
        }
        busy(&balancer);
        stop.store(true, order);
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let counts: Vec<u64> = (0..7)
        .map(|position| picked.iter().map(|counts| counts[position]).sum())
        .collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 1, "{counts:?}");
    assert_eq!(balancer.counters().fallback_picks, 0);
}
