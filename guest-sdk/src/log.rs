//! Lines for the people who run the gateway: in its log, beside the name of the upstream, and at
//! `GET /balancers/{name}/logs`. Natively they go to standard error.
//!
//! ```
//! guest_sdk::warn!("{} endpoints, and room for {}", 3, 2);
//! ```
//!
//! A gateway keeps some lines a second and counts the rest, so a line for each pick is lost as a rule; and
//! making one costs as much as a few picks. What is printed to standard output or standard error gets there
//! as well, as [`Level::Info`].

use std::fmt;

use crate::bindings::pointsman::balancer::log;

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a mistake.
    Debug,
    /// What is worth knowing.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
}

impl Level {
    /// Its number in OpenTelemetry, which is what the contract speaks of.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
        }
    }
}

/// Says a line. [`info!`](crate::info) and its like make it as `format!` does.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let message = message.to_string();
    if cfg!(target_family = "wasm") {
        log::log(level.severity(), &message);
    } else {
        eprintln!("{level:?}: {message}");
    }
}

/// Says a line at [`Level::Trace`](crate::log::Level::Trace).
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::std::format_args!($($line)+)) };
}

/// Says a line at [`Level::Debug`](crate::log::Level::Debug).
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::std::format_args!($($line)+)) };
}

/// Says a line at [`Level::Info`](crate::log::Level::Info).
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, ::std::format_args!($($line)+)) };
}

/// Says a line at [`Level::Warn`](crate::log::Level::Warn).
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($line)+)) };
}

/// Says a line at [`Level::Error`](crate::log::Level::Error).
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, ::std::format_args!($($line)+)) };
}
