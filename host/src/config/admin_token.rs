//! A token of the Admin API, as the settings have it: its name, what it may do, and its hash.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// What may be done with a token, as the setting writes it.
const READ_WRITE: &str = "read-write";
const READ_ONLY: &str = "read-only";

/// A token of the Admin API. The token itself is known only to its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Its name in the log.
    pub name: String,
    /// Whether it may change anything.
    pub writes: bool,
    /// SHA-256 of the token. A token is random, so a slow hash would add nothing.
    digest: [u8; 32],
}

impl AdminToken {
    /// The entry for a token.
    pub fn new(name: &str, writes: bool, token: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            writes,
            digest: Sha256::digest(token).into(),
        }
    }

    /// Whether a text can be the name of a token.
    pub fn is_name(text: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    }

    /// Reads `name:read-write:hash`, with the hash in hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once(':')?;
        let (access, hash) = rest.split_once(':')?;
        let writes = match access {
            READ_WRITE => true,
            READ_ONLY => false,
            _ => return None,
        };
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !Self::is_name(name) || !is_hash {
            return None;
        }
        let mut digest = [0; 32];
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hash[place * 2..place * 2 + 2], 16).ok()?;
        }
        Some(Self {
            name: name.to_owned(),
            writes,
            digest,
        })
    }

    /// The token among these that a request carries. It takes as long for each of them as for none,
    /// so the time tells nothing about them.
    pub fn find<'a>(tokens: &'a [Self], given: &[u8]) -> Option<&'a Self> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = u32::MAX;
        for (place, token) in (0..).zip(tokens) {
            let same: Choice = token.digest.ct_eq(&digest);
            found.conditional_assign(&place, same);
        }
        tokens.get(found as usize)
    }
}

/// The entry as the setting has it.
impl fmt::Display for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writes { READ_WRITE } else { READ_ONLY };
        write!(f, "{}:{access}:", self.name)?;
        self.digest
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        for writes in [true, false] {
            let token = AdminToken::new("ci.deploy-1_a", writes, b"secret");
            assert_eq!(AdminToken::parse(&token.to_string()), Some(token));
        }
        // `printf abc | sha256sum`
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let token = AdminToken::new("a", true, b"abc");
        assert_eq!(token.to_string(), format!("a:read-write:{hash}"));
        let upper = format!("a:read-write:{}", hash.to_uppercase());
        assert_eq!(AdminToken::parse(&upper), Some(token));
        for wrong in [
            String::new(),
            format!("a:{hash}"),
            format!(":read-only:{hash}"),
            format!("a b:read-only:{hash}"),
            format!("a:write:{hash}"),
            format!("a:read-only:{}", &hash[1..]),
            format!("a:read-only:{}", hash.replace('b', "x")),
            format!("a:read-only:{}", hash.replace("ba", "é")),
            format!("a:read-only:{}", hash.replace("ba", "+a")),
            format!("a:read-only:{hash}:x"),
        ] {
            assert_eq!(AdminToken::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_found_by_itself_alone() {
        let tokens = ["one", "two", "three"].map(|t| AdminToken::new(t, true, t.as_bytes()));
        for token in &tokens {
            let found = AdminToken::find(&tokens, token.name.as_bytes());
            assert_eq!(found, Some(token));
        }
        for other in ["", "One", "one ", "four"] {
            assert_eq!(AdminToken::find(&tokens, other.as_bytes()), None);
        }
        assert_eq!(AdminToken::find(&[], b"one"), None);
    }
}
