//! Consistent hashing on a ring: of all keys, only those move that have to. See README.md.

use std::collections::HashMap;

use guest_sdk::{Balancer, Endpoint, Endpoints, Request};
use serde::Deserialize;

/// Least points of an endpoint of average weight, and the slots for each of more of them.
const POINTS: u64 = 160;
const SLOTS: u64 = 64;

/// Most points of a ring: 12 bytes each.
const MOST: u64 = 1 << 18;

/// Goes from the key to the next point.
#[derive(Debug, Default)]
pub struct Ring {
    options: Options,
    /// The points in order, and whose they are: its place in `owners`.
    points: Vec<u64>,
    owned: Vec<u32>,
    owners: Vec<Owner>,
    /// For each part of the ring, its first point.
    parts: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    id: u64,
    /// How many points it has: the first so many of its sequence.
    points: u32,
    /// Where it is in the table; none when it has left.
    position: u32,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    slots: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { slots: 10_000 }
    }
}

impl Balancer for Ring {
    const CONFIG_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "slots": {
                "type": "integer", "minimum": 10, "maximum": 65536, "default": 10000,
                "description": "An endpoint of average weight has a point for every 64 of them, and 160 at least; the upstream's field slots unless set here"
            }
        },
        "additionalProperties": false
    }"#;

    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.options = serde_json::from_str(config).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn endpoints_changed(&mut self, endpoints: &[Endpoint]) {
        let wanted = points_of_each(endpoints, self.options.slots);
        let known: HashMap<u64, u32> = self
            .owners
            .iter()
            .zip(0..)
            .map(|(o, n)| (o.id, n))
            .collect();
        let mut owners = Vec::with_capacity(endpoints.len());
        // What becomes of each old owner: its new place, and how many of its points stay.
        let mut fates = vec![None; self.owners.len()];
        let mut added: Vec<(u64, u32)> = Vec::new();
        for ((endpoint, &points), position) in endpoints.iter().zip(&wanted).zip(0..) {
            let id = endpoint.id;
            let before = known.get(&id).map_or(0, |&old| {
                fates[old as usize] = Some((position, points));
                self.owners[old as usize].points
            });
            added.extend((before..points).map(|number| (point(id, number), position)));
            owners.push(Owner {
                id,
                points,
                position,
            });
        }
        added.sort_unstable();
        self.merge(&fates, &added);
        self.owners = owners;
        self.divide();
    }

    fn pick(&mut self, request: &Request, _: &Endpoints) -> Option<usize> {
        // A request without a key belongs nowhere; a retry belongs elsewhere.
        let key = match (request.affinity, request.attempt) {
            (Some(key), 0) => key,
            (Some(key), attempt) => mix(key.wrapping_add(u64::from(attempt))),
            (None, _) => request.entropy,
        };
        let part = (u128::from(key) * self.parts.len() as u128) >> 64;
        let mut next = *self.parts.get(part as usize)? as usize;
        while self.points.get(next).is_some_and(|&point| point < key) {
            next += 1;
        }
        // Past the last point comes the first.
        let owner = self.owned.get(next).or(self.owned.first())?;
        Some(self.owners[*owner as usize].position as usize)
    }
}

impl Ring {
    /// Takes away the points of who left or has less of them now, and puts in those that are new.
    fn merge(&mut self, fates: &[Option<(u32, u32)>], added: &[(u64, u32)]) {
        let shrunk: Vec<bool> = fates
            .iter()
            .zip(&self.owners)
            .map(|(fate, owner)| fate.is_none_or(|(_, points)| points < owner.points))
            .collect();
        // The points to take away from who stays with fewer; few, as a rule.
        let mut taken: Vec<(u64, u32)> = Vec::new();
        for ((fate, owner), number) in fates.iter().zip(&self.owners).zip(0..) {
            if let Some((_, points)) = fate {
                taken.extend((*points..owner.points).map(|n| (point(owner.id, n), number)));
            }
        }
        taken.sort_unstable();
        let total = self.points.len() + added.len();
        let (mut points, mut owned) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let mut new = added.iter().peekable();
        for (&point, &owner) in self.points.iter().zip(&self.owned) {
            let Some((place, _)) = fates[owner as usize] else {
                continue;
            };
            if shrunk[owner as usize] && taken.binary_search(&(point, owner)).is_ok() {
                continue;
            }
            while let Some((earlier, place)) = new.next_if(|(earlier, _)| *earlier < point) {
                points.push(*earlier);
                owned.push(*place);
            }
            points.push(point);
            owned.push(place);
        }
        for (point, place) in new {
            points.push(*point);
            owned.push(*place);
        }
        self.points = points;
        self.owned = owned;
    }

    /// Notes the first point of each part, of which there are about as many as points: a pick then
    /// looks at a point or two.
    fn divide(&mut self) {
        let count = self.points.len();
        self.parts.clear();
        let mut next = 0;
        for part in 0..count as u128 {
            let start = ((part << 64).div_ceil(count as u128)) as u64;
            while next < count && self.points[next] < start {
                next += 1;
            }
            self.parts.push(next as u32);
        }
    }
}

/// How many points each endpoint has, by weight. Among equals that does not depend on how many there
/// are, so nothing but a point of who joined comes between a key and its endpoint.
fn points_of_each(endpoints: &[Endpoint], slots: u32) -> Vec<u32> {
    let count = endpoints.len() as u64;
    let each = (u64::from(slots) / SLOTS).max(POINTS);
    let all = (count * each).min(MOST.max(count));
    let total: u64 = endpoints
        .iter()
        .map(|endpoint| u64::from(endpoint.weight))
        .sum();
    let share = |weight: u32| (all * u64::from(weight)).div_ceil(total.max(1)).max(1) as u32;
    endpoints
        .iter()
        .map(|endpoint| share(endpoint.weight))
        .collect()
}

fn point(id: u64, number: u32) -> u64 {
    mix(id ^ mix(u64::from(number)))
}

/// Spreads the bits of a number. Source: SplitMix64 (Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

guest_sdk::export!(Ring);

#[cfg(test)]
mod tests;
