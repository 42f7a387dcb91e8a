//! `rate-limiting`: how many requests a client may send in each period of the calendar. Source:
//! Kong 3.9, `rate-limiting`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::answer::Answer;
use super::counters::Usage;
use super::period::{self, Limit, PERIODS, Period};
use super::rate_key::{RateIdentity, RateKey, RateScope, uncounted};
use super::rate_sync::SyncedCounts;
use super::redis::{Server, counts};
use super::request::Request;
use super::response::Response;
use super::{Access, DryRun, Policy, Resources, Verdict};
use crate::clock;
use crate::entity::plugin::periods::Share;
use crate::entity::plugin::rate_limiting::{Config, LimitBy};
use crate::entity::plugin::{Plugin, periods};
use crate::node::{NodeShare, PEERS, PeerSubscription};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Refuses requests beyond the limits.
#[derive(Debug)]
pub(super) struct RateLimiting {
    config: Config,
    limits: Vec<Limit>,
    scope: RateScope,
    /// The header that identifies a client.
    header: Option<HeaderName>,
    counts: Counts,
}

/// Where requests are counted.
#[derive(Debug)]
enum Counts {
    /// In the memory of this gateway.
    Local(Arc<Resources>),
    /// In memory too, against this gateway's share of each limit.
    Share {
        resources: Arc<Resources>,
        _subscription: PeerSubscription<'static>,
    },
    /// In a Redis server, with each request.
    Redis(Arc<Server>),
    /// In memory, reconciled with a Redis server at intervals.
    Synced(SyncedCounts),
}

impl RateLimiting {
    /// # Errors
    /// The system cannot start a thread for the Redis server.
    pub(super) fn new(
        plugin: &Plugin,
        config: Config,
        resources: &Arc<Resources>,
    ) -> Result<Self, String> {
        let counts = match config.policy {
            periods::Policy::Local => match config.extension.share {
                None => Counts::Local(Arc::clone(resources)),
                Some(Share::Nodes) => Counts::Share {
                    resources: Arc::clone(resources),
                    _subscription: PEERS.subscribe(),
                },
            },
            periods::Policy::Redis => {
                let server = resources.redis.get(&config.redis)?;
                match Duration::try_from_secs_f64(config.sync_rate) {
                    Ok(interval) if !interval.is_zero() => {
                        Counts::Synced(SyncedCounts::new(resources, server, interval))
                    }
                    // It is negative.
                    _ => Counts::Redis(server),
                }
            }
        };
        let header = config.header_name.as_ref();
        Ok(Self {
            limits: period::limits(&config.limits),
            scope: RateScope::of(plugin),
            header: header.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()),
            counts,
            config,
        })
    }

    fn key(&self, request: &Request<'_>) -> RateKey {
        let identity = match self.config.limit_by {
            LimitBy::Consumer => Some(RateIdentity::consumer(request)),
            LimitBy::Credential => Some(RateIdentity::credential(request)),
            LimitBy::Ip => None,
            LimitBy::Service => request.matched.service.map(RateIdentity::Id),
            LimitBy::Header => {
                let name = self.header.as_ref();
                let value = name.and_then(|name| request.head.headers.get(name));
                value.map(|value| RateIdentity::text(value.as_bytes()))
            }
            LimitBy::Path => {
                let path = self.config.path.as_ref().map(String::as_bytes);
                let path = path.filter(|path| *path == request.path);
                path.map(RateIdentity::text)
            }
        };
        RateKey {
            scope: self.scope,
            identity: identity.unwrap_or_else(|| RateIdentity::address(request)),
        }
    }

    /// What happens to a request after it was counted, or was not because of a limit.
    fn decide(&self, request: &mut Request<'_>, usage: Usage, now: u64) -> Verdict {
        self.decide_at(request, usage, now, NodeShare::ONLY)
    }

    /// What happens to a request, where the limits are a share of the configured ones.
    fn decide_at(
        &self,
        request: &mut Request<'_>,
        usage: Usage,
        now: u64,
        share: NodeShare,
    ) -> Verdict {
        let limit_status = LimitStatus::new(&self.limits, usage, now, share);
        let shown = !self.config.hide_client_headers;
        if usage.allowed {
            if shown {
                request.keep(limit_status);
            }
            return Verdict::Continue;
        }
        let code = self.config.error_code as u16;
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        let mut answer = Answer::error(status, &*self.config.error_message);
        if shown {
            limit_status.write(&self.limits, &mut answer.headers);
            answer
                .headers
                .insert(RETRY_AFTER, limit_status.reset.into());
        }
        answer.into()
    }
}

impl Policy for RateLimiting {
    fn dry_run(&self) -> DryRun {
        DryRun::Effects("it counts requests")
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let key = self.key(request);
        let now = clock::unix_seconds();
        let usage = match &self.counts {
            Counts::Local(resources) => resources.rate_limits.take(&key, &self.limits, now),
            Counts::Share { resources, .. } => {
                let share = PEERS.share();
                let limits = period::parts(&self.limits, share, now);
                let limits = &limits[..self.limits.len()];
                let usage = resources.rate_limits.take(&key, limits, now);
                return Access::Done(self.decide_at(request, usage, now, share));
            }
            Counts::Synced(counts) => {
                if counts.has_failed() && !self.config.fault_tolerant {
                    return Access::Done(uncounted(false));
                }
                counts.take(&key, &self.limits, now)
            }
            Counts::Redis(server) => {
                let deciding = async move {
                    let name = key.name();
                    match counts::take(server, &name, &self.limits, now).await {
                        Ok(usage) => self.decide(request, usage, now),
                        Err(error) => {
                            tracing::debug!("a request could not be counted: {error}");
                            uncounted(self.config.fault_tolerant)
                        }
                    }
                };
                return Access::Pending(deciding.boxed_local());
            }
        };
        Access::Done(self.decide(request, usage, now))
    }

    fn response(&self, response: &mut Response<'_>) {
        // A refused request has its headers already.
        if let Some(status) = response.kept::<LimitStatus>().copied() {
            status.write(&self.limits, &mut response.head.headers);
        }
    }
}

/// What a client is told of its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LimitStatus {
    /// What is left after this request, in the order of the limits.
    remaining: [f64; PERIODS],
    /// Index of the limit with the least remaining; of several, the one with the longest
    /// window.
    tightest: usize,
    /// The seconds until the window of that limit ends.
    reset: u64,
    /// Which share of the limits holds.
    share: NodeShare,
    /// When this was, in seconds since 1970.
    now: u64,
}

impl LimitStatus {
    fn new(limits: &[Limit], usage: Usage, now: u64, share: NodeShare) -> Self {
        let own = if usage.allowed { 1.0 } else { 0.0 };
        let mut remaining = [0.0; PERIODS];
        let mut tightest = 0;
        for (at, (limit, count)) in limits.iter().zip(usage.counts).enumerate() {
            remaining[at] = (limit.part(share, now) - count as f64 - own).max(0.0);
            // The limits are in the order of their windows.
            if remaining[at] <= remaining[tightest] {
                tightest = at;
            }
        }
        let reset = limits.get(tightest).map_or(1, |limit| {
            let end = limit.period.window(now).end;
            end.saturating_sub(now).max(1)
        });
        Self {
            remaining,
            tightest,
            reset,
            share,
            now,
        }
    }

    fn write(&self, limits: &[Limit], headers: &mut HeaderMap) {
        for (at, (limit, remaining)) in limits.iter().zip(self.remaining).enumerate() {
            let (of_limit, of_remaining) = names(limit.period);
            let most = number(limit.part(self.share, self.now));
            let remaining = number(remaining);
            if at == self.tightest {
                headers.insert(LIMIT, most.clone());
                headers.insert(REMAINING, remaining.clone());
                headers.insert(RESET, self.reset.into());
            }
            headers.insert(of_limit, most);
            headers.insert(of_remaining, remaining);
        }
    }
}

/// The headers with the limit for a period, and with what is left of it.
fn names(period: Period) -> (HeaderName, HeaderName) {
    let (limit, remaining) = match period {
        Period::Second => ("x-ratelimit-limit-second", "x-ratelimit-remaining-second"),
        Period::Minute => ("x-ratelimit-limit-minute", "x-ratelimit-remaining-minute"),
        Period::Hour => ("x-ratelimit-limit-hour", "x-ratelimit-remaining-hour"),
        Period::Day => ("x-ratelimit-limit-day", "x-ratelimit-remaining-day"),
        Period::Month => ("x-ratelimit-limit-month", "x-ratelimit-remaining-month"),
        Period::Year => ("x-ratelimit-limit-year", "x-ratelimit-remaining-year"),
    };
    (
        HeaderName::from_static(limit),
        HeaderName::from_static(remaining),
    )
}

/// A number that is not negative. A limit may have a fraction.
pub(super) fn number(number: f64) -> HeaderValue {
    /// Up to here, all whole numbers are exact.
    const WHOLE: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    if number.fract() == 0.0 && number < WHOLE {
        return (number as u64).into();
    }
    // The text has digits and a point.
    HeaderValue::from_str(&number.to_string()).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::period::ALL;
    use super::*;

    fn status(limits: &[(Period, f64, u64)], now: u64) -> (bool, LimitStatus, HeaderMap) {
        let mut counts = [0; PERIODS];
        for (to, (.., count)) in counts.iter_mut().zip(limits) {
            *to = *count;
        }
        let limits: Vec<Limit> = limits
            .iter()
            .map(|(period, most, _)| Limit {
                period: *period,
                most: *most,
            })
            .collect();
        let usage = Usage::of(&limits, counts);
        let status = LimitStatus::new(&limits, usage, now, NodeShare::ONLY);
        let mut headers = HeaderMap::new();
        status.write(&limits, &mut headers);
        (usage.allowed, status, headers)
    }

    #[track_caller]
    fn assert_shown(headers: &HeaderMap, expected: &[(&str, &str)]) {
        let shown = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str()));
        let shown: Result<Vec<_>, _> = shown.map(|(name, value)| Ok((name, value?))).collect();
        let mut shown = shown.unwrap_or_else(|error: http::header::ToStrError| panic!("{error}"));
        shown.sort_unstable();
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_client_is_sent_each_limit_and_the_tightest_one() {
        // 10 seconds into a minute, 10 minutes and 10 seconds into an hour.
        let now = 1_700_000_000 / 3600 * 3600 + 610;
        let (allowed, _, headers) =
            status(&[(Period::Minute, 5.0, 2), (Period::Hour, 100.0, 40)], now);
        assert!(allowed);
        assert_shown(
            &headers,
            &[
                ("ratelimit-limit", "5"),
                ("ratelimit-remaining", "2"),
                ("ratelimit-reset", "50"),
                ("x-ratelimit-limit-hour", "100"),
                ("x-ratelimit-limit-minute", "5"),
                ("x-ratelimit-remaining-hour", "59"),
                ("x-ratelimit-remaining-minute", "2"),
            ],
        );
        // The least is left of the hour, which has the smaller limit by now.
        let (allowed, _, headers) =
            status(&[(Period::Minute, 5.0, 0), (Period::Hour, 100.5, 100)], now);
        assert!(allowed);
        assert_shown(
            &headers,
            &[
                ("ratelimit-limit", "100.5"),
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "2990"),
                ("x-ratelimit-limit-hour", "100.5"),
                ("x-ratelimit-limit-minute", "5"),
                ("x-ratelimit-remaining-hour", "0"),
                ("x-ratelimit-remaining-minute", "4"),
            ],
        );
    }

    #[test]
    fn a_refused_request_takes_nothing_from_the_other_limits() {
        let (allowed, status, _) = status(
            &[(Period::Second, 1.0, 1), (Period::Minute, 5.0, 2)],
            1_700_000_000,
        );
        assert!(!allowed);
        assert_eq!(status.remaining[..2], [0.0, 3.0]);
        assert_eq!((status.tightest, status.reset), (0, 1));
    }

    #[test]
    fn the_reset_of_a_month_is_the_end_of_the_month() {
        // Wed, 31 Jan 2024 23:00:00
        let (_, status, _) = status(&[(Period::Month, 5.0, 2)], 1_706_742_000);
        assert_eq!(status.reset, 3600);
    }

    proptest! {
        #[test]
        fn the_tightest_limit_has_least_left_and_of_equal_ones_the_longest_window(
            each in proptest::collection::vec((1.0..5.0_f64, 0..6_u64), 1..=PERIODS),
            now in 1_700_000_000..1_800_000_000_u64,
        ) {
            let limits: Vec<(Period, f64, u64)> = each
                .iter()
                .zip(ALL)
                .map(|((most, count), period)| (period, most.floor(), *count))
                .collect();
            let (allowed, status, _) = status(&limits, now);
            let left = &status.remaining[..limits.len()];
            prop_assert_eq!(allowed, limits.iter().all(|(_, most, count)| (*count as f64) < *most));
            for (at, remaining) in left.iter().enumerate() {
                prop_assert!(*remaining >= 0.0);
                let (least, longest) = (left[status.tightest], at > status.tightest);
                prop_assert!(*remaining > least || (*remaining >= least && !longest));
            }
            let window = limits[status.tightest].0.window(now);
            prop_assert_eq!(status.reset, window.end - now);
        }
    }
}
