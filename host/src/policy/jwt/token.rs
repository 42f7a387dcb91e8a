//! Tokens in compact form (RFC 7515, 7.1): three parts in base64 without padding, with dots between
//! them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::super::signature::Algorithm;

/// Base64 as tokens and secrets have it: with or without padding. Source: Kong.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A token whose signature was not checked yet.
#[derive(Debug)]
pub(super) struct Token<'t> {
    /// The header.
    pub(super) header: Map<String, Value>,
    /// The claims.
    pub(super) claims: Map<String, Value>,
    /// The algorithm that the header names.
    pub(super) algorithm: Algorithm,
    /// The text that is signed: header and claims as they were sent.
    pub(super) signed: &'t str,
    /// The signature.
    pub(super) signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it, as the client is told. Source: Kong 3.9, `kong/plugins/jwt`.
    pub(super) fn read(text: &'t str) -> Result<Self, &'static str> {
        const JSON: &str = "invalid JSON";
        let (header, rest) = text.split_once('.').ok_or(JSON)?;
        let (claims, signature) = rest.split_once('.').ok_or(JSON)?;
        let signed = &text[..header.len() + 1 + claims.len()];
        let header = object(header).ok_or(JSON)?;
        let claims = object(claims).ok_or(JSON)?;
        // The media type may be left out (RFC 7519, 5.1).
        match header.get("typ") {
            None | Some(Value::Null) => {}
            Some(Value::String(typ)) if typ.eq_ignore_ascii_case("JWT") => {}
            Some(_) => return Err("invalid typ"),
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.and_then(Algorithm::named).ok_or("invalid alg")?;
        let signature = decode(signature).ok_or("invalid signature")?;
        Ok(Self {
            header,
            claims,
            algorithm,
            signed,
            signature,
        })
    }

    /// A claim, or else a field of the header.
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        let is_there = |value: &&Value| !matches!(value, Value::Null | Value::Bool(false));
        let claim = self.claims.get(name).filter(is_there);
        claim.or_else(|| self.header.get(name).filter(is_there))
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode(text)?).ok()
}

/// Decodes base64 of either alphabet.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.contains(['+', '/']) {
        let text = text.replace('+', "-").replace('/', "_");
        return URL_SAFE.decode(text).ok();
    }
    URL_SAFE.decode(text).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    fn token(header: &str, claims: &str, signature: &str) -> String {
        format!(
            "{}.{}.{}",
            encode(header),
            encode(claims),
            encode(signature)
        )
    }

    #[test]
    fn a_token_has_a_header_claims_and_a_signature() {
        let text = token(
            r#"{"alg":"HS256","typ":"jwt","kid":"k"}"#,
            r#"{"iss":"i"}"#,
            "s",
        );
        let token = Token::read(&text).unwrap();
        assert_eq!(token.algorithm, Algorithm::named("HS256").unwrap());
        assert_eq!(token.signature, b"s");
        assert_eq!(token.signed, text.rsplit_once('.').unwrap().0);
        assert_eq!(token.field("iss").unwrap(), "i");
        assert_eq!(token.field("kid").unwrap(), "k");
        assert_eq!(token.field("sub"), None);
    }

    #[test]
    fn a_malformed_token_is_refused_with_the_reason() {
        let valid = r#"{"alg":"HS256"}"#;
        for (text, error) in [
            (String::new(), "invalid JSON"),
            ("a.b".into(), "invalid JSON"),
            (token("{", "{}", ""), "invalid JSON"),
            (token("[]", "{}", ""), "invalid JSON"),
            (token(valid, "1", ""), "invalid JSON"),
            ("%.e30.".into(), "invalid JSON"),
            (
                token(r#"{"alg":"HS256","typ":"JWS"}"#, "{}", ""),
                "invalid typ",
            ),
            (token(r#"{"alg":"HS256","typ":1}"#, "{}", ""), "invalid typ"),
            (token("{}", "{}", ""), "invalid alg"),
            (token(r#"{"alg":"none"}"#, "{}", ""), "invalid alg"),
            (token(r#"{"alg":256}"#, "{}", ""), "invalid alg"),
            (format!("{}.e30.a", encode(valid)), "invalid signature"),
            (format!("{}.e30.a.b", encode(valid)), "invalid signature"),
        ] {
            assert_eq!(Token::read(&text).map(|_| ()), Err(error), "{text}");
        }
        assert!(Token::read(&token(valid, "{}", "")).is_ok());
    }

    #[test]
    fn base64_may_have_padding_and_either_alphabet() {
        for text in ["-_-_", "+/+/", "+_-/"] {
            assert_eq!(decode(text).unwrap(), [0xfb, 0xff, 0xbf]);
        }
        for text in ["YQ", "YQ=", "YQ==", "YR"] {
            assert_eq!(decode(text).unwrap(), b"a", "{text}");
        }
        for text in ["Y", "YQ===", "Y Q", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC{0,40}",
            parts in prop::collection::vec("[{}\":,a1\\PC]{0,12}", 3),
        ) {
            let _ = Token::read(&text);
            let _ = Token::read(&token(&parts[0], &parts[1], &parts[2]));
        }
    }
}
