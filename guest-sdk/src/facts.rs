//! The request that a pick is for, for balancers that need more of it than the numbers in
//! [`Request`](crate::Request). What is not asked for costs nothing; each of these costs about as much as a
//! whole pick without it.
//!
//! They answer within [`Balancer::pick`](crate::Balancer::pick), when it is asked for a request of a client, or
//! for one of a simulation that says what its requests are like. Anywhere else there is no such request, and all of
//! them answer `None`: have a way to choose without.
//!
//! In a test, [`Given`] is the request:
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
//! [`body_start`] is a little different: who calls it anywhere in a balancer has the gateway wait for the start
//! of each request's body before it asks for a pick.

use std::cell::RefCell;

use crate::bindings::pointsman::balancer::request_facts;

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

/// The query as it was sent, without the question mark; `None` where there is none.
#[must_use]
pub fn query() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::query();
    }
    given(|request| request.query.clone())
}

/// The value of a header, whose name may be in any case. Several of that name are one, with `, ` between
/// the values; what is no UTF-8 has U+FFFD in its place.
#[must_use]
pub fn header(name: &str) -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::header(name);
    }
    given(|request| request.header(name))
}

/// The address of the client, or of the proxy that the connection comes from, without a port.
#[must_use]
pub fn client() -> Option<String> {
    if cfg!(target_family = "wasm") {
        return request_facts::client();
    }
    given(|request| request.client.clone())
}

/// The start of the body: as much as there is of it, but no more than `most` bytes, and never more than
/// [`BODY_START`]. `None` where the request has no body.
///
/// Because a component calls this, the gateway waits for [`BODY_START`] bytes of every body, or for its end,
/// before the first pick of a request: a client that sends slowly is placed late. It is part of the contract
/// since 1.3, and earlier gateways refuse a component that calls it.
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
        body.truncate(BODY_START.min(most) as usize);
        Some(body)
    })
}

/// Most bytes that [`body_start`] returns.
pub const BODY_START: u32 = 16 << 10;

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

    /// Sets the body, which may be longer than what a balancer can see of it.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Calls a function while this is the request, on this thread.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        struct Restored(Option<Given>);
        impl Drop for Restored {
            fn drop(&mut self) {
                GIVEN.set(self.0.take());
            }
        }
        // Also if it panics: a test may expect that.
        let _restored = Restored(GIVEN.replace(Some(self.clone())));
        call()
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
    fn there_is_a_request_only_while_one_is_given() {
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
    fn a_body_is_seen_no_further_than_a_gateway_shows_it() {
        let seen = |body: &[u8], most| {
            let request = Given::new("POST", "/").with_body(body);
            request.during(|| body_start(most)).map(|seen| seen.len())
        };
        assert_eq!(body_start(1), None);
        assert_eq!(Given::new("GET", "/").during(|| body_start(1)), None);
        assert_eq!((seen(b"", 8), seen(b"abc", 8)), (Some(0), Some(3)));
        assert_eq!((seen(b"abc", 2), seen(b"abc", 0)), (Some(2), Some(0)));
        let long = vec![0; 1 << 20];
        assert_eq!(seen(&long, u32::MAX), Some(BODY_START as usize));
    }
}
