//! The endpoints that may be chosen, and how busy each is.

use std::ops::Deref;

use crate::Endpoint;

/// A number that the gateway keeps for each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Column {
    /// Requests sent to the endpoint and not yet answered in full, over the whole gateway.
    InFlight,
}

impl Column {
    /// The name that stands for the column in a plugin's description.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
        }
    }
}

/// The endpoints that may be chosen: a slice of [`Endpoint`], with the load columns that the balancer
/// asked for.
#[derive(Debug, Default)]
pub struct Endpoints {
    pub(crate) table: Vec<Endpoint>,
    pub(crate) columns: &'static [Column],
    /// The columns one after another, each as long as the table.
    pub(crate) load: Vec<u32>,
}

impl Endpoints {
    /// A table without load, as a test makes it.
    pub fn new(table: Vec<Endpoint>) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Adds a column, as a test makes it: a value for each endpoint.
    ///
    /// # Panics
    /// If there are not as many values as endpoints.
    pub fn with(mut self, column: Column, values: &[u32]) -> Self {
        assert_eq!(values.len(), self.table.len(), "a value for each endpoint");
        self.columns = [self.columns, &[column]].concat().leak();
        self.load.extend_from_slice(values);
        self
    }

    /// Requests sent to the endpoint at `position` and not yet answered in full.
    ///
    /// # Panics
    /// If the balancer did not ask for [`Column::InFlight`], or there is no such position.
    pub fn in_flight(&self, position: usize) -> u32 {
        self.column(Column::InFlight)[position]
    }

    /// The values of a column, one for each endpoint.
    ///
    /// # Panics
    /// If the balancer did not ask for the column in [`Balancer::COLUMNS`](crate::Balancer::COLUMNS).
    pub fn column(&self, column: Column) -> &[u32] {
        let Some(place) = self.columns.iter().position(|asked| *asked == column) else {
            panic!("`{column:?}` is read, but it is not in `Balancer::COLUMNS`");
        };
        &self.load[place * self.table.len()..][..self.table.len()]
    }
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::new(vec![
            Endpoint { id: 1, weight: 1 },
            Endpoint { id: 2, weight: 1 },
        ])
    }

    #[test]
    fn a_column_is_read_by_position() {
        let endpoints = endpoints().with(Column::InFlight, &[3, 4]);
        assert_eq!(endpoints.in_flight(0), 3);
        assert_eq!(endpoints.in_flight(1), 4);
        assert_eq!(endpoints.len(), 2);
    }

    #[test]
    #[should_panic(expected = "`InFlight` is read, but it is not in `Balancer::COLUMNS`")]
    fn a_column_that_was_not_asked_for_is_a_loud_mistake() {
        endpoints().in_flight(0);
    }
}
