#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "../../../../tests/harness/tokens.rs"]
mod tokens;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::*;
use crate::public_key::PublicKey;
use tokens::{SECRET, TOKENS};

/// The settings, with these beside the defaults.
fn jwt(settings: Value) -> Jwt {
    let mut config = json!({
        "uri_param_names": ["jwt"],
        "cookie_names": [],
        "key_claim_name": "iss",
        "secret_is_base64": false,
        "claims_to_verify": null,
        "anonymous": null,
        "run_on_preflight": true,
        "maximum_expiration": 0,
        "header_names": ["authorization"],
        "realm": null,
    });
    for (name, value) in settings.as_object().unwrap() {
        config[name] = value.clone();
    }
    Jwt::new(serde_json::from_value(config).unwrap())
}

fn credential(algorithm: &str, key: &str) -> JwtCredential {
    JwtCredential {
        id: Uuid::nil(),
        consumer: Uuid::nil(),
        algorithm: Algorithm::named(algorithm),
        secret: key.to_owned(),
        public_key: PublicKey::from_pem(key),
    }
}

fn refused(message: &str) -> Result<(), Refusal> {
    Err(Refusal::invalid(message))
}

#[test]
fn a_signature_of_each_algorithm_is_checked() {
    let jwt = jwt(json!({}));
    for (algorithm, key, text) in TOKENS {
        let own = credential(algorithm, key);
        let token = Token::read(text).unwrap();
        assert_eq!(jwt.check_signature(&token, &own), Ok(()), "{algorithm}");
        for place in 0..token.signature.len() {
            let mut token = Token::read(text).unwrap();
            token.signature[place] ^= 1;
            let checked = jwt.check_signature(&token, &own);
            assert_eq!(checked, refused("Invalid signature"), "{algorithm} {place}");
        }
        let mut token = Token::read(text).unwrap();
        token.signature.push(0);
        assert_eq!(
            jwt.check_signature(&token, &own),
            refused("Invalid signature")
        );
        token.signature.clear();
        assert_eq!(
            jwt.check_signature(&token, &own),
            refused("Invalid signature")
        );
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let jwt = jwt(json!({}));
    for (algorithm, key, text) in TOKENS {
        let token = Token::read(text).unwrap();
        for (other, other_key, _) in TOKENS {
            let checked = jwt.check_signature(&token, &credential(other, other_key));
            let expected = match other == algorithm {
                true => Ok(()),
                false => refused("Invalid algorithm"),
            };
            assert_eq!(checked, expected, "{algorithm} {other}");
            if other_key != key {
                let checked = jwt.check_signature(&token, &credential(algorithm, other_key));
                assert!(checked.is_err(), "{algorithm} with the key of {other}");
            }
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // A client knows the public key, and could sign with it as if it were a secret.
    let (_, key, _) = TOKENS
        .into_iter()
        .find(|(name, ..)| *name == "RS256")
        .unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let signed = format!("{header}.e30");
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes()));
    let text = format!("{signed}.{signature}");
    let token = Token::read(&text).unwrap();
    let checked = jwt(json!({})).check_signature(&token, &credential("RS256", key));
    assert_eq!(checked, refused("Invalid algorithm"));
}

#[test]
fn a_secret_may_be_in_base64() {
    let jwt = jwt(json!({ "secret_is_base64": true }));
    let is_hmac = |(name, ..): &(&str, &str, &str)| name.starts_with("HS");
    for (algorithm, _, text) in TOKENS.into_iter().filter(is_hmac) {
        let token = Token::read(text).unwrap();
        let encoded = URL_SAFE_NO_PAD.encode(SECRET);
        let checked = jwt.check_signature(&token, &credential(algorithm, &encoded));
        assert_eq!(checked, Ok(()), "{algorithm}");
        let checked = jwt.check_signature(&token, &credential(algorithm, "%"));
        assert_eq!(checked, refused("Invalid key/secret"));
    }
}

#[test]
fn claims_are_verified_as_in_kong() {
    let check = |settings: Value, claims: Value| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let text = format!("{header}.{claims}.");
        let checked = jwt(settings).check_claims(&Token::read(&text).unwrap(), 1000.0);
        match checked {
            Ok(()) => json!({}),
            Err(Refusal::Claims(reasons)) => reasons.into(),
            Err(other) => panic!("{other:?}"),
        }
    };
    let fine = json!({});
    let both = json!({ "claims_to_verify": ["exp", "nbf"] });
    let number = "must be a number";
    assert_eq!(check(fine.clone(), json!({ "exp": 1, "nbf": 2000 })), fine);
    for (claims, reasons) in [
        (json!({ "exp": 1000.5, "nbf": 1000 }), fine.clone()),
        (
            json!({ "exp": 1000, "nbf": 0 }),
            json!({ "exp": "token expired" }),
        ),
        (
            json!({ "exp": 2000, "nbf": 1001 }),
            json!({ "nbf": "token not valid yet" }),
        ),
        (json!({}), json!({ "exp": number, "nbf": number })),
        (
            json!({ "exp": "2000", "nbf": true }),
            json!({ "exp": number, "nbf": number }),
        ),
    ] {
        assert_eq!(check(both.clone(), claims.clone()), reasons, "{claims}");
    }
    let longest = json!({ "claims_to_verify": ["exp"], "maximum_expiration": 300 });
    let exceeds = json!({ "exp": "exceeds maximum allowed expiration" });
    assert_eq!(check(longest.clone(), json!({ "exp": 1300 })), fine);
    assert_eq!(check(longest.clone(), json!({ "exp": 1301 })), exceeds);
    assert_eq!(
        check(longest, json!({ "exp": 999 })),
        json!({ "exp": "token expired" })
    );
}
