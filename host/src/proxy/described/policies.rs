//! What the policies of a described request decide, as far as they can be asked without effect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::Request as HttpRequest;
use http::StatusCode;

use super::Described;
use crate::path;
use crate::policy::answer::{Answer, AnswerBody};
use crate::policy::chain::{Chain, Instance};
use crate::policy::identity::Subject;
use crate::policy::request::{Client, MatchedIds, Request, RequestBody, TargetQuery};
use crate::policy::{Access, DryRun, Verdict};
use crate::router::Route;
use crate::snapshot::Snapshot;

/// What a policy decides about a described request.
pub(crate) enum Judgement {
    /// It lets the request pass; as this consumer, if it has named one.
    Passes(Option<Arc<str>>),
    /// It answers the request, with this status and this message, if the answer has one.
    Answers(StatusCode, Option<String>),
    /// It was not asked: why, as the end of a sentence.
    NotEvaluated(&'static str),
    /// An earlier policy has answered.
    NotReached,
}

/// A policy with what it decides.
pub(crate) struct Judged<'s> {
    pub(crate) instance: &'s Arc<Instance>,
    pub(crate) judgement: Judgement,
}

/// The body of a described request.
struct Body(Bytes);

impl RequestBody for Body {
    fn length(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read(&self, limit: usize) -> LocalBoxFuture<'_, Result<Option<Bytes>, Box<Answer>>> {
        let body = (self.0.len() <= limit).then(|| self.0.clone());
        std::future::ready(Ok(body)).boxed_local()
    }

    fn limit(&self, most: u64, refusal: Answer) -> Option<Answer> {
        (self.0.len() as u64 > most).then_some(refusal)
    }

    fn replace(&self, _: Bytes) {}
}

impl Described {
    /// The policies of the chain of a route, in their order, with what they decide. A consumer that
    /// the description names counts as authenticated. After a policy that was not asked, the
    /// request goes on.
    pub(crate) fn judge<'s>(
        &self,
        snapshot: &'s Snapshot,
        chain: &'s Chain,
        route: &Route,
    ) -> Vec<Judged<'s>> {
        let policies = &snapshot.policies;
        let (mut head, ()) = HttpRequest::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.target.clone().into();
        head.headers = self.headers.clone();
        super::super::hops::remove_hops(&mut head.headers);
        let path = path::normalize(self.target.path().as_bytes());
        let host = self.authority().map(|authority| authority.host);
        let host = host.as_ref().map_or("", |host| host.as_str());
        let found = self.query(|query| snapshot.router.route(query));
        let regex = found.and_then(|found| found.regex);
        let body = self.body.clone().map(Body);
        let named = self
            .consumer
            .and_then(|id| policies.identities.consumers.get(&id));
        let mut subject = Subject {
            consumer: named.cloned(),
            ..Subject::default()
        };
        let mut query = TargetQuery::sent(self.target.query());
        let (mut upstream_path, mut upstream_host, mut added_body) = (None, None, None);
        let (mut correlation_id, mut trace) = (None, None);
        let mut is_answered = false;
        let mut judged = Vec::new();
        for step in chain.steps() {
            let consumer = subject.consumer.as_ref().map(|consumer| consumer.id);
            let Some(instance) = step.choose(policies, consumer) else {
                continue;
            };
            let mut request = Request {
                head: &mut head,
                path: &path,
                rest: &path,
                sent_target: self.target.as_str(),
                added_body: &mut added_body,
                query: &mut query,
                upstream_path: &mut upstream_path,
                upstream_host: &mut upstream_host,
                regex,
                body: body.as_ref().map(|body| body as _),
                client: self.client(host),
                matched: MatchedIds {
                    route: route.id,
                    route_name: route.name.as_deref(),
                    service: route.service,
                },
                subject: &mut subject,
                identities: &policies.identities,
                id: "00000000000000000000000000000000",
                correlation_id: &mut correlation_id,
                trace: &mut trace,
                started: Instant::now(),
                kept: None,
            };
            let judgement = match instance.policy.dry_run() {
                _ if is_answered => Judgement::NotReached,
                DryRun::Authenticates if named.is_some() => {
                    Judgement::NotEvaluated("the description names the consumer")
                }
                DryRun::Idle => Judgement::Passes(None),
                DryRun::Harmless => judge(instance, &mut request),
                DryRun::Authenticates => match judge(instance, &mut request) {
                    Judgement::Passes(_) => Judgement::Passes(name_of(request.subject)),
                    judgement => judgement,
                },
                DryRun::Effects(why) => Judgement::NotEvaluated(why),
            };
            is_answered |= matches!(judgement, Judgement::Answers(..));
            judged.push(Judged {
                instance,
                judgement,
            });
        }
        judged
    }

    /// The client, as policies see it.
    fn client<'a>(&self, host: &'a str) -> Client<'a> {
        let unknown = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Client {
            address: self.client_address().unwrap_or(unknown),
            local: unknown.ip(),
            connection: 0,
            requests: 1,
            port: self.port,
            scheme: match self.server_name {
                Some(_) => "https",
                None => "http",
            },
            host,
            keeps_forwarded: false,
        }
    }
}

/// What a policy decides whose access phase may run.
fn judge(instance: &Instance, request: &mut Request<'_>) -> Judgement {
    let verdict = match instance.policy.access(request) {
        Access::Done(verdict) => verdict,
        Access::Pending(decision) => match decision.now_or_never() {
            Some(verdict) => verdict,
            None => return Judgement::NotEvaluated("it waits for something"),
        },
    };
    match verdict {
        Verdict::Continue => Judgement::Passes(None),
        Verdict::Answer(answer) => {
            let message = match answer.body {
                AnswerBody::Error(message) | AnswerBody::Message(message) => Some(message),
                AnswerBody::Raw(_) => None,
            };
            Judgement::Answers(answer.status, message)
        }
    }
}

/// The name of the consumer of a request.
fn name_of(subject: &Subject) -> Option<Arc<str>> {
    let consumer = subject.consumer.as_ref()?;
    let name = consumer
        .username
        .as_deref()
        .or(consumer.custom_id.as_deref());
    Some(name.map_or_else(|| consumer.id.to_string().into(), Arc::from))
}
