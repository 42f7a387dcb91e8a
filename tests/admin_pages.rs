//! Lists of many rows in pages, while others write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::Gateway;

/// Rows that stay.
const ROWS: usize = 10_000;
const WRITERS: usize = 64;

/// Reads a list page by page: the ids in the order in which they come.
fn ids(gateway: &Gateway, path: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = gateway.admin("GET", &path, &[]).expect(200).json();
        let rows = page["data"].as_array().unwrap();
        let id = |row: &Value| {
            let id = row.get("id").or_else(|| row.get("entity_id"));
            id.and_then(Value::as_str).unwrap().to_owned()
        };
        ids.extend(rows.iter().map(id));
        next = page["next"].as_str().map(str::to_owned);
    }
    ids
}

/// Writers create, change and delete rows of their own and change rows that stay. Every list in
/// the meantime has each row that stays exactly once, and no row twice.
#[test]
fn pages_lose_and_repeat_no_row_while_64_writers_work() {
    let gateway = Gateway::start();
    let made = AtomicUsize::new(0);
    let staying: BTreeSet<String> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut ids = Vec::new();
                    loop {
                        let number = made.fetch_add(1, Ordering::SeqCst);
                        if number >= ROWS {
                            return ids;
                        }
                        let consumer =
                            json!({"username": format!("stays-{number}"), "tags": ["stays"]});
                        let consumer = gateway.admin_json("POST", "/consumers", &consumer);
                        let id = consumer.expect(201).json()["id"].clone();
                        ids.push(id.as_str().unwrap().to_owned());
                    }
                })
            })
            .collect();
        makers
            .into_iter()
            .flat_map(|maker| maker.join().unwrap())
            .collect()
    });
    assert_eq!(staying.len(), ROWS);

    let done = AtomicBool::new(false);
    let working = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (gateway, done, working) = (&gateway, &done, &working);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::SeqCst) {
                    let own = format!("/consumers/own-{writer}-{round}");
                    let fields = [("custom_id", &*own), ("tags[]", "own")];
                    gateway.admin("PUT", &own, &fields).expect(200);
                    let kept = format!("/consumers/stays-{}", (writer * 157 + round) % ROWS);
                    let id = format!("{writer}-{round}");
                    gateway
                        .admin("PATCH", &kept, &[("custom_id", &id)])
                        .expect(200);
                    gateway.admin("DELETE", &own, &[]).expect(204);
                    if round == 0 {
                        working.fetch_add(1, Ordering::SeqCst);
                    }
                    round += 1;
                }
            });
        }
        crate::harness::until("all writers work", || {
            working.load(Ordering::SeqCst) == WRITERS
        });
        let lists = [
            "/consumers?size=97",
            "/consumers?size=1000&tags=stays",
            "/tags/stays?size=501",
        ];
        let read = lists.map(|list| (list, ids(&gateway, list)));
        done.store(true, Ordering::SeqCst);
        for (list, ids) in read {
            let distinct: BTreeSet<String> = ids.iter().cloned().collect();
            assert_eq!(distinct.len(), ids.len(), "{list}: a row came twice");
            let lost: Vec<_> = staying.difference(&distinct).collect();
            assert!(lost.is_empty(), "{list}: {lost:?}");
        }
    });
}
