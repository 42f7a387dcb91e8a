//! Headers of a response that tell what has happened to its request, for a client that has the
//! token of the setting `debug_token`; and those of Kong's setting `allow_debug_header`, for any
//! client.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::trace::Trace;
use crate::config;
use crate::policy::record::{Try, TryOutcome};

/// The header of the request that has the token.
const DEBUG: HeaderName = HeaderName::from_static("pointsman-debug");

const ROUTE: HeaderName = HeaderName::from_static("pointsman-debug-route");
const SERVICE: HeaderName = HeaderName::from_static("pointsman-debug-service");
const UPSTREAM: HeaderName = HeaderName::from_static("pointsman-debug-upstream");
const TRY: HeaderName = HeaderName::from_static("pointsman-debug-try");
const TIMES: HeaderName = HeaderName::from_static("pointsman-debug-times");
const REASON: HeaderName = HeaderName::from_static("pointsman-debug-reason");
const POLICY: HeaderName = HeaderName::from_static("pointsman-debug-policy");

/// By this header, with any value, a client asks for the route and the service. Source: Kong 3.9.
const KONG_DEBUG: HeaderName = HeaderName::from_static("kong-debug");

const KONG_ROUTE_ID: HeaderName = HeaderName::from_static("kong-route-id");
const KONG_ROUTE_NAME: HeaderName = HeaderName::from_static("kong-route-name");
const KONG_SERVICE_ID: HeaderName = HeaderName::from_static("kong-service-id");
const KONG_SERVICE_NAME: HeaderName = HeaderName::from_static("kong-service-name");

/// What a client is told of its request.
#[derive(Clone, Copy)]
pub(super) struct DebugScope {
    /// All of it, because it has sent the token.
    all: bool,
    /// The route and the service, as in Kong.
    kong: bool,
}

impl DebugScope {
    /// What these headers ask for and may get. The token is removed, so that it is in no record.
    pub(super) fn of(settings: &config::Proxy, headers: &mut HeaderMap) -> Self {
        let token = settings.debug_token.as_ref();
        let all = token.is_some_and(|token| {
            let sent = headers.remove(DEBUG);
            sent.is_some_and(|sent| token.is(sent.as_bytes()))
        });
        let kong = settings.allow_debug_header && headers.contains_key(KONG_DEBUG);
        Self { all, kong }
    }

    /// Whether it is told anything.
    pub(super) fn any(self) -> bool {
        self.all || self.kong
    }

    /// The headers about a request that began at `started`. `reason` is why the gateway has
    /// answered, and `policy` the policy that has.
    pub(super) fn headers(
        self,
        trace: &Trace,
        started: Instant,
        reason: Option<&str>,
        policy: Option<&str>,
    ) -> HeaderMap {
        let mut told = HeaderMap::new();
        if self.all {
            told = all_headers(trace, started, reason, policy);
        }
        if self.kong {
            let entities = &trace.matched_entities;
            let id = |id: Option<uuid::Uuid>| id.map(|id| id.to_string());
            let name = |name: &Option<std::sync::Arc<str>>, id: &Option<String>| {
                let name = name.as_deref().map(str::to_owned);
                name.filter(|name| Some(name) != id.as_ref())
            };
            let (route, service) = (id(entities.route), id(entities.service));
            let names = (
                name(&entities.route_name, &route),
                name(&entities.service_name, &service),
            );
            for (name, value) in [
                (KONG_ROUTE_ID, route),
                (KONG_ROUTE_NAME, names.0),
                (KONG_SERVICE_ID, service),
                (KONG_SERVICE_NAME, names.1),
            ] {
                let value = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
                told.extend(value.map(|value| (name, value)));
            }
        }
        told
    }
}

/// All headers, for a client that has sent the token.
fn all_headers(
    trace: &Trace,
    started: Instant,
    reason: Option<&str>,
    policy: Option<&str>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    let entities = &trace.matched_entities;
    let entity = |id: Option<uuid::Uuid>, name: &Option<std::sync::Arc<str>>| {
        let id = id?.to_string();
        Some(match name.as_deref().filter(|name| *name != id) {
            Some(name) => format!("{id}; name=\"{name}\""),
            None => id,
        })
    };
    for (name, value) in [
        (ROUTE, entity(entities.route, &entities.route_name)),
        (SERVICE, entity(entities.service, &entities.service_name)),
        (UPSTREAM, entities.upstream.as_deref().map(str::to_owned)),
        (REASON, reason.map(str::to_owned)),
        (POLICY, policy.map(str::to_owned)),
    ] {
        if let Some(value) = value {
            add(name, value);
        }
    }
    for one in &*trace.tries.borrow() {
        add(TRY, described(one));
    }
    let now = Instant::now();
    let stages = trace.stages(started);
    let picks: Duration = trace.tries.borrow().iter().map(|one| one.balancer).sum();
    let latencies = trace.latencies(started, now);
    let mut times = String::new();
    for (stage, time) in [
        ("match", stages.matched),
        ("access", stages.access),
        ("body", stages.body),
        ("pick", latencies.upstream.map(|_| picks)),
        ("first_byte", latencies.upstream),
        ("total", Some(now - started)),
    ] {
        if let Some(time) = time {
            let separator = if times.is_empty() { "" } else { ", " };
            let _ = write!(times, "{separator}{stage};dur={}", millis(time));
        }
    }
    add(TIMES, times);
    headers
}

/// A try: its endpoint, how it was chosen, how long it took, and its outcome.
fn described(one: &Try) -> String {
    let mut text = one.address.to_string();
    if let Some(pick) = &one.pick {
        let (by, because) = pick.by.parts();
        let _ = write!(text, "; by={by}");
        if let Some(because) = because {
            let _ = write!(text, "; because={because}");
        }
        if let Some(version) = &pick.version {
            let (name, number) = (&version.name, &version.version);
            let digest = &version.digest;
            let _ = write!(
                text,
                "; balancer=\"{name}\"; version=\"{number}\"; digest={digest}"
            );
        }
    }
    let (pick, took) = (millis(one.balancer), millis(one.took));
    let _ = write!(text, "; pick={pick}; dur={took}");
    match (one.outcome, one.failure) {
        (TryOutcome::Answered(status), _) => {
            let _ = write!(text, "; status={status}");
        }
        (_, Some(failure)) => {
            let _ = write!(text, "; failure={failure}");
        }
        (_, None) => {}
    }
    text
}

/// Milliseconds with three decimals, as in `Server-Timing`.
fn millis(time: Duration) -> String {
    format!("{}.{:03}", time.as_millis(), time.subsec_micros() % 1000)
}
