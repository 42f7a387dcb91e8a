#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use guest_sdk::Endpoint;

use super::*;

const REQUEST: Request = Request {
    entropy: 0,
    now: 0,
    affinity: None,
    attempt: 0,
};

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let endpoints = weights.iter().zip(1..);
    endpoints
        .map(|(&weight, id)| Endpoint { id, weight })
        .collect()
}

fn picks(balancer: &mut RoundRobin, count: usize) -> Vec<usize> {
    let endpoints = Endpoints::default();
    (0..count)
        .map(|_| balancer.pick(&REQUEST, &endpoints).unwrap())
        .collect()
}

fn started(weights: &[u32]) -> RoundRobin {
    let mut balancer = RoundRobin::default();
    balancer.endpoints_changed(&Endpoints::new(table(weights)));
    balancer
}

#[test]
fn an_empty_table_has_no_pick() {
    let mut balancer = started(&[]);
    assert_eq!(balancer.pick(&REQUEST, &Endpoints::default()), None);
}

#[test]
fn equal_endpoints_alternate_strictly() {
    assert_eq!(picks(&mut started(&[100, 100]), 6), [0, 1, 0, 1, 0, 1]);
    assert_eq!(picks(&mut started(&[7; 4]), 8), [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn twice_the_weight_gets_two_of_every_three_picks() {
    let picks = picks(&mut started(&[100, 200]), 300);
    for window in picks.windows(3) {
        assert_eq!(window.iter().filter(|&&p| p == 1).count(), 2, "{window:?}");
    }
}

#[test]
fn a_recount_keeps_the_order_of_turns() {
    let mut balancer = started(&[3, 5]);
    balancer.written.clear();
    let turns: Vec<Turn> = balancer.turns.drain().collect();
    let cycles = RECOUNT / 5 - 1;
    balancer.turns = turns
        .into_iter()
        .map(|turn| Turn {
            number: turn.number + cycles * turn.weight,
            ..turn
        })
        .collect();
    let aged = picks(&mut balancer, 64);
    assert_eq!(aged, picks(&mut started(&[3, 5]), 64));
    assert!(balancer.turns.iter().all(|turn| turn.number < 64));
}

proptest! {
    /// The stored cycle equals the computed turns, at whatever pick the table changed.
    #[test]
    fn the_stored_cycle_equals_the_computed_turns(
        tables in prop::collection::vec(prop::collection::vec(1_u32..30, 1..7), 1..6),
        between in 0_usize..80,
    ) {
        let mut balancer = RoundRobin::default();
        for weights in tables {
            balancer.endpoints_changed(&Endpoints::new(table(&weights)));
            prop_assert!(!balancer.written.is_empty(), "{weights:?}");
            let turns = balancer.turns.clone();
            let mut computed = RoundRobin { turns, ..RoundRobin::default() };
            let length = 3 * weights.iter().sum::<u32>() as usize;
            prop_assert_eq!(picks(&mut balancer, length), picks(&mut computed, length));
            picks(&mut balancer, between);
        }
    }

    /// A restored balancer makes the same picks as the old one would, with the same table and with
    /// another one.
    #[test]
    fn a_restored_balancer_makes_the_same_picks_as_the_old_one(
        weights in prop::collection::vec(1_u32..5000, 0..7),
        before in 0_usize..300,
        after in prop::collection::vec(1_u32..5000, 1..7),
    ) {
        let mut old = started(&weights);
        if !weights.is_empty() {
            picks(&mut old, before);
        }
        for next in [weights, after] {
            let mut new = RoundRobin::default();
            prop_assert_eq!(new.restore(&old.save()), Ok(()));
            new.endpoints_changed(&Endpoints::new(table(&next)));
            old.endpoints_changed(&Endpoints::new(table(&next)));
            if !next.is_empty() {
                prop_assert_eq!(picks(&mut new, 200), picks(&mut old, 200));
            }
        }
    }

    #[test]
    fn state_in_another_format_is_refused(saved: Vec<u8>, form in 0_u8..3, cut in 1_usize..ROW) {
        let mut balancer = RoundRobin::default();
        let understood = balancer.restore(&saved);
        prop_assert!(understood.is_err() || saved[0] == FORM);
        let mut saved = started(&[3, 5]).save();
        saved[0] = form;
        prop_assert_eq!(balancer.restore(&saved).is_ok(), form == FORM);
        prop_assert!(balancer.restore(&saved[..saved.len() - cut]).is_err());
    }

    /// In a window of as many picks as the sum of the weights, each endpoint gets exactly its
    /// weight, wherever the window begins.
    #[test]
    fn each_endpoint_gets_exactly_its_weight_in_a_cycle(weights in prop::collection::vec(1_u32..40, 1..12), start in 0_usize..200) {
        let total = weights.iter().sum::<u32>() as usize;
        let mut balancer = started(&weights);
        picks(&mut balancer, start);
        let picks = picks(&mut balancer, total);
        for (position, weight) in weights.iter().enumerate() {
            let share = picks.iter().filter(|&&p| p == position).count();
            prop_assert_eq!(share, *weight as usize);
        }
    }

    /// At no time is an endpoint a whole turn ahead of its share, or more than one behind.
    #[test]
    fn turns_are_spread_evenly(weights in prop::collection::vec(1_u32..40, 1..8)) {
        let total = f64::from(weights.iter().sum::<u32>());
        let mut balancer = started(&weights);
        let mut counts = vec![0.0_f64; weights.len()];
        for number in 1..=500 {
            counts[picks(&mut balancer, 1)[0]] += 1.0;
            for (count, weight) in counts.iter().zip(&weights) {
                let fair = f64::from(number) * f64::from(*weight) / total;
                let bound = 1.0 + weights.len() as f64 / 2.0;
                prop_assert!((count - fair).abs() <= bound, "{counts:?} of {weights:?}");
            }
        }
    }

    /// However often the table changes, endpoints that stay get picks as evenly as without changes.
    #[test]
    fn changes_favour_no_endpoint(changes in prop::collection::vec(1_usize..6, 1..60)) {
        let mut balancer = started(&[1, 1]);
        let mut counts = [0_i64; 2];
        for (number, between) in changes.into_iter().enumerate() {
            // A third endpoint joins and leaves, which changes the positions of the other two.
            let stays = [Endpoint { id: 1, weight: 1 }, Endpoint { id: 2, weight: 1 }];
            let guest = Endpoint { id: 9, weight: 1 };
            let table = if number % 2 == 0 {
                vec![guest, stays[0], stays[1]]
            } else {
                stays.to_vec()
            };
            balancer.endpoints_changed(&Endpoints::new(table.clone()));
            for position in picks(&mut balancer, between) {
                if let Some(place) = stays.iter().position(|e| e.id == table[position].id) {
                    counts[place] += 1;
                }
            }
            prop_assert!((counts[0] - counts[1]).abs() <= 1, "{counts:?}");
        }
    }
}
