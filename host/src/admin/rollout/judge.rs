//! Judges a rollout: whether the gateways of the channel break a bound that the others keep.
//!
//! While a rollout is judged, each gateway counts its requests, and tells the totals with its own
//! key. One gateway at a time has the task to judge them. If it dies, another one has the task once
//! its lease has ended. A verdict is a write of the rollout's row, which is made only if the row is
//! as it was. So even two gateways that both believe that they have the task give one verdict.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use uuid::Uuid;

use super::figures::{channel_of, shown, side_of, told, totals_of};
use super::{Ending, live, put_outcome, try_promote};
use crate::admin::Admin;
use crate::balancer::{Evidence, Side, WINDOW, is_enough};
use crate::entity::rollout::{RolloutComparison, RolloutState};
use crate::node;
use crate::store::{Node, NodeFigures, Nodes};
use crate::traffic::{TRAFFIC, Totals};

/// The task of judging.
const TASK: &str = "judge";

/// Shortest pause between two reports of a gateway, and between two judgements.
const PERIOD: Duration = Duration::from_secs(1);

/// The pause for each gateway, so that all of them report fifty times a second at the most.
const FOR_EACH: Duration = Duration::from_millis(20);

/// Reports after which the gateways are counted again.
const COUNTED_EVERY: u32 = 30;

/// Longest time in which the store has to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reports, and judges if it is its turn, for as long as the future is polled.
pub(in crate::admin) async fn judge(admin: &Admin, nodes: &dyn Nodes, own: &watch::Sender<Node>) {
    let mut applied = admin.published.applied_revisions();
    loop {
        applied.borrow_and_update();
        match judged(admin) {
            Some(trial) => follow(admin, nodes, own, &trial).await,
            // The sender is never dropped, because `admin` has it.
            None => drop(applied.changed().await),
        }
    }
}

/// The trial of the rollout that goes on, if the gateways judge it.
fn judged(admin: &Admin) -> Option<RolloutComparison> {
    let rollout = live(&*admin.store).ok()??;
    RolloutComparison::of(&rollout.row).filter(RolloutComparison::is_judged)
}

/// Reports and judges until the rollout has ended.
async fn follow(
    admin: &Admin,
    nodes: &dyn Nodes,
    own: &watch::Sender<Node>,
    trial: &RolloutComparison,
) {
    let mut applied = admin.published.applied_revisions();
    let counting = TRAFFIC.count();
    let (count, since) = (Uuid::new_v4(), Instant::now());
    let mut judge: Option<Judge> = None;
    let mut pause = PERIOD;
    for round in 0_u32.. {
        if round.is_multiple_of(COUNTED_EVERY)
            && let Ok(Ok(ids)) = timeout(STORE_TIMEOUT, nodes.ids()).await
        {
            let gateways = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            pause = PERIOD.max(FOR_EACH.saturating_mul(gateways));
        }
        // Not at the same moment as the others.
        let next = Instant::now() + pause.mul_f64(0.9 + 0.2 * fastrand::f64());
        while tokio::select! {
            () = sleep_until(next.into()) => false,
            changed = applied.changed() => changed.is_ok(),
        } {
            if judged(admin).is_none_or(|present| present.id != trial.id) {
                own.send_modify(|node| node.figures = None);
                return;
            }
        }
        let seconds = since.elapsed().as_secs();
        report(own, trial, count, seconds, counting.totals());
        match timeout(STORE_TIMEOUT, nodes.claim(TASK, node::id())).await {
            Ok(Ok(true)) => {
                let judge = judge.get_or_insert_with(Judge::new);
                if let Ok(Ok(listed)) = timeout(STORE_TIMEOUT, nodes.list()).await {
                    judge.look(&listed, trial);
                    judge.decide(admin, trial, seconds).await;
                }
            }
            Ok(Ok(false)) => judge = None,
            // The store is away. What is known of gateways that have died is kept.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Tells the others what has happened here, if anything has.
fn report(
    own: &watch::Sender<Node>,
    trial: &RolloutComparison,
    count: Uuid,
    seconds: u64,
    totals: Totals,
) {
    own.send_if_modified(|node| {
        let known = node.figures.as_ref().filter(|known| known.count == count);
        if known.is_some_and(|known| known.requests == totals.requests) {
            return false;
        }
        node.figures = Some(Box::new(NodeFigures {
            rollout: trial.id,
            count,
            seconds,
            requests: totals.requests,
            errors: totals.errors,
            times: totals.times.sparse(),
        }));
        true
    });
}

/// What is known of all gateways.
struct Judge {
    evidence: Evidence,
    /// What each gateway has told last, also those that are gone since, by the id of the count.
    known: HashMap<Uuid, (Side, NodeFigures)>,
    /// The longest time for which a gateway has counted, in seconds.
    longest: u64,
    /// Whether a gateway of the channel was alive at the last look, and has told of the rollout.
    is_tried: bool,
}

impl Judge {
    fn new() -> Self {
        Self {
            evidence: Evidence::new(Instant::now()),
            known: HashMap::new(),
            longest: 0,
            is_tried: false,
        }
    }

    /// Takes in what the gateways tell.
    fn look(&mut self, nodes: &[Node], trial: &RolloutComparison) {
        let now = Instant::now();
        self.is_tried = false;
        for node in nodes {
            let Some(figures) = told(node, trial.id) else {
                continue;
            };
            self.longest = self.longest.max(figures.seconds);
            let (side, totals) = (side_of(node), totals_of(figures));
            self.is_tried |= side == Side::Canary;
            let before = self.known.get(&figures.count);
            let before = before.map(|(_, before)| totals_of(before));
            // For a gateway that takes over the task, what was long ago is not recent.
            let is_old = before.is_none() && figures.seconds > 2 * WINDOW.as_secs();
            if is_old {
                (self.evidence).count(side, totals.requests, totals.errors);
            } else {
                let fresh = totals.since(&before.unwrap_or_default());
                (self.evidence).observe_all(now, &trial.bounds, side, &fresh);
            }
            let known = (side, figures.clone());
            self.known.insert(figures.count, known);
        }
    }

    /// Gives a verdict, if there is one. `seconds` is for how long this gateway has known the
    /// rollout. The clocks of machines may differ, so no time of day is compared.
    async fn decide(&self, admin: &Admin, trial: &RolloutComparison, seconds: u64) {
        let others = "the other gateways'";
        if let Some(reason) = self.evidence.broken(&trial.bounds, others) {
            let ending = Ending {
                state: RolloutState::Returned,
                reason: Some(reason),
                figures: Some(self.figures()),
            };
            self.conclude(admin, trial, ending).await;
            return;
        }
        let Some(duration) = trial.duration else {
            return;
        };
        let is_over = seconds.max(self.longest) as f64 >= duration;
        // A rollout of which all gateways have died has not passed, whatever they told before.
        let is_judged = self.is_tried && self.has_enough(trial);
        let rollout = live(&*admin.store).ok().flatten();
        let state = rollout.and_then(|rollout| RolloutState::of(&rollout.row));
        if !is_over || !is_judged || state != Some(RolloutState::Running) {
            return;
        }
        let mut ending = Ending {
            state: RolloutState::Passed,
            reason: None,
            figures: Some(self.figures()),
        };
        if trial.promote {
            let promoted = Ending {
                state: RolloutState::Promoted,
                reason: Some(format!("it was within its bounds for {duration} s")),
                figures: ending.figures.clone(),
            };
            match try_promote(admin, Some(trial.id), promoted).await {
                Ok(_) => return,
                // The store is away, or a write was faster: it is tried again.
                Err(error) if error.is_unavailable() => return,
                Err(error) => {
                    let reason = format!("it could not be promoted: {}", error.message());
                    tracing::warn!("rollout passed, but not promoted: {reason}");
                    ending.reason = Some(reason);
                }
            }
        }
        self.conclude(admin, trial, ending).await;
    }

    /// Whether there were enough requests for a judgement.
    fn has_enough(&self, trial: &RolloutComparison) -> bool {
        is_enough(&trial.bounds, |side| self.evidence.total(side).0)
    }

    async fn conclude(&self, admin: &Admin, trial: &RolloutComparison, ending: Ending) {
        let said = match &ending.reason {
            Some(reason) => format!("rollout {}: {reason}", ending.state.name()),
            None => format!("rollout {}", ending.state.name()),
        };
        match put_outcome(admin, Some(trial.id), ending).await {
            Ok(true) => tracing::warn!("{said}"),
            Ok(false) => {}
            Err(error) => {
                // It is tried again with the next judgement.
                tracing::error!("cannot store the outcome of a rollout: {}", error.message());
            }
        }
    }

    /// The figures of both channels, with what the bounds were checked against.
    fn figures(&self) -> serde_json::Value {
        let known = self.known.values();
        let mut figures = shown(known.map(|(side, figures)| (*side, figures)));
        for side in Side::ALL {
            let recent = self.evidence.recent(side);
            figures[channel_of(side)]["recent"] = json!(recent);
        }
        figures
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;
    use crate::entity::rollout::CANARY;
    use crate::traffic::Times;

    fn trial(bounds: serde_json::Value) -> RolloutComparison {
        let mut trial = json!({
            "id": Uuid::from_u128(7), "min_requests": 10, "duration": null, "promote": false,
        });
        for (name, value) in bounds.as_object().unwrap() {
            trial[name] = value.clone();
        }
        serde_json::from_value(trial).unwrap()
    }

    /// A gateway that has told this.
    fn node(id: u128, channel: &str, [seconds, requests, errors]: [u64; 3]) -> Node {
        let mut times = Times::default();
        (0..requests).for_each(|_| times.add(Duration::from_millis(10)));
        Node {
            id: Uuid::from_u128(id),
            version: String::new(),
            hostname: String::new(),
            ip: None,
            revision: 1,
            config_hash: String::new(),
            channel: Some(channel.to_owned()),
            updated_at: 0,
            figures: Some(Box::new(NodeFigures {
                rollout: Uuid::from_u128(7),
                count: Uuid::from_u128(id),
                seconds,
                requests,
                errors,
                times: times.sparse(),
            })),
        }
    }

    #[test]
    fn channels_are_compared_over_all_gateways_and_what_a_dead_one_has_told_counts() {
        let trial = trial(json!({ "max_error_ratio": 2 }));
        let mut judge = Judge::new();
        let others = "the other gateways'";
        judge.look(
            &[node(1, "main", [1, 100, 10]), node(2, CANARY, [1, 5, 5])],
            &trial,
        );
        assert_eq!(judge.evidence.broken(&trial.bounds, others), None);
        // One of the channel has died, and another one goes on.
        judge.look(
            &[node(1, "main", [2, 100, 10]), node(3, CANARY, [2, 5, 0])],
            &trial,
        );
        let reason = judge.evidence.broken(&trial.bounds, others).unwrap();
        assert_eq!(
            reason,
            "50.00 % of its last 10 requests failed, more than 2 times the 10.00 % of the other \
             gateways'"
        );
        let figures = judge.figures();
        assert_eq!(figures["canary"]["gateways"], 2);
        assert_eq!(figures["canary"]["requests"], 10);
        assert_eq!(figures["main"]["errors"], 10);
        assert_eq!(figures["main"]["recent"]["requests"], 100);
    }

    #[test]
    fn a_channel_without_gateways_does_not_try_a_rollout() {
        let trial = trial(json!({ "max_error_percent": 50 }));
        let mut judge = Judge::new();
        judge.look(
            &[node(1, "main", [9, 20, 0]), node(2, CANARY, [9, 20, 0])],
            &trial,
        );
        assert!(judge.is_tried && judge.has_enough(&trial));
        // The only one of the channel dies.
        judge.look(&[node(1, "main", [10, 30, 0])], &trial);
        assert!(!judge.is_tried && judge.has_enough(&trial));
    }

    #[test]
    fn totals_that_are_reported_again_count_once() {
        let trial = trial(json!({ "max_error_percent": 50 }));
        let mut judge = Judge::new();
        for requests in [4, 4, 6] {
            judge.look(&[node(1, CANARY, [1, requests, requests])], &trial);
        }
        assert_eq!(judge.evidence.total(Side::Canary), (6, 6));
        assert_eq!(judge.evidence.broken(&trial.bounds, "others"), None);
    }

    #[test]
    fn what_was_before_a_gateway_took_over_is_counted_and_not_judged() {
        let trial = trial(json!({ "max_error_percent": 50 }));
        let mut judge = Judge::new();
        judge.look(&[node(1, CANARY, [1000, 500, 500])], &trial);
        assert_eq!(judge.evidence.total(Side::Canary), (500, 500));
        assert_eq!(judge.evidence.broken(&trial.bounds, "others"), None);
        judge.look(&[node(1, CANARY, [1001, 520, 520])], &trial);
        assert!(judge.evidence.broken(&trial.bounds, "others").is_some());
        assert_eq!(judge.longest, 1001);
    }

    #[test]
    fn what_is_reported_of_another_rollout_does_not_count() {
        let mut other = trial(json!({}));
        other.id = Uuid::from_u128(8);
        let mut judge = Judge::new();
        judge.look(&[node(1, CANARY, [1, 20, 20])], &other);
        assert_eq!(judge.evidence.total(Side::Canary), (0, 0));
    }
}
