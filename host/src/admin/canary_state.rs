//! What a balancer's row says of its canary, and what that has come to.

use serde_json::{Value, json};

use super::Admin;
use super::rows::id_of;
use super::version_rows::{seconds, text};
use crate::balancer::{Canary, Side, Verdict};
use crate::entity::Row;
use crate::entity::balancer::CanaryState;

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

/// Takes what is said of a canary out of a balancer's row, if it was of this version.
pub(super) fn forget(balancer: &mut Row, digest: &str) {
    if canary_in(balancer).is_some_and(|canary| text(canary, "version") == digest) {
        balancer.shift_remove("canary");
    }
}

/// What is to be said of a balancer's canary once the version of this digest is active; none if there is
/// none, or it is over already. `figures` are what it has come to.
pub(super) fn ended_by(balancer: &Row, digest: &str, figures: Option<Value>) -> Option<Row> {
    let canary = live_in(balancer)?;
    Some(if text(canary, "version") == digest {
        concluded(canary, CanaryState::Promoted, None, figures)
    } else {
        let reason = "another version was made active".to_owned();
        concluded(canary, CanaryState::Ended, Some(reason), figures)
    })
}

/// What has become of a canary, in words.
pub(super) fn outcome(canary: &Row) -> String {
    match canary.get("reason").and_then(Value::as_str) {
        Some(reason) => reason.to_owned(),
        None => text(canary, "state").to_owned(),
    }
}

/// What a balancer's canary has come to here; none if none is going on.
pub(super) fn figures(admin: &Admin, balancer: &Row) -> Option<Value> {
    let row = live_in(balancer)?;
    let running = admin.published.canary_of(id_of(balancer))?;
    (running.settings.id == id_of(row)).then(|| figures_of(&running))
}

pub(super) fn figures_of(canary: &Canary) -> Value {
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
    // They would be lost with the process.
    if let Some(figures) = figures.filter(|_| !state.is_live()) {
        canary.insert("figures".into(), figures);
    }
    canary.insert("state".into(), state.name().into());
    canary.insert("reason".into(), reason.into());
    if !state.is_live() {
        canary.insert("ended_at".into(), seconds().into());
    }
    canary
}

/// A balancer's canary with what it has come to: here while it is going on, at its end afterwards.
pub(super) fn shown(admin: &Admin, balancer: &Row) -> Option<Value> {
    let mut row = canary_in(balancer)?.clone();
    let running = admin.published.canary_of(id_of(balancer));
    let own = running.filter(|canary| canary.settings.id == id_of(&row));
    if let Some(canary) = own.filter(|_| live_in(balancer).is_some()) {
        // It may not be written down yet.
        if let Verdict::Returned(reason) = &*canary.verdict().borrow() {
            row = concluded(&row, CanaryState::Returned, Some(reason.clone()), None);
        }
        row.insert("figures".into(), figures_of(&canary));
    }
    Some(row.into())
}
