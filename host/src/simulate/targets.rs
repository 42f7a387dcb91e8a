//! The targets of a scenario, as balancers know them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::scenario::Scenario;
use crate::endpoint::Endpoint;
use crate::endpoint_address::EndpointAddress;

/// The id of each target: the id of its name, if the scenario names it.
pub(super) fn ids(scenario: &Scenario) -> Vec<u64> {
    let ids = scenario.named().enumerate().map(|(target, named)| {
        let own = || Endpoint::id_of(&format!("target-{target}"), address(target));
        named.and_then(|named| named.id().ok()).unwrap_or_else(own)
    });
    ids.collect()
}

/// The address of a target, which encodes its number.
pub(super) fn address(target: usize) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0a00_0000 + target as u32);
    SocketAddr::from((ip, 80))
}

/// The number of the target that has an address.
pub(super) fn target_at(address: &EndpointAddress) -> usize {
    match address.ip() {
        Some(IpAddr::V4(ip)) => (u32::from(ip) - 0x0a00_0000) as usize,
        _ => 0,
    }
}
