//! The alternatives that share a host, found by the path.

use std::sync::Arc;

use super::criteria::PathPattern;
use super::rank::Rank;
use super::route::{Alternative, Route};
use super::{Match, PathMatch, Query};
use crate::pattern::Pattern;
use crate::shared_map::SharedMap;

/// The alternatives of routes that share a host.
#[derive(Debug, Default, Clone)]
pub(super) struct HostGroup {
    /// By prefix path.
    prefixes: SharedMap<Arc<[u8]>, List>,
    /// The lengths that prefixes have, each with the number of prefixes.
    lengths: Vec<(usize, usize)>,
    /// With a regular expression.
    regexes: List,
    /// Of routes without paths.
    pathless: List,
}

/// Alternatives in descending order of rank. A request walks through them from the start. The first
/// change after the router was copied copies the list, which costs about as much as such a walk.
type List = Arc<Vec<Candidate>>;

/// An alternative as it stands in a list.
#[derive(Debug, Clone)]
struct Candidate {
    rank: Rank,
    /// The port of the host, if it has one.
    port: Option<u16>,
    route: Arc<Route>,
}

/// The best alternative found so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct BestMatch<'a> {
    candidate: &'a Candidate,
    /// What of the path matches.
    path: PathMatch<'a>,
}

impl HostGroup {
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.regexes.is_empty() && self.pathless.is_empty()
    }

    /// Adds an alternative of `route`.
    pub(super) fn insert(&mut self, alternative: &Alternative<'_>, route: &Arc<Route>) {
        let candidate = Candidate {
            rank: alternative.rank,
            port: alternative.port(),
            route: Arc::clone(route),
        };
        match alternative.path {
            None => add(&mut self.pathless, candidate),
            Some(PathPattern::Regex(_)) => add(&mut self.regexes, candidate),
            Some(PathPattern::Prefix(prefix)) => match self.prefixes.get_mut(&**prefix) {
                Some(list) => add(list, candidate),
                None => {
                    self.prefixes
                        .insert((&**prefix).into(), Arc::new(vec![candidate]));
                    self.count_length(prefix.len());
                }
            },
        }
    }

    /// Removes an alternative of a route.
    pub(super) fn remove(&mut self, alternative: &Alternative<'_>) {
        match alternative.path {
            None => remove(&mut self.pathless, alternative),
            Some(PathPattern::Regex(_)) => remove(&mut self.regexes, alternative),
            Some(PathPattern::Prefix(prefix)) => {
                let Some(list) = self.prefixes.get_mut(&**prefix) else {
                    return;
                };
                remove(list, alternative);
                if list.is_empty() {
                    self.prefixes.remove(&**prefix);
                    self.discount_length(prefix.len());
                }
            }
        }
    }

    fn count_length(&mut self, length: usize) {
        match self.lengths.iter_mut().find(|(known, _)| *known == length) {
            Some((_, count)) => *count += 1,
            None => self.lengths.push((length, 1)),
        }
    }

    fn discount_length(&mut self, length: usize) {
        if let Some((_, count)) = self.lengths.iter_mut().find(|(known, _)| *known == length) {
            *count -= 1;
        }
        self.lengths.retain(|(_, count)| *count > 0);
    }

    /// The routes, each once for each alternative.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let prefixes = self.prefixes.iter().map(|(_, list)| list);
        let lists = prefixes.chain([&self.regexes, &self.pathless]);
        lists.flat_map(|list| list.iter().map(|candidate| &candidate.route))
    }

    /// Looks for an alternative that is better than `best`.
    pub(super) fn find<'a>(&'a self, query: &Query<'_>, best: &mut Option<BestMatch<'a>>) {
        first(&self.pathless, query, best, |_| Some(PathMatch::NONE));
        for &(length, _) in &self.lengths {
            if let Some(prefix) = query.path.get(..length)
                && let Some(list) = self.prefixes.get(prefix)
            {
                first(list, query, best, |_| Some(PathMatch::prefix(length)));
            }
        }
        first(&self.regexes, query, best, |candidate| {
            let regex = candidate.regex()?;
            Some(PathMatch {
                length: regex.find(query.path)?.end,
                regex: Some(regex),
            })
        });
    }
}

#[cfg(test)]
impl HostGroup {
    /// How many alternatives there are, prefixes and lengths of prefixes included.
    pub(super) fn alternatives(&self) -> usize {
        let prefixes = self.prefixes.iter().map(|(_, list)| 1 + list.len());
        let lists = prefixes.sum::<usize>() + self.regexes.len() + self.pathless.len();
        let counted: usize = self.lengths.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, self.prefixes.len());
        lists + self.lengths.len()
    }

    /// How much of it was copied or created since it was a copy of `old`.
    pub(super) fn copied_since(&self, old: &Self) -> usize {
        let lists = [
            (&self.regexes, &old.regexes),
            (&self.pathless, &old.pathless),
        ];
        let lists = lists
            .into_iter()
            .filter(|(new, old)| !Arc::ptr_eq(new, old));
        let lists = lists.map(|(new, _)| new.len()).sum::<usize>();
        self.prefixes.copied_since(&old.prefixes) + self.lengths.len() + lists
    }
}

impl Candidate {
    fn is(&self, alternative: &Alternative<'_>) -> bool {
        self.rank == alternative.rank && self.port == alternative.port()
    }

    fn regex(&self) -> Option<&Pattern> {
        match self.route.paths.get(self.rank.path.0)? {
            PathPattern::Regex(regex) => Some(regex),
            PathPattern::Prefix(_) => None,
        }
    }
}

impl<'a> BestMatch<'a> {
    pub(super) fn into_match(self) -> Match<'a> {
        Match {
            route: &self.candidate.route,
            matched: self.path.length,
            regex: self.path.regex,
        }
    }
}

fn add(list: &mut List, candidate: Candidate) {
    let at = list.partition_point(|other| other.rank > candidate.rank);
    Arc::make_mut(list).insert(at, candidate);
}

fn remove(list: &mut List, alternative: &Alternative<'_>) {
    // A list without the alternative is not copied.
    if list.iter().any(|candidate| candidate.is(alternative)) {
        Arc::make_mut(list).retain(|candidate| !candidate.is(alternative));
    }
}

/// Takes the first alternative of a list that matches, unless `best` is better.
fn first<'a>(
    list: &'a List,
    query: &Query<'_>,
    best: &mut Option<BestMatch<'a>>,
    matches: impl Fn(&'a Candidate) -> Option<PathMatch<'a>>,
) {
    for candidate in &**list {
        if best.is_some_and(|best| best.candidate.rank >= candidate.rank) {
            return;
        }
        if candidate.port.is_none_or(|port| port == query.port)
            && candidate.route.accepts(query)
            && let Some(path) = match candidate.route.expression() {
                None => matches(candidate),
                Some(expression) => expression.find(query),
            }
        {
            *best = Some(BestMatch { candidate, path });
            return;
        }
    }
}
