//! The ways that share a host, found by the path.

use std::sync::Arc;

use super::criteria::PathPattern;
use super::rank::Rank;
use super::route::{Route, Way};
use super::{Match, PathMatch, Query};
use crate::pattern::Pattern;
use crate::shared_map::SharedMap;

/// The ways to match routes that share a host.
#[derive(Debug, Default, Clone)]
pub(super) struct Group {
    /// By prefix path.
    prefixes: SharedMap<Arc<[u8]>, List>,
    /// The lengths that prefixes have, each with the number of prefixes.
    lengths: Vec<(usize, usize)>,
    /// With a regular expression.
    regexes: List,
    /// Of routes without paths.
    pathless: List,
}

/// Ways in descending order of rank. A request walks through them from the start. The first change
/// after the router was copied copies the list, which costs about as much as such a walk.
type List = Arc<Vec<Listed>>;

/// A way as it stands in a list.
#[derive(Debug, Clone)]
struct Listed {
    rank: Rank,
    /// The port of the host, if it has one.
    port: Option<u16>,
    route: Arc<Route>,
}

/// The best way found so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    listed: &'a Listed,
    /// What of the path matches.
    path: PathMatch<'a>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.regexes.is_empty() && self.pathless.is_empty()
    }

    /// Adds a way to match `route`.
    pub(super) fn insert(&mut self, way: &Way<'_>, route: &Arc<Route>) {
        let listed = Listed {
            rank: way.rank,
            port: way.port(),
            route: Arc::clone(route),
        };
        match way.path {
            None => add(&mut self.pathless, listed),
            Some(PathPattern::Regex(_)) => add(&mut self.regexes, listed),
            Some(PathPattern::Prefix(prefix)) => match self.prefixes.get_mut(&**prefix) {
                Some(list) => add(list, listed),
                None => {
                    self.prefixes
                        .insert((&**prefix).into(), Arc::new(vec![listed]));
                    self.count_length(prefix.len());
                }
            },
        }
    }

    /// Removes a way to match a route.
    pub(super) fn remove(&mut self, way: &Way<'_>) {
        match way.path {
            None => remove(&mut self.pathless, way),
            Some(PathPattern::Regex(_)) => remove(&mut self.regexes, way),
            Some(PathPattern::Prefix(prefix)) => {
                let Some(list) = self.prefixes.get_mut(&**prefix) else {
                    return;
                };
                remove(list, way);
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

    /// The routes, each once for each way.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let prefixes = self.prefixes.iter().map(|(_, list)| list);
        let lists = prefixes.chain([&self.regexes, &self.pathless]);
        lists.flat_map(|list| list.iter().map(|listed| &listed.route))
    }

    /// Looks for a way that is better than `best`.
    pub(super) fn find<'a>(&'a self, query: &Query<'_>, best: &mut Option<Found<'a>>) {
        first(&self.pathless, query, best, |_| Some(PathMatch::NONE));
        for &(length, _) in &self.lengths {
            if let Some(prefix) = query.path.get(..length)
                && let Some(list) = self.prefixes.get(prefix)
            {
                first(list, query, best, |_| Some(PathMatch::prefix(length)));
            }
        }
        first(&self.regexes, query, best, |listed| {
            let regex = listed.regex()?;
            Some(PathMatch {
                length: regex.find(query.path)?.end,
                regex: Some(regex),
            })
        });
    }
}

#[cfg(test)]
impl Group {
    /// How many ways there are, prefixes and lengths of prefixes included.
    pub(super) fn ways(&self) -> usize {
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

impl Listed {
    fn is(&self, way: &Way<'_>) -> bool {
        self.rank == way.rank && self.port == way.port()
    }

    fn regex(&self) -> Option<&Pattern> {
        match self.route.paths.get(self.rank.path.0)? {
            PathPattern::Regex(regex) => Some(regex),
            PathPattern::Prefix(_) => None,
        }
    }
}

impl<'a> Found<'a> {
    pub(super) fn into_match(self) -> Match<'a> {
        Match {
            route: &self.listed.route,
            matched: self.path.length,
            regex: self.path.regex,
        }
    }
}

fn add(list: &mut List, listed: Listed) {
    let at = list.partition_point(|other| other.rank > listed.rank);
    Arc::make_mut(list).insert(at, listed);
}

fn remove(list: &mut List, way: &Way<'_>) {
    // A list without the way is not copied.
    if list.iter().any(|listed| listed.is(way)) {
        Arc::make_mut(list).retain(|listed| !listed.is(way));
    }
}

/// Takes the first way of a list that matches, unless `best` is better.
fn first<'a>(
    list: &'a List,
    query: &Query<'_>,
    best: &mut Option<Found<'a>>,
    matches: impl Fn(&'a Listed) -> Option<PathMatch<'a>>,
) {
    for listed in &**list {
        if best.is_some_and(|best| best.listed.rank >= listed.rank) {
            return;
        }
        if listed.port.is_none_or(|port| port == query.port)
            && listed.route.accepts(query)
            && let Some(path) = match listed.route.expression() {
                None => matches(listed),
                Some(expression) => expression.find(query),
            }
        {
            *best = Some(Found { listed, path });
            return;
        }
    }
}
