//! Host names, looked up in the hosts file and in DNS as the settings say (`dns_hostsfile`,
//! `dns_resolver`, `dns_order`). [`Lookup`] looks a name up once; `upstream/resolve.rs` follows the
//! names of endpoints with it, and [`Resolver`] answers for servers that are connected to now and
//! then, such as those of plugins.

mod lookup;
mod resolver;
mod servers;

use std::net::IpAddr;
use std::time::Instant;

use crate::config::DnsType;
pub(crate) use lookup::{Lookup, UNANSWERED};
pub use resolver::Resolver;
pub(crate) use servers::QUESTIONS;

/// An address of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// Port, if the record has one.
    pub(crate) port: Option<u16>,
    /// Weight, if the record has one.
    pub(crate) weight: Option<u32>,
    /// The name that an SRV record leads to.
    pub(crate) name: Option<String>,
}

impl Address {
    /// An address without anything else.
    pub(crate) fn bare(ip: IpAddr) -> Self {
        Self {
            ip,
            port: None,
            weight: None,
            name: None,
        }
    }
}

/// What a look-up found.
#[derive(Debug, Clone)]
pub(crate) struct DnsAnswer {
    pub(crate) addresses: Vec<Address>,
    pub(crate) valid_until: Instant,
    /// Whether the addresses are from SRV records.
    pub(crate) service: bool,
    /// The type of the records, if it is certain to be the one that the name has.
    pub(crate) kind: Option<DnsType>,
}

impl DnsAnswer {
    /// Sorts the addresses, so that equal sets are equal lists.
    pub(crate) fn new(mut addresses: Vec<Address>, valid_until: Instant) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            addresses,
            valid_until,
            service: false,
            kind: None,
        }
    }
}

/// Why a look-up found nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such name, or it has no address.
    NotFound,
    /// The look-up failed without an answer.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("name error: the name does not exist, or has no address"),
            Self::Broken(error) => f.write_str(error),
        }
    }
}
