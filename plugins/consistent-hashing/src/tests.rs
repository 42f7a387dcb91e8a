#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use proptest::prelude::*;

use super::*;

fn table(weights: &[u32]) -> Vec<Endpoint> {
    let ids = weights.iter().zip(1_u64..);
    ids.map(|(&weight, id)| Endpoint {
        id: id.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        weight,
    })
    .collect()
}

fn started(endpoints: &[Endpoint]) -> Ring {
    let mut ring = Ring::default();
    ring.endpoints_changed(&Endpoints::new(endpoints.to_vec()));
    ring
}

fn at(ring: &mut Ring, key: u64) -> usize {
    let request = Request {
        affinity: Some(key),
        ..Request::default()
    };
    ring.pick(&request, &Endpoints::default()).unwrap()
}

const KEYS: u64 = 20_000;

/// The id that each key goes to.
fn ids(ring: &mut Ring, endpoints: &[Endpoint]) -> Vec<u64> {
    (0..KEYS)
        .map(|key| endpoints[at(ring, mix(key))].id)
        .collect()
}

/// The share of keys that go elsewhere, and that of those which had no reason to: they neither belonged
/// to an endpoint that changed, nor do now.
fn moved(old: &[Endpoint], new: &[Endpoint]) -> (f64, f64) {
    let mut ring = started(old);
    let before = ids(&mut ring, old);
    ring.endpoints_changed(&Endpoints::new(new.to_vec()));
    let after = ids(&mut ring, new);
    // What is merged is what would be built from nothing.
    assert_eq!(after, ids(&mut started(new), new));
    let stays = |id: u64| {
        let of = |table: &[Endpoint]| table.iter().find(|e| e.id == id).copied();
        of(old) == of(new)
    };
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a);
    let strayed = moved.clone().filter(|(b, a)| stays(**b) && stays(**a));
    let share = |count: usize| count as f64 / KEYS as f64;
    (share(moved.count()), share(strayed.count()))
}

/// By how much the keys of `changed` of `count` endpoints may be more than their share: three and a half
/// times the standard deviation of what a thousand points each have of a ring, and of so many keys.
fn luck(changed: f64, count: f64) -> f64 {
    let variance = changed / count * (1.0 - changed / count).max(0.0);
    3.5 * (variance / (1000.0 * count) + variance / KEYS as f64).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Of n endpoints k changed: no more than k/n + 1 % of the keys move.
    #[test]
    fn few_keys_move(count in 30_usize..80, gone in 0_usize..4, joined in 0_usize..4, weight in 1_u32..200) {
        let all = table(&vec![weight; count + joined]);
        let (old, mut new) = (&all[..count], all[gone..].to_vec());
        new.reverse();
        let (moved, strayed) = moved(old, &new);
        let changed = (gone + joined) as f64 / count.min(new.len()) as f64;
        prop_assert!(moved <= changed + 0.01, "{moved} {changed}");
        prop_assert_eq!(strayed, 0.0);
    }

    /// With few endpoints, whose shares differ more, it is those of who changed and no others.
    #[test]
    fn only_keys_of_who_left_move_and_only_to_who_joined(
        count in 2_usize..30, gone in 0_usize..2, joined in 0_usize..3, weight in 1_u32..200,
    ) {
        let all = table(&vec![weight; count + joined]);
        let (moved, strayed) = moved(&all[..count], &all[gone..]);
        let (changed, least) = ((gone + joined) as f64, count.min(count + joined - gone) as f64);
        let luck = luck(changed.min(least), least);
        prop_assert!(moved <= changed / least + 0.01 + luck, "{moved} {changed} {least}");
        prop_assert_eq!(strayed, 0.0);
    }

    #[test]
    fn the_order_of_the_table_means_nothing(weights in proptest::collection::vec(1_u32..100, 2..20)) {
        let old = table(&vec![10; weights.len()]);
        let new = table(&weights);
        moved(&old, &new);
        let mut reversed = new.clone();
        reversed.reverse();
        prop_assert_eq!(ids(&mut started(&new), &new), ids(&mut started(&reversed), &reversed));
    }
}

#[test]
fn one_that_is_unlike_the_others_moves_no_key_but_its_own() {
    // One that ramps up, one that is heavy.
    for odd in [10, 1000] {
        let mut weights = vec![100; 9];
        let before = table(&weights);
        weights.push(odd);
        let with = table(&weights);
        for (old, new) in [(&before, &with), (&with, &before)] {
            let (moved, strayed) = moved(old, new);
            assert_eq!(strayed, 0.0, "{odd}");
            let share = f64::from(odd) / f64::from(900 + odd);
            assert!((moved - share).abs() < 0.02, "{odd}: {moved} {share}");
        }
    }
}

#[test]
fn one_more_of_ten_thousand_takes_hardly_any_key_from_the_others() {
    let all = table(&vec![100; 10_083]);
    let (moved, _) = moved(&all[..10_082], &all);
    assert!(moved <= 0.0101, "{moved}");
}

/// The bound that the README states.
#[test]
fn of_a_hundred_endpoints_none_has_over_an_eighth_more_than_its_share() {
    let all = table(&[1; 100]);
    let mut ring = started(&all);
    let mut counts = vec![0.0; 100];
    for key in 0..1_000_000 {
        counts[at(&mut ring, mix(key))] += 1.0;
    }
    let peak = counts.into_iter().fold(0.0, f64::max) / 10_000.0;
    assert!(peak <= 1.125, "{peak}");
}

#[test]
fn weights_are_shares() {
    let all = table(&[100, 200, 300]);
    let mut ring = started(&all);
    let mut counts = [0.0_f64; 3];
    for key in 0..60_000 {
        counts[at(&mut ring, mix(key))] += 1.0 / 60_000.0;
    }
    for (count, share) in counts.iter().zip([1.0_f64 / 6.0, 2.0 / 6.0, 3.0 / 6.0]) {
        assert!((count - share).abs() < 0.05, "{counts:?}");
    }
}

#[test]
fn tables_of_none_and_one_and_the_ends_of_the_ring() {
    let mut ring = Ring::default();
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
    ring.endpoints_changed(&Endpoints::new(table(&[3])));
    for key in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        assert_eq!(at(&mut ring, key), 0);
    }
    ring.endpoints_changed(&Endpoints::default());
    assert_eq!(ring.pick(&Request::default(), &Endpoints::default()), None);
}

#[test]
fn settings_are_checked() {
    assert!(Ring::default().configure(r#"{"slots": 100}"#).is_ok());
    assert!(Ring::default().configure(r#"{"slot": 100}"#).is_err());
}
