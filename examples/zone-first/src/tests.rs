use super::ZoneFirst;
use guest_sdk::{Balancer, Endpoint, Endpoints, Request};

fn picked(zones: &[&str], entropy: u64) -> Option<usize> {
    let rows = (1..).zip(zones).map(|(id, _)| Endpoint { id, weight: 100 });
    let table = Endpoints::new(rows.collect());
    let endpoints = (zones.iter().enumerate()).fold(table, |table, (position, zone)| {
        table.with_label(position, "zone", zone)
    });
    let mut balancer = ZoneFirst::default();
    balancer.configure(r#"{"zone": "a"}"#).unwrap();
    balancer.endpoints_changed(&endpoints);
    let request = Request {
        entropy,
        ..Request::default()
    };
    balancer.pick(&request, &endpoints)
}

#[test]
fn other_zones_are_picked_only_if_the_preferred_one_is_empty() {
    assert!((0..100).all(|entropy| picked(&["b", "a", "b"], entropy) == Some(1)));
    let anywhere = (0..100).filter_map(|entropy| picked(&["b", "c"], entropy));
    assert!(anywhere.collect::<std::collections::BTreeSet<_>>().len() == 2);
}

#[test]
fn settings_without_a_zone_are_refused() {
    assert!(ZoneFirst::default().configure("{}").is_err());
}
