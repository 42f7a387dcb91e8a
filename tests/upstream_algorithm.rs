//! `algorithm` and `hash_on` of an upstream, which adjust each other as in Kong.

use serde_json::{Value, json};

use crate::harness::Gateway;

#[test]
fn algorithm_and_hash_on_read_back_as_in_kong() {
    let gateway = Gateway::start();
    let made = |number: usize, fields: &[(&str, &str)]| {
        let name = format!("u{number}");
        let fields = [&[("name", &*name)], fields].concat();
        let made = gateway
            .admin("POST", "/upstreams", &fields)
            .expect(201)
            .json();
        let path = format!("/upstreams/{name}");
        let read = gateway.admin("GET", &path, &[]).expect(200).json();
        assert_eq!(made, read);
        (
            path,
            format!("{} {}", text(&read["algorithm"]), text(&read["hash_on"])),
        )
    };
    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }
    const HASHING: (&str, &str) = ("algorithm", "consistent-hashing");
    const LEAST: (&str, &str) = ("algorithm", "least-connections");
    const ROUND: (&str, &str) = ("algorithm", "round-robin");
    const IP: (&str, &str) = ("hash_on", "ip");
    const NONE: (&str, &str) = ("hash_on", "none");
    const NULL: (&str, &str) = ("hash_on", "");
    const LATENCY: (&str, &str) = ("algorithm", "latency");
    const MAGLEV: (&str, &str) = ("algorithm", "maglev");
    type Fields = &'static [(&'static str, &'static str)];
    let cases: &[(Fields, Fields, &str)] = &[
        // Fields of the POST, fields of the PATCH, and what a GET shows.
        (&[], &[], "round-robin none"),
        (&[HASHING], &[], "round-robin none"),
        (&[HASHING, NONE], &[], "round-robin none"),
        (&[HASHING, NULL], &[], "round-robin none"),
        (&[HASHING, IP], &[], "consistent-hashing ip"),
        (&[IP], &[], "consistent-hashing ip"),
        (&[ROUND, IP], &[], "consistent-hashing ip"),
        (&[LEAST], &[], "least-connections none"),
        (&[LEAST, IP], &[], "least-connections none"),
        (&[LEAST, NONE], &[], "least-connections none"),
        (&[LEAST, NULL], &[], "least-connections none"),
        (&[LATENCY, IP], &[], "latency none"),
        (&[LEAST], &[NONE], "round-robin none"),
        (&[LEAST], &[NULL], "least-connections none"),
        (&[LEAST], &[IP], "consistent-hashing ip"),
        (&[LEAST], &[("slots", "20")], "least-connections none"),
        (&[IP], &[ROUND], "consistent-hashing ip"),
        (&[IP], &[LEAST], "least-connections none"),
        (&[IP], &[NONE], "round-robin none"),
        (&[IP], &[NULL], "round-robin none"),
        (&[IP], &[ROUND, NONE], "round-robin none"),
        (&[LEAST], &[HASHING], "round-robin none"),
        // A balancer that Kong does not have keeps any `hash_on`.
        (&[MAGLEV], &[], "maglev none"),
        (&[MAGLEV, IP], &[], "maglev ip"),
        (&[MAGLEV, IP], &[NONE], "maglev none"),
        (&[MAGLEV, NONE], &[IP], "maglev ip"),
        (&[MAGLEV, IP], &[HASHING], "consistent-hashing ip"),
        (&[MAGLEV], &[HASHING], "round-robin none"),
        (&[LEAST], &[MAGLEV, IP], "maglev ip"),
    ];
    for (number, (posted, patched, read)) in cases.iter().enumerate() {
        let (path, mut found) = made(number, posted);
        if !patched.is_empty() {
            let row = gateway.admin("PATCH", &path, patched).expect(200).json();
            assert_eq!(row, gateway.admin("GET", &path, &[]).json());
            found = format!("{} {}", text(&row["algorithm"]), text(&row["hash_on"]));
        }
        assert_eq!(&found, read, "{posted:?} {patched:?}");
    }
    // A PUT, of a new upstream and of one that hashes.
    for (path, fields, read) in [
        ("/upstreams/new", &[HASHING, NONE], "round-robin none"),
        ("/upstreams/u5", &[HASHING, NONE], "round-robin none"),
        ("/upstreams/u5", &[HASHING, IP], "consistent-hashing ip"),
    ] {
        let put = gateway.admin("PUT", path, fields).expect(200).json();
        assert_eq!(put, gateway.admin("GET", path, &[]).json(), "{path}");
        let found = format!("{} {}", text(&put["algorithm"]), text(&put["hash_on"]));
        assert_eq!(found, read, "{path}");
    }
}

#[test]
fn algorithm_and_hash_on_adjust_each_other_as_in_kong() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/upstreams", &[("name", "u")])
        .expect(201);
    let patch = |fields: &[(&str, &str)]| {
        let row = gateway
            .admin("PATCH", "/upstreams/u", fields)
            .expect(200)
            .json();
        (row["algorithm"].clone(), row["hash_on"].clone())
    };
    let pair = |algorithm: &str, hash_on: &str| (json!(algorithm), json!(hash_on));
    assert_eq!(
        patch(&[("hash_on", "ip")]),
        pair("consistent-hashing", "ip")
    );
    assert_eq!(patch(&[("hash_on", "none")]), pair("round-robin", "none"));
    assert_eq!(
        patch(&[("algorithm", "least-connections"), ("hash_on", "ip")]),
        pair("least-connections", "none")
    );
}
