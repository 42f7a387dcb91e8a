//! What a pick costs: the shipped round robin as a component, and the same code compiled in.
//!
//!     cargo bench -p pointsman-benches --bench pick
//!
//! Both take the upstream's lock and hand out a counted reference to the endpoint, as a request needs
//! it. The difference is the price of the component.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up must stop"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use guest_sdk::{Balancer as _, Endpoints};
use parking_lot::Mutex;
use pointsman::balancer::{Balancer, Engine, Request, SHIPPED, Settings};
use pointsman::upstream::Endpoint;
use round_robin::RoundRobin;

fn table(length: u64) -> Arc<[Arc<Endpoint>]> {
    (0..length)
        .map(|id| {
            let address = ([127, 0, 0, 1], 80).into();
            // Two weights, so that the turn is not trivial.
            let weight = if id % 2 == 0 { 100 } else { 200 };
            Arc::new(Endpoint::new(id, address, format!("host-{id}"), weight))
        })
        .collect()
}

fn component(bencher: &mut criterion::Bencher<'_>, length: u64) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(Settings {
        pick_timeout: Duration::from_millis(20),
        memory: 16 << 20,
        upload: 1 << 20,
        compile_timeout: Duration::from_secs(60),
        cache_dir: Some(folder.path().to_owned()),
        compiler: "/dev/null".into(),
    })
    .unwrap();
    let plugin = engine.load_trusted(SHIPPED[0].component).unwrap();
    let balancer = Balancer::new(engine, "bench", plugin, "{}".into());
    balancer.set_endpoints(table(length));
    let mut request = Request {
        now: 0,
        entropy: 0,
        affinity: None,
        attempt: 0,
    };
    bencher.iter(|| {
        request.now += 1;
        request.entropy = request.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        balancer.pick(black_box(request), &[])
    });
    assert_eq!(balancer.counters().host_choices, 0);
}

fn compiled_in(bencher: &mut criterion::Bencher<'_>, length: u64) {
    let table = table(length);
    let endpoints = table
        .iter()
        .map(|endpoint| guest_sdk::Endpoint {
            id: endpoint.id,
            weight: endpoint.weight,
        })
        .collect();
    let endpoints = Endpoints::new(endpoints);
    let mut balancer = RoundRobin::default();
    balancer.endpoints_changed(&endpoints);
    let seat = Mutex::new((balancer, endpoints));
    let mut request = guest_sdk::Request::default();
    bencher.iter(|| {
        request.now += 1;
        request.entropy = request.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (balancer, endpoints) = &mut *seat.lock();
        let position = balancer.pick(black_box(&request), endpoints)?;
        table.get(position).map(Arc::clone)
    });
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for length in [2, 16, 1000] {
        group.bench_with_input(BenchmarkId::new("component", length), &length, |b, &l| {
            component(b, l);
        });
        group.bench_with_input(BenchmarkId::new("compiled-in", length), &length, |b, &l| {
            compiled_in(b, l);
        });
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
