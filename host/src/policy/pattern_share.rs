//! The memory of the regular expressions in the settings of plugins, which all plugins share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What the regular expressions of one plugin may take, compiled, in bytes.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// What those of all plugins may take together, in bytes.
const MOST_TOGETHER: usize = 256 << 20;

/// What they take at present: those in effect, and those that are being checked.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The part that a plugin takes; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct PatternShare(usize);

impl PatternShare {
    /// Takes a part, in bytes.
    ///
    /// # Errors
    /// The plugins leave less.
    pub(super) fn take(bytes: usize) -> Result<Self, String> {
        Self::take_of(&TAKEN, bytes)
    }

    fn take_of(taken: &AtomicUsize, bytes: usize) -> Result<Self, String> {
        let with = |taken: usize| {
            let taken = taken.checked_add(bytes)?;
            (taken <= MOST_TOGETHER).then_some(taken)
        };
        match taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with) {
            Ok(_) => Ok(Self(bytes)),
            Err(taken) => Err(format!(
                "the regexes of all plugins together may take {} MiB: these take {} KiB, and {} KiB are left. Use \
                 classes such as [0-9A-Za-z_] in place of \\w, or fewer plugins with the same regexes",
                MOST_TOGETHER >> 20,
                bytes >> 10,
                MOST_TOGETHER.saturating_sub(taken) >> 10,
            )),
        }
    }
}

impl Drop for PatternShare {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn plugins_take_no_more_than_there_is() {
        let taken = AtomicUsize::new(MOST_TOGETHER - 2048);
        let refused = PatternShare::take_of(&taken, 4096).unwrap_err();
        assert!(
            refused.contains("256 MiB: these take 4 KiB, and 2 KiB are left"),
            "{refused}"
        );
        std::mem::forget(PatternShare::take_of(&taken, 2048).unwrap());
        assert!(PatternShare::take_of(&taken, 1).is_err());
        assert!(PatternShare::take_of(&taken, usize::MAX).is_err());
    }
}
