//! Runs the policies of a request: before an endpoint is chosen, on the response, and at its end.

mod body;
mod finish;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::client::ClientRequest;
use super::connection_info::ConnectionInfo;
use super::download::Content;
use super::headers;
use super::matched::Matched;
use super::respond::Reject;
use super::upload::Upload;
use super::{Inbound, Seen};
use crate::policy::chain::{Chain, Instance, Policies};
use crate::policy::identity::Subject;
use crate::policy::record::{self, TryOutcome};
use crate::policy::request::{Client, MatchedIds, Request, TargetQuery};
use crate::policy::response::{self, BodyFilter, Received, Source};
use crate::policy::{Access, Verdict};
use body::PolicyBody;
use finish::Recorder;
pub(super) use finish::{Finish, Passed};

/// The policies of a request in progress.
pub(super) struct Run {
    /// The policies that serve the request, in their order.
    chosen: Vec<Chosen>,
    /// Who the request is from.
    pub(super) subject: Subject,
    route: Option<(uuid::Uuid, Option<Arc<str>>, Option<uuid::Uuid>)>,
    host: Arc<str>,
    began: SystemTime,
    /// Filters that read the body as the endpoint sends it.
    readers: Vec<Box<dyn BodyFilter>>,
    /// What the exchange stage notes for records.
    pub(super) trace: Trace,
}

/// A policy that serves the request, with what it keeps for its later phases.
struct Chosen {
    instance: Arc<Instance>,
    kept: Option<Box<dyn Any>>,
}

/// What the exchange stage notes for records.
#[derive(Default)]
pub(super) struct Trace {
    /// The tries with endpoints, in their order.
    pub(super) tries: RefCell<Vec<record::Try>>,
    /// Path and query of the request to the endpoint.
    pub(super) upstream_target: RefCell<Option<Arc<str>>>,
    /// The wait for the endpoints, up to the head of the last response.
    pub(super) upstream: Cell<Option<Duration>>,
    /// When that head was received.
    pub(super) answered: Cell<Option<Instant>>,
}

impl Trace {
    /// Notes a try that took `took`, the pick included, which took `picked_in`.
    pub(super) fn note_try(
        &self,
        address: SocketAddr,
        took: Duration,
        picked_in: Duration,
        outcome: TryOutcome,
    ) {
        self.tries.borrow_mut().push(record::Try {
            address,
            started: SystemTime::now() - took,
            balancer: picked_in,
            outcome,
        });
    }

    /// Notes that no further try follows: `upstream` is the time that all of them took.
    pub(super) fn note_answer(&self, target: &[u8], upstream: Duration, now: Instant) {
        let target = String::from_utf8_lossy(target);
        *self.upstream_target.borrow_mut() = Some(target.into());
        self.upstream.set(Some(upstream));
        self.answered.set(Some(now));
    }
}

impl Run {
    fn new() -> Box<Self> {
        Box::new(Self {
            chosen: Vec::new(),
            subject: Subject::default(),
            route: None,
            host: Arc::from(""),
            began: SystemTime::now(),
            readers: Vec::new(),
            trace: Trace::default(),
        })
    }

    /// The run of a request that was refused before it had a route. Only the later phases of its
    /// policies run.
    pub(super) fn unmatched(policies: &Policies) -> Option<Box<Self>> {
        let chain = policies.of_unmatched()?;
        let mut run = Self::new();
        for step in chain.steps() {
            if let Some(instance) = step.choose(policies, None) {
                run.choose(instance);
            }
        }
        Some(run)
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

    fn choose(&mut self, instance: &Arc<Instance>) {
        let instance = Arc::clone(instance);
        self.chosen.push(Chosen {
            instance,
            kept: None,
        });
    }

    fn matched(&self) -> Option<MatchedIds<'_>> {
        let (route, route_name, service) = self.route.as_ref()?;
        Some(MatchedIds {
            route: *route,
            route_name: route_name.as_deref(),
            service: *service,
        })
    }
}

fn client<'a>(info: &'a ConnectionInfo, host: &'a str) -> Client<'a> {
    Client {
        address: info.address,
        port: info.listener.port,
        scheme: info.listener.scheme.as_str(),
        host,
    }
}

/// Runs the access phase of a chain. What the policies change is changed in the request and in its
/// match.
pub(super) async fn access(
    seen: &Seen,
    chain: &Chain,
    inbound: &mut Inbound,
    matched: &mut Matched<'_>,
) -> Result<(), Reject> {
    let policies = &seen.0.policies;
    let Inbound {
        parts,
        upload,
        from,
        started,
        run,
    } = inbound;
    let run = run.insert(Run::new());
    let route = matched.route;
    run.route = Some((route.id, route.name.clone(), route.service));
    run.host = matched.host.name().into();
    headers::remove_hops(&mut parts.headers);
    let upload = upload.as_ref().map(PolicyBody::new);
    let mut query = TargetQuery::sent(matched.target.query());
    let (mut upstream_path, mut upstream_host) = (None, None);
    let mut answer = None;
    for step in chain.steps() {
        let consumer = run.subject.consumer.as_ref().map(|consumer| consumer.id);
        let Some(instance) = step.choose(policies, consumer) else {
            continue;
        };
        run.choose(instance);
        if answer.is_some() {
            // The later phases of all policies run, although one has answered. Source: Kong.
            continue;
        }
        let mut request = Request {
            head: parts,
            path: matched.path(),
            sent_target: matched.target.as_str(),
            query: &mut query,
            upstream_path: &mut upstream_path,
            upstream_host: &mut upstream_host,
            regex: matched.regex,
            body: upload.as_ref().map(|upload| upload as _),
            client: client(&from.client.info, &run.host),
            matched: MatchedIds {
                route: route.id,
                route_name: route.name.as_deref(),
                service: route.service,
            },
            subject: &mut run.subject,
            identities: &policies.identities,
            id: from.id.as_str(),
            started: *started,
            kept: None,
        };
        let verdict = match instance.policy.access(&mut request) {
            Access::Done(verdict) => verdict,
            Access::Pending(decision) => decision.await,
        };
        let kept = request.kept.take();
        if let Some(chosen) = run.chosen.last_mut() {
            chosen.kept = kept;
        }
        if let Verdict::Answer(answered) = verdict {
            answer = Some(answered);
        }
    }
    if let Some(answer) = answer {
        return Err(Reject::Policy(answer));
    }
    matched.apply(&query, upstream_path, upstream_host)
}

/// A request that is answered.
pub(super) struct Answered {
    /// Its head, as the policies have left it.
    pub(super) parts: Parts,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) started: Instant,
    /// Who has made the response.
    pub(super) source: Source,
}

/// Runs the response phases of the policies. Returns the response, and what is left to do while it
/// is sent.
pub(super) fn respond(
    mut run: Box<Run>,
    response: Response<Content>,
    request: Answered,
    from: &ClientRequest,
) -> (Response<Content>, Option<Box<Finish>>) {
    let (mut head, mut content) = response.into_parts();
    let mut filters = std::mem::take(&mut run.readers);
    let readers = filters.len();
    let mut is_replaced = false;
    let mut chosen = std::mem::take(&mut run.chosen);
    for phase in [Phase::Head, Phase::Body] {
        for chosen in &mut chosen {
            let mut response = response::Response {
                head: &mut head,
                source: request.source,
                request: &request.parts,
                client: client(&from.client.info, &run.host),
                matched: run.matched(),
                subject: &run.subject,
                body: None,
                kept: chosen.kept.take(),
            };
            let policy = &chosen.instance.policy;
            match phase {
                Phase::Head => policy.response(&mut response),
                Phase::Body => filters.extend(policy.body(&mut response)),
            }
            let (body, kept) = (response.body.take(), response.kept.take());
            chosen.kept = kept;
            if let Some(body) = body {
                head.headers.insert(CONTENT_LENGTH, body.len().into());
                head.headers.remove(TRANSFER_ENCODING);
                content = Content::Own(Some(body));
                is_replaced = true;
            }
        }
    }
    run.chosen = chosen;
    if is_replaced {
        // The rest of the endpoint's body is not read.
        filters.drain(..readers);
    }
    let keeps_length = filters.iter().all(|filter| filter.keeps_length());
    if !keeps_length {
        head.headers.remove(CONTENT_LENGTH);
    }
    let is_empty = keeps_length && content.length() == Some(0);
    if has_no_body(&request.parts.method, head.status) || is_empty {
        // There is nothing to change, and hyper does not ask for a body of length 0.
        for mut filter in filters.drain(..) {
            filter.end();
        }
    }
    let recorder = Recorder {
        run,
        request: request.parts,
        upload: request.upload,
        started: request.started,
        source: request.source,
        status: head.status,
        headers: head.headers.clone(),
        sent: 0,
    };
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
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
