//! Many writers at several gateways that share a configuration: what was answered is compared with
//! what is there in the end.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Etcd, Gateway, until};

const WRITERS: usize = 64;
const STEPS: usize = 14;

/// Names of services: so few that many writers want the same one.
const NAMES: usize = 12;

/// An acknowledged write, with the time before it was sent and the time after it was answered.
#[derive(Debug)]
struct Event {
    sent: Instant,
    answered: Instant,
    what: What,
}

/// What a write has done. A mark is unique among all writes of services.
#[derive(Debug)]
enum What {
    Created {
        id: String,
        name: String,
        mark: String,
    },
    Updated {
        id: String,
        mark: String,
    },
    Deleted {
        id: String,
    },
    Routed {
        route: String,
        service: String,
    },
}

/// Two fields that belong together: both are from the same write, or a write was done by half.
fn marked(mark: &str) -> Value {
    json!({ "host": format!("{mark}.example"), "tags": [mark] })
}

fn id_of(row: &Value) -> String {
    row["id"].as_str().unwrap().to_owned()
}

/// All rows of a collection, by their ids.
fn rows(gateway: &Gateway, collection: &str) -> BTreeMap<String, Value> {
    let path = format!("/{collection}?size=1000");
    let page = gateway.admin("GET", &path, &[]).expect(200).json();
    assert!(page["next"].is_null());
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| (id_of(row), row.clone())).collect()
}

/// What one writer does: `None` if it was refused.
fn write(gateway: &Gateway, step: usize, mark: &str, known: &Mutex<Vec<String>>) -> Option<What> {
    // A service that another writer may have made, and that this gateway has.
    let other = {
        let known = known.lock().unwrap();
        known.get(known.len().checked_sub(1 + step % 5)?).cloned()
    };
    let other = other.filter(|id| {
        let path = format!("/services/{id}");
        gateway.admin("GET", &path, &[]).status == 200
    })?;
    let path = format!("/services/{other}");
    let (what, status, refusals) = match step % 4 {
        0 => {
            let reply = gateway.admin_json("PATCH", &path, &marked(mark));
            let what = What::Updated {
                id: other,
                mark: mark.to_owned(),
            };
            (what, reply.status, &[404, 409][..])
        }
        1 | 2 => {
            let status = gateway.admin("DELETE", &path, &[]).status;
            // Refused while a route refers to it.
            (What::Deleted { id: other }, status, &[400][..])
        }
        _ => {
            let route = json!({ "paths": [format!("/{mark}")] });
            let reply = gateway.admin_json("POST", &format!("{path}/routes"), &route);
            let what = What::Routed {
                route: match reply.status {
                    201 => id_of(&reply.json()),
                    _ => String::new(),
                },
                service: other,
            };
            (what, reply.status, &[400, 404][..])
        }
    };
    match status {
        200 | 201 | 204 => Some(what),
        _ => {
            assert!(refusals.contains(&status), "{what:?}: {status}");
            None
        }
    }
}

fn create(gateway: &Gateway, name: String, mark: &str) -> Option<What> {
    let mut service = marked(mark);
    service["name"] = json!(name);
    let reply = gateway.admin_json("POST", "/services", &service);
    match reply.status {
        201 => Some(What::Created {
            id: id_of(&reply.json()),
            name,
            mark: mark.to_owned(),
        }),
        _ => {
            let body = reply.expect(409).json();
            assert_eq!(body["name"], "unique constraint violation", "{body}");
            None
        }
    }
}

#[test]
fn each_acknowledged_write_is_there_once_and_whole() {
    let etcd = Etcd::start();
    let gateways: [Gateway; 3] = std::array::from_fn(|_| etcd.gateway().start());
    let known = Mutex::new(Vec::new());
    let history: Vec<Event> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (gateway, known) = (&gateways[writer % gateways.len()], &known);
                scope.spawn(move || {
                    let mut events = Vec::new();
                    for step in 0..STEPS {
                        let mark = format!("m{writer}-{step}");
                        let sent = Instant::now();
                        let what = match step % 2 {
                            0 => create(gateway, format!("s{}", (writer + step) % NAMES), &mark),
                            _ => write(gateway, step / 2 + writer, &mark, known),
                        };
                        let answered = Instant::now();
                        let Some(what) = what else { continue };
                        if let What::Created { id, .. } = &what {
                            known.lock().unwrap().push(id.clone());
                        }
                        events.push(Event {
                            sent,
                            answered,
                            what,
                        });
                    }
                    events
                })
            })
            .collect();
        let histories = writers.into_iter().map(|writer| writer.join().unwrap());
        histories.flatten().collect()
    });
    let (services, routes) = (rows(&gateways[0], "services"), rows(&gateways[0], "routes"));
    for gateway in &gateways[1..] {
        until("all gateways have the same", || {
            rows(gateway, "services") == services && rows(gateway, "routes") == routes
        });
    }
    // A later writer may still have been behind: the first gateway has all by now as well.
    let (services, routes) = (rows(&gateways[0], "services"), rows(&gateways[0], "routes"));
    Histories::of(&history).check(&services, &routes);
}

/// What has happened to each service.
#[derive(Default)]
struct Histories<'a> {
    services: BTreeMap<&'a str, History<'a>>,
    routes: BTreeMap<&'a str, &'a str>,
}

#[derive(Default)]
struct History<'a> {
    /// Its name, and the event that has created it.
    created: Option<(&'a str, &'a Event)>,
    /// The writes of its fields, by their marks.
    written: BTreeMap<&'a str, &'a Event>,
    deleted: Vec<&'a Event>,
}

impl<'a> Histories<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut histories = Self::default();
        for event in events {
            match &event.what {
                What::Created { id, name, mark } => {
                    let history = histories.services.entry(id).or_default();
                    let other = history.created.replace((name, event));
                    assert!(other.is_none(), "{id} is made twice");
                    history.written.insert(mark, event);
                }
                What::Updated { id, mark } => {
                    let history = histories.services.entry(id).or_default();
                    history.written.insert(mark, event);
                }
                What::Deleted { id } => {
                    let history = histories.services.entry(id).or_default();
                    history.deleted.push(event);
                }
                What::Routed { route, service } => {
                    let other = histories.routes.insert(route, service);
                    assert!(other.is_none(), "{route} is made twice");
                }
            }
        }
        histories
    }

    fn check(&self, services: &BTreeMap<String, Value>, routes: &BTreeMap<String, Value>) {
        let kept = self.services.iter();
        let kept = kept.filter(|(_, history)| history.deleted.is_empty());
        let kept: Vec<&str> = kept.map(|(id, _)| *id).collect();
        let there: Vec<&str> = services.keys().map(String::as_str).collect();
        assert_eq!(kept, there, "no service is lost, and none comes back");
        let made: Vec<&str> = self.routes.keys().copied().collect();
        let there: Vec<&str> = routes.keys().map(String::as_str).collect();
        assert_eq!(made, there, "no route is lost");
        for (route, service) in &self.routes {
            assert_eq!(routes[*route]["service"]["id"], **service);
            assert!(services.contains_key(*service), "{route} refers to nothing");
        }
        for (id, row) in services {
            let written = &self.services[&**id].written;
            let mark = row["tags"][0].as_str().unwrap();
            let host = format!("{mark}.example");
            assert_eq!(row["host"], *host, "{id} is half of two writes");
            let last = written.get(mark).unwrap();
            let later = written.values().find(|event| event.sent > last.answered);
            assert!(later.is_none(), "{later:?} is lost: {row}");
        }
        self.check_names();
    }

    /// No two services have the same name at the same time. Each is certainly there from the answer
    /// to its creation until a deletion is sent.
    fn check_names(&self) {
        let mut lives: BTreeMap<&str, Vec<(Instant, Option<Instant>)>> = BTreeMap::new();
        for history in self.services.values() {
            let (name, created) = history.created.unwrap();
            let end = history.deleted.iter().map(|event| event.sent).min();
            lives.entry(name).or_default().push((created.answered, end));
        }
        for (name, lives) in &mut lives {
            lives.sort();
            for pair in lives.windows(2) {
                let is_apart = pair[0].1.is_some_and(|end| end <= pair[1].0);
                assert!(is_apart, "{name} is given twice: {pair:?}");
            }
        }
    }
}
