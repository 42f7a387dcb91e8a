//! Responses that are written without hyper: to a client that is refused, and in place of hyper's
//! own responses, which have neither a body nor Kong's headers.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::request_id::RequestId;
use super::respond::{self, Reject};
use crate::config::ResponseHeaders;
use crate::request_log;

/// A whole response that is written without hyper.
pub(super) struct Page {
    pub(super) id: RequestId,
    pub(super) status: StatusCode,
    /// Why the client is answered so, as a code for programs.
    pub(super) reason: &'static str,
    pub(super) bytes: Bytes,
    /// Length of the body at the end of these bytes.
    pub(super) body: usize,
}

/// The whole response to a request whose head is unknown. The connection is closed after it. Kong
/// sends plain text where it does not know which media types the client accepts.
pub(super) fn refusal(reject: &Reject, sent: ResponseHeaders) -> Page {
    whole(reject, sent)
}

/// The whole response to a request in clear text on a port for TLS.
pub(super) fn plain_on_tls(sent: ResponseHeaders) -> Page {
    whole(&Reject::PlainOnTls, sent)
}

fn whole(reject: &Reject, sent: ResponseHeaders) -> Page {
    let status = reject.status();
    let id = RequestId::new();
    let _scope = request_log::enter(Some(id.digits()));
    tracing::debug!("a client is answered {status} and nothing more");
    let rejected = respond::reject(reject, &HeaderMap::new(), &id, Instant::now(), sent);
    let (parts, body) = rejected.into_parts();
    let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    for (name, value) in &parts.headers {
        line(name.as_str(), value.as_bytes());
    }
    line(
        "date",
        httpdate::fmt_http_date(SystemTime::now()).as_bytes(),
    );
    line("content-length", body.len().to_string().as_bytes());
    line("connection", b"close");
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    Page {
        id,
        status,
        reason: reject.code(),
        bytes: text.into(),
        body: body.len(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_response_in_kongs_form() {
        let page = refusal(
            &Reject::HttpServer(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            ResponseHeaders::default(),
        )
        .bytes;
        let page = std::str::from_utf8(&page).unwrap();
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Response::new(&mut fields);
        let length = head.parse(page.as_bytes()).unwrap().unwrap();
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name == name);
            std::str::from_utf8(field.unwrap().value).unwrap()
        };
        let body = &page[length..];
        assert_eq!(head.code, Some(431));
        assert_eq!(field("content-length"), body.len().to_string());
        assert_eq!(field("connection"), "close");
        assert_eq!(
            body,
            format!(
                "Request header or cookie too large\nrequest_id: {}\n",
                field("x-kong-request-id")
            )
        );
    }
}
