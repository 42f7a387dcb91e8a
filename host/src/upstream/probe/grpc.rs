//! The standard health service of gRPC, `grpc.health.v1.Health/Check`, asked about the server as a
//! whole.

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// An uncompressed gRPC message without bytes: a `HealthCheckRequest` whose `service` is empty.
const REQUEST: &[u8] = &[0, 0, 0, 0, 0];

/// Longest answer, in bytes; usually it has about seven.
const ANSWER: usize = 4096;

/// The `ServingStatus` of the server; 1 is `SERVING`.
pub(super) async fn check<S>(stream: S, scheme: &str, authority: &str) -> Result<u64, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let request = Request::post(format!(
        "{scheme}://{authority}/grpc.health.v1.Health/Check"
    ))
    .version(Version::HTTP_2)
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(Full::new(Bytes::from_static(REQUEST)))
    .map_err(|error| error.to_string())?;
    // The connection runs for as long as it is polled here, and ends with this probe.
    let mut connection = std::pin::pin!(connection);
    let asked = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = trailers
            .get("grpc-status")
            .or(parts.headers.get("grpc-status"));
        match code.map(|code| code.as_bytes()) {
            Some(b"0") => serving_status(&body.to_bytes()),
            Some(code) => Err(format!("status {}", String::from_utf8_lossy(code))),
            // h2 may have cut it out of trailers that are too large.
            None if parts.status == StatusCode::OK => Err("the answer has no grpc-status".into()),
            None => Err(format!("not gRPC, but HTTP status {}", parts.status)),
        }
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            // What was received before the end can still be read.
            Ok(()) => asked.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Reads a `HealthCheckResponse`: its field 1, a number that is 0 if it is left out.
fn serving_status(message: &[u8]) -> Result<u64, String> {
    let malformed = || "the answer is not a HealthCheckResponse".to_owned();
    let (head, mut rest) = message.split_at_checked(5).ok_or_else(malformed)?;
    if head.first() != Some(&0) {
        return Err("the answer is compressed".to_owned());
    }
    let mut status = 0;
    while let Some(key) = varint(&mut rest) {
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut rest).ok_or_else(malformed)?,
            (_, 0) => {
                varint(&mut rest).ok_or_else(malformed)?;
            }
            (_, 2) => {
                let length = varint(&mut rest).and_then(|length| usize::try_from(length).ok());
                let length = length.ok_or_else(malformed)?;
                rest = rest.get(length..).ok_or_else(malformed)?;
            }
            _ => return Err(malformed()),
        }
    }
    Ok(status)
}

/// Takes a number in the variable-length encoding of protocol buffers.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_status_is_read_among_any_other_fields() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Ok(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Ok(0));
        assert_eq!(
            serving_status(&[0, 0, 0, 0, 7, 18, 1, 65, 16, 5, 8, 2]),
            Ok(2)
        );
        assert!(serving_status(&[0, 0]).is_err());
        assert!(serving_status(&[1, 0, 0, 0, 0]).is_err());
        assert!(serving_status(&[0, 0, 0, 0, 1, 8]).is_err());
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(sent in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = serving_status(&sent);
        }
    }
}
