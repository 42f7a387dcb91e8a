//! Hop-by-hop headers: those that a message's `Connection` names (RFC 9110, 7.6.1).

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

use crate::http1::{list, lists};

/// The headers that `Connection` names as hop-by-hop.
#[derive(Default)]
pub(super) struct Hops(Vec<Box<[u8]>>);

impl Hops {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut hops = Self::default();
        for value in headers.get_all(CONNECTION) {
            hops.read(value.as_bytes());
        }
        hops
    }

    fn read(&mut self, connection: &[u8]) {
        for token in list(connection) {
            // The usual tokens are handled without an allocation.
            let usual = token.eq_ignore_ascii_case(b"close")
                || token.eq_ignore_ascii_case(b"keep-alive")
                || token.eq_ignore_ascii_case(b"upgrade");
            if !usual {
                self.0.push(token.into());
            }
        }
    }

    pub(super) fn names(&self, header: &str) -> bool {
        (self.0.iter()).any(|token| token.eq_ignore_ascii_case(header.as_bytes()))
    }
}

/// Removes the headers that `Connection` names as hop-by-hop, and their names from `Connection`.
/// What policies set under such a name afterwards is sent, so that a client cannot have it removed:
/// with `Connection: X-Anonymous-Consumer`, an anonymous request would look like an authenticated
/// one.
pub(super) fn remove_hops(headers: &mut HeaderMap) {
    let hops = Hops::of(headers);
    if hops.0.is_empty() {
        return;
    }
    let named: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in named.iter().filter(|name| hops.names(name.as_str())) {
        // Those that describe the message are written anew for the endpoint.
        let stays = matches!(
            name.as_str(),
            "connection" | "content-length" | "host" | "te" | "trailer" | "transfer-encoding"
        );
        if !stays {
            headers.remove(name);
        }
    }
    let usual = ["close", "keep-alive", "upgrade"].map(HeaderValue::from_static);
    let listed = |token: &HeaderValue| {
        let token = token.to_str().unwrap_or_default();
        lists(headers, &CONNECTION, token)
    };
    let left: Vec<HeaderValue> = usual.into_iter().filter(listed).collect();
    headers.remove(CONNECTION);
    for token in left {
        headers.append(CONNECTION, token);
    }
}
