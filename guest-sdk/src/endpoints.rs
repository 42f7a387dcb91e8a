//! The endpoints of a pick, and what the gateway knows of their load.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;

#[cfg(doc)]
use crate::Balancer;
use crate::Endpoint;
use crate::bindings::pointsman::balancer::{endpoint_facts, load};
use crate::part::Part;

/// A kind of load data that the gateway has for every endpoint, as one number for each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Column {
    /// Requests sent to the endpoint and not yet answered in full, over the whole gateway.
    InFlight,
    /// Microseconds until the endpoint answers, as a moving average that rises to a slower answer
    /// at once, and halves about every 7 seconds without one; 0 while nothing is known.
    Latency,
    /// Microseconds that the endpoint took lately for requests that found about as many others in
    /// flight as there are now, as a mean; the value of [`Column::Latency`] if there was no such
    /// request.
    LatencyAtLoad,
    /// The utilization that the endpoint reports, in thousandths of its capacity:
    /// `application_utilization` of its ORCA report, or `cpu_utilization`; 0 if there was no report
    /// in the last 10 seconds.
    ReportedLoad,
    /// The number of requests that wait inside the endpoint, as it reports:
    /// `named_metrics.queue_size` or `named_metrics.num_requests_waiting` of its ORCA report; 0 if
    /// there was no report in the last 10 seconds.
    ReportedQueue,
    /// The costs that [`Balancer::pick_weighted`] has given to the requests in flight, without the
    /// parts that are done. Since 1.4 of the contract, as are all that follow; earlier gateways
    /// refuse a component that reads one of them.
    InFlightCost,
    /// Requests in flight without a first byte of the response's body.
    Unanswered,
    /// What these weigh until their first byte.
    UnansweredCost,
    /// Microseconds from the pick to the first byte of the body, as a moving average like that of
    /// [`Column::Latency`]; 0 while nothing is known.
    FirstByte,
    /// Microseconds between two parts of a body as the gateway gets them, as a mean of the last
    /// seconds; 0 if there were none.
    ChunkGap,
    /// The number of this name, in thousandths, that the endpoint reports as one of the
    /// `named_metrics` of its ORCA report, or that an operator has set with
    /// `PATCH /upstreams/{u}/targets/{t}/facts`; 0 if there is none that is new enough.
    Reported(&'static str),
}

impl Column {
    /// The number of fixed columns: all but [`Column::Reported`].
    const COUNT: usize = 10;

    /// Name of the column in the contract between gateway and plugin.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        let name = match self {
            Self::Reported(name) => return format!("reported:{name}").into(),
            Self::InFlight => "in-flight",
            Self::Latency => "latency",
            Self::LatencyAtLoad => "latency-at-load",
            Self::ReportedLoad => "reported-load",
            Self::ReportedQueue => "reported-queue",
            Self::InFlightCost => "in-flight-cost",
            Self::Unanswered => "unanswered",
            Self::UnansweredCost => "unanswered-cost",
            Self::FirstByte => "first-byte",
            Self::ChunkGap => "chunk-gap",
        };
        name.into()
    }

    /// The fixed columns, each at its [`place`](Self::place).
    const FIXED: [Self; Self::COUNT] = [
        Self::InFlight,
        Self::Latency,
        Self::LatencyAtLoad,
        Self::ReportedLoad,
        Self::ReportedQueue,
        Self::InFlightCost,
        Self::Unanswered,
        Self::UnansweredCost,
        Self::FirstByte,
        Self::ChunkGap,
    ];

    /// The index of a fixed column.
    const fn place(self) -> Option<usize> {
        Some(match self {
            Self::InFlight => 0,
            Self::Latency => 1,
            Self::LatencyAtLoad => 2,
            Self::ReportedLoad => 3,
            Self::ReportedQueue => 4,
            Self::InFlightCost => 5,
            Self::Unanswered => 6,
            Self::UnansweredCost => 7,
            Self::FirstByte => 8,
            Self::ChunkGap => 9,
            Self::Reported(_) => return None,
        })
    }
}

/// The endpoints that may be picked, and the load of each.
///
/// It is a slice of [`Endpoint`]: `endpoints.len()`, `endpoints[position].weight`, and so on.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    pub(crate) table: Vec<Endpoint>,
    pub(crate) columns: Vec<Column>,
    /// The columns one after another, each as long as the table.
    pub(crate) load: Vec<u32>,
    /// The gateway's handles of the columns plus 1, for those that it has been asked for; 0 for
    /// others.
    handles: [Cell<u32>; Column::COUNT],
    /// The handles of [`Column::Reported`] columns.
    named_handles: RefCell<Vec<(&'static str, u32)>>,
    /// For a part of a table, where it comes from.
    pub(crate) part: Option<Part>,
    /// In a test: the labels, by position and key.
    labels: BTreeMap<(usize, String), String>,
}

impl Endpoints {
    /// Makes a table without columns. For tests: in the gateway a balancer is passed its table.
    #[must_use]
    pub fn new(table: Vec<Endpoint>) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Makes an empty table for a balancer that reads these columns.
    pub(crate) fn empty(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            ..Self::default()
        }
    }

    /// Adds a column, with one value for each endpoint. For tests, as [`Endpoints::new`].
    ///
    /// ```
    /// # use guest_sdk::{Column, Endpoint, Endpoints};
    /// let endpoints = Endpoints::new(vec![Endpoint { id: 1, weight: 100 }, Endpoint { id: 2, weight: 100 }])
    ///     .with_column(Column::InFlight, &[4, 0]);
    /// assert_eq!(endpoints.in_flight(0), 4);
    /// ```
    ///
    /// # Panics
    ///
    /// If there are more or fewer values than endpoints.
    #[must_use]
    pub fn with_column(mut self, column: Column, values: &[u32]) -> Self {
        assert_eq!(
            values.len(),
            self.table.len(),
            "a column has one value for each endpoint"
        );
        self.columns.push(column);
        self.load.extend_from_slice(values);
        self
    }

    /// Adds a label to the endpoint at a position. For tests, as [`Endpoints::new`].
    ///
    /// ```
    /// # use guest_sdk::{Endpoint, Endpoints};
    /// let endpoints = Endpoints::new(vec![Endpoint { id: 1, weight: 100 }]).with_label(0, "zone", "a");
    /// assert_eq!(endpoints.label(0, "zone").as_deref(), Some("a"));
    /// ```
    #[must_use]
    pub fn with_label(mut self, position: usize, key: &str, value: &str) -> Self {
        self.labels.insert((position, key.into()), value.into());
        self
    }

    /// The value of a label of the endpoint at `position`, within
    /// [`Balancer::endpoints_changed`]; at any other time it is none. An endpoint has the labels of
    /// its target, and its target's tags: the tag `zone:a` is the label `zone` with the value `a`,
    /// and a tag without a colon has an empty value. If a label changes, the gateway calls
    /// `endpoints_changed` again.
    ///
    /// It is part of the contract since 1.4, as are [`Endpoints::host`] and [`Endpoints::address`];
    /// earlier gateways refuse a component that calls one of them.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    pub fn label(&self, position: usize, key: &str) -> Option<String> {
        let id = self.table[position].id;
        if cfg!(target_family = "wasm") {
            return endpoint_facts::label(id, key);
        }
        self.labels.get(&(position, key.to_owned())).cloned()
    }

    /// The host of the endpoint's target, a name or an address, within
    /// [`Balancer::endpoints_changed`]; at any other time, and in a test, it is none.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    pub fn host(&self, position: usize) -> Option<String> {
        let id = self.table[position].id;
        if cfg!(target_family = "wasm") {
            return endpoint_facts::host(id);
        }
        None
    }

    /// What the gateway connects to, such as `192.0.2.7:8000` or `unix:/run/app.sock`, within
    /// [`Balancer::endpoints_changed`]; at any other time, and in a test, it is none.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    pub fn address(&self, position: usize) -> Option<String> {
        let id = self.table[position].id;
        if cfg!(target_family = "wasm") {
            return endpoint_facts::address(id);
        }
        None
    }

    /// Requests sent to the endpoint at `position` and not yet answered in full, over the whole
    /// gateway.
    ///
    /// # Panics
    ///
    /// If [`Column::InFlight`] is not among [`Balancer::COLUMNS`], or there is no such position.
    #[must_use]
    pub fn in_flight(&self, position: usize) -> u32 {
        self.column(Column::InFlight)[position]
    }

    /// Microseconds until the endpoint at `position` answers; see [`Column::Latency`].
    ///
    /// # Panics
    ///
    /// If [`Column::Latency`] is not among [`Balancer::COLUMNS`], or there is no such position.
    #[must_use]
    pub fn latency(&self, position: usize) -> u32 {
        self.column(Column::Latency)[position]
    }

    /// Reads two columns of two endpoints, for balancers that look at few of many endpoints. The
    /// columns need not be in [`Balancer::COLUMNS`]. The first index of the result is that of the
    /// position, the second that of the column. To read only one column or one position, name it
    /// twice.
    ///
    /// In a test, the values are those of [`Endpoints::with_column`], and 0 for a column that the
    /// test has not set.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[must_use]
    // A balancer looks in several places, so the compiler would not compile this into each pick
    // otherwise.
    #[inline(always)]
    pub fn look(&self, columns: [Column; 2], positions: [usize; 2]) -> [[u32; 2]; 2] {
        if !cfg!(target_family = "wasm") {
            return positions.map(|position| columns.map(|column| self.given(column, position)));
        }
        let [Some(low), Some(high)] = columns.map(Column::place) else {
            return self.look_at_named(columns, positions);
        };
        let [first, second] = positions;
        let (one, other) = (self.handles[low].get(), self.handles[high].get());
        // 0 is for those that were not asked for.
        fetch(if one > 0 && other > 0 && self.part.is_none() {
            [one - 1, other - 1, first as u32, second as u32]
        } else {
            self.ask_about(low, high, first, second)
        })
    }

    /// The handles of two fixed columns, and two positions in the whole table.
    #[inline(never)]
    fn ask_about(&self, low: usize, high: usize, first: usize, second: usize) -> [u32; 4] {
        let [low, high] = [low, high].map(|place| self.handle(Column::FIXED[place]));
        let [first, second] = [first, second].map(|position| self.in_whole(position) as u32);
        [low, high, first, second]
    }

    /// As [`look`](Self::look), if one of the columns is not a fixed one.
    #[inline(never)]
    fn look_at_named(&self, columns: [Column; 2], positions: [usize; 2]) -> [[u32; 2]; 2] {
        let [low, high] = columns.map(|column| self.handle(column));
        let [first, second] = positions.map(|position| self.in_whole(position) as u32);
        fetch([low, high, first, second])
    }

    /// Reads two columns of any number of endpoints, and passes each position with the two values,
    /// in the order of the positions. As [`look`](Self::look) does, but eight at a time: a call of
    /// the gateway takes longer than what it reads.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    #[inline]
    pub fn look_at(
        &self,
        columns: [Column; 2],
        positions: &[usize],
        mut see: impl FnMut(usize, [u32; 2]),
    ) {
        for some in positions.chunks(EIGHT) {
            if some.len() <= 2 || !cfg!(target_family = "wasm") {
                for pair in some.chunks(2) {
                    let seen = self.look(columns, [pair[0], pair[pair.len() - 1]]);
                    for (position, values) in pair.iter().zip(seen) {
                        see(*position, values);
                    }
                }
                continue;
            }
            let [low, high] = columns.map(|column| self.handle(column));
            // The last one is read again in place of those that are missing.
            let at = |index: usize| {
                let position = some[index.min(some.len() - 1)];
                u32::try_from(self.in_whole(position)).unwrap_or(u32::MAX)
            };
            let pairs: [u64; EIGHT] = load::at_eight(
                low,
                high,
                at(0),
                at(1),
                at(2),
                at(3),
                at(4),
                at(5),
                at(6),
                at(7),
            )
            .into();
            for (position, pair) in some.iter().zip(pairs) {
                see(*position, [pair as u32, (pair >> 32) as u32]);
            }
        }
    }

    /// Calls a function for each endpoint whose number of requests in flight has changed since the
    /// last call of `each_change`, with its position and the present number. For balancers that
    /// keep endpoints sorted; it works without [`Column::InFlight`] in [`Balancer::COLUMNS`]. After
    /// a new table, every number other than 0 counts as changed.
    ///
    /// In a test, all endpoints count as changed, and the numbers are those of
    /// [`Endpoints::with_column`].
    pub fn each_change(&self, mut learn: impl FnMut(usize, u32)) {
        if let Some(part) = &self.part {
            return part.each_change(&mut learn);
        }
        if !cfg!(target_family = "wasm") {
            for position in 0..self.table.len() {
                learn(position, self.given(Column::InFlight, position));
            }
            return;
        }
        fetch_changes(&mut learn);
    }

    /// The position in the whole table, for a part of one.
    #[inline]
    pub(crate) fn in_whole(&self, position: usize) -> usize {
        match &self.part {
            None => position,
            Some(part) => part.in_whole(position),
        }
    }

    /// The gateway's handle of a column. A pick asks for it each time, so the way of a fixed column
    /// whose handle is known is short, and is compiled into the pick.
    #[inline]
    fn handle(&self, column: Column) -> u32 {
        let known = column.place().map_or(0, |place| self.handles[place].get());
        known
            .checked_sub(1)
            .unwrap_or_else(|| self.ask_for_handle(column))
    }

    #[cold]
    #[inline(never)]
    fn ask_for_handle(&self, column: Column) -> u32 {
        let ask = || load::read(&column.name()).unwrap_or_else(|| missing(column));
        let Column::Reported(name) = column else {
            let asked = ask();
            if let Some(place) = column.place() {
                self.handles[place].set(asked + 1);
            }
            return asked;
        };
        let mut handles = self.named_handles.borrow_mut();
        let known = handles.iter().find(|(known, _)| *known == name);
        known.map(|known| known.1).unwrap_or_else(|| {
            let asked = ask();
            handles.push((name, asked));
            asked
        })
    }

    /// The value that a test has set; 0 if it has set none.
    pub(crate) fn given(&self, column: Column, position: usize) -> u32 {
        let index = self.columns.iter().position(|&present| present == column);
        let length = self.table.len();
        index.map_or(0, |index| self.load[index * length..][..length][position])
    }

    /// A whole column, one value for each position: the fastest way to read the load of all
    /// endpoints.
    ///
    /// # Panics
    ///
    /// If the column is not among [`Balancer::COLUMNS`].
    #[must_use]
    pub fn column(&self, column: Column) -> &[u32] {
        let Some(index) = self.columns.iter().position(|&present| present == column) else {
            missing(column)
        };
        let length = self.table.len();
        &self.load[index * length..][..length]
    }
}

/// Endpoints that the gateway is asked about in one call.
const EIGHT: usize = 8;

/// Fetches all changes of requests in flight from the gateway.
pub(crate) fn fetch_changes(learn: &mut impl FnMut(usize, u32)) {
    loop {
        let (a, b, c, d) = load::changes();
        for change in [a, b, c, d] {
            // All bits set: there are no more changes.
            if change == u64::MAX {
                return;
            }
            learn((change >> 32) as usize, change as u32);
        }
    }
}

/// Fetches two columns, by their handles, of two positions.
#[inline]
fn fetch([low, high, first, second]: [u32; 4]) -> [[u32; 2]; 2] {
    let (first, second) = load::at_two(low, high, first, second);
    [first, second].map(|pair| [pair as u32, (pair >> 32) as u32])
}

#[cold]
fn missing(column: Column) -> ! {
    panic!(
        "the column `{}` was read but not asked for: name Column::{column:?} in Balancer::COLUMNS \
         (a test gives it by Endpoints::with_column)",
        column.name()
    )
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.table
    }
}
