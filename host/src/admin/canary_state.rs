//! The canary in a balancer's row, and its figures.

use serde_json::{Value, json};

use super::Admin;
use super::rows::id_of;
use super::version_rows::text;
use crate::balancer::{RunningCanary, Side, Verdict};
use crate::clock;
use crate::entity::balancer::CanaryState;
use crate::entity::{Kind, Row};

pub(super) fn canary_in(balancer: &Row) -> Option<&Row> {
    balancer.get("canary").and_then(Value::as_object)
}

pub(super) fn live_in(balancer: &Row) -> Option<&Row> {
    let live = [CanaryState::Running, CanaryState::Passed].map(CanaryState::name);
    canary_in(balancer).filter(|canary| live.contains(&text(canary, "state")))
}

/// Whether the version of this digest takes a share of a balancer's picks.
pub(super) fn is_of(balancer: &Row, digest: &str) -> bool {
    live_in(balancer).is_some_and(|canary| text(canary, "version") == digest)
}

/// Removes the canary from a balancer's row, if it was one of this version.
pub(super) fn forget(balancer: &mut Row, digest: &str) {
    if canary_in(balancer).is_some_and(|canary| text(canary, "version") == digest) {
        balancer.shift_remove("canary");
    }
}

/// What a balancer's canary becomes when the version of this digest is made active; none if no
/// canary is live. `figures` are its figures so far.
pub(super) fn ended_by(balancer: &Row, digest: &str, figures: Option<Value>) -> Option<Row> {
    let canary = live_in(balancer)?;
    Some(if text(canary, "version") == digest {
        concluded(canary, CanaryState::Promoted, None, figures)
    } else {
        let reason = "another version was made active".to_owned();
        concluded(canary, CanaryState::Ended, Some(reason), figures)
    })
}

/// The outcome of a canary, in words.
pub(super) fn outcome(canary: &Row) -> String {
    match canary.get("reason").and_then(Value::as_str) {
        Some(reason) => reason.to_owned(),
        None => text(canary, "state").to_owned(),
    }
}

/// The figures that this gateway has of a balancer's canary; none if no canary is live.
pub(super) fn figures(admin: &Admin, balancer: &Row) -> Option<Value> {
    let row = live_in(balancer)?;
    let running = admin.published.canary_of(id_of(balancer))?;
    (running.settings.id == id_of(row)).then(|| figures_of(&running))
}

pub(super) fn figures_of(canary: &RunningCanary) -> Value {
    let sides = Side::ALL.iter().zip(canary.figures());
    let sides = sides.map(|(side, figures)| (side.name().to_owned(), json!(figures)));
    sides.collect::<Row>().into()
}

pub(super) fn concluded(
    canary: &Row,
    state: CanaryState,
    reason: Option<String>,
    figures: Option<Value>,
) -> Row {
    let mut canary = canary.clone();
    // Stored, because the figures in memory are lost with the process.
    if let Some(figures) = figures.filter(|_| !state.is_live()) {
        canary.insert("figures".into(), figures);
    }
    canary.insert("state".into(), state.name().into());
    canary.insert("reason".into(), reason.into());
    if !state.is_live() {
        canary.insert("ended_at".into(), clock::unix_seconds().into());
    }
    canary
}

/// A balancer's canary with its figures: those of this gateway while it is live, the stored ones
/// afterwards.
pub(super) fn shown(admin: &Admin, balancer: &Row) -> Option<Value> {
    let mut row = canary_in(balancer)?.clone();
    if live_in(balancer).is_none() {
        return Some(row.into());
    }
    let running = admin.published.canary_of(id_of(balancer));
    match running.filter(|canary| canary.settings.id == id_of(&row)) {
        Some(canary) => {
            // The outcome may not be stored yet.
            if let Verdict::Returned(reason) = &*canary.verdict().borrow() {
                row = concluded(&row, CanaryState::Returned, Some(reason.clone()), None);
            }
            row.insert("figures".into(), figures_of(&canary));
        }
        // It has ended since the balancer's row was read: its outcome is stored.
        None => {
            let stored = admin.store.get(Kind::Balancer, id_of(balancer));
            if let Some(stored) = stored.ok().flatten()
                && let Some(ended) = canary_in(&stored.row)
                && id_of(ended) == id_of(&row)
            {
                row = ended.clone();
            }
        }
    }
    Some(row.into())
}
