//! Consistent hashing on a ring: when endpoints change, only the keys move that have to. See
//! README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoint, Endpoints, Request, mix};

/// An endpoint of median weight has one point for this many slots, and at least [`MIN_POINTS`].
const SLOTS: u64 = 10;
const MIN_POINTS: u64 = 160;

/// The maximum number of points of a ring. Each has 8 bytes.
const MAX_POINTS: u64 = 1 << 18;

/// The number of bits of a point that have the position of its owner. A ring may have 2 to this
/// power endpoints.
const OWNER: u32 = 20;

/// The number of points for each entry of [`Ring::parts`]: as many as a cache line has.
const PART: usize = 8;

/// Picks the owner of the first point at or after the key.
#[derive(Debug, Default)]
pub struct Ring {
    options: Options,
    /// The points, sorted.
    points: Vec<Point>,
    /// The endpoints, by position.
    owners: Vec<Owner>,
    /// For each part of the ring, the index of its first point.
    parts: Vec<u32>,
}

/// The place on the ring in the upper bits, and the position of the endpoint that owns the point in
/// the lower bits. So a pick reads both from one memory location, which matters for a ring of
/// megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point(u64);

impl Point {
    /// The point with this number in the sequence of an endpoint.
    fn of(id: u64, number: u32, position: u32) -> Self {
        Self(mix(id ^ mix(u64::from(number)))).owned_by(position)
    }

    fn owned_by(self, position: u32) -> Self {
        Self(self.place() << OWNER | u64::from(position))
    }

    fn place(self) -> u64 {
        self.0 >> OWNER
    }

    fn owner(self) -> usize {
        (self.0 & ((1 << OWNER) - 1)) as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    id: u64,
    /// The number of its points, which are the first ones of its sequence.
    points: u32,
}

guest_sdk::settings! {
    /// What operators may set.
    struct Options {
        /// An endpoint of median weight has a point for every 10 of them, and 160 at least; the
        /// upstream's field slots unless set here
        slots: u32 = 10_000, "minimum": 10, "maximum": 65_536;
    }
}

impl Balancer for Ring {
    const CONFIG_SCHEMA: &'static str = Options::SCHEMA;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = Options::read(config)?;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &Endpoints) {
        assert!(
            endpoints.len() <= 1 << OWNER,
            "a ring takes up to {} endpoints",
            1 << OWNER
        );
        let wanted = points_of_each(endpoints, self.options.slots);
        let owners: Vec<Owner> = endpoints
            .iter()
            .zip(wanted)
            .map(|(&Endpoint { id, .. }, points)| Owner { id, points })
            .collect();
        let before = std::mem::replace(&mut self.owners, owners);
        let known: HashMap<u64, u32> = before.iter().zip(0..).map(|(o, at)| (o.id, at)).collect();
        // The new position of each old owner; none if it has left.
        let mut moved = vec![None; before.len()];
        let (mut added, mut taken) = (Vec::new(), Vec::new());
        for (owner, position) in self.owners.iter().zip(0..) {
            let had = known.get(&owner.id).map_or(0, |&old| {
                moved[old as usize] = Some(position);
                before[old as usize].points
            });
            let point = |number| Point::of(owner.id, number, position);
            added.extend((had..owner.points).map(point));
            taken.extend((owner.points..had).map(point));
        }
        let stay = std::mem::take(&mut self.points).into_iter();
        let stay = stay.filter_map(|point| Some(point.owned_by(moved[point.owner()]?)));
        self.points = self.merged(stay, added, taken);
        self.divide();
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        // Without a key, any endpoint may be picked. A retry uses another key, so that it is likely
        // to go to another endpoint.
        let key = match (request.affinity, request.attempt) {
            (Some(key), 0) => key,
            (Some(key), attempt) => mix(key.wrapping_add(u64::from(attempt))),
            (None, _) => request.entropy,
        };
        let part = (u128::from(key) * self.parts.len() as u128) >> 64;
        let from = *self.parts.get(part as usize)? as usize;
        let place = key >> OWNER;
        let next = self.points[from..]
            .iter()
            .find(|point| point.place() >= place);
        // After the last point, the ring continues with the first one.
        Some(next.or(self.points.first())?.owner())
    }
}

impl Ring {
    /// Merges the points that stay with the `added` ones, and removes the `taken` ones.
    fn merged(
        &self,
        stay: impl Iterator<Item = Point>,
        mut added: Vec<Point>,
        mut taken: Vec<Point>,
    ) -> Vec<Point> {
        // Sorted by place. Points at the same place are sorted by the id of their owner and not by
        // its position, so that the order is the same on every gateway.
        let id = |point: &Point| self.owners[point.owner()].id;
        let order = |a: &Point, b: &Point| {
            let place = a.place().cmp(&b.place());
            place.then_with(|| id(a).cmp(&id(b)))
        };
        added.sort_unstable_by(order);
        taken.sort_unstable_by(order);
        let mut points = Vec::with_capacity(stay.size_hint().1.unwrap_or(0) + added.len());
        let mut added = added.into_iter().peekable();
        let mut taken = taken.into_iter().peekable();
        for point in stay {
            if taken.next_if(|gone| *gone == point).is_some() {
                continue;
            }
            while let Some(earlier) = added.next_if(|new| order(new, &point).is_lt()) {
                points.push(earlier);
            }
            points.push(point);
        }
        points.extend(added);
        points
    }

    /// Finds the first point of each part, so that a pick only reads a few consecutive points.
    fn divide(&mut self) {
        let count = self.points.len().div_ceil(PART);
        self.parts.clear();
        let mut next = 0;
        for part in 0..count as u128 {
            let start = Point(((part << 64).div_ceil(count as u128)) as u64).place();
            while self
                .points
                .get(next)
                .is_some_and(|point| point.place() < start)
            {
                next += 1;
            }
            self.parts.push(next as u32);
        }
    }
}

/// The number of points of each endpoint, by weight.
///
/// Weights are relative to the median weight: when an endpoint joins, leaves or ramps up, the
/// median usually stays the same, and so do the points of all other endpoints. If the sum would be
/// above [`MAX_POINTS`], all numbers are reduced by the same factor. A fraction of a point becomes
/// a whole point for that fraction of the endpoints. These are always the same endpoints, chosen by
/// their ids, so one more endpoint takes hardly any points from the others.
fn points_of_each(endpoints: &[Endpoint], slots: u32) -> Vec<u32> {
    /// One point, as a fixed-point number.
    const ONE: u64 = 1 << 16;
    let mut weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
    let Some(middle) = weights.len().checked_sub(1).map(|last| last / 2) else {
        return Vec::new();
    };
    let median = u64::from(*weights.select_nth_unstable(middle).1).max(1);
    let each = (u64::from(slots) / SLOTS).max(MIN_POINTS);
    let wanted = |endpoint: &Endpoint| u64::from(endpoint.weight) * each * ONE / median;
    let total: u64 = endpoints.iter().map(wanted).sum();
    let most = MAX_POINTS * ONE;
    let points = |endpoint: &Endpoint| {
        let wanted = wanted(endpoint);
        let share = match total > most {
            true => (u128::from(wanted) * u128::from(most) / u128::from(total)) as u64,
            false => wanted,
        };
        ((share + mix(endpoint.id) % ONE) / ONE).max(1) as u32
    };
    endpoints.iter().map(points).collect()
}

guest_sdk::export!(Ring);

#[cfg(test)]
mod tests;
