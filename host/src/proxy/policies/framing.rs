//! The headers of a response that say where it ends and what becomes of its connection. They are
//! the gateway's own, since a policy that changes one would have a client read the end of a body in
//! the wrong place, and take the rest of it for the next response (RFC 9112, 11.1).

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const NAMES: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// These headers, as they were before the policies.
pub(super) struct Framing(Vec<(HeaderName, HeaderValue)>);

fn those_of(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    headers.iter().filter(|(name, _)| NAMES.contains(name))
}

impl Framing {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let cloned = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone());
        Self(those_of(headers).map(cloned).collect())
    }

    /// Has the head give this length, in bytes, of another body.
    pub(super) fn set_length(&mut self, length: usize) {
        (self.0).retain(|(name, _)| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING);
        self.0.push((CONTENT_LENGTH, length.into()));
    }

    /// Undoes what the policies have done to them.
    pub(super) fn restore(self, headers: &mut HeaderMap) {
        let own = self.0.iter().map(|(name, value)| (name, value));
        if own.eq(those_of(headers)) {
            return;
        }
        for name in &NAMES {
            headers.remove(name);
        }
        for (name, value) in self.0 {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_changes_no_header_that_frames_a_response() {
        let mut headers = HeaderMap::new();
        headers.append(CONTENT_LENGTH, HeaderValue::from_static("10"));
        headers.append(TRAILER, HeaderValue::from_static("a"));
        headers.append(TRAILER, HeaderValue::from_static("b"));
        headers.append("x-other", HeaderValue::from_static("1"));
        let mut expected = headers.clone();
        let framing = Framing::of(&headers);
        for name in NAMES {
            headers.insert(name, HeaderValue::from_static("3"));
        }
        for changed in [&mut headers, &mut expected] {
            changed.insert("x-other", HeaderValue::from_static("2"));
        }
        framing.restore(&mut headers);
        assert_eq!(headers, expected);
        let framing = Framing::of(&headers);
        headers.remove(CONTENT_LENGTH);
        framing.restore(&mut headers);
        assert_eq!(headers, expected);
    }
}
