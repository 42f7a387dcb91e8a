//! Trailers: fields after a chunked body (RFC 9110, 6.5), and which of them are passed on.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Error;

/// Parses lines of fields of a response; each line includes its line end. Whitespace between a name
/// and its colon is removed (RFC 9112, 5.1).
pub(super) fn parse(lines: &[u8]) -> Result<HeaderMap, Error> {
    let count = lines.iter().filter(|byte| **byte == b'\n').count();
    let mut text = Vec::with_capacity(lines.len() + 2);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, rest) = line.split_at(colon);
        // A line that begins with whitespace continues the one before it, and is refused.
        text.extend_from_slice(name.trim_ascii_end());
        text.extend_from_slice(rest);
    }
    text.extend_from_slice(b"\r\n");
    let lines = text;
    let mut fields = vec![httparse::EMPTY_HEADER; count];
    let mut trailers = HeaderMap::new();
    let httparse::Status::Complete((_, fields)) = httparse::parse_headers(&lines, &mut fields)?
    else {
        return Err(Error::Framing("its trailers do not end"));
    };
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| httparse::Error::HeaderName)?;
        let value =
            HeaderValue::from_bytes(field.value).map_err(|_| httparse::Error::HeaderValue)?;
        let added = trailers.try_append(name, value);
        added.map_err(|_| httparse::Error::TooManyHeaders)?;
    }
    Ok(trailers)
}

/// The trailers that are passed on, if there are any. `is_hop` says which headers `Connection` has
/// named as hop-by-hop.
pub(crate) fn passed_on(
    trailers: &HeaderMap,
    is_hop: impl Fn(&HeaderName) -> bool,
) -> Option<HeaderMap> {
    let fields = trailers.iter();
    let allowed = fields.filter(|(name, _)| is_allowed(name) && !is_hop(name));
    let allowed: HeaderMap = allowed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!allowed.is_empty()).then_some(allowed)
}

/// The trailers of a gRPC response that are passed on, if there are any. Their names are free, but
/// for those of framing and connections: they are metadata of the call, and its status (gRPC over
/// HTTP/2, "Custom-Metadata").
pub(crate) fn passed_on_of_grpc(mut trailers: HeaderMap) -> Option<HeaderMap> {
    for name in [
        "content-length",
        "transfer-encoding",
        "trailer",
        "te",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "host",
    ] {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// Whether a field may be sent as a trailer. When trailers are received, the message is already
/// framed, routed, authenticated and interpreted. A recipient may merge trailers into headers, so
/// they must not be able to change this (RFC 9110, 6.5.1; the list is that of RFC 7230, 4.1.2, with
/// additions from Go's net/http and Kong).
fn is_allowed(name: &HeaderName) -> bool {
    let name = name.as_str();
    let prefixes = [
        "if-",
        "x-forwarded-",
        "x-kong-",
        "x-consumer-",
        "x-credential-",
    ];
    if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    !matches!(
        name,
        // Framing and connections.
        "content-length" | "transfer-encoding" | "trailer" | "te" | "connection" | "keep-alive"
            | "proxy-connection" | "upgrade"
            // Routing, and the proxies and the client on the path of the message.
            | "host" | "forwarded" | "via" | "x-real-ip"
            // Modifiers of the request.
            | "cache-control" | "expect" | "max-forwards" | "pragma" | "range"
            // Authentication.
            | "authorization" | "proxy-authorization" | "www-authenticate" | "proxy-authenticate"
            | "authentication-info" | "proxy-authentication-info" | "cookie" | "set-cookie"
            | "realm" | "x-anonymous-consumer" | "x-authenticated-groups"
            // Control of the response.
            | "age" | "date" | "expires" | "location" | "retry-after" | "vary" | "warning"
            // Interpretation of the body.
            | "content-encoding" | "content-type" | "content-range"
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn whitespace_before_the_colon_is_removed() {
        let trailers = parse(b"X-Sum : 1\r\nx-b\t : a : b\r\n").unwrap();
        assert_eq!(
            (&trailers["x-sum"], &trailers["x-b"]),
            (&"1".parse().unwrap(), &"a : b".parse().unwrap())
        );
        for wrong in [
            "x\r\n",
            " x: 1\r\n",
            "a: 1\r\n b: 2\r\n",
            "x y: 1\r\n",
            ": 1\r\n",
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn fields_that_affect_processing_are_not_accepted_as_trailers() {
        let lines = "Digest: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\
                     Authorization: x\r\nX-Forwarded-For: y\r\nIf-Match: z\r\nX-Hop: 1\r\ndigest: b\r\n";
        let trailers = parse(lines.as_bytes()).unwrap();
        assert_eq!(trailers.len(), 9);
        let passed = passed_on(&trailers, |name| name == "x-hop").unwrap();
        let values: Vec<_> = passed.get_all("digest").iter().collect();
        assert_eq!(values, ["a", "b"]);
        assert_eq!(passed.len(), 2);
        let none = parse(b"Host: h\r\n").unwrap();
        assert!(passed_on(&none, |_| false).is_none());
    }

    #[test]
    fn metadata_of_grpc_may_have_any_name_but_those_of_framing() {
        let lines = "grpc-status: 0\r\nRetry-After: 1\r\nSet-Cookie: a=1\r\nContent-Type: x\r\n\
                     Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n";
        let passed = passed_on_of_grpc(parse(lines.as_bytes()).unwrap()).unwrap();
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["content-type", "grpc-status", "retry-after", "set-cookie"]
        );
        assert!(passed_on_of_grpc(parse(b"Host: h\r\n").unwrap()).is_none());
    }

    #[test]
    fn malformed_trailers_are_refused() {
        for lines in ["a\r\n", ": b\r\n", "a b: c\r\n", "a: \0\r\n"] {
            assert!(parse(lines.as_bytes()).is_err(), "{lines:?}");
        }
    }
}
