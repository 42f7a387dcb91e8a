//! A request in the access phase.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::request::Parts;
use uuid::Uuid;

use super::answer::Answer;
use super::identity::{Identities, Subject};
use super::request_trace::RequestTrace;
use crate::pattern::Pattern;
use crate::urlencoded;

/// A request in the access phase. What a policy changes here is what later policies, and the
/// endpoint, see.
pub struct Request<'r> {
    /// Method and headers. The target of the client's request is in `path` and `query`; a change
    /// of the URI here has no effect.
    pub head: &'r mut Parts,
    /// The normalised path of the client's request, to which [`Request::capture`] refers.
    pub path: &'r [u8],
    /// The part of `path` behind what `strip_path` of the route removes.
    pub rest: &'r [u8],
    /// Path and query as the client sent them.
    pub sent_target: &'r str,
    /// A body for a request without one.
    pub added_body: &'r mut Option<Bytes>,
    /// The query.
    pub query: &'r mut TargetQuery,
    /// What replaces the path of the request to the endpoint, the service's path included.
    pub upstream_path: &'r mut Option<String>,
    /// What replaces the `Host` of the request to the endpoint.
    pub upstream_host: &'r mut Option<String>,
    /// The regular expression of the route that matched the path, if one did.
    pub regex: Option<&'r Pattern>,
    /// The body, if the request has one.
    pub body: Option<&'r dyn RequestBody>,
    /// The client and its connection.
    pub client: Client<'r>,
    /// The route and service of the request.
    pub matched: MatchedIds<'r>,
    /// Who the request is from, as authentication has found out so far.
    pub subject: &'r mut Subject,
    /// Consumers and credentials.
    pub identities: &'r Identities,
    /// The id of the request, as in `X-Kong-Request-Id`.
    pub id: &'r str,
    /// The id that records give the request besides its own. The policy `correlation-id` sets it.
    pub correlation_id: &'r mut Option<Arc<str>>,
    /// The trace that the request belongs to, once a policy has begun it.
    pub trace: &'r mut Option<Box<RequestTrace>>,
    /// When the head of the request was received.
    pub started: Instant,
    /// What the present policy keeps for its later phases.
    pub(crate) kept: Option<Box<dyn Any>>,
}

/// The client of a request, and the connection that it came on.
#[derive(Debug, Clone, Copy)]
pub struct Client<'r> {
    /// The address of the client.
    pub address: SocketAddr,
    /// The address that it is connected to.
    pub local: IpAddr,
    /// The number of the connection, among those of this process.
    pub connection: u64,
    /// Number of requests on the connection so far, this one included.
    pub requests: u64,
    /// The port that accepted the connection.
    pub port: u16,
    /// The scheme of the request: `http` or `https`.
    pub scheme: &'static str,
    /// The host that the client has requested, without port.
    pub host: &'r str,
    /// Whether the peer is a trusted proxy, whose `X-Forwarded-Proto`, `-Host`, `-Port`, `-Path`
    /// and `-Prefix` the endpoint is told.
    pub keeps_forwarded: bool,
}

/// What a request was matched to.
#[derive(Debug, Clone, Copy)]
pub struct MatchedIds<'r> {
    /// The route.
    pub route: Uuid,
    /// The name of the route.
    pub route_name: Option<&'r str>,
    /// The service of the route.
    pub service: Option<Uuid>,
}

/// The body of a request.
pub trait RequestBody {
    /// Its length, if the client has sent it.
    fn length(&self) -> Option<u64>;

    /// Reads the whole body, if it has no more than `limit` bytes. The endpoint gets it all the
    /// same. `None`: it is longer.
    ///
    /// The error is the answer to a client that sends the body too slowly, one that is malformed,
    /// or one that is longer than another policy allows (see [`RequestBody::limit`]).
    fn read(&self, limit: usize) -> LocalBoxFuture<'_, Result<Option<Bytes>, Box<Answer>>>;

    /// Answers the request with `refusal` once the client has sent more than `most` bytes,
    /// even if the endpoint has a part of the body by then. Returns the answer if the client has
    /// sent more already.
    fn limit(&self, most: u64, refusal: Answer) -> Option<Answer>;

    /// Sends this body to the endpoint instead. The body has to have been read before.
    fn replace(&self, body: Bytes);
}

impl Request<'_> {
    /// Keeps something for the later phases of the present policy, see [`super::Response::kept`].
    ///
    /// [`super::Response::kept`]: super::response::Response::kept
    pub fn keep(&mut self, kept: impl Any) {
        self.kept = Some(Box::new(kept));
    }

    /// The part of the path that a named group of the route's regular expression has matched.
    pub fn capture(&self, group: &str) -> Option<&[u8]> {
        self.regex?.capture(self.path, group)
    }
}

/// The query of a request's target: the text after `?`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TargetQuery {
    text: Option<Arc<str>>,
    changed: bool,
}

impl TargetQuery {
    /// The query as the client sent it.
    pub fn sent(text: Option<&str>) -> Self {
        Self {
            text: text.map(Arc::from),
            changed: false,
        }
    }

    /// The text, if there is a query.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Whether it was changed since the client sent it.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// All arguments in their order, decoded; an argument without `=` has no value.
    pub fn arguments(&self) -> Vec<(String, Option<String>)> {
        urlencoded::arguments(self.text().unwrap_or_default().as_bytes())
    }

    /// Replaces all arguments. Those that were sent stay as they were sent.
    pub fn set_arguments(&mut self, arguments: &[(String, Option<String>)]) {
        let sent = self.text().unwrap_or_default().as_bytes();
        let text = urlencoded::write(arguments, sent);
        // The text of a query is text, and so are escaped arguments.
        let text = String::from_utf8_lossy(&text);
        self.text = (!text.is_empty()).then(|| text.into());
        self.changed = true;
    }

    /// Removes all arguments of this name, and leaves all others as they were sent. Returns whether
    /// there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(text) = self.text.clone() else {
            return false;
        };
        let is_named = |argument: &&str| {
            let mut pairs = urlencoded::pairs(argument.as_bytes());
            pairs
                .next()
                .is_some_and(|(found, _)| *found == *name.as_bytes())
        };
        let left: Vec<&str> = text
            .split('&')
            .filter(|argument| !is_named(argument))
            .collect();
        let left = left.join("&");
        let removed = left.len() != text.len();
        if removed {
            self.text = (!left.is_empty()).then(|| left.into());
            self.changed = true;
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_removed_and_the_others_stay_as_they_were_sent() {
        let mut query = TargetQuery::sent(Some("a=%31&apikey=x&b&apikey=y"));
        assert!(query.remove("apikey"));
        assert_eq!(query.text(), Some("a=%31&b"));
        assert!(query.is_changed());
        assert!(!query.remove("apikey"));
        let mut query = TargetQuery::sent(Some("api%6Bey=x"));
        assert!(query.remove("apikey"));
        assert_eq!(query.text(), None);
    }

    #[test]
    fn arguments_are_decoded_and_encoded() {
        let mut query = TargetQuery::sent(Some("a=1+2&b=%26&c"));
        let arguments = query.arguments();
        let expected = [("a", Some("1 2")), ("b", Some("&")), ("c", None)];
        let owned = |(name, value): (&str, Option<&str>)| (name.into(), value.map(Into::into));
        let expected: [(String, Option<String>); 3] = expected.map(owned);
        assert_eq!(arguments, expected);
        query.set_arguments(&arguments);
        assert_eq!(query.text(), Some("a=1+2&b=%26&c"));
    }
}
