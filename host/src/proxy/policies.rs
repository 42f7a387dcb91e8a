//! Runs the policies of a request: before an endpoint is chosen, on the response, and at its end.

mod body;
mod finish;
mod framing;
mod recorder;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};

use super::Inbound;
use super::client::ClientRequest;
use super::client_host::host_of;
use super::download::Content;
use super::hops::remove_hops;
use super::matched::Matched;
use super::respond::{CLIENT_CLOSED, Reject};
use super::upload::Upload;
use crate::access_log::Wants;
use crate::policy::chain::{Chain, Instance, Policies, Step};
use crate::policy::identity::Subject;
use crate::policy::request::{Client, MatchedIds, Request, TargetQuery};
use crate::policy::request_trace::{PolicyPhase, PolicyTime, RequestTrace};
use crate::policy::response::{self, BodyFilter, Received, Source};
use crate::policy::{Access, Verdict};
use body::PolicyBody;
pub(super) use finish::{Finish, Passed};
use framing::Framing;
use recorder::{AnswerHead, Recorder};
pub(super) use recorder::{Made, Unread, record_unread};

/// The policies of a request in progress.
pub(super) struct Run {
    /// The policies that serve the request, in their order.
    chosen: Vec<Chosen>,
    /// The consumer and the credential of the request.
    pub(super) subject: Subject,
    /// Number of steps of its chain whose policy is chosen.
    steps: usize,
    route: Option<(uuid::Uuid, Option<Arc<str>>, Option<uuid::Uuid>)>,
    host: Arc<str>,
    /// Filters that read the body as the endpoint sends it.
    readers: Vec<Box<dyn BodyFilter>>,
    /// The query, if a policy has changed it.
    query: Option<TargetQuery>,
    correlation_id: Option<Arc<str>>,
    /// The trace that the request belongs to, if a policy traces.
    trace: Option<Box<RequestTrace>>,
    /// The name of the policy that has answered.
    answered_by: Option<&'static str>,
}

/// A policy that serves the request, with what it keeps for its later phases.
struct Chosen {
    instance: Arc<Instance>,
    kept: Option<Box<dyn Any>>,
}

impl Run {
    fn new(chain: &Chain, host: Arc<str>) -> Box<Self> {
        Box::new(Self {
            chosen: Vec::with_capacity(chain.steps().len()),
            subject: Subject::default(),
            steps: 0,
            route: None,
            host,
            readers: Vec::new(),
            query: None,
            correlation_id: None,
            trace: None,
            answered_by: None,
        })
    }

    /// The run of a request that was refused before it had a route. Only the later phases of its
    /// policies run.
    pub(super) fn unmatched(policies: &Policies, inbound: &Inbound<'_>) -> Option<Box<Self>> {
        let host = host_of(inbound.parts);
        let host = host.map_or_else(|| "".into(), |host| host.name().into());
        Self::without_route(policies, host, &inbound.parts.headers)
    }

    /// The run of a request without a route, such as one whose head could not be read. Its policies
    /// get its record.
    pub(super) fn without_route(
        policies: &Policies,
        host: Arc<str>,
        headers: &HeaderMap,
    ) -> Option<Box<Self>> {
        let chain = policies.of_unmatched()?;
        let mut run = Self::new(chain, host);
        run.begin_trace(chain, policies, headers);
        run.choose_rest(chain, policies);
        Some(run)
    }

    /// The name of the policy that has answered.
    pub(super) fn answered_by(&self) -> Option<&'static str> {
        self.answered_by
    }

    /// Shows the policies the head of an endpoint's response, before anything is changed in it.
    pub(super) fn receive(&mut self, request: &Parts, head: &Response<()>) {
        for chosen in &mut self.chosen {
            let reader = chosen.instance.policy.received(&mut Received {
                status: head.status(),
                headers: head.headers(),
                request,
                kept: &mut chosen.kept,
            });
            self.readers.extend(reader);
        }
    }

    /// Chooses the policies of the steps that the access phase has not reached.
    fn choose_rest(&mut self, chain: &Chain, policies: &Policies) {
        while let Some(step) = chain.steps().get(self.steps) {
            self.choose(step, policies);
        }
    }

    /// Chooses the policy of the next step, if it has one for this request.
    fn choose<'s>(&mut self, step: &'s Step, policies: &'s Policies) -> Option<&'s Arc<Instance>> {
        self.steps += 1;
        let consumer = self.subject.consumer.as_ref().map(|consumer| consumer.id);
        let instance = step.choose(policies, consumer)?;
        self.chosen.push(Chosen {
            instance: Arc::clone(instance),
            kept: None,
        });
        Some(instance)
    }

    fn matched(&self) -> Option<MatchedIds<'_>> {
        let (route, route_name, service) = self.route.as_ref()?;
        Some(MatchedIds {
            route: *route,
            route_name: route_name.as_deref(),
            service: *service,
        })
    }

    /// Begins the trace of the request, if a policy of its chain traces.
    fn begin_trace(&mut self, chain: &Chain, policies: &Policies, headers: &HeaderMap) {
        if chain.traces() {
            let instances = chain.steps().iter();
            let instances = instances.filter_map(|step| step.choose(policies, None));
            let mut begun = instances.filter_map(|one| one.policy.begin_trace(headers));
            self.trace = begun.next().map(Box::new);
        }
    }

    /// Whether the trace of the request is sampled.
    fn is_sampled(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.is_sampled)
    }

    /// The time now, if policies are measured in this phase.
    fn now(&self, phase: PolicyPhase) -> Option<Instant> {
        let is_measured = (self.trace.as_ref()).is_some_and(|trace| trace.measures(phase));
        is_measured.then(Instant::now)
    }

    /// Notes that a policy has run in this phase since `began`.
    fn note_policy(
        &mut self,
        name: &'static str,
        phase: PolicyPhase,
        began: Option<Instant>,
        started: Instant,
    ) {
        if let (Some(trace), Some(began)) = (&mut self.trace, began) {
            trace.policies.push(PolicyTime {
                name,
                phase,
                began: began - started,
                took: began.elapsed(),
            });
        }
    }

    /// Whether a policy works from the record of the request.
    fn records(&self) -> bool {
        let mut chosen = self.chosen.iter();
        self.is_sampled() || chosen.any(|chosen| chosen.instance.policy.records())
    }
}

/// Makes the record of a request whose client has disconnected before it was answered.
pub(super) fn abandoned(mut run: Option<Box<Run>>, inbound: &mut Inbound<'_>) {
    if let Some(run) = &mut run
        && let Some((route, _, service)) = run.route
    {
        let policies = &inbound.seen.0.policies;
        if let Some(chain) = policies.of_route(route, service) {
            run.choose_rest(chain, policies);
        }
    }
    if inbound.is_logged() || run.as_ref().is_some_and(|run| run.records()) {
        let ClientRequest { client, id, .. } = inbound.from;
        let made = Made {
            source: Source::Gateway,
            reason: Some(CLIENT_CLOSED),
        };
        Recorder::new(run, inbound, made, None).record(client, id);
    }
}

/// What is left to do while the response to a request without policies is sent: its record is made,
/// if requests are logged.
pub(super) fn log(
    response: &Response<Content>,
    made: Made,
    inbound: &mut Inbound<'_>,
) -> Option<Box<Finish>> {
    let length = response.body().own_length();
    let head = AnswerHead::of(
        response.status(),
        response.headers(),
        length,
        inbound.wants(),
    );
    let recorder = Recorder::new(None, inbound, made, Some(head));
    Finish::new(Vec::new(), true, Some(recorder))
}

/// The client at `address`, as policies see it.
fn client<'a>(address: SocketAddr, client: &'a super::client::Client, host: &'a str) -> Client<'a> {
    let info = &client.info;
    Client {
        address,
        local: info.local,
        connection: info.number,
        requests: client.requests(),
        port: info.listener.port,
        scheme: info.listener.scheme.as_str(),
        host,
        keeps_forwarded: info.trust.keeps_forwarded,
    }
}

/// Runs the access phase of a chain. What the policies change is changed in the request and in its
/// match.
pub(super) async fn access(
    chain: &Chain,
    inbound: &mut Inbound<'_>,
    matched: &mut Matched<'_>,
) -> Result<(), Reject> {
    let address = inbound.client().address;
    let Inbound {
        seen,
        parts,
        upload,
        from,
        started,
        run,
        trace,
        ..
    } = inbound;
    let policies = &seen.0.policies;
    let run = run.insert(Run::new(chain, matched.host.name().into()));
    let route = matched.route;
    run.route = Some((route.id, route.name.clone(), route.service));
    remove_hops(&mut parts.headers);
    let matched_at = chain.traces().then(Instant::now);
    run.begin_trace(chain, policies, &parts.headers);
    let body = upload.as_ref().map(PolicyBody::new);
    let mut query = TargetQuery::sent(matched.target.query());
    let (mut upstream_path, mut upstream_host) = (None, None);
    let mut added_body = None;
    let mut answer = None;
    for step in chain.steps() {
        let Some(instance) = run.choose(step, policies) else {
            continue;
        };
        if answer.is_some() {
            // The later phases of all policies run, although one has answered. Source: Kong.
            continue;
        }
        let began = run.now(PolicyPhase::Access);
        let mut request = Request {
            head: parts,
            path: matched.path(),
            rest: matched.rest(),
            sent_target: matched.target.as_str(),
            added_body: &mut added_body,
            query: &mut query,
            upstream_path: &mut upstream_path,
            upstream_host: &mut upstream_host,
            regex: matched.regex,
            body: body.as_ref().map(|body| body as _),
            client: client(address, &from.client, &run.host),
            matched: MatchedIds {
                route: route.id,
                route_name: route.name.as_deref(),
                service: route.service,
            },
            subject: &mut run.subject,
            identities: &policies.identities,
            id: from.id.as_str(),
            correlation_id: &mut run.correlation_id,
            trace: &mut run.trace,
            started: *started,
            kept: None,
        };
        let verdict = match instance.policy.access(&mut request) {
            Access::Done(verdict) => verdict,
            Access::Pending(decision) => decision.await,
        };
        let kept = request.kept.take();
        run.note_policy(instance.name, PolicyPhase::Access, began, *started);
        if let Some(chosen) = run.chosen.last_mut() {
            chosen.kept = kept;
        }
        if let Verdict::Answer(answered) = verdict {
            run.answered_by = Some(instance.name);
            answer = Some(answered);
        }
    }
    if let Some(at) = matched_at.filter(|_| trace.is_none() && run.is_sampled()) {
        // Only now it is known that there are spans to be made of it.
        let service = route.service.and_then(|id| seen.0.services.get(&id));
        let trace = trace.insert(Box::default());
        trace.note_match_at(at, route, service.map(|service| &**service));
    }
    let applied = match answer {
        Some(answer) => {
            if let Some(trace) = trace {
                let service = route.service.and_then(|id| seen.0.services.get(&id));
                let base = service.map_or("/", |service| &service.path);
                trace.note_unsent(upstream_path.as_deref(), &matched.upstream_target(base));
            }
            Err(Reject::Policy(answer))
        }
        None => matched.apply(&query, upstream_path, upstream_host),
    };
    if let Some(body) = added_body {
        *upload = Some(Upload::of(body));
    }
    run.query = query.is_changed().then_some(query);
    applied
}

/// Runs the response phases of the policies. Returns the response, and what is left to do while it
/// is sent.
pub(super) fn respond(
    mut run: Box<Run>,
    response: Response<Content>,
    made: Made,
    inbound: &mut Inbound<'_>,
) -> (Response<Content>, Option<Box<Finish>>) {
    let (mut head, mut content) = response.into_parts();
    let mut filters = std::mem::take(&mut run.readers);
    let readers = filters.len();
    let mut is_replaced = false;
    let mut chosen = std::mem::take(&mut run.chosen);
    let mut framing = Framing::of(&head.headers);
    for phase in [Phase::Head, Phase::Body] {
        for chosen in &mut chosen {
            let began = match phase {
                Phase::Head => run.now(PolicyPhase::HeaderFilter),
                Phase::Body => None,
            };
            let mut response = response::Response {
                head: &mut head,
                source: made.source,
                request: inbound.parts,
                client: client(inbound.client().address, &inbound.from.client, &run.host),
                matched: run.matched(),
                subject: &run.subject,
                trace: run.trace.as_deref(),
                body: None,
                kept: chosen.kept.take(),
            };
            let policy = &chosen.instance.policy;
            match phase {
                Phase::Head => policy.response(&mut response),
                Phase::Body => filters.extend(policy.body(&mut response)),
            }
            let (body, kept) = (response.body.take(), response.kept.take());
            let name = chosen.instance.name;
            run.note_policy(name, PolicyPhase::HeaderFilter, began, inbound.started);
            chosen.kept = kept;
            if let Some(body) = body {
                framing.set_length(body.len());
                head.headers.insert(CONTENT_LENGTH, body.len().into());
                content.discard();
                content = Content::own(body);
                is_replaced = true;
            }
        }
    }
    run.chosen = chosen;
    framing.restore(&mut head.headers);
    if is_replaced {
        // The rest of the endpoint's body is not read.
        filters.drain(..readers);
    }
    let keeps_length = filters.iter().all(|filter| filter.keeps_length());
    if !keeps_length {
        head.headers.remove(CONTENT_LENGTH);
    }
    let is_empty = keeps_length && content.length() == Some(0);
    if has_no_body(&inbound.parts.method, head.status) || is_empty {
        // There is nothing to change, and hyper does not ask for a body of length 0.
        for mut filter in filters.drain(..) {
            filter.end();
        }
    }
    let records = run.records();
    let recorder = (records || inbound.is_logged()).then(|| {
        let wants = if records { Wants::ALL } else { inbound.wants() };
        let length = content.own_length().filter(|_| keeps_length);
        let head = AnswerHead::of(head.status, &head.headers, length, wants);
        Recorder::new(Some(run), inbound, made, Some(head))
    });
    let finish = Finish::new(filters, keeps_length, recorder);
    (Response::from_parts(head, content), finish)
}

/// The phases of a response, each of them for all policies.
#[derive(Clone, Copy)]
enum Phase {
    Head,
    Body,
}

/// Whether a response has no body, whatever its headers say (RFC 9112, 6.3).
pub(super) fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
