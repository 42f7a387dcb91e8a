//! What is asked of the allocator beyond Rust's interface to it.

#![expect(unsafe_code, reason = "the allocator is written in C")]

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay`: for how many milliseconds freed memory is kept, in case that it is needed
/// again. The crate has no name for it.
const PURGE_DELAY: c_int = 15;

/// While this exists, freed memory is returned to the system at once.
///
/// The allocator keeps it for a moment, and then returns it only while the threads that freed it go
/// on to allocate. What the start has freed would stay with a gateway that has no traffic.
pub(crate) struct ReturnAtOnce {
    delay: c_long,
}

impl ReturnAtOnce {
    pub(crate) fn begin() -> Self {
        // SAFETY: options may be read and set at any time and from any thread, also where another
        // allocator is Rust's, as in tests: then they have no effect.
        unsafe {
            let delay = libmimalloc_sys::mi_option_get(PURGE_DELAY);
            libmimalloc_sys::mi_option_set(PURGE_DELAY, 0);
            Self { delay }
        }
    }
}

impl Drop for ReturnAtOnce {
    fn drop(&mut self) {
        // SAFETY: as above; and memory may be returned at any time and from any thread.
        unsafe {
            libmimalloc_sys::mi_collect(true);
            libmimalloc_sys::mi_option_set(PURGE_DELAY, self.delay);
        }
    }
}
