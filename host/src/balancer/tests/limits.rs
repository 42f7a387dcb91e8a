//! The limits of one upstream's plugin.

use super::*;
use crate::entity::upstream::BalancerLimits;

fn heavy(engine: &Arc<Engine>, config: &str, limits: PickLimits) -> Counters {
    let plugin = engine.load_trusted(&guest("heavy")).unwrap();
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, config.into());
    balancer.set_limits(limits);
    balancer.set_endpoints(endpoints(&[1, 1]));
    assert!(picks(&balancer, 1)[0] > 0);
    balancer.counters()
}

#[test]
fn time_is_bounded_for_each_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let engine = patient_engine(&folder);
    let config = r#"{"steps": 1000000000}"#;
    let counters = heavy(&engine, config, engine.limits());
    assert_eq!((counters.faults.deadline, counters.fallback_picks), (0, 0));
    let limits = PickLimits {
        pick_timeout: Duration::from_millis(1),
        ..engine.limits()
    };
    let counters = heavy(&engine, config, limits);
    assert_eq!((counters.faults.deadline, counters.fallback_picks), (1, 1));
}

#[test]
fn memory_is_bounded_for_each_upstream() {
    let (_folder, engine) = shared_engine();
    let config = r#"{"bytes": 4000000}"#;
    let counters = heavy(&engine, config, engine.limits());
    assert_eq!((counters.faults.memory, counters.fallback_picks), (0, 0));
    let limits = PickLimits {
        memory: 2 << 20,
        ..engine.limits()
    };
    let counters = heavy(&engine, config, limits);
    assert_eq!((counters.faults.memory, counters.fallback_picks), (1, 1));
}

#[test]
fn an_upstream_has_no_more_than_the_gateway() {
    let (_folder, engine) = shared_engine();
    let own = engine.limits();
    assert_eq!(engine.limits_for(&BalancerLimits::default()), own);
    let asked = BalancerLimits {
        pick_timeout: Some(10_000),
        pick_cost: Some(7),
        memory: Some(128),
        state: Some(0),
    };
    let limits = engine.limits_for(&asked);
    assert_eq!(limits.pick_timeout, own.pick_timeout);
    assert_eq!(limits.pick_cost, Duration::from_micros(7));
    assert_eq!((limits.memory, limits.state), (128 << 10, 0));
}

/// Each fault in a row makes the quarantine longer, and the counters show that.
#[test]
fn a_quarantine_is_shown() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "traps", &[1, 1]);
    assert_eq!(balancer.counters().quarantine, None);
    picks(&balancer, 1);
    // The first replacement is made at once.
    let counters = balancer.counters();
    assert_eq!(
        (counters.consecutive_faults, counters.quarantine),
        (1, None)
    );
    let mut longest = 0.0;
    while balancer.counters().consecutive_faults < 5 {
        picks(&balancer, 1);
        longest = balancer.counters().quarantine.unwrap_or(0.0).max(longest);
    }
    // The first quarantine takes 0.1 s, the next one twice that.
    assert!(longest > 0.1, "{longest}");
    assert_eq!(balancer.counters().faults.trap, 5);
}

/// A call that does not end blocks its worker, and one that traps does not.
#[test]
fn a_call_that_does_not_end_is_quarantined_for_longer() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "loops", &[1, 1]);
    assert!(picks(&balancer, 1)[0] > 0);
    assert_eq!(balancer.counters().faults.deadline, 1);
    // The first quarantine is 1,000 times the 50 ms that a pick may take. That is more than the
    // longest quarantine, which applies. The time that the test has taken since is not in it.
    let quarantine = balancer.counters().quarantine.unwrap();
    assert!((0.2..=30.0).contains(&quarantine), "{quarantine}");
}
