//! Which endpoints have another number of requests in flight than before. Balancers that keep
//! endpoints in order are told what has changed, and need not look at a thousand that have not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Endpoint;

/// The positions of one table whose number of requests in flight has changed.
#[derive(Debug)]
pub(super) struct Board {
    noted: Mutex<Noted>,
    /// Whether a change is noted: a reader finds out without the lock that none is.
    any: AtomicBool,
    /// Most notes to keep: with more, it is cheaper to tell every position.
    limit: usize,
}

#[derive(Debug, Default)]
struct Noted {
    positions: Vec<u32>,
    /// There were more than the limit: every position is to be told.
    all: bool,
}

impl Board {
    pub(super) fn note(&self, position: u32) {
        let mut noted = self.noted.lock();
        if noted.all || noted.positions.last() == Some(&position) {
            return;
        }
        self.any.store(true, Ordering::SeqCst);
        if noted.positions.len() < self.limit {
            noted.positions.push(position);
        } else {
            // No reader has taken the notes for long.
            noted.positions.clear();
            noted.all = true;
        }
    }
}

/// Tells the changes of one table, from its creation until it is dropped.
#[derive(Debug)]
pub struct Changes {
    table: Arc<[Arc<Endpoint>]>,
    board: Arc<Board>,
    /// Positions still to be told.
    due: Vec<u32>,
}

impl Changes {
    /// Watches a table. Every number but 0 counts as changed.
    pub fn new(table: Arc<[Arc<Endpoint>]>) -> Self {
        let board = Arc::new(Board {
            noted: Mutex::default(),
            any: AtomicBool::new(false),
            limit: table.len().max(64),
        });
        for (endpoint, position) in table.iter().zip(0..) {
            endpoint.live().watch(&board, position);
        }
        // Read after the watch has begun, so that no change is missed.
        let busy = table.iter().zip(0..);
        let busy = busy.filter(|(endpoint, _)| endpoint.live().settled() > 0);
        let due = busy.map(|(_, position)| position).collect();
        Self { table, board, due }
    }
}

impl Iterator for Changes {
    type Item = (u32, u32);

    /// The next change: a position, and the requests in flight there now. None if nothing has
    /// changed yet; there may be a change later.
    fn next(&mut self) -> Option<(u32, u32)> {
        if self.due.is_empty() {
            if !self.board.any.load(Ordering::SeqCst) {
                return None;
            }
            let mut noted = self.board.noted.lock();
            self.board.any.store(false, Ordering::SeqCst);
            if std::mem::take(&mut noted.all) {
                self.due.extend(0..self.table.len() as u32);
            } else {
                std::mem::swap(&mut self.due, &mut noted.positions);
            }
        }
        let position = self.due.pop()?;
        Some((position, self.table[position as usize].in_flight()))
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        for endpoint in &*self.table {
            endpoint.live().unwatch(&self.board);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::InFlight;
    use super::*;

    fn table(length: u64) -> Arc<[Arc<Endpoint>]> {
        let endpoint = |id| Endpoint::new(id, ([127, 0, 0, 1], 80).into(), "a".into(), 1);
        (0..length).map(|id| Arc::new(endpoint(id))).collect()
    }

    fn told(changes: &mut Changes) -> Vec<(u32, u32)> {
        let mut told: Vec<_> = changes.by_ref().collect();
        told.sort_unstable();
        told
    }

    fn request(table: &[Arc<Endpoint>], position: usize) -> InFlight {
        InFlight::new(Arc::clone(&table[position]))
    }

    #[test]
    fn each_change_is_reported_once() {
        let table = table(5);
        let before = [request(&table, 1), request(&table, 1)];
        let mut changes = Changes::new(Arc::clone(&table));
        assert_eq!(told(&mut changes), [(1, 2)]);
        assert_eq!(told(&mut changes), []);
        let new = [request(&table, 4), request(&table, 4)];
        drop(before);
        assert_eq!(told(&mut changes), [(1, 0), (4, 2)]);
        drop(new);
        assert_eq!(told(&mut changes), [(4, 0)]);
    }

    #[test]
    fn two_readers_of_the_same_endpoints_are_both_told() {
        let table = table(3);
        let mut first = Changes::new(Arc::clone(&table));
        let mut second = Changes::new(Arc::clone(&table));
        let _request = request(&table, 2);
        assert_eq!(told(&mut first), [(2, 1)]);
        drop(first);
        let _another = request(&table, 2);
        assert_eq!(told(&mut second), [(2, 2)]);
        drop(second);
        assert!(!table[2].live().is_watched());
    }

    #[test]
    fn all_positions_are_reported_once_there_are_too_many_notes() {
        let table = table(3);
        let mut changes = Changes::new(Arc::clone(&table));
        for turn in 0..500 {
            drop(request(&table, turn % 2));
        }
        assert!(changes.board.noted.lock().positions.len() <= 64);
        assert_eq!(told(&mut changes), [(0, 0), (1, 0), (2, 0)]);
    }
}
