//! The laws of every balancer that ships, tested with its component.

use serde_json::{Value, json};

use super::*;

fn of_shipped(engine: &Arc<Engine>, name: &str) -> Balancer {
    let shipped = SHIPPED.iter().find(|shipped| shipped.name == name).unwrap();
    let plugin = engine.load_trusted(shipped.component).unwrap();
    Balancer::new(Arc::clone(engine), "u", plugin, "{}".into())
}

/// Settings of upstreams are stored, and have to stay valid with the next release. A change here is
/// one for operators.
#[test]
fn every_shipped_balancer_has_the_settings_that_it_had() {
    let known: Value = serde_json::from_str(include_str!("schemas.json")).unwrap();
    let (_folder, engine) = shared_engine();
    for Shipped {
        name, component, ..
    } in SHIPPED
    {
        let plugin = engine.load_trusted(component).unwrap();
        let nothing = json!({"type": "object", "additionalProperties": false});
        let expected = known.get(*name).unwrap_or(&nothing);
        assert_eq!(meaning(&plugin.config_schema), meaning(expected), "{name}");
    }
}

/// A schema with all its numbers as floats, since 4 and 4.0 are the same, and without lists of no
/// required fields.
fn meaning(schema: &Value) -> Value {
    match schema {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.iter().map(meaning).collect(),
        Value::Object(fields) => {
            let says_nothing =
                |name: &str, value: &Value| name == "required" && *value == json!([]);
            let fields = fields
                .iter()
                .filter(|(name, value)| !says_nothing(name, value))
                .map(|(name, value)| (name.clone(), meaning(value)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn table(length: usize) -> Arc<[Arc<Endpoint>]> {
    let weights: Vec<u32> = (0..length as u32).map(|number| 1 + number % 7).collect();
    endpoints(&weights)
}

/// No endpoint, one, two, ten thousand, and changes between these; all endpoints removed, and added
/// again.
#[test]
fn every_shipped_balancer_takes_every_size_and_change_of_the_table() {
    let (_folder, engine) = shared_engine();
    for Shipped { name, .. } in SHIPPED {
        let balancer = of_shipped(&engine, name);
        let sizes = [0, 1, 2, 10_000, 9_999, 3, 0, 10_000, 1, 0, 2];
        for size in sizes {
            let table = table(size);
            balancer.set_endpoints(Arc::clone(&table));
            // Every third endpoint has a request in flight and a known latency.
            let busy = table.iter().step_by(3).map(|endpoint| {
                endpoint.observe_latency(1, 1000, 0);
                InFlight::new(Arc::clone(endpoint))
            });
            let busy: Vec<InFlight> = busy.collect();
            for number in 0..200 {
                let request = PickRequest {
                    affinity: (number % 2 == 0).then_some(number),
                    attempt: (number % 3) as u32,
                    ..request(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                };
                match balancer.pick(request, &[], std::convert::identity) {
                    Choice::Endpoint(chosen) => {
                        assert!(table.iter().any(|e| e.id == chosen.id), "{name} {size}");
                    }
                    Choice::Empty => assert_eq!(size, 0, "{name}"),
                    Choice::Refused(_) => panic!("{name} refuses with {size} endpoints"),
                }
            }
            drop(busy);
        }
        let counters = balancer.counters();
        assert_eq!(counters.fallback_picks, 0, "{name}: {counters:?}");
        assert_eq!(
            (counters.instances, counters.last_fault),
            (1, None),
            "{name}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The gateway reports one to four changes at a time, and the component misses none: it chooses
    /// no endpoint while another one is less busy.
    #[test]
    fn least_connections_knows_every_request(
        size in 1_usize..20, steps in prop::collection::vec((0_usize..20, 0_usize..9), 1..60),
    ) {
        let (_folder, engine) = shared_engine();
        let balancer = of_shipped(&engine, "least-connections");
        let mut table = endpoints(&vec![5; size]);
        balancer.set_endpoints(Arc::clone(&table));
        let mut open: Vec<Vec<InFlight>> = (0..20).map(|_| Vec::new()).collect();
        for (position, load) in steps {
            let position = position % size;
            open[position].truncate(load);
            while open[position].len() < load {
                open[position].push(InFlight::new(Arc::clone(&table[position])));
            }
            if load == 7 {
                // Another table of the same endpoints, with their requests in flight.
                table = table.iter().cloned().collect();
                balancer.set_endpoints(Arc::clone(&table));
            }
            let Choice::Endpoint(chosen) = balancer.pick(request(0), &[], std::convert::identity) else {
                return Err(TestCaseError::fail("no endpoint"));
            };
            let least = table.iter().map(|endpoint| endpoint.in_flight()).min();
            prop_assert_eq!(Some(chosen.in_flight()), least);
        }
        prop_assert_eq!(balancer.counters().fallback_picks, 0);
    }
}

/// Concurrent requests of several workers are spread as evenly as requests one by one.
#[test]
fn least_connections_is_exact_over_all_workers() {
    let (_folder, engine) = shared_engine();
    let balancer = of_shipped(&engine, "least-connections");
    let table = endpoints(&[1; 8]);
    balancer.set_endpoints(Arc::clone(&table));
    let open: Vec<InFlight> = std::thread::scope(|scope| {
        let worker = || {
            let pick = |number| balancer.pick(request(number), &[], InFlight::new);
            (0..400)
                .map(|number| match pick(number) {
                    Choice::Endpoint(in_flight) => in_flight,
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter();
        done.flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(balancer.counters().fallback_picks, 0);
    for endpoint in &*table {
        assert_eq!(endpoint.in_flight(), 200);
    }
    drop(open);
}

/// The README of a balancer shows the schema of the component.
#[test]
fn the_readme_of_a_balancer_shows_its_schema() {
    let (_folder, engine) = shared_engine();
    for Shipped { name, .. } in SHIPPED {
        let schema = of_shipped(&engine, name).plugin().config_schema.clone();
        let page = format!("{}/../plugins/{name}/README.md", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(page).unwrap();
        let shown = page
            .split("```json")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        if schema.pointer("/properties").is_some() {
            let shown: serde_json::Value = serde_json::from_str(shown.unwrap()).unwrap();
            assert_eq!(meaning(&shown), meaning(&schema), "{name}");
        } else {
            assert!(page.contains("**Options.** None"), "{name}");
        }
    }
}

#[test]
fn reading_the_load_of_an_invalid_position_is_a_fault_and_costs_no_pick() {
    let (_folder, engine) = shared_engine();
    let balancer = balancer(&engine, "looks-outside", &[1, 1]);
    assert!(picks(&balancer, 5).iter().all(|id| *id > 0));
    let counters = balancer.counters();
    assert!(counters.faults.trap > 0, "{counters:?}");
    let said = counters.last_fault.unwrap();
    assert!(said.contains("position 2 of a table of 2"), "{said}");
}

#[test]
fn only_what_a_balancer_reads_is_observed() {
    let (_folder, engine) = shared_engine();
    for (name, config, latency, report) in [
        ("round-robin", "{}", false, false),
        ("p2c", "{}", false, false),
        ("latency", "{}", true, false),
        ("prequal", "{}", true, false),
        ("prequal", r#"{"hot_load": 0.9}"#, true, true),
    ] {
        let balancer = of_shipped(&engine, name);
        balancer.replace(balancer.plugin(), config.into());
        balancer.set_endpoints(table(3));
        picks(&balancer, 3);
        assert_eq!(balancer.wants(Observed::Latency), latency, "{name}");
        assert_eq!(balancer.wants(Observed::Report), report, "{name} {config}");
    }
}

/// Mean instructions of a pick of a component, without a call of the host. Requests in flight and
/// latencies differ.
fn instructions(engine: &Arc<Engine>, component: &[u8], length: usize) -> f64 {
    let plugin = engine.load_trusted(component).unwrap();
    let balancer = Balancer::new(Arc::clone(engine), "u", plugin, "{}".into());
    let table = table(length);
    for endpoint in table.iter() {
        let load = endpoint.id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        endpoint.observe_latency(1, 1000 + load % 10_000, 0);
        endpoint.pretend_in_flight((load >> 62) as u32);
    }
    balancer.set_endpoints(table);
    let picks = 2000;
    let taken = (0..=picks).map(|number: u64| {
        let entropy = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let request = PickRequest {
            affinity: Some(entropy),
            ..request(entropy)
        };
        balancer.pick(request, &[], drop);
        balancer.instructions().unwrap()
    });
    // The first pick may have work to do for the table.
    let taken: u64 = taken.skip(1).sum();
    assert_eq!(balancer.counters().fallback_picks, 0);
    taken as f64 / picks as f64
}

/// A zone that could be preferred, and is not, costs next to nothing: the component of before there
/// were zones is the measure. Instructions of WebAssembly are counted, of which many only move
/// values and are not there in the end.
#[test]
fn a_pick_without_a_zone_takes_about_as_many_instructions_as_before_there_were_zones() {
    let before = include_bytes!("../../../../tests/components/p2c-1.3.0.wasm");
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::metered(settings(&folder)).unwrap();
    let shipped = SHIPPED
        .iter()
        .find(|shipped| shipped.name == "p2c")
        .unwrap();
    for length in [4, 100, 1000] {
        let [now, before] =
            [shipped.component, before].map(|component| instructions(&engine, component, length));
        assert!(now <= 1.1 * before, "{now} {before} at {length}");
    }
}
