//! Counts of requests in a Redis server, which several gateways share.
//!
//! The windows are those of the gateway's clock. A script runs alone at the server, so no other
//! request, of any gateway, comes between what it reads and what it writes.

use std::sync::LazyLock;

use redis::Script;

use super::{Error, Server};
use crate::policy::counters::Usage;
use crate::policy::period::{Limit, PERIODS, Period, Window};

/// How long a counter is kept after its window, in seconds, because the clocks of gateways differ.
const EXPIRY_SLACK: u64 = 10;

/// Counts a request unless a limit is reached. Arguments: the limits, then the seconds until each
/// counter expires. Returns what was counted before.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local counts = {}
local allowed = true
for i, key in ipairs(KEYS) do
    counts[i] = tonumber(redis.call('GET', key) or 0)
    allowed = allowed and counts[i] < tonumber(ARGV[i])
end
if allowed then
    for i, key in ipairs(KEYS) do
        if redis.call('INCR', key) == 1 then
            redis.call('EXPIRE', key, ARGV[#KEYS + i])
        end
    end
end
return counts
",
    )
});

/// Adds to counters. Arguments: the amounts, then the seconds until each counter expires. Returns
/// the sums.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local counts = {}
for i, key in ipairs(KEYS) do
    counts[i] = redis.call('INCRBY', key, ARGV[i])
    if counts[i] == tonumber(ARGV[i]) then
        redis.call('EXPIRE', key, ARGV[#KEYS + i])
    end
end
return counts
",
    )
});

/// Reads counters.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local counts = {}
for i, key in ipairs(KEYS) do
    counts[i] = tonumber(redis.call('GET', key) or 0)
end
return counts
",
    )
});

/// What is added to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Addition {
    /// The key of the counter, from [`key_of`].
    pub(in crate::policy) key: String,
    pub(in crate::policy) window: Window,
    pub(in crate::policy) amount: u64,
}

/// The key of a counter. `name` says what is counted, and by what. Source: Kong.
pub(in crate::policy) fn key_of(name: &str, period: Period, window: Window) -> String {
    format!("{name}:{}000:{}", window.start, period.name())
}

fn expires_in(window: Window, now: u64) -> u64 {
    window.end.saturating_sub(now) + EXPIRY_SLACK
}

/// Counts a request unless a limit is reached. `now` is in seconds since 1970.
pub(in crate::policy) async fn take(
    server: &Server,
    name: &str,
    limits: &[Limit],
    now: u64,
) -> Result<Usage, Error> {
    let mut script = TAKE.prepare_invoke();
    for limit in limits {
        script.key(key_of(name, limit.period, limit.period.window(now)));
        script.arg(limit.most);
    }
    for limit in limits {
        script.arg(expires_in(limit.period.window(now), now));
    }
    let counts = server.run(&script).await?;
    Ok(usage(limits, counts))
}

/// What was counted so far.
pub(in crate::policy) async fn read(
    server: &Server,
    name: &str,
    limits: &[Limit],
    now: u64,
) -> Result<Usage, Error> {
    let mut script = READ.prepare_invoke();
    for limit in limits {
        script.key(key_of(name, limit.period, limit.period.window(now)));
    }
    let counts = server.run(&script).await?;
    Ok(usage(limits, counts))
}

/// Adds to counters. Returns the sums, in the same order.
pub(in crate::policy) async fn add(
    server: &Server,
    additions: &[Addition],
    now: u64,
) -> Result<Vec<u64>, Error> {
    let mut script = ADD.prepare_invoke();
    for addition in additions {
        script.key(&addition.key).arg(addition.amount);
    }
    for addition in additions {
        script.arg(expires_in(addition.window, now));
    }
    server.run(&script).await
}

fn usage(limits: &[Limit], counted: Vec<u64>) -> Usage {
    let mut counts = [0; PERIODS];
    for (to, from) in counts.iter_mut().zip(counted) {
        *to = from;
    }
    Usage::of(limits, counts)
}
