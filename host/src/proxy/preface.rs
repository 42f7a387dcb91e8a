//! The first bytes of a client's connection, which tell HTTP/2 from HTTP/1.1.
//!
//! A client that knows that the gateway speaks HTTP/2 begins with a preface that is not a request
//! of HTTP/1.1 (RFC 9113, 3.3 and 3.4).

/// The bytes that begin every connection of HTTP/2.
const PREFACE: &[u8; LENGTH] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of the preface, in bytes.
pub(super) const LENGTH: usize = 24;

/// The protocol that a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// HTTP/1.1, or bytes that are not HTTP.
    Http1,
    /// HTTP/2.
    Http2,
    /// Either of them: the client has not sent enough bytes.
    Undecided,
}

/// The protocol that these first bytes of a connection begin.
pub(super) fn opening(bytes: &[u8]) -> Opening {
    let compared = bytes.len().min(LENGTH);
    match bytes[..compared] == PREFACE[..compared] {
        false => Opening::Http1,
        true if compared == LENGTH => Opening::Http2,
        true => Opening::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_whole_preface_begins_http2() {
        for length in 0..LENGTH {
            assert_eq!(opening(&PREFACE[..length]), Opening::Undecided);
        }
        assert_eq!(opening(PREFACE), Opening::Http2);
        assert_eq!(
            opening(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"),
            Opening::Http2
        );
    }

    #[test]
    fn a_request_of_http1_is_known_by_its_method() {
        for request in ["GET / HTTP/1.1\r\n", "POST / HTTP", "PR", "PROPFIND /x"] {
            let expected = match request {
                "PR" => Opening::Undecided,
                _ => Opening::Http1,
            };
            assert_eq!(opening(request.as_bytes()), expected, "{request}");
        }
    }

    proptest! {
        #[test]
        fn a_single_wrong_byte_makes_it_http1(at in 0..LENGTH, wrong: u8, length in 1..=LENGTH) {
            let mut bytes = *PREFACE;
            prop_assume!(at < length && bytes[at] != wrong);
            bytes[at] = wrong;
            prop_assert_eq!(opening(&bytes[..length]), Opening::Http1);
        }

        #[test]
        fn more_bytes_never_change_what_is_decided(bytes: Vec<u8>, cut in 0..40_usize) {
            let start = &bytes[..cut.min(bytes.len())];
            match opening(start) {
                Opening::Undecided => {}
                decided => prop_assert_eq!(opening(&bytes), decided),
            }
        }
    }
}
