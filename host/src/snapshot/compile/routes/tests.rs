#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use http::{HeaderMap, Method};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::router::{Arguments, Query};

/// Enough memory for the regular expression of one route of [`with_pattern`], but not for those of
/// two.
fn room_for_one() -> usize {
    let route = crate::entity::view(Kind::Route, row(with_pattern(1))).unwrap();
    Route::compile(route, RouterFlavor::default(), usize::MAX)
        .unwrap()
        .pattern_memory
        * 3
        / 2
}

fn with_pattern(id: u128) -> Value {
    json!({"id": Uuid::from_u128(id), "paths": [format!("~/pattern/{id}")]})
}

fn row(fields: Value) -> Row {
    fields.as_object().unwrap().clone()
}

/// The parts that a router is built from, and the services that they were told are enabled.
struct Parts {
    services: Services,
    routes: Routes,
}

impl Parts {
    fn new(room: usize) -> Self {
        Self {
            services: Services::default(),
            routes: Routes::new(Arc::new(PatternMemory::new(room))),
        }
    }

    fn put(&mut self, route: Value) {
        let id = route["id"].as_str().unwrap().parse().unwrap();
        self.routes.put(id, row(route));
    }

    fn enable(&mut self, id: u128, enabled: bool) {
        let id = Uuid::from_u128(id);
        let service = json!({"id": id, "host": "127.0.0.1", "enabled": enabled});
        self.services.put(id, row(service));
    }

    fn rebuild(&mut self) -> bool {
        let toggled = self.services.take_toggled();
        self.routes.rebuild(&self.services, &toggled)
    }

    /// Which route answers a path, by its id.
    fn answer(&self, path: &str) -> Option<u128> {
        let query = Query {
            method: &Method::GET,
            host: "h",
            port: 80,
            path: path.as_bytes(),
            headers: &HeaderMap::new(),
            server_name: None,
            arguments: Arguments::new(None),
            client: None,
            local: None,
        };
        let found = self.routes.router().route(&query)?;
        Some(found.route.id.as_u128())
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A route of this id, service and path.
    Put(u128, u128, u8),
    Delete(u128),
    Enable(u128, bool),
    Rebuild,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u128..7, 1_u128..4, 0_u8..4).prop_map(|(id, service, path)| Step::Put(id, service, path)),
        1 => (1_u128..7).prop_map(Step::Delete),
        2 => (1_u128..4, any::<bool>()).prop_map(|(service, enabled)| Step::Enable(service, enabled)),
        2 => Just(Step::Rebuild),
    ]
}

proptest! {
    /// After a rebuild exactly the present routes of enabled services answer, as in parts that were
    /// told of these alone.
    #[test]
    fn the_routes_of_enabled_services_answer(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut parts = Parts::new(0);
        let mut routes = BTreeMap::new();
        let mut enabled = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Rebuild]) {
            match step {
                Step::Put(id, service, path) => {
                    let service_id = Uuid::from_u128(service);
                    let route = json!({
                        "id": Uuid::from_u128(id), "service": {"id": service_id}, "paths": [format!("/{path}")],
                    });
                    routes.insert(id, (service, route.clone()));
                    parts.put(route);
                }
                Step::Delete(id) => {
                    routes.remove(&id);
                    parts.routes.delete(Uuid::from_u128(id));
                }
                Step::Enable(service, is_enabled) => {
                    enabled.insert(service, is_enabled);
                    parts.enable(service, is_enabled);
                }
                Step::Rebuild => {
                    parts.rebuild();
                    let mut anew = Parts::new(0);
                    for (service, route) in routes.values() {
                        if enabled.get(service) != Some(&false) {
                            anew.put(route.clone());
                        }
                    }
                    anew.rebuild();
                    for path in ["/0", "/1", "/2", "/3", "/4"] {
                        prop_assert_eq!(parts.answer(path), anew.answer(path));
                    }
                }
            }
        }
    }
}

#[test]
fn a_route_without_memory_is_compiled_once_there_is_enough() {
    let mut parts = Parts::new(room_for_one());
    for id in 1..=2 {
        parts.put(with_pattern(id));
    }
    assert!(parts.rebuild());
    assert_eq!(parts.answer("/pattern/1"), Some(1));
    assert_eq!(parts.answer("/pattern/2"), None);
    parts.routes.delete(Uuid::from_u128(1));
    assert!(parts.rebuild());
    assert_eq!(parts.answer("/pattern/1"), None);
    assert_eq!(parts.answer("/pattern/2"), Some(2));
    // Written again, it needs no memory besides its own.
    parts.put(with_pattern(2));
    assert!(parts.rebuild());
    assert_eq!(parts.answer("/pattern/2"), Some(2));
    assert!(!parts.rebuild());
}
