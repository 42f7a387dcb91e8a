//! Certificates from an authority that speaks ACME (RFC 8555), for the names that the plugin `acme`
//! lists. Described in `docs/acme.md`.
//!
//! A task of the control plane follows the store. For each name it requests a certificate when
//! there is none, and again in time before it ends; a name that fails is tried again later, and
//! delays no other. A certificate is a row of `certificates` with a tag, and its name a row of
//! `snis`, so it takes effect as if an operator had stored it. What the authority asks for to
//! verify a name is in `challenges.rs`, where the workers find it.

mod account;
mod challenges;
mod http;
mod order;
mod renewal_info;
mod rows;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::Account;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::dns::Resolver;
use crate::entity::Kind;
use crate::entity::plugin::{self, acme::Config};
use crate::store::{Change, Commit, Store};
pub(crate) use challenges::Challenges;
use renewal_info::{CertificateId, Suggestion};
use rows::Found;
use schedule::{renewal, retry, suggested_renewal};

/// How many names are requested at the same time.
const AT_A_TIME: usize = 4;

/// Longest time until the next look at what is due: the clock of the machine may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// Shortest time between two certificates of a name, whatever the authority suggests.
const MIN_ISSUE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Requests certificates and renews them.
pub struct Acme {
    store: Arc<dyn Store>,
    challenges: Arc<Challenges>,
    resolver: Arc<Resolver>,
    names: Mutex<BTreeMap<String, Name>>,
    /// The account, with the settings that it was opened with.
    account: tokio::sync::Mutex<Option<(Arc<Config>, Account)>>,
    turns: Semaphore,
    /// Notified when all failed names are to be tried now.
    hurried: Notify,
    /// Whether nothing is requested, because another process may take over.
    is_paused: watch::Sender<bool>,
}

/// The state of a name.
#[derive(Debug, Clone, Default)]
pub struct Name {
    /// Its certificate, if the gateway has one from the authority.
    pub certificate: Option<Uuid>,
    /// When that certificate ends, in seconds since 1970.
    pub not_after: Option<i64>,
    /// When a certificate is requested the next time.
    pub next_try: Option<SystemTime>,
    /// Why the name has no new certificate: the last try has failed, an operator has stored a
    /// certificate for the name, or the store cannot be read.
    pub last_error: Option<String>,
    /// Tries that have failed since the last one that has succeeded.
    pub failures: u32,
    /// Tries that have failed since the start of the gateway.
    pub all_failures: u64,
    /// Whether a try is in progress.
    pub is_in_progress: bool,
    /// When the certificate was requested, if this process did.
    issued: Option<SystemTime>,
    /// What the authority has said of the certificate, and whether it is being asked.
    suggestion: Option<Suggestion>,
    is_asking: bool,
}

impl Name {
    /// When the authority suggests to renew the certificate.
    pub fn suggested_renewal(&self) -> Option<SystemTime> {
        self.suggestion.as_ref()?.renewal
    }
}

impl Acme {
    /// Keeps certificates in `store`, and answers to challenges where the workers find them.
    /// `resolver` looks up the name of the authority.
    pub fn new(
        store: Arc<dyn Store>,
        challenges: Arc<Challenges>,
        resolver: Arc<Resolver>,
    ) -> Self {
        Self {
            store,
            challenges,
            resolver,
            names: Mutex::default(),
            account: tokio::sync::Mutex::default(),
            turns: Semaphore::new(AT_A_TIME),
            hurried: Notify::new(),
            is_paused: watch::Sender::new(false),
        }
    }

    /// The state of each name.
    pub fn names(&self) -> BTreeMap<String, Name> {
        self.names.lock().clone()
    }

    /// Has the names that have failed tried again now.
    pub fn hurry(&self) {
        for name in self.names.lock().values_mut() {
            if name.last_error.is_some() {
                name.next_try = None;
            }
        }
        self.hurried.notify_one();
    }

    /// Has [`Acme::run`] end the requests in progress, and begin none until [`Acme::resume`]:
    /// another process takes over. It returns at once, so a request may go on for a moment; the
    /// store that is released refuses its certificate.
    pub fn pause(&self) {
        self.is_paused.send_replace(true);
    }

    /// Requests again what is due.
    pub fn resume(&self) {
        self.is_paused.send_replace(false);
    }

    /// Requests what is due, until the store ends.
    pub async fn run(self: Arc<Self>, mut commits: mpsc::UnboundedReceiver<Commit>) {
        let mut tries = JoinSet::new();
        let mut plugins = Plugins::default();
        let mut paused = self.is_paused.subscribe();
        loop {
            if *paused.borrow_and_update() {
                tries.shutdown().await;
                for state in self.names.lock().values_mut() {
                    (state.is_in_progress, state.is_asking) = (false, false);
                }
                // The sender is this struct's, so it is never closed.
                let _ = paused.wait_for(|paused| !paused).await;
            }
            let sleep = self.begin(&plugins, &mut tries);
            tokio::select! {
                concerned = plugins.concerned(&mut commits) => if !concerned {
                    return;
                },
                Some(_) = tries.join_next() => {}
                () = self.hurried.notified() => {}
                _ = paused.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Begins the tries that are due. Returns the time until the next one is.
    fn begin(self: &Arc<Self>, plugins: &Plugins, tries: &mut JoinSet<()>) -> Duration {
        let config = match rows::config(&*self.store, &plugins.0) {
            Ok(config) => config.map(Arc::new),
            Err(error) => {
                tracing::error!("the plugin acme cannot be read: {error}");
                return LONGEST_SLEEP;
            }
        };
        let mut names = self.names.lock();
        let Some(config) = config else {
            names.clear();
            return LONGEST_SLEEP;
        };
        let wanted = rows::names(&config);
        names.retain(|name, _| wanted.contains(name));
        let now = SystemTime::now();
        let mut sleep = LONGEST_SLEEP;
        for name in wanted {
            let state = names.entry(name.clone()).or_default();
            if state.is_in_progress {
                continue;
            }
            let (due, named) = self.due(&name, state, &config);
            if let Some(named) = named.filter(|_| !state.is_asking) {
                let known = state.suggestion.as_ref();
                match known.and_then(|known| known.next_look.duration_since(now).ok()) {
                    Some(left) => sleep = sleep.min(left),
                    None => {
                        state.is_asking = true;
                        let (acme, config) = (Arc::clone(self), Arc::clone(&config));
                        let name = name.clone();
                        tries.spawn(async move { acme.ask(&name, &config, named).await });
                    }
                }
            }
            match due {
                Some(due) if due > now => {
                    state.next_try = Some(due);
                    sleep = sleep.min(due.duration_since(now).unwrap_or_default());
                }
                Some(_) => {
                    state.is_in_progress = true;
                    let (acme, config) = (Arc::clone(self), Arc::clone(&config));
                    let failures = state.failures;
                    tries.spawn(async move { acme.attempt(&name, &config, failures).await });
                }
                None => state.next_try = None,
            }
        }
        sleep
    }

    /// When a certificate is to be requested for a name; never if the operator has given it one.
    /// And how its certificate is named to the authority, if it has one.
    fn due(
        &self,
        name: &str,
        state: &mut Name,
        config: &Config,
    ) -> (Option<SystemTime>, Option<CertificateId>) {
        let after_failure = state.next_try.filter(|_| state.last_error.is_some());
        (state.certificate, state.not_after) = (None, None);
        if state.failures == 0 {
            // The store may work again.
            state.last_error = None;
        }
        let (renewal, named) = match rows::find(&*self.store, name) {
            Ok(None) => (SystemTime::UNIX_EPOCH, None),
            Ok(Some(Found::Own {
                id,
                not_before,
                not_after,
                named,
            })) => {
                (state.certificate, state.not_after) = (Some(id), Some(not_after));
                let days = config.renew_threshold_days;
                let known = state.suggestion.take();
                state.suggestion = known.filter(|known| Some(&known.certificate) == named.as_ref());
                let due = match state.suggested_renewal() {
                    None => renewal(not_before, not_after, days),
                    Some(suggested) => {
                        let due = suggested_renewal(not_before, not_after, days, suggested);
                        let earliest = state.issued.map(|issued| issued + MIN_ISSUE_INTERVAL);
                        due.max(earliest.unwrap_or(due))
                    }
                };
                (due, named)
            }
            Ok(Some(Found::Foreign(id))) => {
                state.last_error = Some(format!(
                    "the name has the certificate {id}, which is not from ACME: delete it, or take the \
                     name out of 'domains'"
                ));
                return (None, None);
            }
            Err(error) => {
                state.last_error = Some(error);
                return (Some(SystemTime::now() + retry(1.0, 0)), None);
            }
        };
        let due = renewal.max(after_failure.unwrap_or(SystemTime::UNIX_EPOCH));
        (Some(due), named)
    }

    /// Asks the authority when a certificate is to be renewed, and notes what it says.
    async fn ask(&self, name: &str, config: &Arc<Config>, certificate: CertificateId) {
        let last = (self.names.lock().get(name)).and_then(|state| state.suggestion.clone());
        let asked = match self.turns.acquire().await {
            Ok(_turn) => match self.account(config).await {
                Ok(account) => Ok(renewal_info::ask(&account, certificate.clone(), last).await),
                Err(error) => Err(error),
            },
            // It is never closed.
            Err(_) => return,
        };
        let suggestion = asked.unwrap_or_else(|error| {
            tracing::debug!("acme: the authority cannot be asked when to renew: {error}");
            Suggestion::unknown(certificate)
        });
        if let Some(state) = self.names.lock().get_mut(name) {
            state.is_asking = false;
            state.suggestion = Some(suggestion);
        }
    }

    /// Requests a certificate, stores it, and notes the outcome.
    async fn attempt(&self, name: &str, config: &Arc<Config>, failures: u32) {
        let outcome = match self.turns.acquire().await {
            Ok(_turn) => self.request(name, config, failures).await,
            // It is never closed.
            Err(_) => return,
        };
        let mut names = self.names.lock();
        let Some(state) = names.get_mut(name) else {
            return;
        };
        state.is_in_progress = false;
        // A try that counts as failed may have stored a certificate.
        if let Ok(Some(Found::Own { id, not_after, .. })) = rows::find(&*self.store, name) {
            (state.certificate, state.not_after) = (Some(id), Some(not_after));
        }
        match outcome {
            Ok(()) => {
                (state.last_error, state.next_try, state.failures) = (None, None, 0);
                state.issued = Some(SystemTime::now());
                tracing::info!("acme: {name} has a new certificate");
            }
            Err(error) => {
                let pause = retry(config.fail_backoff_minutes, failures);
                state.next_try = Some(SystemTime::now() + pause);
                state.failures += 1;
                state.all_failures += 1;
                tracing::warn!(
                    "acme: {name} has got no certificate, and is tried again in {} s: {error}",
                    pause.as_secs()
                );
                state.last_error = Some(error);
            }
        }
    }

    async fn request(&self, name: &str, config: &Arc<Config>, failures: u32) -> Result<(), String> {
        let account = self.account(config).await?;
        // An authority that refuses to replace it, for instance because another gateway has
        // replaced it already, is not asked to a second time.
        let replaced = (self.names.lock().get(name))
            .and_then(|state| state.suggestion.clone())
            .filter(|known| known.renewal.is_some() && failures == 0)
            .map(|known| known.certificate);
        let issued = order::certificate(&account, name, failures, replaced, &self.challenges).await;
        match issued {
            Ok(issued) => {
                rows::store(&*self.store, name, &issued).await?;
                self.lasts(name, config)
            }
            Err(error) => {
                if account::is_unknown(&error) {
                    *self.account.lock().await = None;
                    account::forget(&*self.store, config).await?;
                }
                Err(error.to_string())
            }
        }
    }

    /// Checks that the certificate that a name has got is not due for renewal at once, because the
    /// gateway would request one after the other.
    fn lasts(&self, name: &str, config: &Config) -> Result<(), String> {
        match rows::find(&*self.store, name)? {
            Some(Found::Own {
                not_before,
                not_after,
                ..
            }) if renewal(not_before, not_after, config.renew_threshold_days)
                <= SystemTime::now() =>
            {
                Err(
                    "the new certificate is due for renewal already: check the clock of this \
                     machine"
                        .into(),
                )
            }
            _ => Ok(()),
        }
    }

    /// The account with the authority. It is opened once for the same settings.
    async fn account(&self, config: &Arc<Config>) -> Result<Account, String> {
        let mut opened = self.account.lock().await;
        if let Some((settings, account)) = &*opened
            && settings == config
        {
            return Ok(account.clone());
        }
        let account = account::open(&*self.store, config, Arc::clone(&self.resolver)).await?;
        *opened = Some((Arc::clone(config), account.clone()));
        Ok(account)
    }
}

/// The plugins `acme`, by their primary keys. Without one, no change is about what is due.
#[derive(Debug, Default)]
struct Plugins(BTreeSet<Uuid>);

impl Plugins {
    /// Waits for a commit that may be about what is due. False when the store has ended.
    async fn concerned(&mut self, commits: &mut mpsc::UnboundedReceiver<Commit>) -> bool {
        while let Some(commit) = commits.recv().await {
            if self.follow(&commit) {
                return true;
            }
        }
        false
    }

    /// Takes over a commit. Returns whether it may be about what is due.
    fn follow(&mut self, commit: &Commit) -> bool {
        let mut concerns = false;
        for change in &commit.changes {
            concerns |= match change {
                Change::Put { kind, id, row } if *kind == Kind::Plugin => {
                    if row.get("name").and_then(Value::as_str) == Some(plugin::acme::NAME) {
                        self.0.insert(*id);
                        true
                    } else {
                        self.0.remove(id)
                    }
                }
                Change::Delete { kind, id } if *kind == Kind::Plugin => self.0.remove(id),
                Change::Put { kind, .. } | Change::Delete { kind, .. } => {
                    let kinds = [Kind::Certificate, Kind::Sni, Kind::Vault];
                    !self.0.is_empty() && kinds.contains(kind)
                }
            };
        }
        concerns
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn put(kind: Kind, name: &str) -> Commit {
        let row = serde_json::json!({"name": name});
        Commit {
            revision: 1,
            changes: vec![Change::Put {
                kind,
                id: Uuid::from_u128(1),
                row: row.as_object().unwrap().clone(),
            }],
        }
    }

    #[test]
    fn only_a_commit_that_is_about_certificates_ends_the_wait_for_what_is_due() {
        let (sender, mut commits) = mpsc::unbounded_channel();
        let mut plugins = Plugins::default();
        let mut poll = |expected: Poll<bool>| {
            let concerned = pin!(plugins.concerned(&mut commits));
            let polled = concerned.poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, expected);
        };
        sender.send(put(Kind::Certificate, "c")).unwrap();
        poll(Poll::Pending);
        sender.send(put(Kind::Plugin, "acme")).unwrap();
        poll(Poll::Ready(true));
        for _ in 0..3 {
            sender.send(put(Kind::Service, "s")).unwrap();
            poll(Poll::Pending);
        }
        sender.send(put(Kind::Certificate, "c")).unwrap();
        poll(Poll::Ready(true));
        drop(sender);
        poll(Poll::Ready(false));
    }
}
