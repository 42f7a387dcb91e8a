//! Two parts of a table, each with positions of its own.

use std::cell::RefCell;
use std::rc::Rc;

use crate::endpoints::fetch_changes;
use crate::{Column, Endpoints};

/// Where a part of a table comes from.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Whether it is the second of the two.
    second: bool,
    /// The position in the whole table, for each position of the part.
    origins: Vec<u32>,
    changes: Rc<Changes>,
    /// In a test: the requests in flight.
    given: Vec<u32>,
}

/// The changes of requests in flight. The gateway tells each of them once, so one that is of the
/// other part is kept until that part asks.
#[derive(Debug)]
struct Changes {
    /// For each position of the whole table, whether it is in the second part, and where.
    places: Vec<(bool, u32)>,
    /// For each part, what it has not been told.
    due: [RefCell<Due>; 2],
}

/// The latest number of requests in flight at positions of a part; there is at most one for each
/// position.
#[derive(Debug, Default)]
struct Due {
    positions: Vec<u32>,
    /// By position.
    latest: Vec<Option<u32>>,
}

impl Due {
    fn note(&mut self, position: u32, in_flight: u32) {
        let latest = &mut self.latest[position as usize];
        if latest.replace(in_flight).is_none() {
            self.positions.push(position);
        }
    }
}

impl Part {
    pub(crate) fn in_whole(&self, position: usize) -> usize {
        self.origins[position] as usize
    }

    // Not generic, so that it does not lengthen the picks of whole tables.
    pub(crate) fn each_change(&self, learn: &mut dyn FnMut(usize, u32)) {
        if !cfg!(target_family = "wasm") {
            for (position, in_flight) in self.given.iter().enumerate() {
                learn(position, *in_flight);
            }
            return;
        }
        self.each_change_of(|learn| fetch_changes(learn), learn);
    }

    /// Tells the changes of this part: those that are due, and those that `fetch` tells of the
    /// whole table.
    fn each_change_of(
        &self,
        fetch: impl FnOnce(&mut &mut dyn FnMut(usize, u32)),
        learn: &mut dyn FnMut(usize, u32),
    ) {
        let [first, second] = &self.changes.due;
        let (own, other) = if self.second {
            (second, first)
        } else {
            (first, second)
        };
        let mut own = own.borrow_mut();
        let own = &mut *own;
        for position in own.positions.drain(..) {
            if let Some(in_flight) = own.latest[position as usize].take() {
                learn(position as usize, in_flight);
            }
        }
        let mut other = other.borrow_mut();
        let mut sort = |position: usize, in_flight| {
            let (second, place) = self.changes.places[position];
            if second == self.second {
                learn(place as usize, in_flight);
            } else {
                other.note(place, in_flight);
            }
        };
        let mut sort: &mut dyn FnMut(usize, u32) = &mut sort;
        fetch(&mut sort);
    }
}

impl Endpoints {
    /// Splits the table in two: the endpoints at the positions for which `first` is true, and the
    /// others, both in their order. None if one of the parts would be empty.
    pub(crate) fn split(&self, first: impl Fn(usize) -> bool) -> Option<[Self; 2]> {
        let mut origins = [Vec::new(), Vec::new()];
        let mut places = Vec::new();
        for position in 0..self.table.len() {
            let second = !first(position);
            let part = &mut origins[usize::from(second)];
            places.push((second, part.len() as u32));
            part.push(position as u32);
        }
        if origins.iter().any(Vec::is_empty) {
            return None;
        }
        let due = origins.each_ref().map(|origins| {
            RefCell::new(Due {
                positions: Vec::new(),
                latest: vec![None; origins.len()],
            })
        });
        let changes = Rc::new(Changes { places, due });
        let mut second = false;
        Some(origins.map(|origins| {
            let table = origins.iter();
            let table = table.map(|position| self.table[*position as usize]);
            let mut part = Self::new(table.collect());
            part.part = Some(Part {
                second,
                origins,
                changes: Rc::clone(&changes),
                given: Vec::new(),
            });
            second = true;
            part.read_load_of(self);
            part
        }))
    }

    /// Takes over the columns of the whole table that this is a part of, as they are for the
    /// present pick.
    pub(crate) fn read_load_of(&mut self, whole: &Self) {
        let Some(part) = &mut self.part else {
            return;
        };
        if !cfg!(target_family = "wasm") {
            let given = part.origins.iter();
            let given = given.map(|position| whole.given(Column::InFlight, *position as usize));
            part.given = given.collect();
        }
        if whole.load.is_empty() {
            return;
        }
        self.columns.clone_from(&whole.columns);
        self.load.clear();
        for column in whole.load.chunks(whole.table.len().max(1)) {
            let own = part.origins.iter();
            self.load
                .extend(own.map(|position| column[*position as usize]));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Endpoint;

    fn table(length: u64) -> Endpoints {
        let endpoint = |id| Endpoint { id, weight: 1 };
        Endpoints::new((0..length).map(endpoint).collect())
    }

    #[test]
    fn parts_have_the_load_of_their_endpoints() {
        let whole = table(5).with_column(Column::InFlight, &[10, 11, 12, 13, 14]);
        let whole = whole.with_column(Column::Latency, &[20, 21, 22, 23, 24]);
        let [odd, even] = whole.split(|position| position % 2 == 1).unwrap();
        assert_eq!(odd.iter().map(|e| e.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(even.column(Column::Latency), [20, 22, 24]);
        let look = odd.look([Column::InFlight, Column::Latency], [1, 0]);
        assert_eq!(look, [[13, 23], [11, 21]]);
        assert_eq!((odd.in_whole(1), even.in_whole(2)), (3, 4));
        assert!(whole.split(|_| true).is_none());
        assert!(whole.split(|_| false).is_none());
    }

    proptest! {
        /// Whichever part asks, and however seldom, each part ends with the latest numbers of its
        /// endpoints, and hears of no others.
        #[test]
        fn each_part_learns_its_own_changes(
            events in prop::collection::vec((0_usize..7, 0_u32..100, prop::option::of(any::<bool>())), 0..60),
        ) {
            let [first, second] = table(7).split(|position| position < 3).unwrap();
            let parts = [first.part.unwrap(), second.part.unwrap()];
            let mut real = [0; 7];
            let mut known = [vec![0; 3], vec![0; 4]];
            let mut pending = Vec::new();
            let mut ask = |index: usize, pending: &mut Vec<(usize, u32)>| {
                let own = &mut known[index];
                parts[index].each_change_of(
                    |learn| pending.drain(..).for_each(|(position, count)| learn(position, count)),
                    &mut |position, count| own[position] = count,
                );
            };
            for (position, count, asks) in events {
                real[position] = count;
                pending.push((position, count));
                if let Some(second) = asks {
                    ask(usize::from(second), &mut pending);
                }
            }
            ask(0, &mut pending);
            ask(1, &mut pending);
            prop_assert_eq!([&known[0][..], &known[1][..]].concat(), real);
        }
    }
}
