//! The addresses of which a connection must have one.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::error::RouteError;
use crate::entity::route::Address;
use crate::ip_ranges::ip_range;

/// The addresses of which a connection must have one; every connection does if there are none.
#[derive(Debug)]
pub(super) struct Addresses(Vec<(Option<IpNet>, Option<u16>)>);

impl Addresses {
    /// Those of a field of a route.
    pub(super) fn new(
        field: &'static str,
        addresses: Option<&[Address]>,
    ) -> Result<Self, RouteError> {
        let addresses = addresses.unwrap_or_default().iter();
        let read = addresses.map(|Address { ip, port }| match ip {
            None => Ok((None, *port)),
            Some(text) => {
                let range = ip_range(text).ok_or_else(|| RouteError {
                    field,
                    cause: format!("{text:?} is not an IP address or a range").into(),
                })?;
                Ok((Some(range), *port))
            }
        });
        read.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is one of these. An unknown address is one only if every address is.
    pub(super) fn accept(&self, address: Option<SocketAddr>) -> bool {
        self.is_empty()
            || address.is_some_and(|address| {
                self.0.iter().any(|(range, port)| {
                    range.is_none_or(|range| range.contains(&address.ip()))
                        && port.is_none_or(|port| port == address.port())
                })
            })
    }
}
