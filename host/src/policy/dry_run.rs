//! What can be said of the access phase of a policy without a request: for requests that are only
//! described.

/// Whether the access phase of a policy may run for a request that is only described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// The phase does nothing: the policy works in other phases.
    Idle,
    /// The phase looks at nothing but the request and the settings, and changes nothing but the
    /// request. So it may run.
    Harmless,
    /// The same of a policy that finds out who a request is from.
    Authenticates,
    /// The phase does more, so it does not run: what it does, as the end of a sentence.
    Effects(&'static str),
}
