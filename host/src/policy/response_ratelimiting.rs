//! `response-ratelimiting`: as `rate-limiting`, but the endpoint says in a header of its response
//! how much a request counts, and against which of several limits. Source: Kong 3.9,
//! `response-ratelimiting`.
//!
//! What a request counts is known only once it was answered, so requests in progress at the same
//! time may exceed a limit together.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};

use super::answer::Answer;
use super::counters::Usage;
use super::period::{self, Limit};
use super::rate_key::{RateIdentity, RateKey, RateScope, uncounted};
use super::rate_limiting::number;
use super::redis::counts::{self, Addition};
use super::redis::{self, Server};
use super::request::Request;
use super::response::{Response, Source};
use super::{Access, DryRun, Policy, Resources, Verdict};
use crate::clock;
use crate::entity::plugin::periods::Share;
use crate::entity::plugin::response_ratelimiting::{Config, LimitBy};
use crate::entity::plugin::{Plugin, periods};
use crate::node::{NodeShare, PEERS, PeerSubscription};

/// Refuses the responses to requests beyond the limits.
#[derive(Debug)]
pub(super) struct ResponseRatelimiting {
    config: Config,
    /// The header with what a request counts.
    header: Option<HeaderName>,
    limits: Vec<NamedLimit>,
    scope: RateScope,
    counts: Counts,
}

/// Where requests are counted.
#[derive(Debug)]
enum Counts {
    /// In the memory of this gateway.
    Local(Arc<Resources>),
    /// There as well, up to this gateway's share of the limits.
    Share {
        resources: Arc<Resources>,
        _subscription: PeerSubscription<'static>,
    },
    /// In a Redis server.
    Redis(Arc<Server>),
}

/// A limit that endpoints name.
#[derive(Debug)]
struct NamedLimit {
    name: Arc<str>,
    periods: Vec<Limit>,
    /// The header by which the endpoint is told what is left; `None` if no header can have the name
    /// of the limit.
    left: Option<HeaderName>,
    /// The headers by which the client is told the limit of each period, and what is left of it.
    told: Vec<Option<(HeaderName, HeaderName)>>,
}

impl NamedLimit {
    fn new(name: &str, limits: &periods::PeriodLimits) -> Self {
        let periods = period::limits(limits);
        let header = |text: String| HeaderName::from_bytes(text.as_bytes()).ok();
        let told = periods.iter().map(|limit| {
            let period = limit.period.name();
            let limit = header(format!("x-ratelimit-limit-{name}-{period}"))?;
            Some((
                limit,
                header(format!("x-ratelimit-remaining-{name}-{period}"))?,
            ))
        });
        Self {
            told: told.collect(),
            left: header(format!("x-ratelimit-remaining-{name}")),
            name: name.into(),
            periods,
        }
    }

    /// What is left of each period; less than nothing if requests in progress at the same time have
    /// exceeded the limit together.
    fn left(&self, usage: &Usage, share: NodeShare, now: u64) -> impl Iterator<Item = f64> {
        let counts = usage.counts;
        let periods = self.periods.iter().zip(counts);
        periods.map(move |(limit, count)| limit.part(share, now) - count as f64)
    }
}

/// What was counted before a request, for its later phases.
#[derive(Debug)]
struct Counted {
    key: RateKey,
    /// In the order of the limits.
    usages: Vec<Usage>,
    /// The time of the request, in seconds since 1970.
    now: u64,
    /// Which share of the limits holds.
    share: NodeShare,
}

impl ResponseRatelimiting {
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
            periods::Policy::Redis => Counts::Redis(resources.redis.get(&config.redis)?),
        };
        let limits = config.limits.iter();
        Ok(Self {
            limits: limits
                .map(|(name, limits)| NamedLimit::new(name, limits))
                .collect(),
            header: HeaderName::from_bytes(config.header_name.as_bytes()).ok(),
            scope: RateScope::of(plugin),
            counts,
            config,
        })
    }

    fn key(&self, request: &Request<'_>) -> RateKey {
        RateKey {
            scope: self.scope,
            identity: match self.config.limit_by {
                LimitBy::Consumer => RateIdentity::consumer(request),
                LimitBy::Credential => RateIdentity::credential(request),
                LimitBy::Ip => RateIdentity::address(request),
            },
        }
    }

    /// What happens to a request, and what the endpoint is told.
    fn decide(&self, request: &mut Request<'_>, counted: Counted) -> Verdict {
        let mut exceeded = None;
        for (limit, usage) in self.limits.iter().zip(&counted.usages) {
            let least = limit
                .left(usage, counted.share, counted.now)
                .fold(f64::INFINITY, f64::min);
            if let Some(name) = &limit.left {
                let headers = &mut request.head.headers;
                headers.insert(name, number(least.max(0.0)));
            }
            if least <= 0.0 && self.config.block_on_first_violation {
                exceeded.get_or_insert(&*limit.name);
            }
        }
        request.keep(counted);
        match exceeded {
            Some(name) => {
                let message = format!("API rate limit exceeded for '{name}'");
                Answer::error(StatusCode::TOO_MANY_REQUESTS, message).into()
            }
            None => Verdict::Continue,
        }
    }

    /// What a response counts against each limit.
    fn amounts(&self, headers: &HeaderMap) -> Vec<u64> {
        let values = self.header.iter().flat_map(|name| headers.get_all(name));
        // Bytes that are not text must not hide the amounts beside them.
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut amounts = vec![0; self.limits.len()];
        for value in values {
            for (name, amount) in parse(&value) {
                if let Some(at) = self.limits.iter().position(|limit| *limit.name == *name) {
                    amounts[at] = amount;
                }
            }
        }
        amounts
    }

    /// Counts a response. No request waits for that.
    fn count(&self, counted: &Counted, amounts: &[u64]) {
        let Counted { key, now, .. } = counted;
        let counted = self
            .limits
            .iter()
            .zip(amounts)
            .filter(|(_, amount)| **amount > 0);
        match &self.counts {
            Counts::Local(resources) | Counts::Share { resources, .. } => {
                for (limit, amount) in counted {
                    let key = (*key, Arc::clone(&limit.name));
                    resources
                        .response_limits
                        .add(&key, &limit.periods, *amount, *now);
                }
            }
            Counts::Redis(server) => {
                let additions: Vec<Addition> = counted
                    .flat_map(|(limit, amount)| {
                        let name = counter_name(key, &limit.name);
                        limit.periods.iter().map(move |limit| {
                            let window = limit.period.window(*now);
                            Addition {
                                key: counts::key_of(&name, limit.period, window),
                                window,
                                amount: *amount,
                            }
                        })
                    })
                    .collect();
                if !additions.is_empty() {
                    let (server, now) = (Arc::clone(server), *now);
                    server.runtime().clone().spawn(async move {
                        if let Err(error) = counts::add(&server, &additions, now).await {
                            tracing::debug!("a response could not be counted: {error}");
                        }
                    });
                }
            }
        }
    }
}

impl Policy for ResponseRatelimiting {
    fn dry_run(&self) -> DryRun {
        DryRun::Effects("it counts what responses say")
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let key = self.key(request);
        let now = clock::unix_seconds();
        match &self.counts {
            Counts::Local(resources) | Counts::Share { resources, .. } => {
                let share = match &self.counts {
                    Counts::Share { .. } => PEERS.share(),
                    _ => NodeShare::ONLY,
                };
                let usages = self.limits.iter().map(|limit| {
                    let key = (key, Arc::clone(&limit.name));
                    resources.response_limits.read(&key, &limit.periods, now)
                });
                let usages = usages.collect();
                let counted = Counted {
                    key,
                    usages,
                    now,
                    share,
                };
                Access::Done(self.decide(request, counted))
            }
            Counts::Redis(server) => {
                let deciding = async move {
                    match self.read(server, &key, now).await {
                        Ok(usages) => {
                            let counted = Counted {
                                key,
                                usages,
                                now,
                                share: NodeShare::ONLY,
                            };
                            self.decide(request, counted)
                        }
                        Err(error) => {
                            tracing::debug!("a request could not be counted: {error}");
                            uncounted(self.config.fault_tolerant)
                        }
                    }
                };
                Access::Pending(deciding.boxed_local())
            }
        }
    }

    fn response(&self, response: &mut Response<'_>) {
        // A response of the cache has the header of the endpoint, which has counted once.
        let amounts = match response.source {
            Source::Endpoint => self.amounts(&response.head.headers),
            Source::Gateway => vec![0; self.limits.len()],
        };
        if let Some(header) = &self.header {
            response.head.headers.remove(header);
        }
        let Some(counted) = response.kept::<Counted>() else {
            return;
        };
        let usages = std::mem::take(&mut counted.usages);
        let counted = Counted { usages, ..*counted };
        let mut exceeded = false;
        let each = self.limits.iter().zip(&counted.usages).zip(&amounts);
        for ((limit, usage), amount) in each {
            for ((period, left), told) in
                (limit
                    .periods
                    .iter()
                    .zip(limit.left(usage, counted.share, counted.now)))
                .zip(&limit.told)
            {
                exceeded |= *amount > 0 && left <= 0.0;
                if let Some((of_limit, of_left)) = told
                    && !self.config.hide_client_headers
                {
                    let headers = &mut response.head.headers;
                    headers.insert(of_limit, number(period.part(counted.share, counted.now)));
                    headers.insert(of_left, number((left - *amount as f64).max(0.0)));
                }
            }
        }
        if !exceeded {
            self.count(&counted, &amounts);
            return;
        }
        response.head.status = StatusCode::TOO_MANY_REQUESTS;
        response.head.headers.remove(CONTENT_TYPE);
        response.head.headers.remove(CONTENT_ENCODING);
        response.replace_body(Bytes::new());
    }
}

impl ResponseRatelimiting {
    async fn read(
        &self,
        server: &Server,
        key: &RateKey,
        now: u64,
    ) -> Result<Vec<Usage>, redis::Error> {
        let reads = self.limits.iter().map(|limit| async move {
            let name = counter_name(key, &limit.name);
            counts::read(server, &name, &limit.periods, now).await
        });
        try_join_all(reads).await
    }
}

fn counter_name(key: &RateKey, limit: &str) -> String {
    format!("response-ratelimit:{key}:{limit}")
}

/// Names and numbers of a list such as `videos=1, images = 2`. An element without exactly one `=`
/// is skipped. Source: Kong.
fn parse(list: &str) -> impl Iterator<Item = (&str, u64)> {
    list.split(',').filter_map(|element| {
        let (name, amount) = element.split_once('=')?;
        let amount: f64 = amount.trim().parse().ok()?;
        (amount >= 0.0).then_some((name.trim(), amount as u64))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_of_amounts_is_read_leniently() {
        for (list, expected) in [
            ("videos=1", vec![("videos", 1)]),
            (" videos = 1 ,images=2", vec![("videos", 1), ("images", 2)]),
            ("videos=1=2, images, =, a=b,c=-1,d=3", vec![("d", 3)]),
            ("a=2.9,b=1e2", vec![("a", 2), ("b", 100)]),
            ("", vec![]),
        ] {
            assert_eq!(parse(list).collect::<Vec<_>>(), expected, "{list}");
        }
    }

    proptest! {
        #[test]
        fn no_list_is_a_problem(list in "[a-c=, .0-9-]{0,20}|\\PC{0,20}") {
            prop_assert!(parse(&list).all(|(name, _)| !name.contains(['=', ','])));
        }
    }
}
