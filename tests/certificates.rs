//! Certificates with their server names, and the certificates of authorities. Source of all
//! messages: Kong 3.9.

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::harness::Gateway;

/// A certificate with its key, both in PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// The certificate of an authority, in PEM.
fn authority() -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}

fn certificate(snis: Value) -> Value {
    let (cert, key) = pair();
    json!({ "cert": cert, "key": key, "snis": snis })
}

fn post(gateway: &Gateway, path: &str, input: &Value) -> Value {
    gateway.admin_json("POST", path, input).expect(201).json()
}

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.admin("GET", path, &[]).expect(200).json()
}

fn refused(gateway: &Gateway, method: &str, path: &str, input: &Value, status: u16) -> String {
    let reply = gateway.admin_json(method, path, input).expect(status);
    reply.json()["message"].as_str().unwrap().to_owned()
}

/// The names of all rows of `/snis`, in the order of the alphabet.
fn all_names(gateway: &Gateway) -> Vec<String> {
    let rows = get(gateway, "/snis")["data"].as_array().unwrap().clone();
    let names = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn server_names_are_written_with_their_certificate() {
    let gateway = Gateway::start();
    let made = post(
        &gateway,
        "/certificates",
        &certificate(json!(["b.example", "a.example"])),
    );
    assert_eq!(made["snis"], json!(["a.example", "b.example"]));
    assert_eq!(
        (&made["cert_alt"], &made["key_alt"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(all_names(&gateway), ["a.example", "b.example"]);
    let id = made["id"].as_str().unwrap();
    for path in [
        format!("/certificates/{id}"),
        "/certificates/b.example".to_owned(),
    ] {
        assert_eq!(get(&gateway, &path), made, "{path}");
    }
    assert_eq!(get(&gateway, "/certificates")["data"][0], made);
    assert_eq!(get(&gateway, "/snis/a.example")["certificate"]["id"], id);
    let below = get(&gateway, "/certificates/a.example/snis");
    assert_eq!(below["data"].as_array().unwrap().len(), 2);
    gateway
        .admin("GET", "/snis/a.example/certificate", &[])
        .expect(404);

    // Names that are written by themselves are shown as well.
    let sni = json!({ "name": "c.example" });
    post(&gateway, &format!("/certificates/{id}/snis"), &sni);
    let shown = get(&gateway, &format!("/certificates/{id}"));
    assert_eq!(
        shown["snis"],
        json!(["a.example", "b.example", "c.example"])
    );

    gateway
        .admin("DELETE", "/certificates/c.example", &[])
        .expect(204);
    assert_eq!(all_names(&gateway), [""; 0]);
    assert_eq!(get(&gateway, "/certificates")["data"], json!([]));
}

#[test]
fn a_patch_keeps_names_that_it_does_not_give_and_a_put_does_not() {
    let gateway = Gateway::start();
    let input = certificate(json!(["a.example", "b.example"]));
    let id = post(&gateway, "/certificates", &input)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/certificates/{id}");
    let names = |method: &str, path: &str, change: Value| {
        let reply = gateway.admin_json(method, path, &change).expect(200);
        let names = reply.json()["snis"].clone();
        let own = format!("/certificates/{}", reply.json()["id"].as_str().unwrap());
        assert_eq!(get(&gateway, &own)["snis"], names);
        names
    };
    let both = json!(["a.example", "b.example"]);
    assert_eq!(names("PATCH", &path, json!({ "tags": ["t"] })), both);
    let change = json!({ "snis": ["c.example", "b.example"] });
    assert_eq!(
        names("PATCH", &path, change),
        json!(["b.example", "c.example"])
    );
    assert_eq!(all_names(&gateway), ["b.example", "c.example"]);
    assert_eq!(names("PATCH", &path, json!({ "snis": null })), json!([]));
    assert_eq!(names("PUT", &path, input.clone()), both);
    let (cert, key) = (&input["cert"], &input["key"]);
    let bare = json!({ "cert": cert, "key": key });
    assert_eq!(names("PUT", &path, bare.clone()), json!([]));

    // By a name: with a list, that name is added to it; without one, there are none.
    let listed = json!({ "cert": cert, "key": key, "snis": ["x.example"] });
    let added = json!(["w.example", "x.example"]);
    assert_eq!(names("PUT", "/certificates/w.example", listed), added);
    assert_eq!(all_names(&gateway), ["w.example", "x.example"]);
    assert_eq!(names("PUT", "/certificates/w.example", bare), json!([]));
    assert_eq!(all_names(&gateway), [""; 0]);
}

#[test]
fn a_server_name_belongs_to_one_certificate() {
    let gateway = Gateway::start();
    let first = post(
        &gateway,
        "/certificates",
        &certificate(json!(["a.example"])),
    );
    let id = first["id"].as_str().unwrap();
    let second = post(&gateway, "/certificates", &certificate(json!([])));
    let own = format!("/certificates/{}", second["id"].as_str().unwrap());
    let taken = format!(
        "schema violation (snis: a.example already associated with existing certificate '{id}')"
    );
    let wanted = json!(["b.example", "a.example"]);
    let message = refused(
        &gateway,
        "POST",
        "/certificates",
        &certificate(wanted.clone()),
        400,
    );
    assert_eq!(message, taken);
    let change = json!({ "snis": wanted });
    assert_eq!(refused(&gateway, "PATCH", &own, &change, 400), taken);
    // Nothing of it is written.
    assert_eq!(all_names(&gateway), ["a.example"]);
    let twice = json!({ "snis": ["b.example", "b.example"] });
    assert_eq!(
        refused(&gateway, "PATCH", &own, &twice, 400),
        "schema violation (snis: b.example is duplicated)"
    );
    let sni = json!({ "name": "a.example", "certificate": { "id": second["id"] } });
    assert_eq!(
        refused(&gateway, "POST", "/snis", &sni, 409),
        "UNIQUE violation detected on '{name=\"a.example\"}'"
    );
    let moved = json!({ "certificate": { "id": second["id"] } });
    gateway
        .admin_json("PATCH", "/snis/a.example", &moved)
        .expect(200);
    assert_eq!(get(&gateway, "/certificates/a.example")["id"], second["id"]);
}

#[test]
fn what_does_not_exist_is_named_as_by_kong() {
    let gateway = Gateway::start();
    for method in ["GET", "PATCH", "DELETE"] {
        let reply = gateway.admin_json(method, "/certificates/x.example", &json!({}));
        assert_eq!(
            reply.expect(404).json(),
            json!({ "message": "SNI not found" })
        );
    }
    let id = "11111111-2222-4333-8444-555555555555";
    let missing = gateway
        .admin("GET", &format!("/certificates/{id}"), &[])
        .expect(404);
    assert_eq!(
        missing.json(),
        json!({
            "code": 6,
            "name": "not found",
            "message": format!("could not find the entity with primary key '{{id=\"{id}\"}}'"),
            "fields": { "id": id },
        })
    );
    gateway
        .admin("DELETE", &format!("/certificates/{id}"), &[])
        .expect(204);
    let by_name = gateway.admin("GET", "/ca_certificates/x", &[]).expect(400);
    assert_eq!(by_name.json()["code"], 1);
}

#[test]
fn a_certificate_in_use_is_kept() {
    let gateway = Gateway::start();
    let made = post(
        &gateway,
        "/certificates",
        &certificate(json!(["a.example"])),
    );
    let id = &made["id"];
    let service = json!({
        "name": "s", "host": "h", "protocol": "https", "client_certificate": { "id": id },
    });
    post(&gateway, "/services", &service);
    let upstream = json!({ "name": "u", "client_certificate": { "id": id } });
    post(&gateway, "/upstreams", &upstream);
    assert_eq!(get(&gateway, "/services/s/client_certificate"), made);
    for (parts, name) in [("services", "s"), ("upstreams", "u")] {
        let rows = get(&gateway, &format!("/certificates/a.example/{parts}"));
        assert_eq!(rows["data"][0]["name"], name);
    }
    let path = format!("/certificates/{}", id.as_str().unwrap());
    let kept = gateway.admin("DELETE", &path, &[]).expect(400).json();
    assert_eq!(kept["code"], 4);
    assert_eq!(all_names(&gateway), ["a.example"]);
    let none = json!({ "client_certificate": null });
    gateway
        .admin_json("PATCH", "/services/s", &none)
        .expect(200);
    let kept = gateway.admin("DELETE", &path, &[]).expect(400).json();
    let message = "an existing 'upstreams' entity references this 'certificates' entity";
    assert_eq!(kept["message"], message);
    gateway
        .admin_json("PATCH", "/upstreams/u", &none)
        .expect(200);
    gateway.admin("DELETE", &path, &[]).expect(204);

    // A service that has none gets one with its names.
    let put = certificate(json!(["z.example"]));
    let put = gateway
        .admin_json("PUT", "/services/s/client_certificate", &put)
        .expect(200);
    assert_eq!(put.json()["snis"], json!(["z.example"]));
    assert_eq!(all_names(&gateway), ["z.example"]);
}

#[test]
fn an_authority_is_kept_while_a_service_trusts_it() {
    let gateway = Gateway::start();
    let cert = authority();
    let made = post(&gateway, "/ca_certificates", &json!({ "cert": cert }));
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["cert_digest"].as_str().map(str::len), Some(64));
    let again = refused(
        &gateway,
        "POST",
        "/ca_certificates",
        &json!({ "cert": cert }),
        409,
    );
    assert!(
        again.starts_with("UNIQUE violation detected on '{cert_digest="),
        "{again}"
    );
    let service = json!({ "host": "h", "protocol": "https", "ca_certificates": [id] });
    let service = post(&gateway, "/services", &service);
    let path = format!("/ca_certificates/{id}");
    let kept = gateway.admin("DELETE", &path, &[]).expect(400).json();
    let user = service["id"].as_str().unwrap();
    assert_eq!(
        kept,
        json!({
            "code": 19,
            "name": "referenced by others",
            "message": format!("ca certificate {id} is still referenced by services (id = {user})"),
        })
    );
    let unknown = "11111111-2222-4333-8444-555555555555";
    let service = json!({ "host": "h", "protocol": "https", "ca_certificates": [unknown] });
    assert_eq!(
        refused(&gateway, "POST", "/services", &service, 400),
        format!(
            "the foreign key '{{id=\"{unknown}\"}}' does not reference an existing \
             'ca_certificates' entity."
        )
    );
    gateway
        .admin("DELETE", &format!("/services/{user}"), &[])
        .expect(204);
    gateway.admin("DELETE", &path, &[]).expect(204);
}

#[test]
fn the_etag_of_a_certificate_changes_with_its_server_names() {
    let gateway = Gateway::start();
    let made = post(
        &gateway,
        "/certificates",
        &certificate(json!(["a.example"])),
    );
    let path = format!("/certificates/{}", made["id"].as_str().unwrap());
    let tag = || {
        let reply = gateway.admin("GET", &path, &[]).expect(200);
        reply.header("etag").to_owned()
    };
    let mut known = vec![tag()];
    let sni = json!({ "name": "b.example", "certificate": { "id": made["id"] } });
    post(&gateway, "/snis", &sni);
    known.push(tag());
    gateway.admin("DELETE", "/snis/a.example", &[]).expect(204);
    known.push(tag());
    let renamed = json!({ "name": "c.example" });
    gateway
        .admin_json("PATCH", "/snis/b.example", &renamed)
        .expect(200);
    known.push(tag());
    let current = known.pop().unwrap();
    assert!(!known.contains(&current), "{known:?}, {current}");
    let change = |tag: &str| {
        let body = ("application/json", b"{\"tags\":[\"t\"]}".to_vec());
        gateway.send(
            gateway.admin,
            "PATCH",
            &path,
            &[("if-match", tag)],
            Some(body),
        )
    };
    for stale in known {
        change(&stale).expect(412);
    }
    let changed = change(&current).expect(200);
    assert_eq!(changed.header("etag"), tag());
}
