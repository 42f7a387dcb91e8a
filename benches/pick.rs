//! The cost of a pick: of the round robin that ships, as a component and compiled in; of every
//! balancer that ships, with few and with many endpoints; of a change of the table; and of a prompt
//! that is compared with others; and of the scan of a long prompt. With `BEFORE`, only a
//! comparison: see `pick/before.rs`.
//!
//!     cargo bench --profile dist -p pointsman-benches --bench pick
//!
//! Each pick takes the upstream's lock and returns a counted reference to the endpoint, as a
//! request needs it. The difference between the component and the same code compiled in is the cost
//! of the component.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up must stop"
)]

#[path = "pick/before.rs"]
mod before;

use std::borrow::Cow;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use guest_sdk::{Balancer as _, Endpoints};
use parking_lot::Mutex;
use pointsman::balancer::{
    Balancer, BodyAnswer, Engine, PickRequest, ReadBody, RequestFacts, SHIPPED, Settings, Shipped,
};
use pointsman::endpoint::{Endpoint, InFlight};
use pointsman::trace::BodyQuestion;
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

/// A balancer that ships, loaded as a component, with the folder of its compiled form.
struct Loaded {
    balancer: Balancer,
    _cache: tempfile::TempDir,
}

fn engine(cache: &Path) -> Arc<Engine> {
    Engine::new(Settings {
        pick_timeout: Duration::from_millis(20),
        pick_cost: Duration::from_secs(1),
        memory: 16 << 20,
        state: 1 << 20,
        upload: 1 << 20,
        compile_timeout: Duration::from_secs(60),
        cache_dir: Some(cache.to_owned()),
        compiler: "/dev/null".into(),
    })
    .unwrap()
}

fn loaded(name: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path());
    let shipped = SHIPPED.iter().find(|shipped| shipped.name == name).unwrap();
    let plugin = engine.load_trusted(shipped.component).unwrap();
    Loaded {
        balancer: Balancer::new(engine, "bench", plugin, "{}".into()),
        _cache: folder,
    }
}

/// Picks one after the other, for requests with different keys.
#[derive(Default)]
struct Picks {
    now: u64,
    entropy: u64,
}

impl Picks {
    fn next(&mut self, balancer: &Balancer) {
        self.now += 1;
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let request = PickRequest {
            now: self.now,
            entropy: self.entropy,
            affinity: Some(self.entropy),
            attempt: 0,
            last_status: None,
            facts: None,
            note: None,
        };
        black_box(balancer.pick(black_box(request), &[], std::convert::identity));
    }
}

/// Some requests in flight and some latencies, so that endpoints differ.
fn hold(table: &[Arc<Endpoint>]) -> Vec<InFlight> {
    let mut in_flight = Vec::new();
    for endpoint in table {
        let load = endpoint.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        endpoint.observe_latency(1, 1000 + load % 10_000, 0);
        for _ in 0..load >> 62 {
            in_flight.push(InFlight::new(Arc::clone(endpoint)));
        }
    }
    in_flight
}

fn component(bencher: &mut criterion::Bencher<'_>, name: &str, length: u64) {
    let loaded = loaded(name);
    let table = table(length);
    let _held = hold(&table);
    loaded.balancer.set_endpoints(table);
    let mut picks = Picks::default();
    bencher.iter(|| picks.next(&loaded.balancer));
    let counters = loaded.balancer.counters();
    assert_eq!(counters.fallback_picks, 0, "{counters:?}");
}

/// One of many endpoints, all with requests in flight, leaves or joins. The first pick after that
/// is included, because a balancer may leave work to it.
fn change(bencher: &mut criterion::Bencher<'_>, name: &str, length: u64) {
    let loaded = loaded(name);
    let all = table(length);
    let busy = all
        .iter()
        .map(|endpoint| InFlight::new(Arc::clone(endpoint)));
    let busy: Vec<InFlight> = busy.collect();
    let less: Arc<[Arc<Endpoint>]> = all[1..].into();
    loaded.balancer.set_endpoints(Arc::clone(&all));
    let request = PickRequest {
        now: 0,
        entropy: 0,
        affinity: None,
        attempt: 0,
        last_status: None,
        facts: None,
        note: None,
    };
    loaded.balancer.pick(request, &[], drop);
    let mut turn = false;
    bencher.iter(|| {
        turn = !turn;
        let table = if turn { &less } else { &all };
        loaded.balancer.set_endpoints(Arc::clone(table));
        loaded.balancer.pick(request, &[], drop);
    });
    drop(busy);
    loaded.balancer.pick(request, &[], drop);
    let counters = loaded.balancer.counters();
    assert_eq!((counters.fallback_picks, counters.instances), (0, 1));
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
    let lock = Mutex::new((balancer, endpoints));
    let mut request = guest_sdk::Request::default();
    bencher.iter(|| {
        request.now += 1;
        request.entropy = request.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (balancer, endpoints) = &mut *lock.lock();
        let position = balancer.pick(black_box(&request), endpoints)?;
        table.get(position).map(Arc::clone)
    });
}

fn round_robin(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for length in [2, 16, 1000] {
        group.bench_with_input(BenchmarkId::new("component", length), &length, |b, &l| {
            component(b, "round-robin", l);
        });
        group.bench_with_input(BenchmarkId::new("compiled-in", length), &length, |b, &l| {
            compiled_in(b, l);
        });
    }
    group.finish();
}

fn shipped(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shipped");
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(2));
    for Shipped { name, .. } in SHIPPED {
        for length in [4, 100, 1000, 10_000] {
            group.bench_with_input(BenchmarkId::new(*name, length), &length, |b, &l| {
                component(b, name, l);
            });
        }
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("endpoints-changed");
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(2));
    group.sample_size(20);
    for Shipped { name, .. } in SHIPPED {
        group.bench_function(*name, |b| change(b, name, 10_000));
    }
    group.finish();
}

/// A request of OpenAI's completions API.
struct Completion(Vec<u8>);

impl Completion {
    /// A request with a body of `bytes` bytes, whose prompt is that of a conversation of its own.
    fn new(conversation: usize, bytes: usize) -> Self {
        let said = format!("This is conversation {conversation}, and no other one. ");
        let prompt = said.repeat(bytes / said.len() + 1);
        let mut body = format!(r#"{{"model":"small","prompt":"{prompt}"#).into_bytes();
        body.truncate(bytes);
        Self(body)
    }
}

impl RequestFacts for Completion {
    fn method(&self) -> Option<Cow<'_, str>> {
        Some("POST".into())
    }
    fn path(&self) -> Option<Cow<'_, str>> {
        Some("/v1/completions".into())
    }
    fn query(&self) -> Option<Cow<'_, str>> {
        None
    }
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn client(&self) -> Option<Cow<'_, str>> {
        Some("192.0.2.1".into())
    }
    fn body_start(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        Some(self.0[..most.min(self.0.len())].into())
    }
}

/// Prompts of 64 conversations in turn, all of which the balancer has seen.
fn prompts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prompt");
    for bytes in [256, 1 << 10, 4 << 10, 16 << 10, 256 << 10] {
        let loaded = loaded("prefix-affinity");
        loaded.balancer.set_endpoints(table(100));
        let asked: Vec<Completion> = (0..64).map(|n| Completion::new(n, bytes)).collect();
        group.bench_with_input(
            BenchmarkId::new("prefix-affinity", bytes),
            &asked,
            |b, asked| {
                let mut number = 0_u64;
                b.iter(|| {
                    number += 1;
                    let request = PickRequest {
                        now: number,
                        entropy: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                        affinity: None,
                        attempt: 0,
                        last_status: None,
                        facts: Some(&asked[number as usize % asked.len()]),
                        note: None,
                    };
                    loaded.balancer.pick(black_box(request), &[], drop);
                });
            },
        );
        let counters = loaded.balancer.counters();
        assert_eq!(counters.fallback_picks, 0, "{counters:?}");
    }
    group.finish();
}

/// What `token-load` asks of a chat of 256 KiB: prose, and code, which has an escape in each line.
/// Each question by itself, and all of them.
fn scans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for (name, line) in [
        (
            "prose",
            "It was said in the conversation before, and it is said here again. ",
        ),
        ("code", r#"    println!(\"{name}: {scanned} of {all}\");\n"#),
    ] {
        let said = line.repeat((256 << 10) / line.len());
        let head = r#"{"model":"m","messages":[{"role":"user","content":""#;
        let body = format!("{head}{said}\"}}],\"max_tokens\":7}}");
        let questions = [
            BodyQuestion::PromptLength,
            BodyQuestion::JsonField {
                pointer: "/max_tokens".into(),
                most: 16,
            },
            BodyQuestion::PrefixHashes {
                block: 64,
                most: 4096,
            },
        ];
        let mut measure = |what: &str, questions: &[BodyQuestion]| {
            let id = BenchmarkId::new(format!("{name}: {what}"), said.len());
            group.bench_function(id, |b| {
                b.iter(|| {
                    let body = ReadBody::new(black_box(body.as_bytes()), false);
                    for question in questions {
                        black_box(body.answer(question));
                    }
                });
            });
        };
        // A body is scanned once for all questions, so all take less than their sum.
        for (what, question) in ["prompt-length", "json-field", "prefix-hashes"]
            .into_iter()
            .zip(&questions)
        {
            measure(what, std::slice::from_ref(question));
        }
        measure("all three", &questions);
        let limit = ReadBody::new(body.as_bytes(), false).answer(&questions[1]);
        assert_eq!(limit, Some(BodyAnswer::Text("7".into())));
    }
    group.finish();
}

criterion_group!(benches, round_robin, shipped, changes, prompts, scans);

fn main() {
    match std::env::var_os("BEFORE") {
        Some(folder) => before::compare(Path::new(&folder)),
        None => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
