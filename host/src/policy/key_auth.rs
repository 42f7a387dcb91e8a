//! `key-auth`: a consumer is known by a key in a header, in the query or in the body. Source: Kong
//! 3.9, `key-auth`.

use std::time::SystemTime;

use http::Method;
use http::header::HeaderName;

use super::identity::AuthenticatedCredential;
use super::request::Request;
use super::{Access, Policy, auth};
use crate::entity::plugin::key_auth::Config;

/// Finds the consumer by a key.
#[derive(Debug)]
pub(super) struct KeyAuth {
    config: Config,
    /// The names of keys, as names of headers.
    headers: Vec<Option<HeaderName>>,
}

/// A key in a request.
enum Sent {
    None,
    One(String),
    Several,
}

impl KeyAuth {
    pub(super) fn new(config: Config) -> Self {
        let names = config.key_names.iter();
        let headers = names.map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let headers = headers.collect();
        Self { config, headers }
    }

    /// The key in a header or the query. Each name is looked for in all places before the next one.
    fn find(&self, request: &mut Request<'_>) -> Sent {
        let config = &self.config;
        let arguments = match config.key_in_query {
            true => request.query.arguments(),
            false => Vec::new(),
        };
        for (name, header) in config.key_names.iter().zip(&self.headers) {
            let mut found: Vec<String> = Vec::new();
            if config.key_in_header
                && let Some(header) = header
            {
                let values = request.head.headers.get_all(header).iter();
                found.extend(values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()));
                if config.hide_credentials {
                    request.head.headers.remove(header);
                }
            }
            if found.is_empty() && config.key_in_query {
                let values = arguments.iter().filter(|(found, _)| found == name);
                found.extend(values.map(|(_, value)| value.clone()));
                if config.hide_credentials {
                    request.query.remove(name);
                }
            }
            found.retain(|key| !key.is_empty());
            match found.len() {
                0 => {}
                1 => return found.pop().map_or(Sent::None, Sent::One),
                _ => return Sent::Several,
            }
        }
        Sent::None
    }

    fn decide<'a>(&self, request: &mut Request<'_>, sent: Sent) -> Access<'a> {
        let refusal = match sent {
            Sent::None => "No API key found in request",
            Sent::Several => "Duplicate API key found",
            Sent::One(key) => {
                let identities = request.identities;
                let credential = identities.key(&key).filter(|key| !is_expired(key.expires));
                let consumer = credential.and_then(|key| identities.consumer(key.consumer));
                if let (Some(credential), Some(consumer)) = (credential, consumer) {
                    let id = credential.id;
                    let credential = AuthenticatedCredential {
                        id,
                        identifier: id.to_string().into(),
                    };
                    auth::authenticate(request, consumer.clone(), credential);
                    return Access::PASS;
                }
                "Unauthorized"
            }
        };
        let refuse = || auth::unauthorized(refusal, "Key", self.config.realm.as_deref());
        auth::fail(request, self.config.anonymous.as_deref(), refuse)
    }
}

fn is_expired(expires: Option<u64>) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    expires.is_some_and(|expires| expires <= now)
}

impl Policy for KeyAuth {
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let config = &self.config;
        let is_preflight = request.head.method == Method::OPTIONS;
        if (is_preflight && !config.run_on_preflight)
            || auth::is_done(request, config.anonymous.as_deref())
        {
            return Access::PASS;
        }
        let sent = self.find(request);
        self.decide(request, sent)
    }
}
