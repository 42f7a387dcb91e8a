//! The criteria of a route that a request is compared with.

use std::collections::BTreeMap;

use super::error::RouteError;
use crate::authority::Authority;
use crate::expression::SentName;
use crate::path::normalize;
use crate::pattern::Pattern;

/// A host of a route, with the port if it names one, in the form in which hosts are compared.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostPattern {
    /// The host itself.
    Exact(Box<str>, Option<u16>),
    /// `.example.com` of `*.example.com`.
    Suffix(Box<str>, Option<u16>),
    /// `example.` of `example.*`.
    Prefix(Box<str>, Option<u16>),
}

/// How closely a host of a route matches, the closest last. It decides between routes of equal
/// priority, where Kong decides by the id, which is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Closeness {
    /// Whether there is a host at all.
    named: bool,
    /// Whether it has no `*`.
    exact: bool,
    /// Length of the fixed part of a wildcard; 0 for a host without one.
    fixed: usize,
    /// Whether it has a port.
    port: bool,
}

impl HostPattern {
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(..))
    }

    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Exact(_, port) | Self::Suffix(_, port) | Self::Prefix(_, port) => *port,
        }
    }

    /// Whether the host and the port of a request match.
    pub(super) fn accepts(&self, query: &super::Query<'_>) -> bool {
        let named = match self {
            Self::Exact(host, _) => query.host == &**host,
            Self::Suffix(suffix, _) => query.host.ends_with(&**suffix),
            Self::Prefix(prefix, _) => query.host.starts_with(&**prefix),
        };
        named && self.port().is_none_or(|port| port == query.port)
    }

    pub(super) fn closeness(&self) -> Closeness {
        let fixed = match self {
            Self::Exact(..) => 0,
            Self::Suffix(fixed, _) | Self::Prefix(fixed, _) => fixed.len(),
        };
        Closeness {
            named: true,
            exact: self.is_exact(),
            fixed,
            port: self.port().is_some(),
        }
    }
}

/// A path of a route.
#[derive(Debug, Clone)]
pub(super) enum PathPattern {
    /// The path begins with this.
    Prefix(Box<[u8]>),
    /// The path matches this from its start.
    Regex(Pattern),
}

/// The values of a header, of which a request must have one.
#[derive(Debug)]
pub(super) enum HeaderPattern {
    /// One of these, in lower case.
    OneOf(Vec<String>),
    /// One that matches this.
    Regex(Pattern),
}

impl HeaderPattern {
    pub(super) fn accept(&self, value: &[u8]) -> bool {
        match self {
            Self::OneOf(values) => values
                .iter()
                .any(|expected| value.eq_ignore_ascii_case(expected.as_bytes())),
            Self::Regex(regex) => regex.find(&value.to_ascii_lowercase()).is_some(),
        }
    }
}

/// A server name of a route, in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NamePattern {
    /// The name itself.
    Exact(Box<str>),
    /// `.example.com` of `*.example.com`.
    Suffix(Box<str>),
    /// `example.` of `example.*`.
    Prefix(Box<str>),
}

impl NamePattern {
    /// Whether a name in lower case matches.
    pub(super) fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => name == &**own,
            Self::Suffix(suffix) => name.ends_with(&**suffix),
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

/// Server names. The dot at the end of a name in full is left out, as clients do.
pub(super) fn server_names(names: &[String]) -> Vec<NamePattern> {
    let names = names.iter().map(|name| {
        let name = name.to_ascii_lowercase();
        if let Some(suffix) = name.strip_prefix('*') {
            NamePattern::Suffix(suffix.strip_suffix('.').unwrap_or(suffix).into())
        } else if let Some(prefix) = name.strip_suffix('*') {
            NamePattern::Prefix(prefix.into())
        } else {
            NamePattern::Exact(name.strip_suffix('.').unwrap_or(&name).into())
        }
    });
    names.collect()
}

pub(super) fn hosts(hosts: &[String]) -> Result<Vec<HostPattern>, RouteError> {
    let parsed = hosts.iter().map(|text| {
        // The `*` of a wildcard may be part of a name.
        let authority = Authority::of_setting(text);
        let authority = authority.ok_or_else(|| RouteError {
            field: "hosts",
            cause: format!("{text:?} is not a host").into(),
        })?;
        let (name, port) = (authority.host.as_str(), authority.port);
        Ok(if let Some(suffix) = name.strip_prefix('*') {
            HostPattern::Suffix(suffix.into(), port)
        } else if let Some(prefix) = name.strip_suffix('*') {
            HostPattern::Prefix(prefix.into(), port)
        } else {
            HostPattern::Exact(name.into(), port)
        })
    });
    parsed.collect()
}

pub(super) fn headers(
    headers: Option<&BTreeMap<String, Vec<String>>>,
    room: &mut usize,
) -> Result<Vec<(SentName, HeaderPattern)>, RouteError> {
    let Some(headers) = headers else {
        return Ok(Vec::new());
    };
    let compiled = headers.iter().map(|(name, values)| {
        let name = SentName::parse(name).map_err(|error| RouteError::new("headers", error))?;
        // Kong reads a regular expression only if it is the only value.
        let values = match values.as_slice() {
            [value] if value.starts_with("~*") => {
                let pattern = Pattern::new(&value[2..], "", room);
                HeaderPattern::Regex(pattern.map_err(|error| RouteError::new("headers", error))?)
            }
            _ => HeaderPattern::OneOf(values.iter().map(|v| v.to_ascii_lowercase()).collect()),
        };
        Ok((name, values))
    });
    compiled.collect()
}

pub(super) fn paths(paths: &[String], room: &mut usize) -> Result<Vec<PathPattern>, RouteError> {
    let compiled = paths.iter().map(|path| match path.strip_prefix('~') {
        Some(pattern) => match Pattern::new(pattern, "^", room) {
            Ok(pattern) => Ok(PathPattern::Regex(pattern)),
            Err(error) => Err(RouteError::new("paths", error)),
        },
        None => Ok(PathPattern::Prefix(normalize(path.as_bytes()).into())),
    });
    compiled.collect()
}
