//! What is shown: the newest figures, and what the operator has chosen.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value;

use super::feed::News;

/// What the rows of routes and upstreams are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Rate,
    Errors,
    P50,
    P99,
    Name,
}

impl Order {
    pub(super) const ALL: [Self; 5] = [Self::Rate, Self::Errors, Self::P50, Self::P99, Self::Name];

    /// Its name, as the screen has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests",
            Self::Errors => "errors",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Name => "name",
        }
    }

    /// The key that chooses it.
    pub(super) fn key(self) -> u8 {
        match self {
            Self::Rate => b'1',
            Self::Errors => b'2',
            Self::P50 => b'3',
            Self::P99 => b'4',
            Self::Name => b'5',
        }
    }

    /// The order of the key of a letter.
    pub(super) fn of_key(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.key() == letter)
    }

    /// The one after it.
    pub(super) fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self);
        let next = place.map_or(0, |place| (place + 1) % Self::ALL.len());
        Self::ALL.get(next).copied().unwrap_or(Self::Rate)
    }
}

/// A route or an upstream, with the figures of a second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    /// Requests a second, and those of them that failed.
    pub(super) rate: f64,
    pub(super) errors: f64,
    /// Milliseconds; none if there was no request.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// The figures, and what of them is shown.
#[derive(Debug)]
pub(super) struct Overview {
    gateway: Option<Value>,
    trouble: Option<String>,
    /// The figures of the chosen upstream.
    targets: Option<(String, Value)>,
    /// Names of routes by their ids; none before they have come.
    routes: Option<HashMap<String, String>>,
    nodes: Vec<Value>,
    /// The upstream that the operator has chosen.
    wanted: Option<String>,
    /// The one that was chosen for them.
    busiest: Option<String>,
    pub(super) order: Order,
    pub(super) is_reversed: bool,
}

impl Default for Overview {
    fn default() -> Self {
        Self {
            gateway: None,
            trouble: None,
            targets: None,
            routes: None,
            nodes: Vec::new(),
            wanted: None,
            busiest: None,
            order: Order::Rate,
            is_reversed: false,
        }
    }
}

impl Overview {
    /// Takes in what has come.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Gateway(figures) => {
                self.trouble = None;
                self.gateway = Some(figures);
                let is_gone = |name: &str| self.upstream(name).is_none();
                let chosen_is_gone = self.busiest.as_deref().is_none_or(is_gone);
                if (self.targets.as_ref()).is_some_and(|(name, _)| is_gone(name)) {
                    self.targets = None;
                }
                if chosen_is_gone {
                    let busiest = self.upstreams_by(Order::Rate, false);
                    self.busiest = busiest.into_iter().next().map(|row| row.name);
                }
            }
            News::Upstream(name, figures) => self.targets = Some((name, figures)),
            News::Routes(routes) => {
                let known = self.routes.get_or_insert_default();
                let named = routes.iter().filter_map(|route| {
                    let id = route.get("id")?.as_str()?;
                    Some((id.to_owned(), route_name(route)))
                });
                known.extend(named);
            }
            News::Nodes(nodes) => self.nodes = nodes.unwrap_or_default(),
            News::Trouble(reason) => self.trouble = Some(reason),
        }
    }

    /// Whether there are figures.
    pub(super) fn has_figures(&self) -> bool {
        self.gateway.is_some()
    }

    /// Why there are no newer figures.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A figure of the gateway.
    pub(super) fn figure(&self, pointer: &str) -> Option<&Value> {
        self.gateway.as_ref()?.pointer(pointer)
    }

    /// The gateways that share the configuration.
    pub(super) fn nodes(&self) -> &[Value] {
        &self.nodes
    }

    /// Chooses the upstream whose targets are shown.
    pub(super) fn choose(&mut self, name: &str) {
        self.wanted = Some(name.to_owned());
    }

    /// The upstream whose targets are shown.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.wanted.as_deref().or(self.busiest.as_deref())
    }

    /// The upstream that the operator has named, if there is none of this name.
    pub(super) fn missing(&self) -> Option<&str> {
        let name = self.wanted.as_deref()?;
        let is_there = self.upstreams().iter().any(|row| row.name == name);
        (!is_there).then_some(name)
    }

    /// Whether the names of routes or the figures of targets are still to come.
    pub(super) fn is_incomplete(&self) -> bool {
        self.routes.is_none() || (self.chosen().is_some() && self.targets().is_none())
    }

    /// Chooses the upstream so many rows further down.
    pub(super) fn choose_neighbour(&mut self, rows: isize) {
        let upstreams = self.upstreams();
        let present = self.chosen();
        let place = upstreams.iter().position(|row| Some(&*row.name) == present);
        let last = upstreams.len().saturating_sub(1);
        let place = place.map_or(0, |place| place.saturating_add_signed(rows).min(last));
        if let Some(row) = upstreams.into_iter().nth(place) {
            self.wanted = Some(row.name);
        }
    }

    /// The routes with requests, in the order that is chosen.
    pub(super) fn routes(&self) -> Vec<Row> {
        let rows = self.rows("/routes", |row| match row.get("id")?.as_str() {
            Some(id) => {
                let name = self.routes.as_ref().and_then(|known| known.get(id));
                Some(name.cloned().unwrap_or_else(|| id.to_owned()))
            }
            None => Some("(no route)".to_owned()),
        });
        sorted(rows, self.order, self.is_reversed)
    }

    /// The upstreams, in the order that is chosen.
    pub(super) fn upstreams(&self) -> Vec<Row> {
        self.upstreams_by(self.order, self.is_reversed)
    }

    fn upstreams_by(&self, order: Order, is_reversed: bool) -> Vec<Row> {
        let rows = self.rows("/upstreams", |row| {
            Some(row.get("name")?.as_str()?.to_owned())
        });
        sorted(rows, order, is_reversed)
    }

    /// What the gateway tells of an upstream.
    pub(super) fn upstream(&self, name: &str) -> Option<&Value> {
        let all = self.figure("/upstreams")?.as_array()?;
        all.iter()
            .find(|one| one.get("name").and_then(Value::as_str) == Some(name))
    }

    /// The figures of the targets of the chosen upstream, once they have come.
    pub(super) fn targets(&self) -> Option<&Value> {
        let (name, figures) = self.targets.as_ref()?;
        (Some(&**name) == self.chosen()).then_some(figures)
    }

    fn rows(&self, pointer: &str, name: impl Fn(&Value) -> Option<String>) -> Vec<Row> {
        let rows = self.figure(pointer).and_then(Value::as_array);
        let rows = rows.into_iter().flatten();
        let number = |row: &Value, field: &str| row.get(field).and_then(Value::as_f64);
        let rows = rows.filter_map(|row| {
            Some(Row {
                name: name(row)?,
                rate: number(row, "rate").unwrap_or(0.0),
                errors: number(row, "errors").unwrap_or(0.0),
                p50: number(row, "p50"),
                p99: number(row, "p99"),
            })
        });
        rows.collect()
    }
}

/// The name of a route, or what it can be told by.
fn route_name(route: &Value) -> String {
    let text = |field: &str| route.get(field).and_then(Value::as_str);
    let first = |field: &str| route.get(field)?.get(0)?.as_str();
    let of = [
        text("name"),
        first("paths"),
        first("hosts"),
        text("expression"),
        text("id"),
    ];
    of.into_iter()
        .flatten()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Orders rows: numbers from the largest one down, names from A on.
fn sorted(mut rows: Vec<Row>, order: Order, is_reversed: bool) -> Vec<Row> {
    let down = |one: f64, other: f64| other.total_cmp(&one);
    let time = |time: Option<f64>| time.unwrap_or(-1.0);
    rows.sort_by(|a, b| {
        let by = match order {
            Order::Rate => down(a.rate, b.rate),
            Order::Errors => down(a.errors, b.errors),
            Order::P50 => down(time(a.p50), time(b.p50)),
            Order::P99 => down(time(a.p99), time(b.p99)),
            Order::Name => Ordering::Equal,
        };
        let by = by.then_with(|| a.name.cmp(&b.name));
        match is_reversed {
            true => by.reverse(),
            false => by,
        }
    });
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| &*row.name).collect()
    }

    fn overview() -> Overview {
        let mut overview = Overview::default();
        overview.take(News::Gateway(json!({
            "routes": [
                { "id": "1", "rate": 1.0, "errors": 1.0, "p50": 5.0, "p99": 6.0 },
                { "id": null, "rate": 3.0, "errors": 0.0, "p50": null, "p99": null },
            ],
            "upstreams": [
                { "name": "a", "rate": 0.0, "errors": 0.0 },
                { "name": "b", "rate": 9.0, "errors": 2.0 },
                { "name": "c", "rate": 0.0, "errors": 0.0 },
            ],
        })));
        overview
    }

    #[test]
    fn routes_are_named_and_ordered_as_chosen() {
        let mut overview = overview();
        assert_eq!(names(&overview.routes()), ["(no route)", "1"]);
        overview.take(News::Routes(vec![json!({ "id": "1", "paths": ["/x"] })]));
        assert_eq!(names(&overview.routes()), ["(no route)", "/x"]);
        overview.order = Order::P99;
        assert_eq!(names(&overview.routes()), ["/x", "(no route)"]);
        overview.is_reversed = true;
        assert_eq!(names(&overview.routes()), ["(no route)", "/x"]);
    }

    #[test]
    fn the_busiest_upstream_is_chosen_until_the_operator_chooses() {
        let mut overview = overview();
        assert_eq!(overview.chosen(), Some("b"));
        assert_eq!(names(&overview.upstreams()), ["b", "a", "c"]);
        overview.choose_neighbour(1);
        assert_eq!(overview.chosen(), Some("a"));
        overview.choose_neighbour(-5);
        assert_eq!(overview.chosen(), Some("b"));
        overview.choose_neighbour(9);
        assert_eq!(overview.chosen(), Some("c"));
        // Figures of another upstream are not those of this one.
        overview.take(News::Routes(Vec::new()));
        overview.take(News::Upstream("b".into(), json!({})));
        assert!(overview.is_incomplete());
        overview.take(News::Upstream("c".into(), json!({})));
        assert!(!overview.is_incomplete());
    }

    #[test]
    fn an_upstream_that_is_gone_is_shown_no_more() {
        let mut overview = overview();
        overview.take(News::Upstream("b".into(), json!({})));
        assert!(overview.targets().is_some());
        let rest = json!({ "upstreams": [{ "name": "a", "rate": 0.0, "errors": 0.0 }] });
        overview.take(News::Gateway(rest));
        assert_eq!(overview.chosen(), Some("a"));
        overview.choose("b");
        assert!(overview.targets().is_none());
    }

    #[test]
    fn each_order_has_a_key_and_the_last_is_followed_by_the_first() {
        for order in Order::ALL {
            assert_eq!(Order::of_key(order.key()), Some(order));
        }
        assert_eq!(Order::Name.next(), Order::Rate);
    }
}
