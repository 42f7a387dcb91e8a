//! The flag `so_keepalive` of an entry: TCP keep-alive of the accepted connections.

use std::fmt;
use std::time::Duration;

use super::is_digits;
use crate::config::readers;

/// TCP keep-alive, as `so_keepalive` sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenKeepalive {
    /// With the system's times.
    On,
    /// None.
    Off,
    /// With these times; a part that is not given is the system's.
    Times {
        /// Idle time before the first probe.
        idle: Option<Duration>,
        /// Time between probes.
        interval: Option<Duration>,
        /// Probes without an answer after which the connection is broken.
        probes: Option<u32>,
    },
}

impl ListenKeepalive {
    /// Parses `on`, `off`, or `idle:interval:probes`, of which each part may be empty, but not all.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "on" => return Some(Self::On),
            "off" => return Some(Self::Off),
            "::" => return None,
            _ => {}
        }
        let mut parts = text.split(':');
        let mut next = || {
            parts
                .next()
                .map(|part| Some(part).filter(|part| !part.is_empty()))
        };
        let (idle, interval, probes) = (next()?, next()?, next()?);
        if parts.next().is_some() || probes.is_some_and(|probes| !is_digits(probes)) {
            return None;
        }
        let times = Self::Times {
            idle: idle.map(time).map_or(Some(None), |time| time.map(Some))?,
            interval: interval
                .map(time)
                .map_or(Some(None), |time| time.map(Some))?,
            probes: match probes {
                Some(probes) => Some(probes.parse().ok()?),
                None => None,
            },
        };
        Some(times)
    }
}

/// A time of TCP keep-alive. The kernel takes none that is longer (32,767 seconds).
fn time(text: &str) -> Option<Duration> {
    let kernel = Duration::from_secs(1)..=Duration::from_secs(32_767);
    readers::time(text).filter(|time| kernel.contains(time))
}

impl fmt::Display for ListenKeepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle, interval, probes) = match self {
            Self::On => return f.write_str("on"),
            Self::Off => return f.write_str("off"),
            Self::Times {
                idle,
                interval,
                probes,
            } => (idle, interval, probes),
        };
        let seconds = |time: &Option<Duration>| {
            time.map_or_else(String::new, |time| format!("{}s", time.as_secs()))
        };
        let probes = probes.map_or_else(String::new, |probes| probes.to_string());
        write!(f, "{}:{}:{probes}", seconds(idle), seconds(interval))
    }
}
