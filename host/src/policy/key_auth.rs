//! `key-auth`: a consumer is known by a key in a header, in the query or in the body. Source: Kong
//! 3.9, `key-auth`.

use std::borrow::Cow;

use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::body_fields::{BodyFields, FieldValue};
use super::identity::AuthenticatedCredential;
use super::request::Request;
use super::{Access, DryRun, Policy, Verdict, auth};
use crate::entity::plugin::key_auth::Config;
use crate::urlencoded;

/// The longest body in which a key is looked for, in bytes. Kong looks into bodies that are no
/// longer than nginx's buffer, 8 KiB by default.
const BODY_LIMIT: usize = 1 << 20;

/// Finds the consumer by a key.
#[derive(Debug)]
pub(super) struct KeyAuth {
    config: Config,
    names: Vec<KeyName>,
}

/// The name of a header, of an argument of the query and of a field of the body.
#[derive(Debug)]
struct KeyName {
    text: String,
    header: Option<HeaderName>,
}

/// A key in a request.
#[derive(Debug, PartialEq, Eq)]
enum SentKey {
    None,
    One(Vec<u8>),
    Several,
}

impl KeyAuth {
    pub(super) fn new(config: Config) -> Self {
        let names = config.key_names.iter().map(|name| KeyName {
            text: name.clone(),
            header: HeaderName::from_bytes(name.as_bytes()).ok(),
        });
        let names = names.collect();
        Self { config, names }
    }

    /// The key of a request. A name is looked for in all places before the next one, and the first
    /// place that has it decides.
    fn find(&self, request: &mut Request<'_>, body: Option<&BodyFields>) -> SentKey {
        for name in &self.names {
            let key = self.find_named(name, request, body);
            match key {
                SentKey::None => {}
                // An empty key is as good as none. Source: Kong.
                SentKey::One(key) if key.is_empty() => return SentKey::None,
                SentKey::One(_) => {
                    if self.config.hide_credentials {
                        self.hide(name, request, body);
                    }
                    return key;
                }
                SentKey::Several => return key,
            }
        }
        SentKey::None
    }

    fn find_named(
        &self,
        name: &KeyName,
        request: &Request<'_>,
        body: Option<&BodyFields>,
    ) -> SentKey {
        let config = &self.config;
        if config.key_in_header
            && let Some(header) = &name.header
        {
            let values = request.head.headers.get_all(header).iter();
            let key = SentKey::of(values.map(|value| Cow::Borrowed(value.as_bytes())));
            if key != SentKey::None {
                return key;
            }
        }
        if config.key_in_query
            && let Some(query) = request.query.text()
        {
            let arguments = urlencoded::pairs(query.as_bytes());
            let values = arguments.filter(|(found, _)| **found == *name.text.as_bytes());
            let key = SentKey::of(values.map(|(_, value)| value));
            if key != SentKey::None {
                return key;
            }
        }
        let Some(body) = body else {
            return SentKey::None;
        };
        let mut texts = Vec::new();
        for value in body.values(&name.text) {
            match value {
                FieldValue::Text(text) => texts.push(Cow::Borrowed(text.as_slice())),
                FieldValue::List => return SentKey::Several,
                FieldValue::Other => {}
            }
        }
        SentKey::of(texts.into_iter())
    }

    /// Removes a key from all places where it is looked for.
    fn hide(&self, name: &KeyName, request: &mut Request<'_>, body: Option<&BodyFields>) {
        if let Some(header) = &name.header {
            request.head.headers.remove(header);
        }
        request.query.remove(&name.text);
        let without = body.and_then(|body| body.without(&name.text));
        if let (Some(sent), Some(without)) = (request.body, without) {
            sent.replace(without);
        }
    }

    /// What happens to a request with this key.
    fn decide(&self, request: &mut Request<'_>, key: &SentKey) -> Verdict {
        let refusal = match key {
            SentKey::None => "No API key found in request",
            SentKey::Several => "Duplicate API key found",
            SentKey::One(key) => {
                let identities = request.identities;
                let credential = identities.key(key).filter(|key| !key.is_expired());
                let consumer = credential.and_then(|key| identities.consumer(key.consumer));
                if let (Some(credential), Some(consumer)) = (credential, consumer) {
                    let id = credential.id;
                    let credential = AuthenticatedCredential {
                        id,
                        identifier: id.to_string().into(),
                    };
                    auth::authenticate(request, consumer.clone(), credential);
                    return Verdict::Continue;
                }
                "Unauthorized"
            }
        };
        let refuse = || auth::unauthorized(refusal, "Key", self.config.realm.as_deref());
        auth::fail(request, self.config.anonymous.as_deref(), refuse)
    }

    /// Decides about a request whose body may have the key.
    async fn decide_by_body(&self, request: &mut Request<'_>) -> Verdict {
        let content_type = request.head.headers.get(CONTENT_TYPE);
        let content_type = content_type.map(HeaderValue::as_bytes);
        let fields = match (request.body, content_type) {
            (Some(body), Some(content_type)) => match body.read(BODY_LIMIT).await {
                Ok(read) => read.and_then(|read| BodyFields::read(content_type, &read)),
                Err(refusal) => return Verdict::Answer(refusal),
            },
            _ => None,
        };
        let key = self.find(request, fields.as_ref());
        self.decide(request, &key)
    }
}

impl SentKey {
    fn of<'k>(mut values: impl Iterator<Item = Cow<'k, [u8]>>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(key), None) => Self::One(key.into_owned()),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

impl Policy for KeyAuth {
    fn dry_run(&self) -> DryRun {
        DryRun::Authenticates
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let config = &self.config;
        if auth::skips(
            request,
            config.run_on_preflight,
            config.anonymous.as_deref(),
        ) {
            return Access::PASS;
        }
        if config.key_in_body && request.body.is_some() {
            return Access::Pending(self.decide_by_body(request).boxed_local());
        }
        let key = self.find(request, None);
        Access::Done(self.decide(request, &key))
    }
}
