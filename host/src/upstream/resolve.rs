//! Host names of targets and services, resolved off the path of requests. A name is looked up again
//! when its records expire; if that fails, the last known addresses stay in use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::authority::Host;
use crate::config::{Dns, DnsType};
use crate::dns::{Address, DnsAnswer, Failure, Lookup, QUESTIONS, UNANSWERED};

/// Pause after a look-up that failed; each failure in a row doubles it, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Pause after a look-up that failed of a name without an address, if a request needs one. Source:
/// Kong, `dns_error_ttl`.
const WANTED_PAUSE: Duration = Duration::from_secs(1);

/// Longest time between two look-ups of a name, however long the TTL of its records is.
const LONGEST: Duration = Duration::from_secs(3600);

/// Longest wait of a change for the names that it brings: after it, the change goes ahead without
/// their addresses, and requests wait for these. If no server answers a question for one type of
/// records, the answer for the next type still comes in time.
const NEW_NAME_TIMEOUT: Duration = UNANSWERED.saturating_add(Duration::from_millis(500));

/// Names that are looked up at a time of those that were found the last time, and of those that
/// were not: these may take long to fail again, and delay no other name. Their look-ups may ask for
/// three types of records at a time, so they are few enough to leave questions to the others.
const CONCURRENCY: [usize; 2] = [32, QUESTIONS / 4];

/// How old the last answer for a name is.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// Time since it came.
    pub age: Duration,
    /// Seconds until its records expire; negative once they have expired.
    pub left: f64,
}

/// The names in use with the addresses that they had when last resolved.
#[derive(Debug)]
pub struct Names {
    lookup: Lookup,
    min_ttl: Duration,
    /// By the name that is sent to DNS.
    known: Mutex<HashMap<String, Known>>,
    /// The names whose addresses have changed, or that were looked up for the first time, since
    /// these were last taken.
    changed: Mutex<HashSet<String>>,
    /// Notified when a name is answered for the first time: it may be due before the others.
    came: Notify,
    /// Whether a new name has been answered since requests that wait for one were last told.
    has_come: AtomicBool,
    wanted: Arc<WantedNames>,
}

/// The names without an address that requests need one of, until their next look-up has ended.
#[derive(Debug, Default)]
pub(super) struct WantedNames {
    names: Mutex<HashSet<String>>,
    /// Notified of further ones.
    more: Notify,
}

impl WantedNames {
    /// Has these names looked up again soon.
    pub(super) fn extend<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut wanted = self.names.lock();
        let before = wanted.len();
        for name in names {
            if !wanted.contains(name) {
                wanted.insert(name.to_owned());
            }
        }
        if wanted.len() > before {
            self.more.notify_one();
        }
    }
}

#[derive(Debug)]
struct Known {
    addresses: Vec<Address>,
    service: bool,
    /// The type of its records, if that is known.
    kind: Option<DnsType>,
    /// When the last answer came, and until when its records hold.
    answered: Option<(Instant, Instant)>,
    due: Instant,
    /// When it may be looked up before that, if a request needs it.
    due_if_wanted: Instant,
    /// Whether it is being looked up.
    asked: bool,
    /// Whether this is its first look-up.
    first: bool,
    failures: u32,
    error: Option<String>,
}

impl Names {
    /// Names that are looked up as the settings say.
    pub fn new(settings: &Dns) -> Self {
        Self {
            lookup: Lookup::new(settings),
            min_ttl: settings.min_ttl,
            known: Mutex::default(),
            changed: Mutex::default(),
            came: Notify::new(),
            has_come: AtomicBool::new(false),
            wanted: Arc::default(),
        }
    }

    /// The names without an address that requests need one of.
    pub(super) fn wanted(&self) -> &Arc<WantedNames> {
        &self.wanted
    }

    /// The addresses of a host: itself if it is an address, none while its name is not resolved.
    pub(super) fn addresses(&self, host: &Host<'_>) -> Vec<Address> {
        match host.ip() {
            Some(ip) => vec![Address::bare(ip)],
            None => {
                let known = self.known.lock();
                let known = known.get(host.dns_name());
                known.map_or_else(Vec::new, |known| known.addresses.clone())
            }
        }
    }

    /// What Kong calls the kind of a host's records, or the error of the last look-up.
    pub fn kind(&self, host: &Host<'_>) -> String {
        if let Some(ip) = host.ip() {
            return if ip.is_ipv4() { "A" } else { "AAAA" }.into();
        }
        let known = self.known.lock();
        match known.get(host.dns_name()) {
            Some(Known {
                error: Some(error), ..
            }) => format!("dns server error: {error}"),
            Some(Known { service: true, .. }) => "SRV".into(),
            Some(Known { addresses, .. }) => match addresses.first() {
                Some(address) if address.ip.is_ipv4() => "A".into(),
                Some(_) => "AAAA".into(),
                None => "unknown".into(),
            },
            None => "unknown".into(),
        }
    }

    /// How old the last answer for a name is; none for an address, and while there was no answer.
    pub fn freshness(&self, host: &Host<'_>) -> Option<Freshness> {
        let known = self.known.lock();
        let (answered, valid_until) = known.get(host.dns_name())?.answered?;
        let now = Instant::now();
        let left = valid_until.saturating_duration_since(now).as_secs_f64();
        let over = now.saturating_duration_since(valid_until).as_secs_f64();
        Some(Freshness {
            age: now - answered,
            left: left - over,
        })
    }

    /// Takes names out of use.
    pub fn forget(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for name in names {
            known.remove(name);
        }
    }

    /// Takes names into use, and waits a while for the new ones to be looked up. A name that did
    /// not resolve before is left to [`Names::follow`]: it must not delay every change that
    /// follows.
    pub async fn watch(self: &Arc<Self>, mut names: Vec<String>) {
        {
            let now = Instant::now();
            let mut known = self.known.lock();
            names.retain(|name| {
                let is_new = !known.contains_key(name);
                if is_new {
                    known.insert(name.clone(), Known::first(now));
                }
                is_new
            });
        }
        if names.is_empty() {
            return;
        }
        // Requests wait for the answer for one name, and not for those that came with it. Each
        // look-up is a task of its own, so that it continues when this no longer waits for it.
        // Started again, it would repeat every query that was not answered.
        let mut asked: FuturesUnordered<_> = (names.into_iter())
            .map(|name| {
                let all = Arc::clone(self);
                tokio::spawn(async move {
                    let (name, answer) = all.ask(name, None).await;
                    let changed = all.take(&name, answer);
                    all.has_come.fetch_or(changed, Ordering::AcqRel);
                    all.came.notify_one();
                })
            })
            .collect();
        let all = async { while asked.next().await.is_some() {} };
        if tokio::time::timeout(NEW_NAME_TIMEOUT, all).await.is_err() {
            tracing::warn!("not every new name is resolved within {NEW_NAME_TIMEOUT:?}");
        }
    }

    /// Looks names up as they fall due, each by itself, and calls `changed` after every answer that
    /// is the first one for its name or has other addresses than before, until it returns false.
    pub async fn follow(&self, mut changed: impl FnMut() -> bool) {
        let mut asked = FuturesUnordered::new();
        loop {
            let (due, next) = self.begin();
            asked.extend(due.into_iter().map(|(host, last)| self.ask(host, last)));
            tokio::select! {
                Some((host, answer)) = asked.next() => {
                    if self.take(&host, answer) && !changed() {
                        return;
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.wanted.more.notified() => {}
                () = self.came.notified() => {
                    if self.has_come.swap(false, Ordering::AcqRel) && !changed() {
                        return;
                    }
                }
            }
        }
    }

    /// The names that are due, as many as there is room for, marked as being looked up; and when
    /// the next one is due.
    fn begin(&self) -> (Vec<(String, Option<DnsType>)>, Instant) {
        let now = Instant::now();
        let mut known = self.known.lock();
        self.wanted.names.lock().retain(|name| {
            let known = known.get_mut(name);
            known.is_some_and(|known| {
                known.due = known.due.min(known.due_if_wanted);
                true
            })
        });
        let mut room = CONCURRENCY;
        // New names are looked up elsewhere, any number of them at a time.
        for known in known.values().filter(|known| known.asked && !known.first) {
            let room = &mut room[usize::from(known.failures > 0)];
            *room = room.saturating_sub(1);
        }
        let (mut due, mut next) = (Vec::new(), now + LONGEST);
        let mut waiting: Vec<_> = known.iter_mut().filter(|(_, known)| !known.asked).collect();
        // Those that have waited longest come first, so that each has its turn.
        waiting.sort_unstable_by_key(|(_, known)| known.due);
        for (host, known) in waiting {
            let room = &mut room[usize::from(known.failures > 0)];
            if *room == 0 {
                // A look-up that ends makes room, and then this is called again.
                continue;
            }
            if known.due <= now {
                *room -= 1;
                known.asked = true;
                due.push((host.clone(), known.kind));
            } else {
                next = next.min(known.due);
            }
        }
        (due, next)
    }

    async fn ask(
        &self,
        host: String,
        last: Option<DnsType>,
    ) -> (String, Result<DnsAnswer, Failure>) {
        let answer = self.lookup.look_up(&host, last).await;
        (host, answer)
    }

    /// Whether a host is a name that is being looked up for the first time.
    pub(super) fn is_awaited(&self, host: &Host<'_>) -> bool {
        let known = self.known.lock();
        known.get(host.dns_name()).is_some_and(|known| known.first)
    }

    /// Returns whether an address changed, or the first look-up has ended: requests wait for that,
    /// whatever it has found.
    fn take(&self, host: &str, answer: Result<DnsAnswer, Failure>) -> bool {
        let mut known = self.known.lock();
        let is_changed = known.get_mut(host).is_some_and(|known| {
            let was_first = known.first;
            known.take(host, answer, self.min_ttl) || was_first
        });
        self.wanted.names.lock().remove(host);
        if is_changed {
            self.changed.lock().insert(host.to_owned());
        }
        is_changed
    }

    /// The names whose addresses have changed since these were last taken.
    pub fn take_changed(&self) -> HashSet<String> {
        std::mem::take(&mut *self.changed.lock())
    }
}

impl Known {
    /// A new name, which is being looked up for the first time.
    fn first(now: Instant) -> Self {
        Self {
            asked: true,
            first: true,
            ..Self::new(now)
        }
    }

    /// A name without an answer, to be looked up at `due`.
    fn new(due: Instant) -> Self {
        Self {
            addresses: Vec::new(),
            service: false,
            kind: None,
            answered: None,
            due,
            due_if_wanted: due,
            asked: false,
            first: false,
            failures: 0,
            error: None,
        }
    }

    /// Returns whether an address changed.
    fn take(&mut self, host: &str, answer: Result<DnsAnswer, Failure>, min_ttl: Duration) -> bool {
        let now = Instant::now();
        self.asked = false;
        self.first = false;
        match answer {
            Ok(answer) => {
                let left = answer.valid_until.saturating_duration_since(now);
                self.due = now + left.clamp(min_ttl, LONGEST);
                self.due_if_wanted = self.due;
                self.failures = 0;
                self.error = None;
                self.service = answer.service;
                self.kind = answer.kind;
                self.answered = Some((now, answer.valid_until));
                let mut addresses = answer.addresses;
                addresses.sort_unstable();
                addresses.dedup();
                let changed = self.addresses != addresses;
                self.addresses = addresses;
                changed
            }
            // A name that does not resolve now keeps the addresses it had.
            Err(failure) => {
                let error = failure.to_string();
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(host, "cannot resolve the name: {error}");
                }
                let pause = RETRY.0 * 2_u32.saturating_pow(self.failures);
                self.due = now + pause.clamp(RETRY.0.max(min_ttl.min(RETRY.1)), RETRY.1);
                self.due_if_wanted = now + WANTED_PAUSE.max(min_ttl.min(RETRY.1));
                self.failures = (self.failures + 1).min(16);
                self.error = Some(error);
                false
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn names() -> Arc<Names> {
        Arc::new(Names::new(&Dns {
            resolvers: Vec::new(),
            order: vec![DnsType::A],
            hosts_file: "/etc/hosts".into(),
            min_ttl: Duration::from_secs(1),
        }))
    }

    fn host(text: &str) -> Host<'_> {
        Host::of_setting(text).unwrap()
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let names = names();
        let ips = |text: &str| {
            let addresses = names.addresses(&host(text)).into_iter();
            addresses.map(|address| address.ip).collect::<Vec<_>>()
        };
        assert_eq!(ips("127.0.0.1"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(ips("::1").len(), 1);
        assert!(ips("localhost").is_empty());
    }

    #[tokio::test]
    async fn localhost_resolves_to_one_address() {
        let names = names();
        let localhost = host("localhost");
        let all = ["localhost".to_owned()];
        names.watch(all.to_vec()).await;
        assert_eq!(names.addresses(&localhost).len(), 1);
        assert_eq!(names.kind(&localhost), "A");
        assert!(names.take_changed().contains("localhost"));
        assert!(names.take_changed().is_empty());
        names.forget(&all);
        assert!(names.addresses(&localhost).is_empty());
    }

    #[tokio::test]
    async fn names_that_fail_leave_room_for_those_that_do_not() {
        let names = names();
        let now = Instant::now();
        {
            let mut known = names.known.lock();
            for number in 0..10 * CONCURRENCY[1] {
                let mut dead = Known::new(now);
                dead.failures = 1;
                known.insert(format!("dead-{number}.test"), dead);
            }
            known.insert("live.test".into(), Known::new(now));
        }
        let begun = |names: &Names| names.begin().0.len();
        assert_eq!(begun(&names), CONCURRENCY[1] + 1);
        assert_eq!(begun(&names), 0, "none is asked for twice at a time");
        names.take("live.test", Err(Failure::NotFound));
        assert!(!names.known.lock()["live.test"].asked);
    }

    #[tokio::test]
    async fn a_name_that_a_request_needs_is_looked_up_soon() {
        let names = names();
        let mut dead = Known::new(Instant::now());
        for _ in 0..10 {
            dead.take("dead.test", Err(Failure::NotFound), Duration::ZERO);
        }
        names.known.lock().insert("dead.test".into(), dead);
        let left = |names: &Names| names.begin().1 - Instant::now();
        assert!(left(&names) > Duration::from_secs(10));
        names
            .wanted()
            .extend(["dead.test", "other.test"].into_iter());
        assert!(left(&names) <= WANTED_PAUSE);
        names.take("dead.test", Err(Failure::NotFound));
        assert!(left(&names) > Duration::from_secs(10));
    }

    #[test]
    fn failures_back_off_and_keep_the_addresses() {
        let mut known = Known::new(Instant::now());
        known.addresses.push(Address::bare([127, 0, 0, 1].into()));
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            assert!(!known.take("a", Err(Failure::NotFound), Duration::ZERO));
            let pause = known.due - Instant::now();
            assert!(pause <= RETRY.1 && pause + Duration::from_millis(100) > last);
            last = pause;
        }
        assert_eq!(known.addresses.len(), 1);
        assert!(last > Duration::from_secs(10));
        let same = DnsAnswer::new(known.addresses.clone(), Instant::now());
        assert!(!known.take("a", Ok(same), Duration::ZERO));
        assert_eq!(known.failures, 0);
    }
}
