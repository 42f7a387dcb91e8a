#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

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

fn picks(weights: &[u32], count: usize) -> Vec<usize> {
    let mut balancer = LeastConnections::default();
    balancer.endpoints_changed(&Endpoints::new(table(weights)));
    let idle = vec![0; weights.len()];
    let endpoints = Endpoints::new(table(weights)).with_column(Column::InFlight, &idle);
    (0..count)
        .map(|_| balancer.pick(&Request::default(), &endpoints).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn the_least_busy_endpoint_for_its_weight_is_picked(
        load in proptest::collection::vec((0_u32..100_000, 1_u32..=65_535), 1..40),
    ) {
        let (busy, weights): (Vec<u32>, Vec<u32>) = load.into_iter().unzip();
        let mut balancer = LeastConnections::default();
        balancer.endpoints_changed(&Endpoints::new(table(&weights)));
        let endpoints = Endpoints::new(table(&weights)).with_column(Column::InFlight, &busy);
        let chosen = balancer.pick(&Request::default(), &endpoints).unwrap();
        let ratio = |p: usize| f64::from(busy[p]) / f64::from(weights[p]);
        prop_assert!((0..busy.len()).all(|p| ratio(p) >= ratio(chosen)));
    }

    #[test]
    fn idle_endpoints_take_turns_by_weight(weights in proptest::collection::vec(1_u32..20, 1..10)) {
        let total: u32 = weights.iter().sum();
        let picks = picks(&weights, total as usize * 10);
        for (position, weight) in weights.iter().enumerate() {
            let count = picks.iter().filter(|&&p| p == position).count();
            prop_assert!(count.abs_diff(*weight as usize * 10) <= weights.len(), "{count} {weight}");
        }
    }
}

/// The expected picks, computed without a tree: of the endpoints that are least busy for their
/// weight the one with the earliest turn, and of these the first.
struct Plain {
    turns: Vec<u128>,
    now: u128,
}

impl Plain {
    fn pick(&mut self, busy: &[u32], weights: &[u32]) -> usize {
        let less = |a: &usize, b: &usize| {
            let (a, b) = (*a, *b);
            let one = u64::from(busy[a]) * u64::from(weights[b]);
            let other = u64::from(busy[b]) * u64::from(weights[a]);
            one.cmp(&other)
                .then(self.turns[a].cmp(&self.turns[b]))
                .then(a.cmp(&b))
        };
        let chosen = (0..busy.len()).min_by(less).unwrap();
        self.now = self.now.max(self.turns[chosen]);
        self.turns[chosen] = self.now + u128::from(TURN / u64::from(weights[chosen]));
        chosen
    }
}

proptest! {
    /// For any changes of load, and also when the virtual time is reset.
    #[test]
    fn the_tree_finds_the_same_endpoint_as_a_full_scan(
        weights in proptest::collection::vec(1_u32..=65_535, 1..40),
        changes in proptest::collection::vec((0_usize..40, 0_u32..4), 1..200),
        late: bool,
    ) {
        let mut balancer = LeastConnections::default();
        balancer.endpoints_changed(&Endpoints::new(table(&weights)));
        if late {
            balancer.now = LATE;
            let trees = balancer.zones.parts_mut();
            trees.flat_map(|tree| &mut tree.ranks).for_each(|rank| rank.turn = LATE);
        }
        let mut plain = Plain { turns: vec![0; weights.len()], now: 0 };
        let mut busy = vec![0; weights.len()];
        for (position, load) in changes {
            busy[position % weights.len()] = load;
            let endpoints = Endpoints::new(table(&weights)).with_column(Column::InFlight, &busy);
            let chosen = balancer.pick(&Request::default(), &endpoints).unwrap();
            prop_assert_eq!(chosen, plain.pick(&busy, &weights));
        }
    }
}

proptest! {
    #[test]
    fn a_restored_balancer_makes_the_same_picks_as_the_old_one(
        weights in proptest::collection::vec(1_u32..=65_535, 1..20),
        loads in proptest::collection::vec(proptest::collection::vec(0_u32..4, 20), 1..40),
        handed_over in 0_usize..40,
    ) {
        let mut old = LeastConnections::default();
        let mut new = None;
        old.endpoints_changed(&Endpoints::new(table(&weights)));
        for (number, busy) in loads.iter().enumerate() {
            let endpoints = Endpoints::new(table(&weights))
                .with_column(Column::InFlight, &busy[..weights.len()]);
            if number == handed_over {
                let successor = new.insert(LeastConnections::default());
                prop_assert_eq!(successor.restore(&old.save()), Ok(()));
                successor.endpoints_changed(&endpoints);
            }
            let picked = old.pick(&Request::default(), &endpoints);
            if let Some(new) = &mut new {
                prop_assert_eq!(new.pick(&Request::default(), &endpoints), picked);
            }
        }
    }

    #[test]
    fn state_in_another_format_is_refused(saved: Vec<u8>, form in 0_u8..3, cut in 1_usize..16) {
        let understood = LeastConnections::default().restore(&saved);
        prop_assert!(understood.is_err() || saved[0] == FORM);
        let mut old = LeastConnections::default();
        old.endpoints_changed(&Endpoints::new(table(&[3, 5])));
        let mut saved = old.save();
        saved[0] = form;
        prop_assert_eq!(LeastConnections::default().restore(&saved).is_ok(), form == FORM);
        let cut = saved.len() - cut;
        prop_assert!(LeastConnections::default().restore(&saved[..cut]).is_err());
    }
}

#[test]
fn equally_busy_endpoints_take_turns() {
    assert_eq!(picks(&[7, 7, 7], 6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_joining_endpoint_gets_no_burst() {
    let mut balancer = LeastConnections::default();
    let (two, three) = (table(&[1, 1]), table(&[1, 1, 1]));
    balancer.endpoints_changed(&Endpoints::new(two.clone()));
    let endpoints = Endpoints::new(two).with_column(Column::InFlight, &[0, 0]);
    for _ in 0..101 {
        balancer.pick(&Request::default(), &endpoints).unwrap();
    }
    balancer.endpoints_changed(&Endpoints::new(three.clone()));
    let endpoints = Endpoints::new(three).with_column(Column::InFlight, &[0, 0, 0]);
    let picks: Vec<usize> = (0..6)
        .map(|_| balancer.pick(&Request::default(), &endpoints).unwrap())
        .collect();
    for position in 0..3 {
        let count = picks.iter().filter(|&&p| p == position).count();
        assert!((1..=3).contains(&count), "{picks:?}");
    }
}

#[test]
fn an_empty_table_has_no_pick() {
    let endpoints = Endpoints::default().with_column(Column::InFlight, &[]);
    assert_eq!(
        LeastConnections::default().pick(&Request::default(), &endpoints),
        None
    );
}
