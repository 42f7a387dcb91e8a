//! Which requests have traces, and which spans these have. Source: Kong 3.9, `tracing_*`.

/// Which requests have traces, and which spans these have.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tracing {
    /// The spans.
    pub instrumentations: Instrumentations,
    /// The share of traces that is sampled, from 0 to 1, if a plugin does not say.
    pub sampling_rate: f64,
}

/// The spans of a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Instrumentations {
    /// The request. Without it there are no spans at all.
    pub request: bool,
    /// The search for its route.
    pub router: bool,
    /// Its tries with endpoints, and their picks.
    pub balancer: bool,
    /// Each policy, before an endpoint is chosen.
    pub plugin_access: bool,
    /// Each policy, on the head of the response.
    pub plugin_header_filter: bool,
}

impl Instrumentations {
    /// All spans.
    pub const ALL: Self = Self {
        request: true,
        router: true,
        balancer: true,
        plugin_access: true,
        plugin_header_filter: true,
    };

    /// Reads the entries of the setting. Those that Kong has and that cannot happen during a
    /// request here have no effect: rows are in memory, names are looked up ahead, and no policy
    /// has a phase before the route is found.
    ///
    /// # Errors
    /// The entries that are not names of spans, or `off` if it is not the only one.
    pub(super) fn parse(entries: &[&str]) -> Result<Self, Vec<String>> {
        let mut read = Self {
            request: true,
            ..Self::default()
        };
        let mut wrong = Vec::new();
        for entry in entries {
            match *entry {
                "off" if entries.len() == 1 => return Ok(Self::default()),
                "all" => read = Self::ALL,
                "request" | "db_query" | "dns_query" | "http_client" | "plugin_rewrite" => {}
                "router" => read.router = true,
                "balancer" => read.balancer = true,
                "plugin_access" => read.plugin_access = true,
                "plugin_header_filter" => read.plugin_header_filter = true,
                other => wrong.push(other.to_owned()),
            }
        }
        match wrong.is_empty() {
            true => Ok(read),
            false => Err(wrong),
        }
    }

    /// The entries of the setting that stand for these spans.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Self::ALL => vec!["all"],
            Self { request: false, .. } => vec!["off"],
            some => [
                (some.request, "request"),
                (some.router, "router"),
                (some.balancer, "balancer"),
                (some.plugin_access, "plugin_access"),
                (some.plugin_header_filter, "plugin_header_filter"),
            ]
            .into_iter()
            .filter_map(|(is_on, name)| is_on.then_some(name))
            .collect(),
        }
    }
}

/// A share from 0 to 1.
pub(super) fn share(text: &str) -> Option<f64> {
    let share: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_kong() {
        assert_eq!(
            Instrumentations::parse(&["off"]),
            Ok(Instrumentations::default())
        );
        assert_eq!(Instrumentations::parse(&["all"]), Ok(Instrumentations::ALL));
        let some = Instrumentations {
            request: true,
            balancer: true,
            ..Instrumentations::default()
        };
        assert_eq!(Instrumentations::parse(&["balancer", "db_query"]), Ok(some));
        for spans in [Instrumentations::default(), Instrumentations::ALL, some] {
            assert_eq!(Instrumentations::parse(&spans.names()), Ok(spans));
        }
        let wrong = Instrumentations::parse(&["off", "router", "spans"]);
        assert_eq!(wrong, Err(vec!["off".to_owned(), "spans".to_owned()]));
    }

    #[test]
    fn a_share_is_between_0_and_1() {
        assert_eq!(share("0.01"), Some(0.01));
        assert_eq!((share("0"), share("1")), (Some(0.0), Some(1.0)));
        for wrong in ["1.1", "-0.1", "NaN", "", "1%"] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
    }
}
