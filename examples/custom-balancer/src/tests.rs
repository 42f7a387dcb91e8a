use super::Random;
use guest_sdk::{Balancer, Endpoint, Endpoints, Request};

#[test]
fn entropy_decides_which_endpoint_is_picked() {
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
fn a_request_is_refused_if_the_table_is_empty() {
    assert_eq!(
        Random.pick(&Request::default(), &Endpoints::default()),
        None
    );
}
