//! Which route a request takes: Kong's `traditional_compatible` rules, as an index.
//!
//! Each alternative by which a request matches a route, one of its paths and one of its hosts, has
//! a rank: Kong's 64-bit priority, then how closely the host matches, then the id of the route. The
//! alternatives are grouped by host, and in a group by path. A request is looked up by its host and
//! by the prefixes of its path, and takes the alternative of the greatest rank whose other criteria
//! match. So its cost depends on the number of different lengths of prefixes, not on the number of
//! routes.
//!
//! A route that has an expression instead has one rank. Its alternatives are the hosts and prefixes
//! that the expression implies, and the expression is evaluated for the requests that these lead
//! to.
//!
//! A copy of a router shares all groups. A route that is added to the copy, or removed from it,
//! replaces the groups of its own hosts, and in these the lists of its own paths.

mod addresses;
mod arguments;
mod check;
mod criteria;
mod error;
mod expression;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod group;
mod priority;
mod rank;
mod route;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::pattern::Pattern;
use crate::shared_map::SharedMap;
pub use arguments::Arguments;
pub(crate) use check::{check_patterns, has_patterns};
use criteria::HostPattern;
pub use error::RouteError;
use group::HostGroup;
pub use route::Route;
pub use stream::{StreamProtocol, StreamQuery, StreamRoute, StreamRouter};

/// What a request is matched by.
#[derive(Debug)]
pub struct Query<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host without port, in the form in which hosts are compared.
    pub host: &'a str,
    /// The port of the `Host` header, or the one that the request came in on.
    pub port: u16,
    /// The normalised path.
    pub path: &'a [u8],
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The server name that the client has asked for in its TLS handshake, in lower case; empty if
    /// it has asked for none. None for a request in clear text.
    pub server_name: Option<&'a str>,
    /// The arguments in the query of the URI.
    pub arguments: Arguments<'a>,
    /// The address of the client, if it is known; its port is 0 if only the IP address is.
    pub client: Option<SocketAddr>,
    /// The address that the client is connected to, if it is known.
    pub local: Option<IpAddr>,
}

impl Query<'_> {
    /// The address that the client is connected to, with the port that the request names.
    fn local_address(&self) -> Option<SocketAddr> {
        self.local.map(|local| SocketAddr::new(local, self.port))
    }
}

/// A route that matches, and how much of the path it matched.
#[derive(Debug, Clone, Copy)]
pub struct Match<'a> {
    /// The route.
    pub route: &'a Route,
    /// Bytes of the path, from its start; 0 for a route without paths.
    pub matched: usize,
    /// The regular expression that matched, if one did.
    pub regex: Option<&'a Pattern>,
}

/// What a route matches of the path of a request.
#[derive(Debug, Clone, Copy)]
struct PathMatch<'a> {
    /// Bytes of the path, from its start.
    length: usize,
    /// The regular expression that matched, if one did.
    regex: Option<&'a Pattern>,
}

impl PathMatch<'_> {
    /// Of a route that matches whatever the path is.
    const NONE: Self = Self::prefix(0);

    const fn prefix(length: usize) -> Self {
        Self {
            length,
            regex: None,
        }
    }

    fn is_none(&self) -> bool {
        self.length == 0 && self.regex.is_none()
    }
}

/// All routes.
#[derive(Debug, Default, Clone)]
pub struct Router {
    exact: Groups,
    /// By `.example.com` of `*.example.com`.
    suffixes: Groups,
    /// By `example.` of `example.*`.
    prefixes: Groups,
    /// Of routes without hosts.
    any: Arc<HostGroup>,
}

type Groups = SharedMap<Arc<str>, Arc<HostGroup>>;

impl Router {
    /// Adds a route. An earlier one with the same id has to be removed first.
    pub fn insert(&mut self, route: &Arc<Route>) {
        if route.is_for_requests() {
            for alternative in route.alternatives() {
                self.change(alternative.host, |group| group.insert(&alternative, route));
            }
        }
    }

    /// Removes a route, if it is present.
    pub fn remove(&mut self, route: &Route) {
        for alternative in route.alternatives() {
            self.change(alternative.host, |group| group.remove(&alternative));
        }
    }

    /// Changes the group of a host. A group exists while it has alternatives.
    fn change(&mut self, host: Option<&HostPattern>, change: impl FnOnce(&mut HostGroup)) {
        let (groups, key) = match host {
            None => return change(Arc::make_mut(&mut self.any)),
            Some(HostPattern::Exact(name, _)) => (&mut self.exact, name),
            Some(HostPattern::Suffix(suffix, _)) => (&mut self.suffixes, suffix),
            Some(HostPattern::Prefix(prefix, _)) => (&mut self.prefixes, prefix),
        };
        match groups.get_mut(&**key) {
            Some(group) => {
                let group = Arc::make_mut(group);
                change(group);
                if group.is_empty() {
                    groups.remove(&**key);
                }
            }
            None => {
                let mut group = HostGroup::default();
                change(&mut group);
                if !group.is_empty() {
                    groups.insert((&**key).into(), Arc::new(group));
                }
            }
        }
    }

    /// All routes, in no order. A route that has several alternatives may come several times.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let groups = [&self.exact, &self.suffixes, &self.prefixes];
        let groups = groups.into_iter().flat_map(SharedMap::iter);
        let groups = groups.map(|(_, group)| group).chain([&self.any]);
        groups.flat_map(|group| group.routes())
    }

    /// The route that `query` takes.
    pub fn route(&self, query: &Query<'_>) -> Option<Match<'_>> {
        let mut best = None;
        self.any.find(query, &mut best);
        if !self.exact.is_empty()
            && let Some(group) = self.exact.get(query.host)
        {
            group.find(query, &mut best);
        }
        if !self.suffixes.is_empty() || !self.prefixes.is_empty() {
            for (dot, _) in query.host.match_indices('.') {
                if let Some(group) = self.suffixes.get(&query.host[dot..]) {
                    group.find(query, &mut best);
                }
                if let Some(group) = self.prefixes.get(&query.host[..=dot]) {
                    group.find(query, &mut best);
                }
            }
        }
        best.map(group::BestMatch::into_match)
    }
}

impl<'a> FromIterator<&'a Arc<Route>> for Router {
    fn from_iter<I: IntoIterator<Item = &'a Arc<Route>>>(routes: I) -> Self {
        let mut router = Self::default();
        for route in routes {
            router.insert(route);
        }
        router
    }
}

#[cfg(test)]
impl Router {
    /// How many groups, prefixes and alternatives were copied or created since it was a copy of
    /// `old`.
    fn copied_since(&self, old: &Self) -> usize {
        let none = HostGroup::default();
        let maps = [
            (&self.exact, &old.exact),
            (&self.suffixes, &old.suffixes),
            (&self.prefixes, &old.prefixes),
        ];
        let maps = maps.map(|(new, old)| {
            let groups = new.iter().map(|(host, group)| match old.get(host) {
                Some(old) if Arc::ptr_eq(group, old) => 0,
                old => 1 + group.copied_since(old.map_or(&none, |old| old)),
            });
            new.copied_since(old) + groups.sum::<usize>()
        });
        let any = match Arc::ptr_eq(&self.any, &old.any) {
            true => 0,
            false => 1 + self.any.copied_since(&old.any),
        };
        maps.iter().sum::<usize>() + any
    }
}

#[cfg(test)]
mod tests;
