//! What is asked of the allocator beyond Rust's interface to it.

#![expect(unsafe_code, reason = "the allocator is written in C")]

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// `mi_option_purge_delay`: for how many milliseconds freed memory is kept, in case that it is
/// needed again. The crate has no name for it.
const PURGE_DELAY: c_int = 15;

/// When freed memory is returned after a large change: once most of it is free, and again for what
/// others have held for longer, such as the workers' last snapshot.
const RETURNS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
];

/// Number of rows from which on a change is large: it leaves so much freed memory that it is
/// returned.
pub(crate) const LARGE_CHANGE: usize = 256;

/// Tasks that wake all threads of the control runtime.
const WAKING: usize = 8;

/// How often threads were asked to return freed memory.
static ASKED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// How often this thread has been asked when it last did.
    static DONE: Cell<u32> = const { Cell::new(0) };
}

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

/// Returns the memory that this thread has freed to the system, and what other threads have freed
/// of its own.
pub(crate) fn return_freed() {
    // SAFETY: as above.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// To be called by threads of the control runtime before they wait: returns freed memory if
/// [`return_after_large_change`] asks for it.
pub(crate) fn return_if_asked() {
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        return_freed();
    }
}

/// Has the threads of this runtime return what they have freed, once a large change is in effect.
/// The allocator does so only while a thread goes on to allocate: an import of 20,000 entities
/// would leave 300 MB with a gateway whose configuration does not change again.
pub(crate) async fn return_after_large_change() {
    static IS_WAITING: AtomicBool = AtomicBool::new(false);
    if IS_WAITING.swap(true, Ordering::Relaxed) {
        return;
    }
    for pause in RETURNS {
        tokio::time::sleep(pause).await;
        ASKED.fetch_add(1, Ordering::Relaxed);
        for _ in 0..WAKING {
            tokio::spawn(async {});
        }
    }
    IS_WAITING.store(false, Ordering::Relaxed);
}
