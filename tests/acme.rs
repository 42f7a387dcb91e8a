//! The plugin `acme`, with an ACME server that verifies names at the gateway.

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::{AcmeServer, Gateway, Setup, TlsClient, metric, until};

/// A gateway with an address in clear text and one for TLS, at which the server verifies names.
fn start(server: &AcmeServer, setup: Setup) -> Gateway {
    let gateway = setup
        .arg("--proxy-listen", "127.0.0.1:0, 127.0.0.1:0 ssl")
        .start();
    server.verify_at(gateway.listener("proxy", 0), gateway.listener("proxy", 1));
    gateway
}

/// Asks for certificates for these names.
fn enable(gateway: &Gateway, server: &AcmeServer, config: &Value) {
    let mut plugin = json!({"name": "acme", "config": {
        "account_email": "ops@example.com", "api_uri": server.directory(), "tos_accepted": true,
        "fail_backoff_minutes": 60,
    }});
    for (name, value) in config.as_object().unwrap() {
        plugin["config"][name] = value.clone();
    }
    gateway.admin_json("POST", "/plugins", &plugin).expect(201);
}

/// The state of a name, when it has this property.
fn state(gateway: &Gateway, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/acme/certificates/{name}");
    let mut found = Value::Null;
    until(&format!("the state of {name}"), || {
        let reply = gateway.admin("GET", &path, &[]);
        if reply.status == 200 {
            found = reply.json();
        }
        !found.is_null() && is_so(&found)
    });
    found
}

fn has_certificate(state: &Value) -> bool {
    let is_settled = state["in_progress"] == false && state["next_try"].is_number();
    state["not_after"].is_i64() && state["last_error"].is_null() && is_settled
}

fn has_failed(state: &Value) -> bool {
    state["last_error"].is_string() && state["in_progress"] == false
}

/// The names and the serial number of the certificate that a client is shown.
fn shown(gateway: &Gateway, name: &str) -> (String, Vec<u8>) {
    let tls = gateway.listener("proxy", 1);
    let certificate = TlsClient::new().connect(tls, name).unwrap().certificate();
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let names = certificate.subject_alternative_name().unwrap();
    let names = names.map_or_else(String::new, |names| {
        format!("{:?}", names.value.general_names)
    });
    (names, certificate.raw_serial().to_vec())
}

#[test]
fn each_name_gets_a_certificate_by_http_01() {
    let server = AcmeServer::start();
    let gateway = start(&server, Setup::new());
    // A route for all requests does not hide the challenges.
    gateway
        .admin("POST", "/routes", &[("paths[]", "/")])
        .expect(201);
    enable(
        &gateway,
        &server,
        &json!({"domains": ["a.example", "B.Example", "a.example"]}),
    );
    for name in ["a.example", "b.example"] {
        let state = state(&gateway, name, has_certificate);
        assert_eq!(shown(&gateway, name).0, format!("[DNSName({name:?})]"));
        let id = state["certificate"]["id"].as_str().unwrap();
        let row = gateway
            .admin("GET", &format!("/certificates/{id}"), &[])
            .expect(200)
            .json();
        assert_eq!(
            (&row["snis"], &row["tags"]),
            (&json!([name]), &json!(["managed-by-acme"]))
        );
        let labels = format!("{{name=\"{name}\"}}");
        let end = metric(
            &gateway,
            &format!("pointsman_acme_certificate_expiry_timestamp_seconds{labels}"),
        );
        assert_eq!(end, state["not_after"].as_f64().unwrap());
        assert!(state["next_try"].as_f64().unwrap() < end);
    }
    let kinds: Vec<String> = server
        .verified()
        .into_iter()
        .map(|(_, kind)| kind)
        .collect();
    assert_eq!(kinds, ["http-01", "http-01"]);
    assert_eq!(
        (server.accounts(), server.contacts()),
        (1, vec!["mailto:ops@example.com".into()])
    );
    let all = gateway
        .admin("GET", "/acme/certificates", &[])
        .expect(200)
        .json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);

    // Nothing is requested again after a restart, and the account is the same.
    let before = shown(&gateway, "a.example").1;
    let data = gateway.kill().unwrap();
    let gateway = start(&server, Setup::with_data(&data.path().join("data")));
    state(&gateway, "a.example", has_certificate);
    assert_eq!(shown(&gateway, "a.example").1, before);
    let path = "/plugins?name=acme";
    let plugins = gateway.admin("GET", path, &[]).expect(200).json();
    let plugin = plugins["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "acme");
    let path = format!("/plugins/{}", plugin.unwrap()["id"].as_str().unwrap());
    let more = json!({"config": {"domains": ["a.example", "c.example"]}});
    gateway.admin_json("PATCH", &path, &more).expect(200);
    state(&gateway, "c.example", has_certificate);
    assert_eq!((server.accounts(), server.issued("a.example")), (1, 1));
    gateway
        .admin("GET", "/acme/certificates/b.example", &[])
        .expect(404);
    // The certificate of a name that is no longer listed stays.
    assert_eq!(shown(&gateway, "b.example").0, "[DNSName(\"b.example\")]");
}

#[test]
fn a_name_is_verified_by_tls_alpn_01_where_that_is_offered() {
    let server = AcmeServer::start();
    server.offer("tls-alpn-01");
    server.ask_for_external_account("kid-1", b"a secret of the authority");
    let gateway = start(&server, Setup::new());
    let key = "YSBzZWNyZXQgb2YgdGhlIGF1dGhvcml0eQ";
    let config = json!({"domains": ["a.example"], "eab_kid": "kid-1", "eab_hmac_key": key});
    enable(&gateway, &server, &config);
    state(&gateway, "a.example", has_certificate);
    assert_eq!(
        server.verified(),
        [("a.example".into(), "tls-alpn-01".into())]
    );
    // Without a challenge in progress, the protocol is not agreed on.
    let tls = gateway.listener("proxy", 1);
    let client = TlsClient::new().protocols(&[b"acme-tls/1"]);
    assert!(client.connect(tls, "a.example").is_err());
    assert_eq!(shown(&gateway, "a.example").0, "[DNSName(\"a.example\")]");
}

#[test]
fn a_name_that_fails_is_tried_again_and_stops_no_other() {
    let server = AcmeServer::start();
    server.refuse(&["bad.example"]);
    let gateway = start(&server, Setup::new());
    enable(
        &gateway,
        &server,
        &json!({"domains": ["bad.example", "good.example"]}),
    );
    state(&gateway, "good.example", has_certificate);
    let failed = state(&gateway, "bad.example", has_failed);
    assert!(
        failed["last_error"]
            .as_str()
            .unwrap()
            .contains("http-01 has failed"),
        "{failed}"
    );
    assert_eq!(
        (&failed["failures"], &failed["not_after"]),
        (&json!(1), &Value::Null)
    );
    assert!(failed["next_try"].is_u64());
    let failures = metric(
        &gateway,
        "pointsman_acme_failures_total{name=\"bad.example\"}",
    );
    assert_eq!(failures, 1.0);
    server.refuse(&[]);
    let begun = gateway.admin("PATCH", "/acme", &[]).expect(202).json();
    assert_eq!(begun["message"], "Renewal process started successfully");
    let state = state(&gateway, "bad.example", has_certificate);
    assert_eq!(state["failures"], 0);
    // The second try takes the other challenge.
    assert!(
        server
            .verified()
            .contains(&("bad.example".into(), "tls-alpn-01".into()))
    );
}

#[test]
fn a_certificate_is_renewed_in_place_when_it_is_due() {
    let server = AcmeServer::start();
    server.set_validity(61, 29);
    let gateway = start(&server, Setup::new());
    enable(&gateway, &server, &json!({"domains": ["a.example"]}));
    // It is due at once, which the gateway does not follow without a pause.
    let due = state(&gateway, "a.example", has_failed);
    assert!(
        due["last_error"]
            .as_str()
            .unwrap()
            .contains("due for renewal already"),
        "{due}"
    );
    let before = shown(&gateway, "a.example");
    server.set_validity(0, 90);
    gateway.admin("PATCH", "/acme", &[]).expect(202);
    let renewed = state(&gateway, "a.example", has_certificate);
    assert_eq!(renewed["certificate"], due["certificate"]);
    assert_eq!(server.issued("a.example"), 2);
    assert_ne!(shown(&gateway, "a.example"), before);

    // An account that the authority has forgotten is made anew.
    server.forget_accounts();
    let id = due["certificate"]["id"].as_str().unwrap();
    gateway
        .admin("DELETE", &format!("/certificates/{id}"), &[])
        .expect(204);
    let failed = state(&gateway, "a.example", has_failed);
    assert!(
        failed["last_error"]
            .as_str()
            .unwrap()
            .contains("unknown account"),
        "{failed}"
    );
    gateway.admin("PATCH", "/acme", &[]).expect(202);
    state(&gateway, "a.example", has_certificate);
    assert_eq!(server.accounts(), 2);
}

#[test]
fn a_certificate_of_the_operator_is_left_as_it_is() {
    let server = AcmeServer::start();
    let gateway = start(&server, Setup::new());
    let own = rcgen::generate_simple_self_signed(vec!["own.example".to_owned()]).unwrap();
    let body = json!({
        "cert": own.cert.pem(), "key": own.signing_key.serialize_pem(), "snis": ["own.example"],
    });
    gateway
        .admin_json("POST", "/certificates", &body)
        .expect(201);
    enable(&gateway, &server, &json!({"domains": ["own.example"]}));
    let state = state(&gateway, "own.example", has_failed);
    assert!(
        state["last_error"]
            .as_str()
            .unwrap()
            .contains("not from ACME"),
        "{state}"
    );
    assert_eq!(server.issued("own.example"), 0);
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_reason() {
    let gateway = Gateway::start();
    let refused = |config: Value| {
        let plugin = json!({"name": "acme", "config": config});
        gateway
            .admin_json("POST", "/plugins", &plugin)
            .expect(400)
            .json()["fields"]
            .clone()
    };
    let uri = "http://127.0.0.1:1/directory";
    let fields = refused(json!({
        "account_email": "a@b.example", "api_uri": uri, "domains": ["*.example.com"],
    }));
    let why = fields["config"]["domains"][0].as_str().unwrap();
    assert!(why.contains("dns-01"), "{why}");
    let terms = json!({
        "@entity": ["terms of service must be accepted, see https://letsencrypt.org/repository/"],
        "config": { "tos_accepted": "value must be true" },
    });
    let without = json!({"account_email": "a@b.example", "domains": ["a.example"]});
    assert_eq!(refused(without.clone()), terms);
    for host in ["acme-v02", "acme-staging-v02"] {
        let mut without = without.clone();
        without["api_uri"] = format!("https://{host}.api.letsencrypt.org").into();
        assert_eq!(refused(without), terms);
    }
    let fields = refused(json!({"account_email": "a@b.example", "api_uri": uri, "eab_kid": "k"}));
    assert!(
        fields["@entity"][0]
            .as_str()
            .unwrap()
            .contains("eab_hmac_key"),
        "{fields}"
    );
    let fields = refused(json!({
        "account_email": "a", "api_uri": uri, "allow_any_domain": true, "cert_type": "rsa",
        "preferred_chain": "X",
    }));
    for field in ["account_email", "cert_type", "preferred_chain"] {
        assert!(fields["config"][field].is_string(), "{field}: {fields}");
    }
    let any = json!({"account_email": "a@b.example", "api_uri": uri, "allow_any_domain": true});
    assert!(refused(any)["config"]["allow_any_domain"].is_string());
}

/// RFC 9773: an authority may ask for early renewals, but not for one after the other.
#[test]
fn a_certificate_is_renewed_when_the_authority_suggests_it() {
    let server = AcmeServer::start();
    server.suggest_renewal(86_400, 90_000);
    let gateway = start(&server, Setup::new());
    enable(&gateway, &server, &json!({"domains": ["a.example"]}));
    let suggested = state(&gateway, "a.example", |state| {
        has_certificate(state) && state["suggested_renewal"].is_number()
    });
    assert_eq!(suggested["next_try"], suggested["suggested_renewal"]);
    let (_, serial) = shown(&gateway, "a.example");
    assert_eq!(server.issued("a.example"), 1);

    let data = gateway.kill().unwrap();
    server.suggest_renewal(-90_000, -86_400);
    let gateway = start(&server, Setup::with_data(&data.path().join("data")));
    until("another certificate", || {
        server.issued("a.example") == 2 && shown(&gateway, "a.example").1 != serial
    });
    let replaced = server.replaced();
    let serial = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&serial);
    assert!(replaced[0].ends_with(&format!(".{serial}")), "{replaced:?}");
    // The new one is suggested to be renewed at once, too.
    let again = state(&gateway, "a.example", |state| {
        let is_past = |seconds: f64| seconds < state["next_try"].as_f64().unwrap_or(0.0) - 3600.0;
        has_certificate(state) && state["suggested_renewal"].as_f64().is_some_and(is_past)
    });
    assert!(again["last_error"].is_null());
    assert_eq!((server.issued("a.example"), replaced.len()), (2, 1));
}
