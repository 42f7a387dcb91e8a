//! The figures of a rollout: what has happened at the gateways of each channel since it began.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::balancer::Side;
use crate::entity::rollout::CANARY;
use crate::store::{Node, NodeFigures};
use crate::traffic::{Times, Totals};

/// The channel of a side, as figures name it.
pub(super) fn channel_of(side: Side) -> &'static str {
    match side {
        Side::Stable => "main",
        Side::Canary => CANARY,
    }
}

/// The side that a gateway is on.
pub(super) fn side_of(node: &Node) -> Side {
    match node.channel.as_deref() {
        Some(CANARY) => Side::Canary,
        _ => Side::Stable,
    }
}

/// What a gateway tells of a rollout; none if it has not told anything of this one yet.
pub(super) fn told(node: &Node, rollout: Uuid) -> Option<&NodeFigures> {
    let figures = node.figures.as_deref();
    figures.filter(|figures| figures.rollout == rollout)
}

pub(super) fn totals_of(figures: &NodeFigures) -> Totals {
    Totals {
        requests: figures.requests,
        errors: figures.errors,
        times: Times::of_sparse(&figures.times),
    }
}

/// The figures of both channels.
pub(super) fn shown<'f>(all: impl Iterator<Item = (Side, &'f NodeFigures)> + Clone) -> Value {
    let of = |side: Side| {
        let own = all.clone().filter(|(other, _)| *other == side);
        let (mut counts, mut totals) = (0, Totals::default());
        for (_, figures) in own {
            counts += 1;
            totals.merge(&totals_of(figures));
        }
        json!({
            "gateways": counts,
            "requests": totals.requests,
            "errors": totals.errors,
            "error_percent": totals.errors as f64 * 100.0 / totals.requests.max(1) as f64,
            "p99_ms": Times::p99_ms([&totals.times, &Times::default()]),
        })
    };
    let [main, canary] = Side::ALL.map(|side| (channel_of(side), of(side)));
    json!({ main.0: main.1, canary.0: canary.1 })
}

/// The figures of both channels, of the gateways that are alive.
pub(super) fn of_nodes(nodes: &[Node], rollout: Uuid) -> Value {
    let all = nodes
        .iter()
        .filter_map(|node| Some((side_of(node), told(node, rollout)?)));
    shown(all)
}
