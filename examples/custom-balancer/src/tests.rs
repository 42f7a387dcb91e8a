use super::Random;
use guest_sdk::{Balancer, Endpoint, Endpoints, Request};

#[test]
fn every_endpoint_gets_its_turn() {
    let table = (1..=3).map(|id| Endpoint { id, weight: 100 }).collect();
    let endpoints = Endpoints::new(table);
    let picks = (0..6).map(|entropy| {
        let request = Request {
            entropy,
            ..Request::default()
        };
        Random.pick(&request, &endpoints)
    });
    assert_eq!(picks.flatten().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn an_empty_table_is_refused() {
    assert_eq!(
        Random.pick(&Request::default(), &Endpoints::default()),
        None
    );
}
