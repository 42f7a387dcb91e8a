//! The table of the balancer: which addresses may be chosen, and with which weights.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::report::{panics, passes, weights};
use super::{Inner, Member, Members, NoPeer};
use crate::endpoint::Endpoint;

/// Weights are multiplied by up to this while one of them ramps up, so that a part of 1 is
/// possible.
const RAMP: u32 = 100;

/// The largest weight that balancers know.
const MAX_WEIGHT: u32 = 65_535;

impl Members {
    /// Makes the table anew, and hands it to the balancer if it is another one.
    pub(super) fn choose(&self, inner: &mut Inner) {
        if inner.is_retired {
            return;
        }
        let now = Instant::now();
        let policy = self.policy();
        let name = Arc::clone(&inner.name);
        for member in &mut inner.members {
            let available = member.is_available();
            if available && !member.was_available {
                member.since = now;
            }
            if available != member.was_available {
                member.live.changed.notify_waiters();
            }
            member.was_available = available;
            let healthy = member.live.health.is_available();
            if healthy {
                member.live.stay();
            } else {
                member
                    .live
                    .leave(policy.drain_timeout().map(|timeout| now + timeout));
            }
            if healthy != member.was_healthy {
                self.remember(&name, member.id, &member.live);
            }
            member.was_healthy = healthy;
        }
        let sums = weights(&inner.members);
        let panic = panics(sums, policy.extension.panic_threshold);
        let usable = |member: &&Member| member.weight > 0 && (panic || member.is_available());
        let chosen: Vec<&Member> = if panic || passes(sums, policy.threshold) {
            let usable: Vec<&Member> = inner.members.iter().filter(usable).collect();
            // Failover targets are used only if there is no other one.
            let first = usable.iter().filter(|m| !m.failover).copied().collect();
            let first: Vec<&Member> = first;
            if first.is_empty() { usable } else { first }
        } else {
            Vec::new()
        };
        let window = policy.slow_start();
        let least = policy.extension.slow_start.min_weight_percent / 100.0;
        let part = |member: &Member| match now - member.since {
            age if age < window => (age.as_secs_f64() / window.as_secs_f64()).max(least),
            _ => 1.0,
        };
        let ramping = chosen.iter().any(|member| part(member) < 1.0);
        let largest = chosen.iter().map(|member| member.weight).max();
        let ramp = (MAX_WEIGHT / largest.unwrap_or(1).max(1)).clamp(1, RAMP);
        let endpoints: Arc<[Arc<Endpoint>]> = chosen
            .iter()
            .map(|member| {
                let weight = if ramping {
                    let weight = f64::from(member.weight * ramp) * part(member);
                    (weight as u32).max(1)
                } else {
                    member.weight
                };
                member.endpoint(weight)
            })
            .collect();
        let reason = if inner.targets.iter().all(|target| target.weight == 0) {
            NoPeer::NoTargets
        } else if sums.total == 0 {
            NoPeer::NoAddress
        } else if sums.available == 0 {
            NoPeer::NoneAvailable
        } else {
            NoPeer::BelowThreshold
        };
        self.reason.store(reason as u8, Ordering::Relaxed);
        let all = || inner.members.iter();
        let flags = [
            // Below the threshold nothing is used. Source: Kong.
            (
                &self.keeps_sessions,
                (sums.total == 0 || !endpoints.is_empty()) && all().any(Member::rests),
            ),
            (
                &self.has_failover,
                all().any(|member| member.failover) && !endpoints.is_empty(),
            ),
            (
                &self.is_limited,
                all().any(|member| member.limits.limits_requests()),
            ),
        ];
        for (flag, is) in flags {
            flag.store(is, Ordering::Relaxed);
        }
        let table: Vec<(u64, u32)> = endpoints.iter().map(|e| (e.id, e.weight)).collect();
        if inner.table != table {
            inner.table = table;
            self.balancer.set_endpoints(endpoints);
            self.places.look();
        }
    }
}
