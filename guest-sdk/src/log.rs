//! Log lines for operators. The gateway writes them to its log, with the name of the upstream, and
//! returns them at `GET /balancers/{name}/logs`. In a native build they go to standard error.
//!
//! ```
//! guest_sdk::warn!("{} endpoints, and room for {}", 3, 2);
//! ```
//!
//! A gateway keeps a limited number of lines a second and counts the rest, so with a line for each
//! pick most lines are lost. To format and write a line costs as much as a few picks. The gateway
//! treats text that a balancer prints to standard output or standard error in the same way, at
//! [`Level::Info`].

use std::fmt;

use crate::bindings::pointsman::balancer::log;

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Each single step.
    Trace,
    /// Information that helps to find an error.
    Debug,
    /// Information that an operator may want to know.
    Info,
    /// Something that may be wrong.
    Warn,
    /// Something that is wrong.
    Error,
}

impl Level {
    /// Its severity number in OpenTelemetry, which the contract uses.
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

/// Writes a line. [`info!`](crate::info) and the other macros take the same arguments as `format!`.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let message = message.to_string();
    if cfg!(target_family = "wasm") {
        log::log(level.severity(), &message);
    } else {
        eprintln!("{level:?}: {message}");
    }
}

/// Writes a line at [`Level::Trace`](crate::log::Level::Trace).
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::std::format_args!($($line)+)) };
}

/// Writes a line at [`Level::Debug`](crate::log::Level::Debug).
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::std::format_args!($($line)+)) };
}

/// Writes a line at [`Level::Info`](crate::log::Level::Info).
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Info, ::std::format_args!($($line)+)) };
}

/// Writes a line at [`Level::Warn`](crate::log::Level::Warn).
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($line)+)) };
}

/// Writes a line at [`Level::Error`](crate::log::Level::Error).
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log::write($crate::log::Level::Error, ::std::format_args!($($line)+)) };
}
