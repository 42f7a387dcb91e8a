//! Which threads come first where there are too few cores: those that serve requests.

/// Work that gives way to requests. Each kind has a niceness, which is added to that of the
/// process; on Linux each thread has its own.
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
        let _ = rustix::process::nice(niceness);
    }
}
