//! `POST /pointsman/explain`: which route the described request takes, and why not the others; and
//! which policies it runs through, with what they decide. Changes nothing: a policy that would, as
//! many of them count, is not asked.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{FIELDS, described};
use crate::admin::error::Error;
use crate::admin::rows::id_of;
use crate::admin::{Admin, ApiEndpoint, ApiResult, BODY_LIMIT, decode};
use crate::config::Listen;
use crate::entity::{self, Kind, Row, read_fields, view};
use crate::policy::chain::{Chain, Instance};
use crate::proxy::{Described, Judged, Judgement};
use crate::router::Route;
use crate::snapshot::Snapshot;

/// Most other routes of an answer: those that miss the fewest criteria.
const OTHERS: usize = 50;

pub(in crate::admin) fn endpoint() -> ApiEndpoint {
    ("/pointsman/explain".into(), post(explain), "OPTIONS, POST")
}

async fn explain(State(admin): State<Admin>, request: Request) -> ApiResult {
    let input = decode::fields(FIELDS, request, BODY_LIMIT).await?;
    let input = read_fields(FIELDS, input).map_err(|wrong| Error::schema(&wrong))?;
    let (_, snapshot) = admin.published.current();
    let port = admin.listening.proxy.first().map_or(80, Listen::port);
    let described = described(&input, port, &snapshot)?;
    let taken = described.route(&snapshot);
    let rows = (admin.store).list(Kind::Route, None, usize::MAX, &|_| true)?;
    let others = rows
        .iter()
        .filter(|stored| Some(id_of(&stored.row)) != taken);
    let compiled = snapshot.router.routes().map(|route| (route.id, &**route));
    let compiled: HashMap<Uuid, &Route> = compiled.collect();
    let mut others: Vec<(usize, Value)> = others
        .map(|stored| {
            let compiled = compiled.get(&id_of(&stored.row)).copied();
            other(&admin, &stored.row, compiled, &described)
        })
        .collect();
    let count = others.len();
    others.sort_by_key(|(missing, _)| *missing);
    let others: Vec<Value> = others
        .into_iter()
        .take(OTHERS)
        .map(|(_, one)| one)
        .collect();
    let route = taken.and_then(|id| rows.iter().find(|stored| id_of(&stored.row) == id));
    let service = route.and_then(|route| referred(&route.row, "service"));
    let policies: Vec<Value> = match taken.and_then(|id| compiled.get(&id)) {
        Some(route) => {
            let chain = snapshot.policies.of_route(route.id, service);
            let judge = |chain| described.judge(&snapshot, chain, route);
            let all = chain.map(|chain| judge(chain)).unwrap_or_default();
            all.iter().map(judged).collect()
        }
        None => {
            let chain = snapshot.policies.of_unmatched();
            chain.map_or_else(Vec::new, |chain| unmatched(chain, &snapshot))
        }
    };
    let service = service.and_then(|id| Some((id, snapshot.services.get(&id)?)));
    Ok(Json(json!({
        "route": route.map(|route| named(&route.row)),
        "service": service.map(|(id, service)| json!({ "id": id, "name": service.name })),
        "upstream": service.map(|(_, service)| json!({
            "name": service.upstream.name,
            "named": service.upstream.named,
        })),
        "policies": policies,
        "others": others,
        "routes": count + usize::from(taken.is_some()),
    }))
    .into_response())
}

/// The id that a field refers to.
fn referred(row: &Row, field: &str) -> Option<Uuid> {
    let id = row.get(field)?.get("id")?.as_str()?;
    id.parse().ok()
}

fn named(row: &Row) -> Value {
    json!({ "id": row.get("id"), "name": row.get("name") })
}

/// A route that the request does not take, and the fields that it does not satisfy. If it satisfies
/// all, the other route has precedence. A route that the router does not have, such as one of a
/// service that is disabled, is compiled for the answer.
fn other(
    admin: &Admin,
    row: &Row,
    compiled: Option<&Route>,
    described: &Described,
) -> (usize, Value) {
    let mut shown = named(row);
    let misses = match compiled {
        Some(route) => Ok(described.misses(route)),
        None => compile(admin, row).map(|route| described.misses(&route)),
    };
    let misses = misses.unwrap_or_else(|error| {
        shown["error"] = error.into();
        vec!["error"]
    });
    let count = misses.len();
    shown["misses"] = json!(misses);
    (count, shown)
}

fn compile(admin: &Admin, row: &Row) -> Result<Route, String> {
    let route = view::<entity::route::Route>(Kind::Route, row.clone());
    let route = route.map_err(|error| error.to_string())?;
    let flavor = admin.config.proxy.router_flavor;
    let compiled = Route::compile(route, flavor, crate::pattern::PATTERN_MEMORY);
    compiled.map_err(|error| error.to_string())
}

/// The policies that a request without a route runs through, in their order. They see its response
/// and its record alone.
fn unmatched(chain: &Chain, snapshot: &Snapshot) -> Vec<Value> {
    let steps = chain.steps().iter();
    let chosen = steps.filter_map(|step| step.choose(&snapshot.policies, None));
    let shown = chosen.map(|instance| {
        let mut shown = policy(instance);
        shown["verdict"] = "not reached".into();
        shown
    });
    shown.collect()
}

/// A policy with what it decides about the request.
fn judged(of: &Judged<'_>) -> Value {
    let mut shown = policy(of.instance);
    match &of.judgement {
        Judgement::Passes(consumer) => {
            shown["verdict"] = "passes".into();
            if let Some(consumer) = consumer {
                shown["consumer"] = (**consumer).into();
            }
        }
        Judgement::Answers(status, message) => {
            shown["verdict"] = "answers".into();
            shown["status"] = status.as_u16().into();
            shown["message"] = json!(message);
        }
        Judgement::NotEvaluated(reason) => {
            shown["verdict"] = "not evaluated".into();
            shown["reason"] = (*reason).into();
        }
        Judgement::NotReached => shown["verdict"] = "not reached".into(),
    }
    shown
}

fn policy(instance: &Instance) -> Value {
    json!({
        "id": instance.id,
        "name": instance.name,
        "priority": instance.priority,
        "scope": {
            "route": instance.scope.route,
            "service": instance.scope.service,
            "consumer": instance.scope.consumer,
        },
    })
}
