#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::VecDeque;

use proptest::prelude::*;

use guest_sdk::{Column, Endpoint};

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}

/// The number of picks of each endpoint, of 10,000 with these loads and latencies.
fn counts(weights: &[u32], in_flight: &[u32], latency: &[u32], config: &str) -> Vec<u32> {
    let table = table(weights);
    let mut balancer = Prequal::default();
    balancer.configure(config).unwrap();
    balancer.endpoints_changed(&Endpoints::new(table.clone()));
    let endpoints = Endpoints::new(table)
        .with_column(Column::InFlight, in_flight)
        .with_column(Column::LatencyAtLoad, latency);
    let mut entropy = Entropy::of(&Request::default());
    let mut counts = vec![0; weights.len()];
    for now in 0..10_000 {
        let request = Request {
            now,
            entropy: entropy.next_u64(),
            ..Request::default()
        };
        counts[balancer.pick(&request, &endpoints).unwrap()] += 1;
    }
    counts
}

#[test]
fn cold_endpoints_are_picked_by_latency() {
    let counts = counts(
        &[1; 10],
        &[2; 10],
        &[100, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
        "{}",
    );
    assert!(counts[0] > counts[9] * 20, "{counts:?}");
    assert!(counts[..5].iter().sum::<u32>() > 8000, "{counts:?}");
}

#[test]
fn hot_endpoints_are_avoided_even_with_low_latency() {
    let mut in_flight = [1; 10];
    in_flight[0] = 50;
    let counts = counts(
        &[1; 10],
        &in_flight,
        &[1, 900, 900, 900, 900, 900, 900, 900, 900, 900],
        "{}",
    );
    assert!(counts[0] < 50, "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn picks_of_equal_endpoints_are_proportional_to_weights(
        weights in proptest::collection::vec(1_u32..10, 2..8), seed: u64,
    ) {
        let table = table(&weights);
        let mut balancer = Prequal::default();
        balancer.endpoints_changed(&Endpoints::new(table.clone()));
        let mut entropy = Entropy::of(&Request { entropy: seed, ..Request::default() });
        let mut load = vec![0; weights.len()];
        let mut counts = vec![0; weights.len()];
        // Four requests in flight for each unit of weight, which are answered in order.
        let total: u32 = weights.iter().sum();
        let mut open = VecDeque::new();
        for now in 0..u64::from(total) * 400 {
            let endpoints = Endpoints::new(table.clone())
                .with_column(Column::InFlight, &load)
                .with_column(Column::LatencyAtLoad, &vec![500; weights.len()]);
            let request = Request { now, entropy: entropy.next_u64(), ..Request::default() };
            let chosen = balancer.pick(&request, &endpoints).unwrap();
            load[chosen] += 1;
            counts[chosen] += 1;
            open.push_back(chosen);
            if open.len() > total as usize * 4 {
                load[open.pop_front().unwrap()] -= 1;
            }
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*count) / f64::from(*weight) / 400.0;
            prop_assert!((share - 1.0).abs() < 0.25, "{counts:?} {weights:?}");
        }
    }
}

#[test]
fn a_reported_load_above_hot_load_makes_an_endpoint_hot() {
    let table = table(&[1; 4]);
    let endpoints = Endpoints::new(table.clone())
        .with_column(Column::InFlight, &[0, 2, 2, 2])
        .with_column(Column::LatencyAtLoad, &[1, 900, 900, 900])
        .with_column(Column::ReportedLoad, &[980, 400, 400, 400]);
    for (config, often) in [("{}", true), (r#"{"hot_load": 0.95}"#, false)] {
        let mut balancer = Prequal::default();
        balancer.configure(config).unwrap();
        balancer.endpoints_changed(&Endpoints::new(table.clone()));
        let picks = (0..1000).filter(|&entropy| {
            let request = Request {
                entropy,
                ..Request::default()
            };
            balancer.pick(&request, &endpoints) == Some(0)
        });
        let count = picks.count();
        assert_eq!(count > 500, often, "{config}: {count}");
        assert!(often || count < 50, "{count}");
    }
}

#[test]
fn a_quantile_of_zero_balances_by_load() {
    let loads = [0, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let config = r#"{"hot_quantile": 0, "pool_size": 16, "probes": 8}"#;
    let counts = counts(&[1; 10], &loads, &[1000; 10], config);
    assert!(counts[0] > 5000, "{counts:?}");
}

#[test]
fn old_probes_are_not_used() {
    let mut balancer = Prequal::default();
    balancer.endpoints_changed(&Endpoints::new(table(&[1; 30])));
    let endpoints = Endpoints::new(table(&[1; 30]));
    for number in 0..100 {
        let request = Request {
            now: number * 2_000_000,
            entropy: number,
            ..Request::default()
        };
        balancer.pick(&request, &endpoints).unwrap();
        assert!(
            balancer
                .zones
                .parts()
                .all(|part| part.pool.usable().len() <= 2)
        );
    }
}

proptest! {
    #[test]
    fn picks_stay_in_the_table_through_changes(
        sizes in proptest::collection::vec(0_usize..40, 1..10), seed: u64,
    ) {
        let mut balancer = Prequal::default();
        let mut entropy = Entropy::of(&Request { entropy: seed, ..Request::default() });
        for size in sizes {
            let table = table(&vec![3; size]);
            balancer.endpoints_changed(&Endpoints::new(table.clone()));
            let endpoints = Endpoints::new(table);
            for now in 0..50 {
                let request = Request { now, entropy: entropy.next_u64(), ..Request::default() };
                let picked = balancer.pick(&request, &endpoints);
                prop_assert_eq!(picked.is_some(), size > 0);
                prop_assert!(picked.is_none_or(|position| position < size));
            }
        }
    }
}

#[test]
fn settings_are_checked() {
    assert!(Prequal::default().configure(r#"{"probes": 3}"#).is_ok());
    assert!(Prequal::default().configure(r#"{"probe": 3}"#).is_err());
}

proptest! {
    /// After any probes and picks, the best probe that can be picked is picked, and no endpoint is
    /// in the pool twice.
    #[test]
    fn the_best_probe_of_the_pool_is_picked(
        probes in proptest::collection::vec((0_u32..20, 0_u64..8, 0_u32..4, any::<bool>()), 1..200),
        size in 2_usize..20, max_uses in 1_u32..4, hot in 0_u64..8,
    ) {
        const REQUEST: u64 = 1 << 20;
        let mut pool = Pool::default();
        pool.clear(size, 20);
        for (at, (position, load, latency, full)) in (1_u64..).zip(probes) {
            let probe = Probe {
                position, load: load * REQUEST, latency, full, uses: 0,
            };
            pool.put(probe, at, hot * REQUEST);
            pool.expire(at, 50);
            let (kept, made): (Vec<Probe>, Vec<u64>) = pool.usable().into_iter().unzip();
            prop_assert!(kept.len() <= size && made.contains(&at));
            let positions: std::collections::BTreeSet<u32> = kept.iter().map(|p| p.position).collect();
            prop_assert_eq!(positions.len(), kept.len());
            prop_assert!(made.iter().all(|made| at - made <= 50));
            prop_assert!(kept.iter().all(|kept| kept.uses < max_uses));
            let badness = |probe: &Probe| match probe.full || probe.load > hot * REQUEST {
                false => (false, u64::from(probe.latency), probe.load),
                true => (true, probe.load, 0),
            };
            let best = kept.iter().map(badness).min();
            let chosen = pool.choose(max_uses, hot * REQUEST, &[REQUEST; 20]);
            let chosen = kept.iter().find(|kept| Some(kept.position) == chosen).map(badness);
            prop_assert_eq!(chosen, best);
        }
    }
}
