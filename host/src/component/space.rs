//! Address space for the memories of guests.

use std::ptr;
use std::sync::LazyLock;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use wasmtime::Config;

/// Instances that there is to be address space for: a thousand upstreams are ordinary, and each may
/// have a canary and a shadow.
const INSTANCES: usize = 10_000;

/// All that 32 bits can name, and behind it what a constant added to them may reach, in bytes.
const WHOLE: usize = 4 << 30;
const WHOLE_GUARD: usize = 32 << 20;

/// More than a guest may use, in bytes.
const LITTLE: usize = 64 << 20;
const LITTLE_GUARD: usize = 64 << 10;

/// How much of it the memory of each guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// All that a guest can name. Then no access has to be checked, which spares guests that read a
    /// lot a fifth of their time.
    Whole,
    /// As much as a guest uses, where there is not enough: below a limit (`ulimit -v`), or with a
    /// kernel that has 39 bits of addresses.
    Little,
}

impl Space {
    /// What this process has room for, seen when it is first asked: several who take it all at a
    /// time would be in each other's way.
    pub(super) fn here() -> Self {
        static HERE: LazyLock<Space> = LazyLock::new(Space::look);
        *HERE
    }

    #[expect(unsafe_code, reason = "whether there is room is seen by taking it")]
    fn look() -> Self {
        // wasmtime has a guard on either side.
        let all = INSTANCES * (WHOLE + 2 * WHOLE_GUARD);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at a place that the kernel chooses, which nobody can access, and
        // which is given back before anybody knows of it.
        let room = unsafe {
            mmap_anonymous(ptr::null_mut(), all, ProtFlags::empty(), flags)
                .and_then(|start| munmap(start, all))
        };
        match room {
            Ok(()) => Self::Whole,
            Err(_) => Self::Little,
        }
    }

    /// Has the compiler, and who runs its code, count on it.
    pub(super) fn apply(self, config: &mut Config) {
        let (reservation, guard) = match self {
            Self::Whole => (WHOLE, WHOLE_GUARD),
            Self::Little => (LITTLE, LITTLE_GUARD),
        };
        config
            .memory_reservation(reservation as u64)
            .memory_guard_size(guard as u64);
    }

    /// A word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Little => "little",
        }
    }

    /// What the word stands for.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Whole, Self::Little]
            .into_iter()
            .find(|space| space.name() == name)
    }
}
