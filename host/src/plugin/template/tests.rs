use super::*;
use guest_sdk::Endpoint;

fn endpoints(weights: &[u32]) -> Endpoints {
    let rows = (1..)
        .zip(weights)
        .map(|(id, &weight)| Endpoint { id, weight });
    Endpoints::new(rows.collect())
}

fn balancer(table: &Endpoints) -> Turns {
    let mut balancer = Turns::default();
    balancer.configure("{}").unwrap();
    balancer.endpoints_changed(table);
    balancer
}

/// The positions of `count` picks, all with the same load.
fn picks(balancer: &mut Turns, table: &Endpoints, load: &[u32], count: usize) -> Vec<usize> {
    let loaded = table.clone().with_column(Column::InFlight, load);
    let pick = |_| balancer.pick(&Request::default(), &loaded);
    (0..count).filter_map(pick).collect()
}

#[test]
fn turns_are_in_proportion_to_weights() {
    let table = endpoints(&[1, 2]);
    let picks = picks(&mut balancer(&table), &table, &[0, 0], 6);
    assert_eq!(picks, [1, 0, 1, 1, 0, 1]);
}

#[test]
fn a_busy_endpoint_is_skipped() {
    let table = endpoints(&[1, 1]);
    let picks = picks(&mut balancer(&table), &table, &[9, 0], 3);
    assert_eq!(picks, [1, 1, 1]);
}

#[test]
fn the_limit_is_a_setting() {
    let table = endpoints(&[1, 1]);
    let mut balancer = balancer(&table);
    balancer.configure(r#"{"limit": 1000}"#).unwrap();
    assert!(picks(&mut balancer, &table, &[9, 0], 2).contains(&0));
    assert!(balancer.configure(r#"{"limits": 1}"#).is_err());
}

#[test]
fn an_endpoint_that_stays_keeps_its_turn() {
    let before = endpoints(&[1, 1, 1]);
    let mut balancer = balancer(&before);
    assert_eq!(picks(&mut balancer, &before, &[0, 0, 0], 1), [0]);
    // The endpoint that had its turn is now second in the table.
    let after = Endpoints::new(vec![before[1], before[0], before[2]]);
    balancer.endpoints_changed(&after);
    assert_eq!(picks(&mut balancer, &after, &[0, 0, 0], 2), [0, 2]);
}

#[test]
fn without_endpoints_there_is_no_pick() {
    let table = endpoints(&[]);
    assert!(picks(&mut balancer(&table), &table, &[], 1).is_empty());
}
