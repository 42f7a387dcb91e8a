//! The signed messages of clients (RFC 8555, 6.2), and the thumbprints of their keys.

use std::net::SocketAddr;

use ::ring::digest::{SHA256, digest};
use ::ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;

use super::{Response, State, problem};

/// Reads a signed message (RFC 8555, 6.2): its payload, the key of its account, and which account.
pub(super) fn open(
    body: &[u8],
    url: &str,
    address: SocketAddr,
    state: &mut State,
) -> Result<(Value, Value, Option<usize>), Response> {
    let message: Value = serde_json::from_slice(body).unwrap();
    let text = |part: &str| message[part].as_str().unwrap().to_owned();
    let decoded = |part: &str| BASE64.decode(text(part)).unwrap();
    let head: Value = serde_json::from_slice(&decoded("protected")).unwrap();
    assert_eq!(head["alg"], "ES256");
    assert_eq!(head["url"], url);
    if !state.nonces.remove(head["nonce"].as_str().unwrap()) {
        return Err(problem(400, "badNonce", "unknown nonce"));
    }
    let mut account = None;
    let mut key = head["jwk"].clone();
    if let Some(id) = head["kid"].as_str() {
        let number = id.strip_prefix(&format!("http://{address}/account/"));
        let number: usize = number.unwrap().parse().unwrap();
        account = Some(number);
        key = state.accounts[number].clone();
        if key.is_null() {
            return Err(problem(400, "accountDoesNotExist", "unknown account"));
        }
    }
    let mut point = vec![4];
    for part in ["x", "y"] {
        point.extend(BASE64.decode(key[part].as_str().unwrap()).unwrap());
    }
    let signed = format!("{}.{}", text("protected"), text("payload"));
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decoded("signature"));
    verified.unwrap();
    let payload = match decoded("payload") {
        empty if empty.is_empty() => Value::Null,
        payload => serde_json::from_slice(&payload).unwrap(),
    };
    Ok((payload, key, account))
}

/// The thumbprint of a key (RFC 7638).
pub(super) fn thumbprint(key: &Value) -> String {
    let (x, y) = (key["x"].as_str().unwrap(), key["y"].as_str().unwrap());
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64.encode(digest(&SHA256, text.as_bytes()))
}
