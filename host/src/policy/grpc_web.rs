//! `grpc-web`: lets browsers, which cannot read trailers, call gRPC services. Source: Kong 3.9,
//! `grpc-web`; gRPC, "gRPC Web" (PROTOCOL-WEB.md).
//!
//! The request becomes one of gRPC. In the response, the trailers follow the messages as a last
//! frame of the body. In the text form, bodies are in base64, for clients that cannot read bytes
//! while they arrive.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, TE,
};
use http::{Method, StatusCode};

use super::answer::Answer;
use super::request::Request;
use super::response::{BodyFilter, Response};
use super::{Access, DryRun, Policy, Verdict};
use crate::entity::plugin::grpc_web::Config;
use crate::path;

/// Largest request in base64, in bytes. It is held in memory as a whole. Clients send one message
/// only, and servers of gRPC take messages of 4 MiB unless they are told otherwise.
const TEXT_LIMIT: usize = 8 << 20;

/// The first byte of the frame with the trailers.
const TRAILERS: u8 = 0x80;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The status of a call whose server has told none. Source: gRPC, UNKNOWN.
const UNKNOWN: HeaderValue = HeaderValue::from_static("2");

/// The headers that a preflight is allowed that asks for none. Source: Kong.
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("content-type,x-grpc-web,x-user-agent");

/// Translates between the gRPC of browsers and that of services.
#[derive(Debug)]
pub(super) struct GrpcWeb {
    allow_origin: Option<HeaderValue>,
    pass_stripped_path: bool,
}

/// The form of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    /// In base64.
    Text,
}

/// A call that is translated.
struct Call {
    form: Form,
    /// The media type of the request, which the response has as well.
    content_type: HeaderValue,
}

impl GrpcWeb {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            allow_origin: HeaderValue::from_str(&config.allow_origin_header).ok(),
            pass_stripped_path: config.pass_stripped_path.unwrap_or(false),
        }
    }

    /// What a browser is told that asks whether a page may make calls with these headers, such as
    /// `grpc-timeout` and `authorization`.
    fn preflight(&self, asked: Option<&HeaderValue>) -> Answer {
        let mut answer = Answer::raw(StatusCode::OK, "OK")
            .with_header(CONTENT_TYPE, "application/grpc-web-text+proto")
            .with_header(ACCESS_CONTROL_ALLOW_METHODS, "POST");
        let allowed = asked.cloned().unwrap_or(ALLOWED_HEADERS);
        answer.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        self.allow_origin(&mut answer.headers);
        answer
    }

    fn allow_origin(&self, headers: &mut HeaderMap) {
        if let Some(origin) = &self.allow_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }
}

/// How the bodies of requests with this media type are written.
///
/// # Errors
/// The message of the answer.
fn form(content_type: Option<&HeaderValue>) -> Result<Form, &'static str> {
    let media_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let media_type = media_type.as_deref().unwrap_or_default().split(';').next();
    let media_type = media_type.unwrap_or_default().trim();
    match media_type.to_ascii_lowercase().as_str() {
        "application/grpc-web" | "application/grpc-web+proto" => Ok(Form::Binary),
        "application/grpc-web-text" | "application/grpc-web-text+proto" => Ok(Form::Text),
        _ => Err("transcoding requests require a .proto file defining the service"),
    }
}

/// The status of a call that was answered with this status of HTTP, and not by gRPC. Source: gRPC,
/// "HTTP to gRPC Status Code Mapping".
fn status_of(http: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const PERMISSION_DENIED: u16 = 7;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match http.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// Whether this is the media type of gRPC: of a request that a service reads as it is, or of a
/// response.
fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let media_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let rest = media_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

impl Policy for GrpcWeb {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        if request.head.method == Method::OPTIONS {
            let headers = &request.head.headers;
            return self
                .preflight(headers.get(ACCESS_CONTROL_REQUEST_HEADERS))
                .into();
        }
        let headers = &mut request.head.headers;
        let content_type = headers.get(CONTENT_TYPE).cloned();
        if is_grpc(content_type.as_ref()) {
            return Access::PASS;
        }
        let form = match form(content_type.as_ref()) {
            Ok(form) => form,
            Err(message) => {
                let answer = Answer::raw(StatusCode::BAD_REQUEST, message);
                return answer
                    .with_header(CONTENT_TYPE, "text/plain; charset=utf-8")
                    .into();
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if self.pass_stripped_path {
            *request.upstream_path = Some(path::sendable(request.rest));
        }
        let body = request.body;
        if let Some(content_type) = content_type {
            request.keep(Call { form, content_type });
        }
        match (form, body) {
            (Form::Text, Some(body)) => Access::Pending(
                async move {
                    let text = match body.read(TEXT_LIMIT).await {
                        Ok(Some(text)) => text,
                        Ok(None) => return too_long().into(),
                        Err(refusal) => return Verdict::Answer(refusal),
                    };
                    match decoded(&text) {
                        Some(bytes) => {
                            body.replace(bytes);
                            Verdict::Continue
                        }
                        None => {
                            let message = "the body is not in base64";
                            Answer::error(StatusCode::BAD_REQUEST, message).into()
                        }
                    }
                }
                .boxed_local(),
            ),
            _ => Access::PASS,
        }
    }

    fn response(&self, response: &mut Response<'_>) {
        self.allow_origin(&mut response.head.headers);
        let Some(call) = response.kept::<Call>() else {
            return;
        };
        let (form, content_type) = (call.form, call.content_type.clone());
        let headers = &mut response.head.headers;
        let answered = headers.insert(CONTENT_TYPE, content_type);
        if is_grpc(answered.as_ref()) || headers.contains_key(GRPC_STATUS) {
            return;
        }
        // Of an answer that is no gRPC, as that of a proxy in front of the service, a client would
        // take the body for messages.
        headers.remove(CONTENT_ENCODING);
        let http = response.head.status;
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from(status_of(http)));
        let message = format!("not gRPC, but HTTP status {}", http.as_u16());
        if let Ok(message) = HeaderValue::try_from(message) {
            trailers.insert(GRPC_MESSAGE, message);
        }
        response.kept = None;
        response.replace_body(form.written(frame(&trailers)));
    }

    fn body(&self, response: &mut Response<'_>) -> Option<Box<dyn BodyFilter>> {
        let form = response.kept::<Call>()?.form;
        // A response that consists of its trailers has them in its head.
        let headers = &mut response.head.headers;
        let mut trailers = HeaderMap::new();
        for name in [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS] {
            if let Some(value) = headers.remove(&name) {
                trailers.insert(name, value);
            }
        }
        Some(Box::new(Body { form, trailers }))
    }
}

fn too_long() -> Answer {
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large")
}

/// Bytes in base64, of which each part may end with padding.
fn decoded(text: &[u8]) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        let padded = rest.iter().position(|byte| *byte == b'=');
        let end = padded.map_or(rest.len(), |at| (at / 4 + 1) * 4);
        let part = rest.get(..end)?;
        bytes.extend_from_slice(&BASE64_STANDARD.decode(part).ok()?);
        rest = &rest[end..];
    }
    Some(bytes.freeze())
}

/// Writes the body of a response, and its trailers behind it.
struct Body {
    form: Form,
    trailers: HeaderMap,
}

impl Form {
    fn written(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Binary => bytes,
            Self::Text => BASE64_STANDARD.encode(&bytes).into(),
        }
    }
}

impl BodyFilter for Body {
    fn data(&mut self, piece: Bytes) -> Bytes {
        self.form.written(piece)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        self.trailers.extend(std::mem::take(trailers));
    }

    fn end(&mut self) -> Bytes {
        self.trailers.entry(GRPC_STATUS).or_insert(UNKNOWN);
        self.form.written(frame(&self.trailers))
    }

    fn keeps_length(&self) -> bool {
        false
    }
}

/// The frame with the trailers: a mark, the length, and the fields as HTTP/1.1 writes them.
fn frame(trailers: &HeaderMap) -> Bytes {
    let mut fields = BytesMut::new();
    for (name, value) in trailers {
        fields.put_slice(name.as_str().as_bytes());
        fields.put_u8(b':');
        fields.put_slice(value.as_bytes());
        fields.put_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + fields.len());
    frame.put_u8(TRAILERS);
    // The trailers of a response are bounded by far less than 4 GiB.
    frame.put_u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
    frame.unsplit(fields);
    frame.freeze()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_decoded_however_it_was_encoded_in_parts(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6),
        ) {
            let text: String = parts.iter().map(|part| BASE64_STANDARD.encode(part)).collect();
            prop_assert_eq!(decoded(text.as_bytes()).unwrap(), parts.concat());
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decoded(&text);
        }
    }

    #[test]
    fn media_types_say_how_bodies_are_written() {
        for (media_type, expected) in [
            ("application/grpc-web", Some(Form::Binary)),
            ("application/grpc-web+proto", Some(Form::Binary)),
            ("Application/GRPC-Web; charset=utf-8", Some(Form::Binary)),
            ("application/grpc-web-text", Some(Form::Text)),
            ("application/grpc-web-text+proto", Some(Form::Text)),
            ("application/grpc-web+json", None),
            ("application/json", None),
            ("application/grpc-webby", None),
        ] {
            let value = HeaderValue::from_static(media_type);
            assert_eq!(form(Some(&value)).ok(), expected, "{media_type}");
            assert!(!is_grpc(Some(&value)), "{media_type}");
        }
        assert!(form(None).is_err());
        for media_type in ["application/grpc", "application/grpc+proto"] {
            assert!(is_grpc(Some(&HeaderValue::from_static(media_type))));
        }
    }

    #[test]
    fn trailers_are_a_frame_of_their_own() {
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        trailers.insert("x-a", HeaderValue::from_static("b"));
        let written = b"\x80\0\0\0\x16grpc-status:0\r\nx-a:b\r\n";
        assert_eq!(frame(&trailers), &written[..]);
        let mut body = Body {
            form: Form::Text,
            trailers: HeaderMap::new(),
        };
        assert_eq!(body.data(Bytes::from_static(b"ab")), "YWI=");
        body.trailers(&mut trailers);
        assert!(trailers.is_empty());
        assert_eq!(body.end(), BASE64_STANDARD.encode(written));
    }
}
