//! Kong's order of routes: one number, the highest wins. Source: Kong 3.9,
//! `traditional_compatible`.
//!
//! | bits | content |
//! |---|---|
//! | 61–63 | how many of methods, hosts, headers, snis, paths, sources and destinations are set |
//! | 60 | 1 if hosts are set and none has a `*` |
//! | 52–59 | number of header names, 255 at most |
//! | 51 | 1 for a regular expression |
//! | 19–50 | `regex_priority` of a regular expression |
//! | 0–18 | length of a prefix path |
//!
//! A route with an expression has the bits 56 to 63 set, and its own priority in the bits 0 to 45.

use super::criteria::PathPattern;

/// Which criteria a route has.
pub(super) struct Set {
    pub(super) methods: bool,
    pub(super) hosts: bool,
    /// None of the hosts has a `*`.
    pub(super) plain_hosts: bool,
    /// Number of header names.
    pub(super) headers: usize,
    pub(super) snis: bool,
    pub(super) paths: bool,
    pub(super) sources: bool,
    pub(super) destinations: bool,
}

pub(super) fn of_expression(priority: u64) -> u64 {
    0xff << 56 | priority.min((1 << 46) - 1)
}

pub(super) fn without_path(set: &Set) -> u64 {
    let criteria = [
        set.methods,
        set.hosts,
        set.headers > 0,
        set.snis,
        set.paths,
        set.sources,
        set.destinations,
    ];
    let count = criteria.into_iter().filter(|set| *set).count() as u64;
    let plain = u64::from(set.hosts && set.plain_hosts);
    let headers = set.headers.min(255) as u64;
    count << 61 | plain << 60 | headers << 52
}

pub(super) fn of_path(path: &PathPattern, regex_priority: u64) -> u64 {
    match path {
        PathPattern::Regex(_) => 1 << 51 | regex_priority.min(u64::from(u32::MAX)) << 19,
        PathPattern::Prefix(prefix) => prefix.len().min((1 << 19) - 1) as u64,
    }
}
