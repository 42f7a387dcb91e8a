use proptest::prelude::*;

use super::*;

fn request(traffic: &Traffic, status: u16) {
    let took = Duration::from_millis(1);
    traffic.note_request(None, status, took, 0, || RequestSample {
        route: None,
        method: "GET".into(),
        host: String::new(),
        path: "/".into(),
        client: String::new(),
        status,
        took,
        at: 0,
    });
}

fn a_try(endpoint: u64, status: u16, millis: u64, at: u64) -> TrySample {
    TrySample {
        endpoint,
        status,
        took: Duration::from_millis(millis),
        is_trial: false,
        at,
    }
}

#[test]
fn tries_are_counted_by_endpoint_and_taken_once() {
    let traffic = Traffic::new();
    let name: Arc<str> = "u".into();
    traffic.note_try(&name, a_try(1, 200, 10, 0));
    traffic.note_try(&name, a_try(1, 503, 30, 1));
    traffic.note_try(&name, a_try(2, 0, 50, 2));
    let window = traffic.take();
    let tries = &window.upstreams["u"];
    assert_eq!((tries.all.counts.number, tries.all.counts.errors), (3, 2));
    assert_eq!(tries.endpoints[&1].mean_ms(), Some(20.0));
    assert_eq!(tries.endpoints[&2].errors, 1);
    assert!(traffic.take().upstreams.is_empty());
}

#[test]
fn nothing_is_collected_once_a_watcher_was_dropped() {
    let traffic = Traffic::new();
    let watching = traffic.watch();
    assert!(traffic.is_watched());
    traffic.note_try(&"u".into(), a_try(1, 200, 10, 0));
    drop(watching);
    assert!(!traffic.is_watched());
    assert!(traffic.take().upstreams.is_empty());
}

#[test]
fn what_was_noted_before_a_watcher_came_is_not_shown_to_it() {
    let traffic = Traffic::new();
    traffic.note_try(&"u".into(), a_try(1, 200, 10, 0));
    let watching = traffic.watch();
    assert!(traffic.take().upstreams.is_empty());
    drop(watching);
}

#[test]
fn samples_are_apart_and_bounded() {
    let traffic = Traffic::new();
    let name: Arc<str> = "u".into();
    for at in 0..10_000 {
        traffic.note_try(&name, a_try(1, 200, 1, at * 1000));
    }
    let window = traffic.take();
    let samples = &window.upstreams["u"].samples;
    assert_eq!(samples.len(), SAMPLES);
    let mut pairs = samples.windows(2);
    assert!(pairs.all(|pair| pair[1].at - pair[0].at >= SPACING));
}

#[test]
fn streams_are_counted_by_route_apart_from_requests() {
    let traffic = Traffic::new();
    for (status, at) in [(200, 0), (502, 1)] {
        traffic.note_stream(StreamSample {
            route: None,
            client: [127, 0, 0, 1].into(),
            port: 53,
            transport: "udp",
            status,
            received: 1,
            sent: 2,
            took: Duration::from_secs(1),
            at,
        });
    }
    let window = traffic.take();
    let counts = window.streams[&None].counts;
    assert_eq!((counts.number, counts.errors), (2, 1));
    // The second one is too close to the first.
    assert_eq!(window.ended.len(), 1);
    assert!(window.routes.is_empty());
}

#[test]
fn texts_of_samples_are_bounded() {
    assert_eq!(sampled("/short"), "/short");
    for long in [
        "a".repeat(300),
        "ü".repeat(300),
        "a".to_owned() + &"ü".repeat(300),
    ] {
        let shown = sampled(&long);
        assert!(shown.len() <= TEXT && shown.len() > TEXT - 4, "{shown}");
        assert!(shown.ends_with('…'));
    }
}

#[test]
fn what_two_threads_note_is_one_window() {
    let traffic = Traffic::new();
    let watching = traffic.watch();
    let note = || request(&traffic, 200);
    std::thread::scope(|scope| {
        scope.spawn(note);
        scope.spawn(note);
    });
    assert_eq!(traffic.take().routes[&None].counts.number, 2);
    drop(watching);
}

#[test]
fn totals_are_counted_from_zero_and_beside_windows() {
    let traffic = Traffic::new();
    assert!(!traffic.takes_requests());
    let counting = traffic.count();
    assert!(traffic.takes_requests() && !traffic.is_watched());
    request(&traffic, 200);
    request(&traffic, 500);
    assert!(traffic.take().routes.is_empty(), "without a watcher");
    let watching = traffic.watch();
    request(&traffic, 503);
    assert_eq!(traffic.take().routes[&None].counts.number, 1);
    drop(watching);
    let totals = counting.totals();
    assert_eq!((totals.requests, totals.errors), (3, 2));
    drop(counting);
    assert!(!traffic.takes_requests());
    assert_eq!(traffic.count().totals().requests, 0);
}

proptest! {
    #[test]
    fn a_quantile_is_off_by_an_eighth_at_most(times in prop::collection::vec(8_u64..1_000_000_000, 1..50)) {
        let mut figures = Figures::default();
        for time in &times {
            figures.add(false, Duration::from_micros(*time));
        }
        let mut sorted = times;
        sorted.sort_unstable();
        for (part, place) in [(0.5, (sorted.len() - 1) / 2), (1.0, sorted.len() - 1)] {
            let exact = sorted[place] as f64 / 1000.0;
            let shown = figures.quantile_ms(part).unwrap_or_default();
            prop_assert!((shown / exact - 1.0).abs() <= 0.13, "{} {}", shown, exact);
        }
    }
}
