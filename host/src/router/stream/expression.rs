//! Expressions of routes of streams.

use super::{StreamProtocol, StreamQuery};
use crate::expression::{Expression, Family, Field, Predicate};
use crate::pattern::Pattern;
use crate::router::error::RouteError;
use crate::router::expression::{address, number, parse, passes};

/// The expression of a route of streams.
#[derive(Debug)]
pub(super) struct StreamExpression(Expression<Pattern>);

impl StreamExpression {
    /// Reads the expression of a route. Its regular expressions may take `room` bytes of memory,
    /// from which what they take is subtracted.
    pub(super) fn compile(text: &str, room: &mut usize) -> Result<Self, RouteError> {
        parse(text, Family::Stream, room).map(Self)
    }

    /// Whether the expression holds for a stream of this protocol.
    pub(super) fn holds(&self, query: &StreamQuery<'_>, protocol: StreamProtocol) -> bool {
        holds(&self.0, query, protocol)
    }
}

fn holds(
    expression: &Expression<Pattern>,
    query: &StreamQuery<'_>,
    protocol: StreamProtocol,
) -> bool {
    let part_holds = |part: &Expression<Pattern>| holds(part, query, protocol);
    match expression {
        Expression::All(parts) => parts.iter().all(part_holds),
        Expression::Any(parts) => parts.iter().any(part_holds),
        Expression::Not(part) => !part_holds(part),
        Expression::Predicate(predicate) => is_satisfied(predicate, query, protocol),
    }
}

/// Whether the value of a field passes the test. A field without a value passes none.
fn is_satisfied(
    predicate: &Predicate<Pattern>,
    query: &StreamQuery<'_>,
    protocol: StreamProtocol,
) -> bool {
    let test = &predicate.test;
    let text = |text: &str| passes(test, predicate.lower, text.as_bytes());
    match &predicate.field {
        Field::Protocol => text(match protocol {
            StreamProtocol::Tcp => "tcp",
            StreamProtocol::Tls | StreamProtocol::TlsPassthrough => "tls",
            StreamProtocol::Udp => "udp",
        }),
        Field::ServerName => query.server_name.is_some_and(text),
        Field::SourceIp => address(test, Some(query.source.ip().to_canonical())),
        Field::SourcePort => number(test, Some(query.source.port().into())),
        Field::DestinationIp => address(test, Some(query.destination.ip().to_canonical())),
        Field::DestinationPort => number(test, Some(query.destination.port().into())),
        // The expression of a stream names no field of requests.
        _ => false,
    }
}
