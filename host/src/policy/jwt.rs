//! `jwt`: a consumer is known by a signed token (RFC 7519). Source: Kong 3.9, `jwt`.

mod token;

use std::collections::BTreeSet;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::identity::{AuthenticatedCredential, JwtCredential};
use super::request::Request;
use super::signature::Algorithm;
use super::{Access, DryRun, Policy, auth};
use crate::clock;
use crate::cookie::cookie_of;
use crate::entity::plugin::jwt::{Claim, Config};
use crate::urlencoded;
use token::Token;

/// Finds the consumer by a token.
#[derive(Debug)]
pub(super) struct Jwt {
    config: Config,
    headers: Vec<HeaderName>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// It has no token.
    NoToken,
    /// It has several tokens, or one that is not valid, with the message for the client.
    Invalid(String),
    /// These claims do not hold, with the reasons.
    Claims(Map<String, Value>),
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    fn answer(self, realm: Option<&str>) -> Answer {
        let mut challenge = auth::challenge("Bearer", realm);
        if self != Self::NoToken {
            // RFC 6750, 3.1.
            challenge.push_str(" error=\"invalid_token\"");
        }
        let status = StatusCode::UNAUTHORIZED;
        let answer = match self {
            Self::NoToken => Answer::message(status, "Unauthorized"),
            Self::Invalid(message) => Answer::message(status, message),
            Self::Claims(reasons) => Answer::raw(status, Value::Object(reasons).to_string())
                .with_header(CONTENT_TYPE, "application/json; charset=utf-8"),
        };
        answer.with_header(WWW_AUTHENTICATE, &challenge)
    }
}

impl Jwt {
    pub(super) fn new(config: Config) -> Self {
        let names = config.header_names.iter();
        let headers = names.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let headers = headers.collect();
        Self { config, headers }
    }

    /// The token of a request. The same token in several places is one.
    fn find(&self, request: &Request<'_>) -> Result<String, Refusal> {
        let config = &self.config;
        let mut tokens: BTreeSet<String> = BTreeSet::new();
        let mut add = |token: &[u8]| {
            if !token.is_empty() {
                tokens.insert(String::from_utf8_lossy(token).into_owned());
            }
        };
        let mut is_unrecognizable = false;
        let arguments = request.query.text().unwrap_or_default().split('&');
        for argument in arguments {
            let Some((name, value)) = urlencoded::pairs(argument.as_bytes()).next() else {
                continue;
            };
            let is_named = |wanted: &String| *wanted.as_bytes() == *name;
            if config.uri_param_names.iter().any(is_named) {
                add(&value);
                is_unrecognizable |= !argument.contains('=');
            }
        }
        let headers = &request.head.headers;
        for name in &config.cookie_names {
            add(cookie_of(headers, name).unwrap_or_default());
        }
        for name in &self.headers {
            let value = headers.get(name).map(|value| value.as_bytes());
            let token = value.and_then(|value| auth::credentials(value, "Bearer"));
            add(token.unwrap_or_default());
        }
        let first = tokens.pop_first();
        match (first, tokens.is_empty(), is_unrecognizable) {
            (None, _, false) => Err(Refusal::NoToken),
            (None, _, true) => Err(Refusal::invalid("Unrecognizable token")),
            (Some(token), true, false) => Ok(token),
            (Some(_), ..) => Err(Refusal::invalid("Multiple tokens provided")),
        }
    }

    /// Authenticates a request by its token.
    fn authenticate(&self, request: &mut Request<'_>) -> Result<(), Refusal> {
        let text = self.find(request)?;
        let token = Token::read(&text);
        let token = token.map_err(|error| Refusal::invalid(format!("Bad token; {error}")))?;
        let claim = &self.config.key_claim_name;
        let key = match token.field(claim) {
            Some(Value::String(key)) if key.is_empty() => {
                return Err(Refusal::invalid(format!("Invalid '{claim}' in claims")));
            }
            Some(Value::String(key)) => key,
            // Keys of credentials are texts.
            Some(_) => return Err(self.no_credentials()),
            None => {
                let message = format!("No mandatory '{claim}' in claims");
                return Err(Refusal::invalid(message));
            }
        };
        let identities = request.identities;
        let credential = identities.jwt(key).ok_or_else(|| self.no_credentials())?;
        self.check_signature(&token, credential)?;
        self.check_claims(&token, clock::unix_seconds() as f64)?;
        let consumer = identities.consumer(credential.consumer).cloned();
        let consumer = consumer.ok_or_else(|| {
            Refusal::invalid(format!("Could not find consumer for '{claim}={key}'"))
        })?;
        let credential = AuthenticatedCredential {
            id: credential.id,
            identifier: key.as_str().into(),
        };
        auth::authenticate(request, consumer, credential);
        Ok(())
    }

    fn no_credentials(&self) -> Refusal {
        let claim = &self.config.key_claim_name;
        Refusal::invalid(format!("No credentials found for given '{claim}'"))
    }

    fn check_signature(
        &self,
        token: &Token<'_>,
        credential: &JwtCredential,
    ) -> Result<(), Refusal> {
        // The credential decides, not the token: otherwise a client could sign with the public key
        // as if it were a secret.
        if credential.algorithm != Some(token.algorithm) {
            return Err(Refusal::invalid("Invalid algorithm"));
        }
        let no_key = || Refusal::invalid("Invalid key/secret");
        let (algorithm, text, signature) = (token.algorithm, token.signed, &token.signature);
        let is_valid = match algorithm {
            Algorithm::Hmac(_) => {
                let secret = &credential.secret;
                let decoded = (self.config.secret_is_base64).then(|| token::decode(secret));
                let decoded = match decoded {
                    Some(decoded) => Some(decoded.ok_or_else(no_key)?),
                    None => None,
                };
                let secret = decoded.as_deref().unwrap_or(secret.as_bytes());
                algorithm.is_signed_with_secret(secret, text, signature)
            }
            _ => {
                let key = credential.public_key.as_ref().ok_or_else(no_key)?;
                algorithm.is_signed_by(key, text, signature)
            }
        };
        match is_valid {
            true => Ok(()),
            false => Err(Refusal::invalid("Invalid signature")),
        }
    }

    /// `now` is in seconds since 1970.
    fn check_claims(&self, token: &Token<'_>, now: f64) -> Result<(), Refusal> {
        let mut reasons = Map::new();
        for claim in self.config.claims_to_verify.iter().flatten() {
            let (name, holds, reason): (_, fn(f64, f64) -> bool, _) = match claim {
                Claim::Exp => ("exp", |exp, now| exp > now, "token expired"),
                Claim::Nbf => ("nbf", |nbf, now| nbf <= now, "token not valid yet"),
            };
            match token.claims.get(name).and_then(Value::as_f64) {
                Some(time) if holds(time, now) => {}
                Some(_) => {
                    reasons.insert(name.into(), reason.into());
                }
                None => {
                    reasons.insert(name.into(), "must be a number".into());
                }
            }
        }
        let longest = self.config.maximum_expiration;
        if reasons.is_empty() && longest > 0.0 {
            let exp = token.claims.get("exp").and_then(Value::as_f64);
            if exp.is_none_or(|exp| exp - now > longest) {
                let reason = json!("exceeds maximum allowed expiration");
                reasons.insert("exp".into(), reason);
            }
        }
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(Refusal::Claims(reasons)),
        }
    }
}

impl Policy for Jwt {
    fn dry_run(&self) -> DryRun {
        DryRun::Authenticates
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let config = &self.config;
        let anonymous = config.anonymous.as_deref();
        if auth::skips(request, config.run_on_preflight, anonymous) {
            return Access::PASS;
        }
        match self.authenticate(request) {
            Ok(()) => Access::PASS,
            Err(refusal) => {
                let refuse = || refusal.answer(config.realm.as_deref());
                Access::Done(auth::fail(request, anonymous, refuse))
            }
        }
    }
}

#[cfg(test)]
mod tests;
