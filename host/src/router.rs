//! Which route a request takes: Kong's `traditional_compatible` rules, as an index.
//!
//! Each way to match a route (one prefix path, or one regular expression, or no path at all, and hosts
//! that match equally closely) is an entry. Entries are ranked once by Kong's 64-bit priority, then by
//! how closely their hosts match, then by the id of their route; a request is looked up by host and by
//! the prefixes of its path, and takes the best-ranked entry whose other criteria hold. Its cost
//! depends on the number of different lengths of prefixes, not on the number of routes.

mod criteria;
mod error;
mod priority;
mod route;

use std::cmp::Reverse;
use std::sync::Arc;

// Its keys come from the Admin API, so a slower hash that holds against attackers gains nothing.
use foldhash::HashMap;
use http::{HeaderMap, Method};

use crate::pattern::Pattern;
use criteria::{Closeness, Hosts, PathPattern};
pub use error::RouteError;
pub use route::Route;

/// What a request is matched by.
#[derive(Debug)]
pub struct Query<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host without port, in the form that hosts are compared in.
    pub host: &'a str,
    /// The port of the `Host` header, or the one that the request came in on.
    pub port: u16,
    /// The normalised path.
    pub path: &'a [u8],
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// A route that matches, and how much of the path it matched.
#[derive(Debug, Clone, Copy)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Route,
    /// Bytes of the path, from its start; 0 for a route without paths.
    pub matched: usize,
    /// The regular expression that it was matched by, if it was.
    pub regex: Option<&'a Pattern>,
}

/// All routes.
#[derive(Debug, Default)]
pub struct Router {
    /// Best first.
    entries: Vec<Entry>,
    exact: HashMap<Box<str>, Group>,
    /// By `.example.com` of `*.example.com`.
    suffixes: HashMap<Box<str>, Group>,
    /// By `example.` of `example.*`.
    prefixes: HashMap<Box<str>, Group>,
    any: Group,
}

#[derive(Debug)]
struct Entry {
    route: Arc<Route>,
    regex: Option<Pattern>,
}

/// A way to match a route: by one of its paths, and by those of its hosts that match equally closely.
struct Way {
    priority: u64,
    closeness: Closeness,
    route: Arc<Route>,
    path: Option<PathPattern>,
}

/// The entries that share a host.
#[derive(Debug, Default)]
struct Group {
    /// By prefix path.
    prefixes: HashMap<Box<[u8]>, Vec<Listed>>,
    /// The lengths that prefixes have, each once.
    lengths: Vec<usize>,
    /// Entries with a regular expression.
    regexes: Vec<Listed>,
    /// Entries of routes without paths.
    pathless: Vec<Listed>,
}

/// An entry as a list of a group has it: lists are in ascending order of rank.
#[derive(Debug, Clone, Copy)]
struct Listed {
    rank: usize,
    port: Option<u16>,
}

impl Router {
    /// Indexes routes.
    pub fn new(routes: impl Iterator<Item = Arc<Route>>) -> Self {
        let mut ways: Vec<Way> = Vec::new();
        for route in routes.filter(|route| route.http) {
            let mut closeness: Vec<Closeness> = route.hosts.iter().map(Hosts::closeness).collect();
            closeness.sort_unstable();
            closeness.dedup();
            if closeness.is_empty() {
                closeness.push(Closeness::default());
            }
            let paths = route.paths.iter().map(Some);
            let pathless = route.paths.is_empty().then_some(None);
            for path in paths.chain(pathless) {
                let of_path = path.map_or(0, |path| priority::of_path(path, route.regex_priority));
                ways.extend(closeness.iter().map(|closeness| Way {
                    priority: route.priority | of_path,
                    closeness: *closeness,
                    route: Arc::clone(&route),
                    path: path.cloned(),
                }));
            }
        }
        // What is left is for the id, as in Kong: of two equal routes the greater id wins.
        ways.sort_by_key(|way| Reverse((way.priority, way.closeness, way.route.id)));
        let mut router = Self::default();
        for (rank, way) in ways.into_iter().enumerate() {
            router.list(rank, &way);
            let regex = match way.path {
                Some(PathPattern::Regex(regex)) => Some(regex),
                _ => None,
            };
            let route = way.route;
            router.entries.push(Entry { route, regex });
        }
        router
    }

    fn list(&mut self, rank: usize, way: &Way) {
        let path = way.path.as_ref();
        if way.route.hosts.is_empty() {
            self.any.list(Listed { rank, port: None }, path);
        }
        let hosts = way.route.hosts.iter();
        for host in hosts.filter(|host| host.closeness() == way.closeness) {
            let (groups, key, port) = match host {
                Hosts::Exact(host, port) => (&mut self.exact, host, *port),
                Hosts::Suffix(suffix, port) => (&mut self.suffixes, suffix, *port),
                Hosts::Prefix(prefix, port) => (&mut self.prefixes, prefix, *port),
            };
            let group = groups.entry(key.clone()).or_default();
            group.list(Listed { rank, port }, path);
        }
    }

    /// The route that `query` takes.
    pub fn route(&self, query: &Query<'_>) -> Option<Match<'_>> {
        let mut best: Option<(usize, usize)> = None;
        self.look(&self.any, query, &mut best);
        if !self.exact.is_empty()
            && let Some(group) = self.exact.get(query.host)
        {
            self.look(group, query, &mut best);
        }
        if !self.suffixes.is_empty() || !self.prefixes.is_empty() {
            for (dot, _) in query.host.match_indices('.') {
                if let Some(group) = self.suffixes.get(&query.host[dot..]) {
                    self.look(group, query, &mut best);
                }
                if let Some(group) = self.prefixes.get(&query.host[..=dot]) {
                    self.look(group, query, &mut best);
                }
            }
        }
        let (rank, matched) = best?;
        let Entry { route, regex } = self.entries.get(rank)?;
        Some(Match {
            route,
            matched,
            regex: regex.as_ref(),
        })
    }

    /// Looks for an entry of the group that is better than `best`: its rank and what it matched.
    fn look(&self, group: &Group, query: &Query<'_>, best: &mut Option<(usize, usize)>) {
        self.first(&group.pathless, query, best, |_| Some(0));
        for &length in &group.lengths {
            if let Some(prefix) = query.path.get(..length)
                && let Some(list) = group.prefixes.get(prefix)
            {
                self.first(list, query, best, |_| Some(length));
            }
        }
        self.first(&group.regexes, query, best, |entry| {
            entry.regex.as_ref()?.find(query.path)
        });
    }

    fn first(
        &self,
        list: &[Listed],
        query: &Query<'_>,
        best: &mut Option<(usize, usize)>,
        matches: impl Fn(&Entry) -> Option<usize>,
    ) {
        for listed in list {
            if best.is_some_and(|(rank, _)| rank <= listed.rank) {
                return;
            }
            let Some(entry) = self.entries.get(listed.rank) else {
                return;
            };
            if listed.port.is_none_or(|port| port == query.port)
                && entry.route.accepts(query)
                && let Some(matched) = matches(entry)
            {
                *best = Some((listed.rank, matched));
                return;
            }
        }
    }
}

impl Group {
    fn list(&mut self, listed: Listed, path: Option<&PathPattern>) {
        match path {
            None => self.pathless.push(listed),
            Some(PathPattern::Regex(_)) => self.regexes.push(listed),
            Some(PathPattern::Prefix(prefix)) => {
                if !self.lengths.contains(&prefix.len()) {
                    self.lengths.push(prefix.len());
                }
                self.prefixes
                    .entry(prefix.clone())
                    .or_default()
                    .push(listed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
