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
//! start of each request's body before it calls the balancer for a pick.

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

/// The start of the body: at most `most` bytes, and never more than [`BODY_START`]. `None` if the
/// request has no body.
///
/// For a component that calls this function, the gateway waits before the first pick of each
/// request, until it has received [`BODY_START`] bytes of the body or the end of it: the request of
/// a slow client is placed late. The function is part of the contract since 1.3, and earlier
/// gateways refuse a component that calls it.
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

/// The maximum number of bytes that [`body_start`] returns.
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

    /// Sets the body. It may be longer than the part that a balancer can read.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.into());
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
        assert_eq!(seen(&long, u32::MAX), Some(BODY_START as usize));
    }
}
