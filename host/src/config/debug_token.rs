//! The token by which a client may ask what has happened to its request.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// Least length of a token, in bytes: a shorter one could be guessed.
const MIN_LENGTH: usize = 16;

/// The token by which a client may ask what has happened to its request.
#[derive(Clone, PartialEq, Eq)]
pub struct DebugToken(Arc<str>);

impl fmt::Debug for DebugToken {
    /// Without the token, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DebugToken")
    }
}

impl DebugToken {
    /// The token of a text: at least 16 printable characters without spaces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_valid = text.len() >= MIN_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.into()))
    }

    /// Whether this is the token. How long that takes does not tell where they differ.
    pub fn is(&self, sent: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(sent).into()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = DebugToken::parse("0123456789abcdef").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            &b""[..],
            b"0123456789abcdeF",
            b"0123456789abcde",
            b"0123456789abcdef0",
        ] {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "DebugToken");
        for wrong in ["short", "with a space in it", "0123456789abcde\u{e4}"] {
            assert_eq!(DebugToken::parse(wrong), None);
        }
    }
}
