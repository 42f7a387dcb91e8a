//! Which threads come first where there are too few cores: those that serve requests.

use rustix::process::{getpid, getpriority_process, nice};

/// Work that gives way to requests. Each kind has a niceness, which is added to that of the main
/// thread; on Linux each thread has its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Background {
    /// Probes, and records of requests: they are worth less the later they come, or are dropped.
    Prompt,
    /// Work that no request needs.
    Idle,
}

impl Background {
    /// Gives the calling thread this priority, and those that it starts from then on. If the system
    /// refuses, nothing else changes.
    pub(crate) fn lower_this_thread(self) {
        let niceness = match self {
            Self::Prompt => 5,
            Self::Idle => 19,
        };
        let main = getpriority_process(Some(getpid()));
        // Without a process, the calling thread.
        let own = getpriority_process(None);
        if let (Ok(main), Ok(own)) = (main, own) {
            // A thread that such a thread has started has its priority already.
            let _ = nice((main + niceness - own).max(0));
        }
    }
}
