//! Orders: the verification of their names, and their certificates.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use rcgen::{CertificateParams, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::challenges::{by_http, by_tls};
use super::{Response, State};

pub(super) fn shown(number: usize, address: SocketAddr, state: &State) -> Value {
    let order = &state.orders[number];
    let url = |what: &str| format!("http://{address}/{what}/{number}");
    let mut shown = json!({
        "status": order.status,
        "identifiers": [{"type": "dns", "value": order.name}],
        "authorizations": [url("authorization")],
        "finalize": url("finalize"),
    });
    if let Some(replaced) = &order.replaces {
        shown["replaces"] = json!(replaced);
    }
    if order.certificate.is_some() {
        shown["certificate"] = json!(url("certificate"));
    }
    shown
}

fn token(number: usize, kind: &str) -> String {
    format!("token_{number}_{kind}")
}

pub(super) fn authorization(number: usize, address: SocketAddr, state: &State) -> Value {
    let order = &state.orders[number];
    let (status, error) = &order.authorization;
    let challenges = state.offered.iter().map(|kind| {
        let mut challenge = json!({
            "type": kind,
            "url": format!("http://{address}/challenge/{number}/{kind}"),
            "token": token(number, kind),
            "status": status,
        });
        if let Some((failed, error)) = error
            && failed == kind
        {
            challenge["error"] = json!({
                "type": "urn:ietf:params:acme:error:unauthorized", "detail": error, "status": 403,
            });
        }
        challenge
    });
    json!({
        "identifier": {"type": "dns", "value": order.name},
        "status": status,
        "challenges": challenges.collect::<Vec<_>>(),
    })
}

/// Verifies a name by a challenge. The state is not locked meanwhile.
pub(super) fn verify(
    number: usize,
    kind: &str,
    thumbprint: &str,
    address: SocketAddr,
    state: &Mutex<State>,
) -> Response {
    let (name, gateway, is_refused) = {
        let state = state.lock().unwrap();
        let name = state.orders[number].name.clone();
        let is_refused = state.refused.contains(&name);
        (name, state.gateway, is_refused)
    };
    let answer = format!("{}.{thumbprint}", token(number, kind));
    let failure = match gateway {
        _ if is_refused => Some("the name is refused".to_owned()),
        None => Some("no gateway".to_owned()),
        Some((plain, _)) if kind == "http-01" => {
            let path = format!("/.well-known/acme-challenge/{}", token(number, kind));
            by_http(plain, &name, &path, &answer).err()
        }
        Some((_, tls)) => by_tls(tls, &name, &answer).err(),
    };
    let mut state = state.lock().unwrap();
    let order = &mut state.orders[number];
    (order.status, order.authorization.0) = match &failure {
        None => ("ready", "valid"),
        Some(_) => ("invalid", "invalid"),
    };
    match failure {
        Some(failure) => order.authorization.1 = Some((kind.to_owned(), failure)),
        None => state.verified.push((name, kind.to_owned())),
    }
    // As if the outcome were not known yet.
    let challenge = json!({
        "type": kind,
        "url": format!("http://{address}/challenge/{number}/{kind}"),
        "token": token(number, kind),
        "status": "processing",
    });
    (200, None, challenge)
}

/// The public key of a request.
struct ClientKey(Vec<u8>);

impl PublicKeyData for ClientKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

pub(super) fn issue(number: usize, csr: &[u8], state: &mut State) {
    let (_, request) = X509CertificationRequest::from_der(csr).unwrap();
    let key = &request
        .certification_request_info
        .subject_pki
        .subject_public_key;
    let key = ClientKey(key.data.to_vec());
    let order = &state.orders[number];
    assert_eq!(order.status, "ready");
    assert!(order.account < state.accounts.len());
    let name = order.name.clone();
    let mut params = CertificateParams::new(vec![name.clone()]).unwrap();
    let (past, left) = state.validity;
    let now = SystemTime::now();
    params.not_before = (now - past).into();
    params.not_after = (now + left).into();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &state.issuer).unwrap();
    let chain = format!("{}{}", certificate.pem(), state.issuer.pem());
    let order = &mut state.orders[number];
    order.certificate = Some(chain);
    order.status = "valid";
    *state.issued.entry(name).or_default() += 1;
}
