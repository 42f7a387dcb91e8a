//! `POST /upstreams/{u}/explain`: what would be picked for the request that is described. Changes
//! nothing.

pub(super) mod route;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::Method;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use serde_json::{Value, json};

use super::ApiEndpoint;
use super::arguments::Path;
use super::bounds::ARGUMENTS;
use super::candidate::{self, CandidateError};
use super::error::Error;
use super::rows::{find, id_of};
use super::{Admin, BODY_LIMIT, decode, targets};
use crate::balancer::{self, Explained, Question, Said};
use crate::clock;
use crate::config::Listen;
use crate::endpoint;
use crate::entity::{Check, Field, Kind, Preset, Row, Shape, read_fields, without_nulls};
use crate::json::exact;
use crate::proxy::Described;
use crate::snapshot::{Snapshot, complete};
use crate::upstream;

const ANY: Field = Field::element(Shape::Any);
const TEXT: Field = Field::element(Shape::String);

pub(super) const FIELDS: &[Field] = &[
    Field::string("method").default(Preset::String("GET")),
    Field::string("path").default(Preset::String("/")),
    Field::map("headers", &[], &ANY),
    Field::string("query"),
    Field::string("body"),
    Field::string("client_ip").default(Preset::String("127.0.0.1")),
    Field::string("sni"),
    Field::string("consumer"),
    Field::integer("attempt")
        .default(Preset::Integer(0))
        .check(&[Check::Between(0, 32_767)]),
    Field::integer("last_status").check(&[Check::Between(100, 599)]),
    Field::array("tried", &TEXT),
    Field::any("entropy"),
    Field::string("balancer"),
    Field::string("version"),
    Field::any("config"),
    Field::integer("count")
        .default(Preset::Integer(1))
        .check(&[Check::Between(1, 1000)]),
];

pub(super) fn endpoint() -> ApiEndpoint {
    (
        "/upstreams/{key}/explain".into(),
        post(explain),
        "OPTIONS, POST",
    )
}

async fn explain(
    State(admin): State<Admin>,
    Path(key): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let entity = find(&admin, Kind::Upstream, &key)?;
    let entity = entity.ok_or_else(|| Error::missing("upstream", &key))?;
    let entity = entity.row;
    let upstream = admin.upstream(id_of(&entity))?;
    let input = decode::fields(FIELDS, request, BODY_LIMIT).await?;
    let input = read_fields(FIELDS, input).map_err(|wrong| Error::schema(&wrong))?;
    let (_, snapshot) = admin.published.current();
    let port = admin.listening.proxy.first().map_or(80, Listen::port);
    let described = described(&input, port, &snapshot)?;
    let entropy = match input.get("entropy") {
        None | Some(Value::Null) => fastrand::u64(..),
        // A text, as in the answer: not every JSON reader can hold so large a number.
        Some(Value::String(digits)) => digits.parse().map_err(|_| no_entropy())?,
        Some(given) => given.as_u64().ok_or_else(no_entropy)?,
    };
    let number = |field: &str| input.get(field).and_then(Value::as_u64).unwrap_or_default();
    let (attempt, count) = (number("attempt"), number("count"));
    let last_status = number("last_status");
    let last_status = u16::try_from(last_status).ok().filter(|status| *status > 0);
    let table = upstream.balancer().endpoints();
    let tried = tried(&input, &table)?;
    let who = who(&admin, &entity, &upstream, input).await?;

    let reading = described.read(&snapshot, &upstream);
    let now = clock::micros(Instant::now());
    let mut entropies = fastrand::Rng::with_seed(entropy);
    let entropies = std::iter::once(entropy)
        .chain(std::iter::repeat_with(|| entropies.u64(..)))
        .take(usize::try_from(count).unwrap_or(1));
    let requests = entropies.map(|entropy| balancer::PickRequest {
        now,
        entropy,
        affinity: reading.affinity,
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        last_status,
        facts: None,
        note: None,
    });
    let question = Question {
        upstream: upstream.name.to_string(),
        serving: Arc::clone(upstream.balancer()),
        plugin: Arc::clone(&who.plugin),
        config: who.config.clone(),
        table: Arc::clone(&table),
        requests: requests.collect(),
        tried,
        facts: Box::new(described),
    };
    let seen: Vec<Value> = table.iter().map(|endpoint| shown(endpoint, now)).collect();
    let entropies: Vec<u64> = question.requests.iter().map(|r| r.entropy).collect();
    let engine = Arc::clone(&admin.engine);
    let explained = admin.engine.aside(move || question.ask(&engine)).await;
    let Explained { said, handover } = explained?;
    let cut_short = said.len() < entropies.len();
    let answers = entropies.iter().zip(&said).map(|(entropy, said)| {
        let mut answer = match said {
            Said::Position(position, cost, tag) => {
                let placed = |endpoint: &Arc<endpoint::Endpoint>| placed(endpoint, *cost);
                let mut answer = table.get(*position).map_or_else(|| json!({}), placed);
                if *tag != 0 {
                    answer["tag"] = exact(*tag);
                }
                answer
            }
            Said::Refused(None) => json!({ "refused": true }),
            Said::Refused(Some(refusal)) => json!({
                "refused": true,
                "status": refusal.status,
                "retry_after": refusal.retry_after,
            }),
            Said::Failed(fault) => json!({ "fault": fault }),
            Said::NoEndpoint => json!({ "reason": upstream.reason().code() }),
        };
        answer["entropy"] = exact(*entropy);
        answer
    });
    let is_restored = handover.as_ref().is_some_and(|h| h.failure.is_none());
    let answer = json!({
        "upstream": { "id": id_of(&entity), "name": &*upstream.name },
        "balancer": {
            "name": who.name,
            "version": who.plugin.digest,
            "config": serde_json::from_str::<Value>(&who.config).unwrap_or_default(),
        },
        // The serving instance has seen requests, and may remember some of them.
        "instance": if is_restored { "restored" } else { "fresh" },
        "handover": handover,
        "request": {
            "route": reading.route,
            "affinity": reading.affinity.map(targets::shown_id),
            "attempt": attempt,
            "last_status": last_status,
        },
        "endpoints": seen,
        "answers": answers.collect::<Vec<_>>(),
        "cut_short": cut_short,
    });
    Ok(Json(answer).into_response())
}

/// The endpoint of an answer, with what the request would weigh there if the balancer says it.
fn placed(endpoint: &endpoint::Endpoint, cost: endpoint::RequestCost) -> Value {
    let mut answer = json!({
        "endpoint": targets::shown_id(endpoint.id),
        "address": endpoint.address,
    });
    if cost != endpoint::RequestCost::NONE {
        answer["cost"] = json!({ "first_byte": cost.first_byte, "rest": cost.rest });
    }
    answer
}

/// The ids of the endpoints that the request was already sent to.
fn tried(input: &Row, table: &[Arc<endpoint::Endpoint>]) -> Result<Vec<u64>, Error> {
    let names = input.get("tried").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    let id = |name: &str| {
        let is_named = |endpoint: &&Arc<endpoint::Endpoint>| {
            targets::shown_id(endpoint.id) == name || endpoint.address.to_string() == name
        };
        let named = table.iter().find(is_named).map(|endpoint| endpoint.id);
        named.ok_or_else(|| {
            let message = format!(
                "{name:?} is not an endpoint that can be picked: give its id or address, as `endpoints` of the answer has them"
            );
            Error::field("tried", message)
        })
    };
    names.map(id).collect()
}

fn no_entropy() -> Error {
    Error::field(
        "entropy",
        "expected an integer between 0 and 18446744073709551615",
    )
}

/// The balancer that is asked.
struct Who {
    name: String,
    plugin: Arc<balancer::LoadedBalancer>,
    config: String,
}

/// The balancer that the request names, or else the one that serves, with the settings in the
/// request. The serving balancer's own settings are the default.
async fn who(
    admin: &Admin,
    entity: &Row,
    upstream: &upstream::Upstream,
    mut input: Row,
) -> Result<Who, Error> {
    let algorithm = upstream.policy().algorithm.clone();
    let (serving, settings) = upstream.balancer().current();
    let given = |input: &Row, field| {
        input
            .get(field)
            .is_some_and(|value: &Value| !value.is_null())
    };
    if !["balancer", "version", "config"]
        .map(|field| given(&input, field))
        .contains(&true)
    {
        return Ok(Who {
            name: algorithm,
            plugin: serving,
            config: settings,
        });
    }
    if !given(&input, "balancer") {
        input.insert("balancer".into(), algorithm.clone().into());
    }
    let name = input.get("balancer").and_then(Value::as_str);
    let name = name.unwrap_or_default().to_owned();
    let own = |field| {
        let own = entity.get("pointsman");
        let own = own.and_then(|extension| extension.get(field));
        own.cloned().unwrap_or_default()
    };
    if name == algorithm && !given(&input, "version") {
        input.insert("version".into(), own("balancer_version"));
    }
    if name == algorithm && !given(&input, "config") {
        input.insert("config".into(), own("balancer_config"));
    }
    let found = candidate::find(&admin.store, &admin.engine, &input).await;
    let plugin = found.map_err(|wrong| match wrong {
        CandidateError::Field(field, message) => Error::field(field, message),
        CandidateError::Other(error) => error,
    })?;
    let (plugin, _) = plugin.ok_or_else(Error::not_found)?;
    let slots = entity.get("slots").and_then(Value::as_u64);
    let slots = slots.and_then(|slots| u32::try_from(slots).ok());
    let config = input.remove("config").filter(|config| !config.is_null());
    let config = config.map(without_nulls);
    Ok(Who {
        config: complete(config, slots.unwrap_or_default(), &plugin),
        name,
        plugin,
    })
}

/// An endpoint as a balancer may see it.
fn shown(endpoint: &endpoint::Endpoint, now: u64) -> Value {
    let reported = endpoint.load_report(now);
    let work = endpoint.work();
    json!({
        "id": targets::shown_id(endpoint.id),
        "address": endpoint.address,
        "host": endpoint.host.bare(),
        "weight": endpoint.weight,
        "labels": endpoint.labels.all().collect::<BTreeMap<_, _>>(),
        "in_flight": work.in_flight,
        "in_flight_cost": work.cost,
        "unanswered": work.unanswered,
        "unanswered_cost": work.unanswered_cost,
        "latency_us": endpoint.latency(now),
        "latency_at_load_us": endpoint.latency_at_load(now),
        "first_byte_us": endpoint.first_byte(now),
        "chunk_gap_us": endpoint.chunk_gap(now),
        "reported_load": reported.load,
        "reported_queue": reported.queue,
        "reported": targets::values_by_name(&endpoint.reported_values(now)),
    })
}

/// The request that is described.
fn described(input: &Row, port: u16, snapshot: &Snapshot) -> Result<Described, Error> {
    let text = |field: &str| input.get(field).and_then(Value::as_str).unwrap_or_default();
    let method = Method::from_bytes(text("method").as_bytes());
    let method = method.map_err(|_| Error::field("method", "expected an HTTP method"))?;
    let (path, query) = (text("path"), text("query"));
    if !path.starts_with('/') {
        return Err(Error::field("path", "should start with: /"));
    }
    let target = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let target: PathAndQuery = (target.parse()).map_err(|error| {
        Error::field(
            if query.is_empty() { "path" } else { "query" },
            format!("{error}"),
        )
    })?;
    let client: IpAddr = (text("client_ip").parse())
        .map_err(|_| Error::field("client_ip", "expected an IP address"))?;
    let client = HeaderValue::try_from(client.to_canonical().to_string());
    let identities = &snapshot.policies.identities;
    let consumer = match text("consumer") {
        "" => None,
        name => match identities.consumer_named(name) {
            Some(consumer) => Some(consumer.id),
            None => {
                return Err(Error::field(
                    "consumer",
                    "no consumer has this id or username",
                ));
            }
        },
    };
    Ok(Described {
        consumer,
        method,
        target,
        headers: headers(input)?,
        client: client.map_err(|_| Error::field("client_ip", "expected an IP address"))?,
        port,
        server_name: (input.get("sni").and_then(Value::as_str)).map(str::to_ascii_lowercase),
        body: input
            .get("body")
            .and_then(Value::as_str)
            .map(|body| Bytes::copy_from_slice(body.as_bytes())),
    })
}

fn headers(input: &Row) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let given = input.get("headers").and_then(Value::as_object);
    for (name, value) in given.into_iter().flatten() {
        let wrong = |message: &str| Error::field("headers", json!({ name.as_str(): message }));
        let parsed = HeaderName::try_from(name).map_err(|_| wrong("expected a header's name"))?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            let value = value
                .as_str()
                .and_then(|text| HeaderValue::from_str(text).ok());
            let value = value.ok_or_else(|| wrong("expected a string, or an array of strings"))?;
            // `HeaderMap` panics when it is full, at 32,768 headers.
            if headers.len() == ARGUMENTS {
                let message = format!("expected {ARGUMENTS} headers at most");
                return Err(Error::field("headers", message));
            }
            // The only header that must be text: a request with another value is refused.
            if parsed == HOST && value.to_str().is_err() {
                return Err(wrong("expected a host in ASCII: others get a 400"));
            }
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}
