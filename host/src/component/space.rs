//! Address space for the memories of guests.

use std::ptr;
use std::sync::LazyLock;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use wasmtime::Config;

/// Instances that must have address space: a thousand upstreams are ordinary, and each may have a
/// canary and a shadow.
const INSTANCES: usize = 10_000;

/// All that 32 bits can address, and a guard behind it for what a constant offset may reach, in
/// bytes.
const WHOLE: usize = 4 << 30;
const WHOLE_GUARD: usize = 32 << 20;

/// More than a guest may use, in bytes.
const LITTLE: usize = 64 << 20;
const LITTLE_GUARD: usize = 64 << 10;

/// How much address space the memory of each guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// All that a guest can address. Then no access needs a bounds check, which saves guests that
    /// read a lot a fifth of their time.
    Whole,
    /// As much as a guest uses, if there is not enough for that: under a limit (`ulimit -v`), or
    /// with a kernel that has 39 bits of addresses.
    Little,
}

impl Space {
    /// The space that this process has room for, determined at the first call and then kept:
    /// concurrent attempts to map it all would disturb each other.
    pub(super) fn here() -> Self {
        static HERE: LazyLock<Space> = LazyLock::new(Space::look);
        *HERE
    }

    #[expect(unsafe_code, reason = "whether there is room is seen by taking it")]
    fn look() -> Self {
        // wasmtime puts a guard on either side of a memory.
        let all = INSTANCES * (WHOLE + 2 * WHOLE_GUARD);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses. No code can access it, and it
        // is unmapped before any code has its address.
        let room = unsafe {
            mmap_anonymous(ptr::null_mut(), all, ProtFlags::empty(), flags)
                .and_then(|start| munmap(start, all))
        };
        match room {
            Ok(()) => Self::Whole,
            Err(_) => Self::Little,
        }
    }

    /// Configures the compiler, and the engine that runs its code, for this space.
    pub(super) fn apply(self, config: &mut Config) {
        let (reservation, guard) = match self {
            Self::Whole => (WHOLE, WHOLE_GUARD),
            Self::Little => (LITTLE, LITTLE_GUARD),
        };
        config
            .memory_reservation(reservation as u64)
            .memory_guard_size(guard as u64);
    }

    /// Its name in the arguments of the compile worker.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Little => "little",
        }
    }

    /// The space of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Whole, Self::Little]
            .into_iter()
            .find(|space| space.name() == name)
    }
}
