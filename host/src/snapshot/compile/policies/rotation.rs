//! Reads the values of vaults again, so that a file with another value is in effect without a
//! write.
//!
//! The task that compiles waits for no file: a blocking thread reads them, and what it has read is
//! taken over if nothing was written meanwhile. The environment of a process does not change.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use uuid::Uuid;

use super::vaults::{Values, resolve};
use crate::entity::{Kind, Row};
use crate::vault;

/// Time between two reads. Kong reads a value again within 60 seconds.
const PERIOD: Duration = Duration::from_secs(1);

/// What is to be resolved: rows with references, and the vaults that these name.
pub(in super::super) struct References {
    pub(super) rows: Vec<Rows>,
    pub(super) vaults: vault::Vaults,
}

/// Rows of a kind with references, or with values in place of them.
pub(in super::super) struct Rows {
    pub(in super::super) kind: Kind,
    pub(super) rows: BTreeMap<Uuid, Row>,
    /// The values that the references of each row had last.
    pub(super) values: BTreeMap<Uuid, Values>,
    /// Differs between two states of rows and vaults.
    pub(super) generation: u64,
}

impl References {
    /// Resolves the references.
    pub(super) fn resolve(self) -> Vec<Rows> {
        let rows = self.rows.into_iter();
        rows.map(|rows| rows.resolve(&self.vaults)).collect()
    }
}

impl Rows {
    /// Resolves the references.
    fn resolve(mut self, vaults: &vault::Vaults) -> Self {
        for (id, row) in &mut self.rows {
            let values = self.values.entry(*id).or_default();
            resolve(vaults, self.kind, row, values, |_, _| {});
        }
        self
    }
}

/// When the values of vaults are read again.
pub(in super::super) struct Rotation {
    ticks: Interval,
    /// The read in progress.
    reading: Option<JoinHandle<Vec<Rows>>>,
}

impl Rotation {
    pub(in super::super) fn new() -> Self {
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            reading: None,
        }
    }

    /// Waits for the next read of all values; `references` are what is to be read, if anything is.
    /// A wait that is given up is continued by the next one.
    pub(in super::super) async fn next(
        &mut self,
        references: impl Fn() -> Option<References>,
    ) -> Option<Vec<Rows>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                self.ticks.tick().await;
                let references = references()?;
                let read = tokio::task::spawn_blocking(move || references.resolve());
                self.reading.insert(read)
            }
        };
        let resolved = reading.await;
        self.reading = None;
        resolved.ok()
    }
}
