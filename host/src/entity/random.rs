//! Texts that are generated for fields.

use uuid::Uuid;

/// How long a generated key is. Source: Kong.
const LENGTH: usize = 32;

const ALPHANUMERICS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A key that cannot be guessed: 32 alphanumeric characters, each of them equally likely.
pub(super) fn key() -> String {
    let mut key = String::with_capacity(LENGTH);
    while key.len() < LENGTH {
        // From the generator of the operating system; two of the bytes are not random as a whole,
        // since they have the version and the variant.
        let bytes = Uuid::new_v4().into_bytes();
        let random = (0..)
            .zip(bytes)
            .filter(|(place, _)| ![6, 8].contains(place));
        // Six bits of each byte; the two values beyond the alphabet are skipped.
        let letters = random.filter_map(|(_, byte)| ALPHANUMERICS.get(usize::from(byte >> 2)));
        let letters = letters.map(|letter| char::from(*letter));
        key.extend(letters.take(LENGTH - key.len()));
    }
    key
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_alphanumeric_and_differ() {
        let keys: BTreeSet<String> = (0..100).map(|_| key()).collect();
        assert_eq!(keys.len(), 100);
        let letters: BTreeSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
        assert_eq!(letters.len(), ALPHANUMERICS.len());
        for key in keys {
            assert_eq!(key.len(), LENGTH);
            assert!(
                key.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{key}"
            );
        }
    }
}
