//! `proxy-cache`: answers requests with responses that were given before. Source: Kong 3.9,
//! `proxy-cache`.
//!
//! The cache stores what an endpoint has sent, so a response from the cache passes the other
//! policies as one from the endpoint does. Beyond Kong: a response is only given to requests that
//! agree in the headers which it names in `Vary`; of requests that miss the same response at once,
//! one fetches it, and the others wait for it; a `Range` request is answered with 206, and a
//! conditional request with 304.

mod directives;
mod invalidate;
mod key;
mod receive;
mod rules;
mod select;
mod store;
mod vary;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode};
use tokio::time::timeout_at;

pub use key::Key;
pub use store::{Cache, Stored};

use super::answer::Answer;
use super::request::Request;
use super::response::{BodyFilter, Received, Response, Source};
use super::{Access, DryRun, Policy, Resources, Verdict};
use crate::entity::plugin::proxy_cache::Config;
use crate::http1::lists;
use directives::RequestDirectives;
use key::{Identity, KeyParts, Same, Slot};
use receive::ReceivedBody;
use rules::{Freshness, MediaType};
use store::{Asked, Fetch, Progress, Turn};
use vary::Varying;

const STATUS: HeaderName = HeaderName::from_static("x-cache-status");
const KEY: HeaderName = HeaderName::from_static("x-cache-key");

/// By this header a client asks for all headers about the cache. Source: Kong.
const DEBUG: HeaderName = HeaderName::from_static("kong-debug");

/// Headers that belong to the connection, or that the answer gets anew.
const NOT_STORED: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Answers requests with responses that were given before.
#[derive(Debug)]
pub(super) struct ProxyCache {
    config: Config,
    same: Same,
    media_types: Vec<MediaType>,
    cache: Arc<Cache>,
}

/// What the cache did for a request, as in `X-Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Miss,
    Hit,
    /// A response is stored, and too old for the request.
    Refresh,
    Bypass,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Miss => "Miss",
            Self::Hit => "Hit",
            Self::Refresh => "Refresh",
            Self::Bypass => "Bypass",
        }
    }
}

/// What is known of a request in its later phases.
struct Kept {
    /// `None` for a request that was refused.
    status: Option<Status>,
    identity: Option<Identity>,
    age: Option<Duration>,
    fetch: Option<Fetch>,
    asked: Asked,
    /// The slots of the responses that the request outdates if it succeeds.
    outdates: Vec<Slot>,
}

/// What is found for a request.
enum Found {
    /// A response that answers it, with its age.
    Fresh(Arc<Stored>, Duration),
    /// One that is too old.
    Stale,
    Nothing,
}

impl ProxyCache {
    pub(super) fn new(config: Config, resources: &Resources) -> Self {
        let named = config.vary_headers.iter().flatten();
        let headers = named.map(|word| {
            let name = HeaderName::from_bytes(word.as_bytes()).ok();
            (word.clone(), name)
        });
        let same = Same {
            ignore_case: config.ignore_uri_case,
            arguments: config.vary_query_params.clone().unwrap_or_default(),
            headers: headers.collect(),
        };
        let types = config.content_type.iter();
        Self {
            same,
            media_types: types.filter_map(|text| MediaType::parse(text)).collect(),
            cache: Arc::clone(&resources.proxy_cache),
            config,
        }
    }

    fn is_for(&self, request: &Request<'_>) -> bool {
        let method = request.head.method.as_str();
        let is_named = self.config.request_method.iter().any(|m| m == method);
        // The response to an upgrade has no content to store.
        let upgrades = lists(&request.head.headers, &UPGRADE, "websocket");
        is_named
            && !upgrades
            && !(self.config.cache_control && rules::bypasses_cache(&request.head.headers))
    }

    fn identity(&self, request: &Request<'_>) -> Identity {
        Identity::of(&self.key_parts(request), &self.same)
    }

    fn key_parts<'r>(&self, request: &'r Request<'_>) -> KeyParts<'r> {
        let consumer = request.subject.consumer.as_ref();
        KeyParts {
            consumer: consumer.map(|consumer| consumer.id),
            route: request.matched.route,
            method: &request.head.method,
            target: request.sent_target,
            version: request.head.version,
            query: request.query.text(),
            headers: &request.head.headers,
            scheme: request.client.scheme,
            port: request.client.port,
            host: request.client.host,
            keeps_forwarded: request.client.keeps_forwarded,
            upstream_path: request.upstream_path.as_deref(),
            upstream_host: request.upstream_host.as_deref(),
        }
    }

    fn find(&self, identity: &Identity, method: &Method, headers: &HeaderMap) -> Found {
        let Some(stored) = self.cache.find(identity, headers) else {
            return Found::Nothing;
        };
        let age = stored.age(Instant::now());
        let (is_fresh, age) = match &stored.freshness {
            Some(freshness) if self.config.cache_control => {
                let now = SystemTime::now();
                (freshness.answers(method, headers, now), freshness.age(now))
            }
            _ => (age.as_secs() <= self.config.cache_ttl, age),
        };
        match is_fresh {
            true => Found::Fresh(stored, age),
            false => Found::Stale,
        }
    }

    /// Looks for a response. `Ok` if the request is answered, otherwise what the cache does for it.
    fn look(&self, identity: &Identity, request: &mut Request<'_>) -> Result<Answer, Status> {
        let head = &request.head;
        match self.find(identity, &head.method, &head.headers) {
            Found::Fresh(stored, age) => {
                let answer = select::answer(&stored, &head.method, &head.headers);
                request.keep(Kept {
                    status: Some(Status::Hit),
                    identity: Some(Identity {
                        slot: identity.slot,
                        parts: Box::default(),
                    }),
                    age: Some(age),
                    fetch: None,
                    asked: Asked::default(),
                    outdates: Vec::new(),
                });
                Ok(answer)
            }
            Found::Stale => Err(Status::Refresh),
            Found::Nothing => Err(Status::Miss),
        }
    }

    /// Lets a request go on to an endpoint, whose response is stored if possible.
    fn go_on(
        &self,
        request: &mut Request<'_>,
        identity: Identity,
        status: Status,
        fetch: Option<Fetch>,
    ) -> Verdict {
        request.keep(Kept {
            status: Some(status),
            identity: Some(identity),
            age: None,
            fetch,
            asked: self.cache.asked(),
            outdates: self.outdated_by(request),
        });
        Verdict::Continue
    }

    /// Waits for a response that another request fetches.
    async fn wait(
        &self,
        request: &mut Request<'_>,
        identity: Identity,
        mut status: Status,
        mut progress: tokio::sync::watch::Receiver<Progress>,
    ) -> Verdict {
        let end = (Instant::now() + self.cache.patience).into();
        let mut was_abandoned = false;
        loop {
            let ended = progress.wait_for(|progress| *progress != Progress::Fetching);
            match timeout_at(end, ended)
                .await
                .map(|ended| ended.map(|it| *it))
            {
                Ok(Ok(Progress::Stored)) => {}
                // One of those that wait takes its place. A second time, the endpoint may be what
                // ends responses, and those that wait would ask it one after the other.
                Ok(Ok(Progress::Abandoned)) if !was_abandoned => was_abandoned = true,
                Ok(_) => break,
                Err(_) => {
                    self.cache.give_up(identity.slot, &progress);
                    break;
                }
            }
            match self.look(&identity, request) {
                Ok(answer) => return answer.into(),
                Err(found) => status = found,
            }
            // What was stored is for requests with other headers, or nothing was stored.
            match self.cache.turn(identity.slot, may_fetch(request)) {
                Turn::Fetch(fetch) => return self.go_on(request, identity, status, Some(fetch)),
                Turn::Wait(other) => progress = other,
                Turn::Alone => break,
            }
        }
        self.go_on(request, identity, status, None)
    }

    /// The response to be stored, without its body; `None` if it must not be stored.
    fn draft(&self, received: &Received<'_>, identity: Identity) -> Option<Stored> {
        let (status, headers) = (received.status, received.headers);
        let asked = received.request;
        let config = &self.config;
        let media_type = rules::media_type(headers)?;
        let is_wanted = config.response_code.contains(&status.as_u16())
            && self.media_types.iter().any(|range| media_type.is_in(range));
        if !is_wanted || !rules::is_whole(status, headers) {
            return None;
        }
        let varying = Varying::of(headers, &asked.headers)?;
        let now = SystemTime::now();
        let mut kept = headers.clone();
        // A hit has an age of its own.
        kept.remove(AGE);
        let (freshness, ttl) = match config.cache_control {
            true => {
                let request = (&asked.method, &asked.headers);
                let freshness = Freshness::of(request, headers, now)?;
                let ttl = freshness.left(now);
                (Some(freshness), ttl)
            }
            false => {
                // A cookie is for the client that has caused the response.
                kept.remove(SET_COOKIE);
                (None, Duration::from_secs(config.cache_ttl))
            }
        };
        for name in &NOT_STORED {
            kept.remove(name);
        }
        let is_head = asked.method == Method::HEAD;
        if !is_head {
            kept.remove(CONTENT_LENGTH);
        }
        // How many requests a client has left is another number for each. Source: Kong.
        let counts = kept.keys().filter(|name| {
            let name = name.as_str();
            name.contains("ratelimit-remaining")
        });
        for name in counts.cloned().collect::<Vec<_>>() {
            kept.remove(name);
        }
        let storage_ttl = config.storage_ttl.and_then(|ttl| u64::try_from(ttl).ok());
        Some(Stored {
            status,
            headers: kept,
            body: Bytes::new(),
            stored: now,
            ttl,
            kept_for: storage_ttl.map_or(ttl, Duration::from_secs),
            since: Instant::now(),
            freshness,
            parts: identity.parts,
            varying,
        })
    }
}

/// Whether the response to a request is one that other requests can wait for.
fn may_fetch(request: &Request<'_>) -> bool {
    let headers = &request.head.headers;
    !select::CONDITIONS
        .iter()
        .any(|name| headers.contains_key(name))
}

impl Policy for ProxyCache {
    fn dry_run(&self) -> DryRun {
        DryRun::Effects("it looks for a response in its cache")
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let mut kept = Kept {
            status: Some(Status::Bypass),
            identity: None,
            age: None,
            fetch: None,
            asked: Asked::default(),
            outdates: Vec::new(),
        };
        if !self.is_for(request) {
            kept.outdates = self.outdated_by(request);
            request.keep(kept);
            return Access::PASS;
        }
        let identity = self.identity(request);
        let status = match self.look(&identity, request) {
            Ok(answer) => return answer.into(),
            Err(status) => status,
        };
        let directives = RequestDirectives::of(&request.head.headers);
        if self.config.cache_control && directives.only_if_cached {
            kept.status = None;
            kept.identity = Some(identity);
            request.keep(kept);
            return Answer::raw(StatusCode::GATEWAY_TIMEOUT, "").into();
        }
        match self.cache.turn(identity.slot, may_fetch(request)) {
            Turn::Fetch(fetch) => Access::Done(self.go_on(request, identity, status, Some(fetch))),
            Turn::Wait(progress) => {
                Access::Pending(self.wait(request, identity, status, progress).boxed_local())
            }
            Turn::Alone => Access::Done(self.go_on(request, identity, status, None)),
        }
    }

    fn received(&self, received: &mut Received<'_>) -> Option<Box<dyn BodyFilter>> {
        let status = received.status;
        let kept = received.kept::<Kept>()?;
        if !kept.outdates.is_empty() && invalidate::is_success(status) {
            self.cache.invalidate(&std::mem::take(&mut kept.outdates));
            kept.asked.renew();
        }
        let slot = kept.identity.as_ref()?.slot;
        let identity = kept.identity.replace(Identity {
            slot,
            parts: Box::default(),
        })?;
        let (fetch, asked) = (kept.fetch.take(), kept.asked);
        let is_head = received.request.method == Method::HEAD;
        let length = received.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let length = length.filter(|_| !is_head);
        let largest = self.cache.largest;
        let draft = self.draft(received, identity);
        match draft.filter(|_| length.unwrap_or_default() <= largest) {
            Some(draft) => Some(Box::new(Storing {
                cache: Arc::clone(&self.cache),
                slot,
                fetch,
                asked,
                draft: Some((
                    draft,
                    ReceivedBody::new(&self.cache.receiving, length.unwrap_or(largest)),
                )),
            })),
            None => {
                if let Some(kept) = received.kept::<Kept>() {
                    kept.status = Some(Status::Bypass);
                }
                if let Some(fetch) = fetch {
                    fetch.not_stored();
                }
                None
            }
        }
    }

    fn response(&self, response: &mut Response<'_>) {
        let is_own = response.source == Source::Gateway;
        let shown = self.config.response_headers;
        // As in Kong, a client that asks for it sees all of them.
        let is_debugged = response.request.headers.contains_key(DEBUG);
        let Some(kept) = response.kept::<Kept>() else {
            return;
        };
        // The gateway has no response: nothing is stored.
        if let Some(fetch) = kept.fetch.take() {
            fetch.failed();
        }
        let status = match kept.status {
            Some(Status::Miss | Status::Refresh) if is_own => Some(Status::Bypass),
            status => status,
        };
        let (key, age) = (kept.identity.as_ref().map(|it| it.slot.key), kept.age);
        let headers = &mut response.head.headers;
        if let Some(age) = age.filter(|_| shown.age || is_debugged) {
            headers.insert(AGE, age.as_secs().into());
        }
        if let Some(status) = status.filter(|_| shown.status || is_debugged) {
            headers.insert(STATUS, HeaderValue::from_static(status.name()));
        }
        if let Some(key) = key.filter(|_| shown.key || is_debugged)
            && let Ok(key) = HeaderValue::from_str(&key.text())
        {
            headers.insert(KEY, key);
        }
    }
}

/// Reads the body of a response that is stored once it is complete.
struct Storing {
    cache: Arc<Cache>,
    slot: Slot,
    fetch: Option<Fetch>,
    asked: Asked,
    /// The response, and its body so far; `None` once the body is too long, or there is no memory
    /// for it.
    draft: Option<(Stored, ReceivedBody)>,
}

impl BodyFilter for Storing {
    fn data(&mut self, piece: Bytes) -> Bytes {
        if let Some((_, body)) = &mut self.draft
            && !body.push(&piece)
        {
            self.draft = None;
            if let Some(fetch) = self.fetch.take() {
                fetch.not_stored();
            }
        }
        piece
    }

    fn end(&mut self) -> Bytes {
        let fetch = self.fetch.take();
        if let Some((mut draft, body)) = self.draft.take() {
            draft.body = body.finish();
            let is_stored = self.cache.store(self.slot, draft, self.asked);
            match fetch {
                Some(fetch) if is_stored => fetch.done(),
                Some(fetch) => fetch.failed(),
                None => {}
            }
        }
        Bytes::new()
    }

    fn keeps_length(&self) -> bool {
        true
    }
}
