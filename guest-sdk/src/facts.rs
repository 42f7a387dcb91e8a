//! The request that a pick is for, for balancers that need more of it than the numbers in
//! [`Request`](crate::Request). A fact that a balancer does not ask for costs nothing; each call
//! costs about as much as a whole pick without it.
//!
//! The functions return facts within [`Balancer::pick`](crate::Balancer::pick), if the pick is for
//! a request of a client, or for a request of a simulation whose scenario describes its requests.
//! At any other time there is no such request, and all of them return `None`: a balancer needs a
//! way to choose without them.
//!
//! In a test, [`Given`] provides the request:
//!
//! ```
//! use guest_sdk::facts;
//!
//! let tenant = || facts::header("X-Tenant");
//! assert_eq!(tenant(), None);
//! let request = facts::Given::new("GET", "/cart").with_header("x-tenant", "blue");
//! assert_eq!(request.during(tenant), Some("blue".into()));
//! ```
//!
//! [`body_start`] has a further cost: if any code of a balancer calls it, the gateway waits for the
//! start of each request's body before it calls the balancer for a pick. For [`json_field`],
//! [`prefix_hashes`], [`prompt_length`] and [`body_length`] it waits for more of it: for the
//! upstream's `pointsman.balancer_body_size`. It scans the body itself, so that a balancer need not
//! copy it.

use std::cell::RefCell;

use crate::bindings::pointsman::balancer::{body_facts, request_facts};
use crate::json;
use crate::prefix::Prompt;

/// The method, as it was sent: `GET`.
#[must_use]
pub fn method() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::method();
    }
    given(|request| Some(request.method.clone()))
}

/// The path, normalised (escapes, `.`, `..` and `//` resolved), without the query.
#[must_use]
pub fn path() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::path();
    }
    given(|request| Some(request.path.clone()))
}

/// The query as it was sent, without the question mark; `None` if the request has no query.
#[must_use]
pub fn query() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::query();
    }
    given(|request| request.query.clone())
}

/// The value of a header. The name may be in any case. If the request has several headers of that
/// name, all their values, with `, ` between them. Bytes that are not UTF-8 are replaced by U+FFFD.
/// `None` if the request has no such header.
#[must_use]
pub fn header(name: &str) -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::header(name);
    }
    given(|request| request.header(name))
}

/// The address of the client, or of the proxy that opened the connection, without a port.
#[must_use]
pub fn client() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::client();
    }
    given(|request| request.client.clone())
}

/// The start of the body: at most `most` bytes, and never more than [`MAX_BODY_START`]. `None` if
/// the request has no body.
///
/// For a component that calls this function, the gateway waits before the first pick of each
/// request, until it has received [`MAX_BODY_START`] bytes of the body or the end of it: the
/// request of a slow client is placed late. The function is part of the contract since 1.3, and
/// earlier gateways refuse a component that calls it.
///
/// ```
/// use guest_sdk::facts;
///
/// let request = facts::Given::new("POST", "/").with_body(b"{\"model\": \"small\"}");
/// assert_eq!(request.during(|| facts::body_start(8)), Some(b"{\"model\"".to_vec()));
/// ```
#[must_use]
pub fn body_start(most: u32) -> Option<Vec<u8>> {
    if cfg!(target_family = "wasm") {
        return request_facts::body_start(most);
    }
    given(|request| {
        let mut body = request.body.clone()?;
        body.truncate(MAX_BODY_START.min(most) as usize);
        Some(body)
    })
}

/// The maximum number of bytes that [`body_start`] returns.
pub const MAX_BODY_START: u32 = 16 << 10;

/// The value at a JSON pointer in the body, such as `/model`, `/max_tokens` or `/messages/0/role`:
/// at most `most` bytes, and never more than [`MAX_JSON_FIELD`]; a longer one is cut off. A string
/// is without its quotes and escapes, any other value as it was sent. `None` if the body is not
/// JSON or does not have it, or if it is not in the part of the body that the gateway waits for.
///
/// The functions for bodies beyond their start are part of the contract since 1.4, and earlier
/// gateways refuse a component that calls one.
///
/// ```
/// use guest_sdk::facts;
///
/// let body = br#"{"messages": [{"role": "user", "content": "Say \"hi\""}], "max_tokens": 16}"#;
/// let request = facts::Given::new("POST", "/").with_body(body);
/// request.during(|| {
///     assert_eq!(facts::json_field("/max_tokens", 10).as_deref(), Some("16"));
///     assert_eq!(facts::json_field("/messages/0/content", 100).as_deref(), Some("Say \"hi\""));
/// });
/// ```
#[must_use]
pub fn json_field(pointer: &str, most: u32) -> Option<String> {
    if cfg!(target_family = "wasm") {
        return body_facts::json_field(pointer, most);
    }
    given(|request| {
        let value = json::find(request.known_body()?, pointer)?;
        Some(value.to_text(MAX_JSON_FIELD.min(most) as usize))
    })
}

/// The hashes of the prompt's prefixes, the shortest first: of its first block of `block` bytes, of
/// its first two blocks, and so on; at most `most`, and never more than [`MAX_HASHES`]. They are
/// those of [`Prompt::hashes`]. `None` if the body has no prompt.
///
/// ```
/// use guest_sdk::facts;
///
/// let request = facts::Given::new("POST", "/").with_body(br#"{"prompt": "Say hello"}"#);
/// assert_eq!(request.during(|| facts::prefix_hashes(4, 100)).map(|hashes| hashes.len()), Some(2));
/// ```
#[must_use]
pub fn prefix_hashes(block: u32, most: u32) -> Option<Vec<u64>> {
    if cfg!(target_family = "wasm") {
        return body_facts::prefix_hashes(block, most);
    }
    given(|request| {
        let prompt = Prompt::of(request.known_body()?)?;
        Some(prompt.hashes(block as usize, MAX_HASHES.min(most) as usize))
    })
}

/// The number of bytes of the prompt that are known, and whether it may have more. `None` if the
/// body has no prompt.
#[must_use]
pub fn prompt_length() -> Option<(u64, bool)> {
    if cfg!(target_family = "wasm") {
        return body_facts::prompt_length();
    }
    given(|request| {
        let prompt = Prompt::of(request.known_body()?)?;
        Some((prompt.text.len() as u64, prompt.is_cut()))
    })
}

/// The number of bytes of the body that are known, and whether it may have more. `None` if the
/// request has no body.
#[must_use]
pub fn body_length() -> Option<(u64, bool)> {
    if cfg!(target_family = "wasm") {
        return body_facts::length();
    }
    given(|request| {
        let known = request.known_body()?.len();
        let all = request.body.as_ref().map_or(0, Vec::len);
        Some((known as u64, known < all))
    })
}

/// The maximum number of bytes that [`json_field`] returns.
pub const MAX_JSON_FIELD: u32 = 16 << 10;

/// The maximum number of hashes that [`prefix_hashes`] returns.
pub const MAX_HASHES: u32 = 16 << 10;

std::thread_local! {
    static GIVEN: RefCell<Option<Given>> = const { RefCell::new(None) };
}

fn given<T>(read: impl FnOnce(&Given) -> Option<T>) -> Option<T> {
    GIVEN.with_borrow(|request| request.as_ref().and_then(read))
}

/// A request for tests.
#[derive(Clone, Debug, Default)]
pub struct Given {
    method: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    client: Option<String>,
    body: Option<Vec<u8>>,
    /// How much of the body is known; all of it if this is none.
    known: Option<usize>,
}

impl Given {
    /// A request without query, headers, client and body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            ..Self::default()
        }
    }

    /// Sets the query.
    #[must_use]
    pub fn with_query(mut self, query: &str) -> Self {
        self.query = Some(query.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the address of the client.
    #[must_use]
    pub fn with_client(mut self, address: &str) -> Self {
        self.client = Some(address.into());
        self
    }

    /// Sets the body. It may be longer than the part that a balancer can read.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets how many bytes of the body the gateway has read. Without this, it has read all.
    #[must_use]
    pub fn with_known_body(mut self, bytes: usize) -> Self {
        self.known = Some(bytes);
        self
    }

    /// Calls a function. During the call, the functions of this module return the facts of this
    /// request on this thread.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        struct Restored(Option<Given>);
        impl Drop for Restored {
            fn drop(&mut self) {
                GIVEN.set(self.0.take());
            }
        }
        // Restores the former request also after a panic, because a test may expect one.
        let _restored = Restored(GIVEN.replace(Some(self.clone())));
        call()
    }

    fn known_body(&self) -> Option<&[u8]> {
        let body = self.body.as_deref()?;
        Some(
            self.known
                .and_then(|known| body.get(..known))
                .unwrap_or(body),
        )
    }

    fn header(&self, name: &str) -> Option<String> {
        let own = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        let values: Vec<&str> = (self.headers.iter().filter(own))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_available_only_while_a_request_is_given() {
        let all = || (method(), path(), query(), header("a"), client());
        let none = (None, None, None, None, None);
        assert_eq!(all(), none);
        let text = |text: &str| Some(text.to_owned());
        let request = Given::new("GET", "/a")
            .with_query("b=c")
            .with_client("192.0.2.7")
            .with_header("A", "1")
            .with_header("a", "2");
        let told = request.during(all);
        let expected = (
            text("GET"),
            text("/a"),
            text("b=c"),
            text("1, 2"),
            text("192.0.2.7"),
        );
        assert_eq!(told, expected);
        assert_eq!(all(), none);
    }

    #[test]
    fn the_start_of_a_body_is_as_long_as_a_gateway_provides() {
        let seen = |body: &[u8], most| {
            let request = Given::new("POST", "/").with_body(body);
            request.during(|| body_start(most)).map(|seen| seen.len())
        };
        assert_eq!(body_start(1), None);
        assert_eq!(Given::new("GET", "/").during(|| body_start(1)), None);
        assert_eq!((seen(b"", 8), seen(b"abc", 8)), (Some(0), Some(3)));
        assert_eq!((seen(b"abc", 2), seen(b"abc", 0)), (Some(2), Some(0)));
        let long = vec![0; 1 << 20];
        assert_eq!(seen(&long, u32::MAX), Some(MAX_BODY_START as usize));
    }

    #[test]
    fn a_body_is_known_as_far_as_it_was_read() {
        let all = || {
            let field = json_field("/n", 9);
            (body_length(), prompt_length(), field, prefix_hashes(2, 9))
        };
        assert_eq!(all(), (None, None, None, None));
        assert_eq!(Given::new("GET", "/").during(all).0, None);
        let body = br#"{"prompt":"abcde","n":7}"#;
        let request = Given::new("POST", "/").with_body(body);
        let (length, prompt, field, hashes) = request.during(all);
        assert_eq!((length, prompt), (Some((24, false)), Some((5, false))));
        assert_eq!(
            (field.as_deref(), hashes.map(|h| h.len())),
            (Some("7"), Some(2))
        );
        let (length, prompt, field, hashes) = request.with_known_body(15).during(all);
        assert_eq!((length, prompt), (Some((15, true)), Some((4, true))));
        assert_eq!((field, hashes.map(|h| h.len())), (None, Some(2)));
        let form = Given::new("POST", "/").with_body(b"n=7");
        assert_eq!(form.during(all), (Some((3, false)), None, None, None));
    }
}
