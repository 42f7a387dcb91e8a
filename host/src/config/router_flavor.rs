//! How routes are written. Source: Kong 3.9, `router_flavor`.

/// How routes are written, and what they are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterFlavor {
    /// By fields such as `hosts` and `paths`.
    #[default]
    TraditionalCompatible,
    /// As above, and `path_handling` of a route has an effect.
    Traditional,
    /// By fields or by an expression, and the scheme of a request must be one of `protocols`.
    Expressions,
}

impl RouterFlavor {
    /// The value of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::TraditionalCompatible => "traditional_compatible",
            Self::Traditional => "traditional",
            Self::Expressions => "expressions",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::TraditionalCompatible,
            Self::Traditional,
            Self::Expressions,
        ];
        all.into_iter().find(|flavor| flavor.name() == text)
    }
}
